"""Others' checkpoints in and ours out: safetensors under torch's names, folder by folder."""

from ragdiff_jax.weights.folder import (
    ModelFile,
    fingerprint,
    load_part,
    read_config,
    read_model_json,
    save_part,
    write_model_json,
)

__all__ = [
    "ModelFile",
    "fingerprint",
    "load_part",
    "read_config",
    "read_model_json",
    "save_part",
    "write_model_json",
]
