"""The tiny world's autoencoder: 64 px -> 16x16x8 latents of drawn photos and flat-lays, each hue as often as another.

    ragdiff train --config configs/autoencoder/tiny.py --workdir runs/tiny/autoencoder --set data.folder=runs/tiny/data
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.objective = "autoencoder"
    config.data = ConfigDict(
        {"folder": "runs/tiny/data", "image_size": 64, "cache": True, "tokenizer": "", "held_out": "validation"}
    )
    config.model = ConfigDict(
        {
            "vae": {
                "block_out_channels": (16, 32, 64),
                "layers_per_block": 1,
                "latent_channels": 8,
                "norm_num_groups": 4,
                "sample_size": 64,
                "use_quant_conv": True,
                "use_post_quant_conv": True,
                "mid_block_add_attention": True,
            },
            "crop": 0,
            "kl_weight": 1e-4,
            "edge_weight": 0.5,
            "colour_weight": 2.0,
            "init_from": "",
            "colour_start": True,
            "balance": 0.5,
        }
    )
    config.train = ConfigDict(
        {
            "steps": 450,
            "batch_size": 12,
            "learning_rate": 1e-3,
            "warmup": 30,
            "schedule": "cosine",
            "weight_decay": 0.0,
            "ema_decay": 0.99,
            "checkpoint_seconds": 300.0,
            "log_every": 50,
            "sample_every": 150,
            "validate_every": 150,
            "seed": 0,
        }
    )
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
