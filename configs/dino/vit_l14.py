r"""DINOv2's recipe on your garment pictures, from CLIP ViT-L/14 (R 4.1: about two million pictures).

    ragdiff train --config configs/dino/vit_l14.py --workdir runs/dino \
        --set data.folder=garments --set model.init_from=weights/clip_vision
    ragdiff train --config configs/structure_net/vit_l14.py --workdir runs/structure_net \
        --set data.folder=stgarment --set model.vision=runs/dino/model/image_encoder
"""

from ml_collections import ConfigDict


def get_config(arg: str = "1024") -> ConfigDict:
    """`arg`: pictures of a step over all devices; the learning rate goes with its root, as DINOv2's."""
    batch = int(arg)
    config = ConfigDict()
    config.objective = "dino"
    config.data = ConfigDict(
        {
            "folder": "",
            "image_size": 256,  # views are cut from these; the tower's own size is 224
            "cache": False,
            "decoded": "",
            "resident": False,
            "also": "",
            "also_repeat": 1,
            "categories": (),
            "tokenizer": "",
            "held_out": "validation",
        }
    )
    config.model = ConfigDict(
        {
            "preset": "sdxl_flux",
            "init_from": "",
            "prototypes": 65_536,
            "hidden": 2048,
            "bottleneck": 256,
            "separate_heads": False,
            "local_views": 8,
            "local_size": 98,
            "global_scale": (0.32, 1.0),
            "local_scale": (0.05, 0.32),
            "mask_ratio": (0.1, 0.5),
            "ibot_weight": 1.0,
            "koleo_weight": 0.1,
            "teacher_temperature": (0.04, 0.07),
            "teacher_warmup": 6000,
            "freeze_prototypes": 2000,
            "layer_decay": 0.9,
            "patch_rate": 0.2,
            "dtype": "bfloat16",
            "remat": True,
        }
    )
    config.train = ConfigDict(
        {
            "steps": 40_000,
            "seconds": 0.0,
            "batch_size": batch,
            "learning_rate": 2e-4 * (batch / 1024) ** 0.5,
            "weight_decay": 0.04,
            "weight_decay_end": 0.2,
            "clip_norm": 3.0,
            "ema_decay": 0.994,
            "ema_end": 1.0,
            "ema_warmup": False,
            "sample_every": 0,
            "validate_every": 2000,
            "warmup": 4000,
            "schedule": "cosine",
            "checkpoint_seconds": 900.0,
            "log_every": 50,
            "seed": 0,
        }
    )
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
