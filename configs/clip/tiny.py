"""The tiny world's own CLIP: drawn photos and flat-lays against their captions.

    ragdiff train --config configs/clip/tiny.py --workdir runs/tiny/clip --set data.folder=runs/tiny/data
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.objective = "clip"
    config.data = ConfigDict(
        {
            "folder": "runs/tiny/data",
            "image_size": 64,
            "cache": True,
            "decoded": "",  # a folder that keeps the decoded pairs for the next stage
            "resident": False,  # the whole data set on the device: for a card, 8 s^2 bytes a pair of s pixels
            "also": "",  # a folder of more pairs (photos/, flats/, masks/), each also_repeat times an epoch
            "also_repeat": 1,
            "tokenizer": "runs/tiny/tokenizer",
            "held_out": "validation",
        }
    )
    config.model = ConfigDict(
        {
            "preset": "tiny",
            "tokenizer": "runs/tiny/tokenizer",
            "text_length": 40,
            "contrast": "info_nce",
            "micro_batches": 1,  # GradCache: more parts, less memory, the same gradient
            "tile": 1024,
            "method": "auto",
        }
    )
    config.train = ConfigDict(
        {
            "steps": 450,
            "seconds": 0.0,
            "batch_size": 48,
            "learning_rate": 0.001,
            "weight_decay": 0.05,
            "ema_decay": 0.99,
            "sample_every": 0,
            "validate_every": 300,
            "warmup": 100,
            "schedule": "cosine",
            "checkpoint_seconds": 300.0,
            "log_every": 50,
            "seed": 0,
        }
    )
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
