r"""DINOv2's recipe on the tiny world's garments, without labels: a picture tower that `structure_net` may start from.

    ragdiff train --config configs/dino/tiny.py --workdir runs/tiny/dino --set data.folder=runs/tiny/data
    ragdiff train --config configs/structure_net/tiny.py --workdir runs/tiny/structure_net \
        --set model.vision=runs/tiny/dino/model/image_encoder
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.objective = "dino"
    config.data = ConfigDict(
        {
            "folder": "runs/tiny/data",
            "image_size": 64,
            "cache": True,
            "decoded": "",  # a folder that keeps the decoded pairs for the next stage
            "resident": False,  # the whole data set on the device: for a card, 8 s^2 bytes a pair of s pixels
            "also": "",
            "also_repeat": 1,
            "categories": (),
            "tokenizer": "",
            "held_out": "validation",
        }
    )
    config.model = ConfigDict(
        {
            "preset": "tiny",
            "init_from": "",  # a CLIP vision folder; empty: from scratch
            "prototypes": 512,
            "hidden": 256,
            "bottleneck": 64,
            "separate_heads": True,
            "local_views": 2,
            "local_size": 32,
            "global_scale": (0.4, 1.0),
            "local_scale": (0.1, 0.4),
            "mask_ratio": (0.1, 0.5),
            "ibot_weight": 1.0,
            "koleo_weight": 0.1,
            "teacher_temperature": (0.04, 0.07),
            "teacher_warmup": 100,
            "freeze_prototypes": 20,
            "layer_decay": 1.0,  # below 1 to keep what a pretrained tower knows
            "patch_rate": 1.0,
            "dtype": "float32",
            "remat": False,
        }
    )
    config.train = ConfigDict(
        {
            "steps": 600,
            "seconds": 0.0,
            "batch_size": 32,
            "learning_rate": 5e-4,
            "weight_decay": 0.04,
            "weight_decay_end": 0.2,
            "clip_norm": 3.0,
            "ema_decay": 0.992,
            "ema_end": 1.0,
            "ema_warmup": False,
            "sample_every": 0,
            "validate_every": 200,
            "warmup": 60,
            "schedule": "cosine",
            "checkpoint_seconds": 300.0,
            "log_every": 20,
            "seed": 0,
        }
    )
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
