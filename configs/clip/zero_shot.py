r"""CLIP's picture tower for the shipped text encoder, taught the prompts that predict attributes.

    ragdiff train --config configs/clip/zero_shot.py --workdir runs/tiny/zero_shot --set data.folder=runs/tiny/data \
        --set model.parts.photo_tower=runs/tiny/photo_tower/model/structure_net
"""

from ml_collections import ConfigDict

START = "ragdiff_jax/assets/tiny"


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.objective = "zero_shot"
    config.data = ConfigDict(
        {
            "folder": "runs/tiny/data",
            "image_size": 64,
            "cache": True,
            "decoded": "",  # a folder that keeps the decoded pairs for the next stage
            "resident": False,  # the whole data set on the device: for a card, 8 s^2 bytes a pair of s pixels
            "also": "",  # a folder of more pairs (photos/, flats/, masks/), each also_repeat times an epoch
            "also_repeat": 1,
            "tokenizer": f"{START}/tokenizer",
            "held_out": "validation",
        }
    )
    config.model = ConfigDict(
        {
            "preset": "tiny",
            "tokenizer": f"{START}/tokenizer",
            "parts": {"text_encoder": f"{START}/text_encoder", "photo_tower": "", "image_encoder": ""},
        }
    )
    config.train = ConfigDict(
        {
            "steps": 1200,
            "seconds": 0.0,
            "batch_size": 32,
            "learning_rate": 4e-4,
            "weight_decay": 0.05,
            "ema_decay": 0.995,
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
