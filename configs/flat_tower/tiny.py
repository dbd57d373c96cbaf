r"""StructureNet's flat-lay tower alone: near embeddings are to mean near silhouettes, by codes in closed form.

    ragdiff train --config configs/flat_tower/tiny.py --workdir runs/tiny/flat_tower \
        --set data.folder=runs/tiny/data

Comes before the memory is built; `photo_tower` follows.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.objective = "flat_tower"
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
            "init_from": "runs/tiny/structure_net/model",
            "memory": "",  # landmarks of a memory, whatever tower embedded it, in place of the first pairs'
            "temperature": 0.07,
            "recolour": True,
            "shape_temperature": 0.02,
            "code_weight": 3.0,
            "attribute_dropout": (0.5, 0.2),
            "export_dtype": "bfloat16",
            "dtype": "float32",
        }
    )
    config.train = ConfigDict(
        {
            "steps": 1500,
            "seconds": 0.0,
            "batch_size": 48,
            "learning_rate": 1e-3,
            "weight_decay": 0.05,
            "ema_decay": 0.995,
            "sample_every": 0,
            "validate_every": 200,
            "warmup": 50,
            "schedule": "cosine",
            "checkpoint_seconds": 240.0,
            "log_every": 25,
            "seed": 0,
        }
    )
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
