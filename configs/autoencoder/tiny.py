r"""The tiny world's autoencoder: 64 px -> 16x16x8 latents of drawn photos and flat-lays, each hue as often as another.

    ragdiff train --config configs/autoencoder/tiny.py --workdir runs/tiny/autoencoder --set data.folder=runs/tiny/data
The shipped one's decoder alone, longer: sharper pictures from the latents that its models know.
    ragdiff train --config configs/autoencoder/tiny.py:decoder --workdir runs/tiny/decoder \
        --set data.folder=runs/tiny/data
The shipped one whole, longer: latents that hold stripes and prints; U-Nets must then be tuned to them.
    ragdiff train --config configs/autoencoder/tiny.py:longer --workdir runs/tiny/longer \
        --set data.folder=runs/tiny/data
"""

from ml_collections import ConfigDict

SMALL = {"block_out_channels": (32, 48, 64, 96), "latent_channels": 16, "norm_num_groups": 8, "sample_size": 128}


def get_config(size: str = "tiny") -> ConfigDict:
    """`size`: tiny, small (128 px -> 16x16x16 latents), decoder (of the tiny one), or longer (all of the tiny one)."""
    if size not in ("tiny", "small", "decoder", "longer"):
        raise ValueError(f"size {size!r}: choose tiny, small, decoder or longer")
    trained = size in ("decoder", "longer")
    config = ConfigDict()
    config.objective = "autoencoder"
    config.data = ConfigDict(
        {
            "folder": "runs/tiny/data",
            "image_size": 128 if size == "small" else 64,
            "cache": True,
            "decoded": "",  # a folder that keeps the decoded pairs for the next stage
            "resident": False,  # the whole data set on the device: for a card, 8 s^2 bytes a pair of s pixels
            "also": "",  # a folder of more pairs (photos/, flats/, masks/), each also_repeat times an epoch
            "also_repeat": 1,
            "tokenizer": "",
            "held_out": "validation",
        }
    )
    vae = {
        "block_out_channels": (16, 32, 64),
        "layers_per_block": 1,
        "latent_channels": 8,
        "norm_num_groups": 4,
        "sample_size": 64,
        "use_quant_conv": True,
        "use_post_quant_conv": True,
        "mid_block_add_attention": True,
    }
    config.model = ConfigDict(
        {
            "vae": vae | (SMALL if size == "small" else {}),
            "crop": 0,
            "kl_weight": 1e-4,
            "edge_weight": 0.5,
            "colour_weight": 2.0,
            "init_from": "ragdiff_jax/assets/tiny" if trained else "",
            "decoder_only": size == "decoder",
            "latent_noise": 0.05 if size == "decoder" else 0.0,
            "colour_start": not trained,
            "balance": {"decoder": None, "longer": 0.0}.get(size, 0.5),
        }
    )
    config.train = ConfigDict(
        {
            "steps": {"decoder": 3000, "longer": 1700}.get(size, 450),
            "seconds": 0.0,
            "batch_size": 16 if size == "longer" else 12,
            "optimizer": "muon" if size == "longer" else "adamw",
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
