r"""A small picture tower for the shipped text encoder: Fashion-RAG's retrieval by text, and what F_theta reads.

The text tower is locked, since RAGDiffusion's U-Net hangs on it. About five minutes of two cores.

    ragdiff train --config configs/clip/garments.py --workdir runs/fashion/tower --set data.folder=runs/tiny/data
"""

from ml_collections import ConfigDict

START = "ragdiff_jax/assets/tiny"


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.objective = "clip"
    config.data = ConfigDict(
        {
            "folder": "runs/tiny/data",
            "image_size": 64,
            "cache": True,
            "decoded": "",
            "resident": False,
            "also": "",
            "also_repeat": 1,
            "tokenizer": f"{START}/tokenizer",
            "held_out": "validation",
        }
    )
    config.model = ConfigDict(
        {
            "preset": "tiny",
            "tokenizer": f"{START}/tokenizer",
            "text_length": 64,
            "photo_share": 0.15,
            "parts": {"text_encoder": f"{START}/text_encoder", "image_encoder": ""},
            "trainable": "^image_encoder/|^logit_scale",
            # Of a side's own size: 64 patches of 8 pixels.
            "vision": {
                "hidden_size": 96,
                "intermediate_size": 384,
                "num_hidden_layers": 3,
                "num_attention_heads": 3,
                "image_size": 64,
            },
        }
    )
    config.train = ConfigDict(
        {
            "steps": 1500,
            "seconds": 0.0,
            "batch_size": 128,
            "learning_rate": 0.001,
            "weight_decay": 0.05,
            "ema_decay": 0.99,
            "sample_every": 0,
            "validate_every": 250,
            "warmup": 100,
            "schedule": "cosine",
            "checkpoint_seconds": 120.0,
            "log_every": 25,
            "seed": 0,
        }
    )
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
