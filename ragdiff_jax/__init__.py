"""ragdiff_jax: retrieval-augmented garment generation in JAX.

The Python API (docs/contracts.md); every name is imported when it is first used, so that `import ragdiff_jax` is quick.

    import ragdiff_jax as rd
    model = rd.RAGDiffusion.from_config("tiny")
"""

import importlib
from typing import Any

from ragdiff_jax.errors import UserError
from ragdiff_jax.version import __version__

_HOME = {
    "Conditions": "systems.conditions",
    "Dropout": "systems.dropout",
    "FashionRAG": "systems.fashion_rag",
    "GarmentGenerator": "pipelines.generate",
    "Gates": "models.transformer",
    "Memory": "retrieval.memory",
    "MemoryItem": "retrieval.items",
    "NoiseSchedule": "diffusion.schedule",
    "NthAlternative": "pipelines.retrieved",
    "RAGDiffusion": "systems.ragdiffusion",
    "Text": "systems.conditions",
    "Tokenizer": "data.tokenizer",
    "TrainSettings": "training.settings",
    "adapter_from_unet": "systems.initialise",
    "ddim": "diffusion.ddim",
    "dpm_solver_pp_2m": "diffusion.dpm_solver",
    "encoder_fingerprint": "weights.model_folder",
    "exact_search": "retrieval.index",
    "export_model": "weights.exporting",
    "fuse_embeddings": "retrieval.slle",
    "fuse_landmarks": "retrieval.landmarks",
    "guided": "diffusion.guidance",
    "import_weights": "weights.importing",
    "init_lora": "models.lora",
    "likeliest_landmark": "retrieval.landmarks",
    "load": "weights.model_folder",
    "load_fashion": "weights.fashion_folder",
    "load_image": "data.images",
    "make_mesh": "parallel.mesh",
    "make_searcher": "retrieval.index",
    "merge": "parallel.partition",
    "merge_lora": "models.lora",
    "mesh_context": "parallel.mesh",
    "named_sampler": "diffusion",
    "offered_landmarks": "retrieval.landmarks",
    "partition": "parallel.partition",
    "read_fashion": "weights.fashion_folder",
    "read_model": "weights.model_folder",
    "reference_from_unet": "systems.initialise",
    "sample": "diffusion.sampler",
    "sample_trajectory": "diffusion.sampler",
    "save_fashion": "weights.fashion_folder",
    "save_lora": "weights.lora_file",
    "save_model": "weights.model_folder",
    "search": "retrieval.device_memory",
    "shard_batch": "parallel.arrays",
    "slle_weights": "retrieval.slle",
    "square": "data.images",
    "train": "training.loop",
}

__all__ = ["UserError", "__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ragdiff_jax' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"ragdiff_jax.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
