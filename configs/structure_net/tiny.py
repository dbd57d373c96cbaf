r"""StructureNet of the tiny world: both towers from the tiny CLIP's ViT, photo against flat-lay or structure twin.

    ragdiff train --config configs/structure_net/tiny.py --workdir runs/tiny/structure_net \
        --set data.folder=runs/tiny/data
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.objective = "structure_net"
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
            "vision": "runs/tiny/clip/model/image_encoder",
            "init_from": "",
            "temperature": 0.07,
            "learn_temperature": False,
            "symmetric": True,
            "partner_share": 0.7,
            "recolour": True,
            "shape_temperature": 0.08,
            "paste_share": 0.5,
            "twins": False,
            "attribute_dropout": (0.9, 0.2),
            "export_dtype": "bfloat16",
            "dtype": "float32",
            "contrast": "info_nce",
            "micro_batches": 1,  # GradCache: more parts, less memory, the same gradient
            "tile": 1024,
            "method": "auto",
        }
    )
    config.train = ConfigDict(
        {
            "steps": 2100,
            "seconds": 0.0,
            "batch_size": 48,
            "learning_rate": 1e-3,
            "weight_decay": 0.05,
            "ema_decay": 0.995,
            "sample_every": 0,
            "validate_every": 200,
            "warmup": 50,
            "schedule": "cosine",
            "checkpoint_seconds": 300.0,
            "log_every": 50,
            "seed": 0,
        }
    )
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
