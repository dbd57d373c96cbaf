r"""StructureNet's photo tower alone, against a memory: what small photo towers learn to see shape from.

    ragdiff train --config configs/photo_tower/tiny.py --workdir runs/tiny/photo_tower \
        --set data.folder=runs/tiny/data

Starts from a trained `flat_tower` and the memory that it built, and keeps both: only the photo tower changes.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.objective = "photo_tower"
    config.data = ConfigDict(
        {
            "folder": "runs/tiny/data",
            "image_size": 64,
            "cache": True,
            "decoded": "",  # a folder that keeps the decoded pairs for the next stage
            "resident": False,  # the whole data set on the device: for a card, 8 s^2 bytes a pair of s pixels
            "also": "",  # a folder of more pairs (photos/, flats/, masks/), each also_repeat times an epoch
            "also_repeat": 1,
            "partners": "",  # of `ragdiff data partners`; empty: the records' own
            "categories": (),  # of these only; empty: all
            "tokenizer": "",
            "held_out": "validation",
        }
    )
    config.model = ConfigDict(
        {
            "preset": "tiny",
            "init_from": "runs/tiny/flat_tower/model",
            "memory": "runs/tiny/memory",
            "temperature": 0.05,
            "recolour": True,
            "shape_temperature": 0.02,
            "paste_share": 0.25,
            "paste_from_easy": True,
            "mask_weight": 3.0,
            "attribute_weight": 0.3,
            "twins": True,
            "attribute_dropout": (0.75, 0.2),
            "export_dtype": "bfloat16",
            "dtype": "float32",
        }
    )
    config.train = ConfigDict(
        {
            "steps": 20000,
            "seconds": 0.0,
            "batch_size": 32,
            "learning_rate": 1.5e-3,
            "optimizer": "muon",
            "weight_decay": 0.05,
            "ema_decay": 0.995,
            "sample_every": 0,
            "validate_every": 250,
            "warmup": 50,
            "schedule": "cosine",
            "checkpoint_seconds": 240.0,
            "log_every": 25,
            "seed": 0,
        }
    )
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
