r"""PGEA in the tiny world (R 3.3): a 4-channel U-Net moved to the autoencoder of 16 channels, one stage after another.

    for CHANNELS in 4 16; do
        ragdiff train --config configs/autoencoder/tiny.py --workdir runs/tiny/autoencoder$CHANNELS \
            --set data.folder=runs/tiny/data --set model.vae.latent_channels=$CHANNELS
    done
    ragdiff train --config configs/text_to_image/tiny.py --workdir runs/tiny/text_to_image4 \
        --set data.folder=runs/tiny/data --set model.parts.vae=runs/tiny/autoencoder4/model/vae
    for STAGE in stage1 stage1_out stage2 stage3; do
        ragdiff train --config configs/pgea/tiny.py:$STAGE --workdir runs/tiny/pgea/$STAGE \
            --set data.folder=runs/tiny/data
    done

stage1: conv_in by the closed form (stage1_sgd: by gradient steps, as the paper has it, to compare).
stage1_out: conv_out by least squares behind it. stage2: conv_in and conv_out. stage3: the whole U-Net.
Each stage's `model/unet` is what the next one starts from.
"""

from ml_collections import ConfigDict

RUNS = "runs/tiny"
STAGES = ("stage1", "stage1_sgd", "stage1_out", "stage2", "stage3")
SUMS = {"optimizer": "none", "learning_rate": 0.0, "weight_decay": 0.0, "ema_decay": 0.0, "schedule": "constant"}


def get_config(stage: str = "stage1") -> ConfigDict:
    if stage not in STAGES:
        raise ValueError(f"stage {stage!r}: choose one of {', '.join(STAGES)}")
    first = stage in ("stage1", "stage1_sgd")
    before = {"stage1_out": "pgea/stage1", "stage2": "pgea/stage1_out", "stage3": "pgea/stage2"}
    config = ConfigDict()
    config.objective = {
        "stage1": "pgea_conv_in",
        "stage1_sgd": "pgea_conv_in_sgd",
        "stage1_out": "pgea_conv_out",
    }.get(stage, "text_to_image")
    config.data = ConfigDict(
        {
            "folder": f"{RUNS}/data",
            "image_size": 64,
            "cache": True,
            "decoded": "",  # a folder that keeps the decoded pairs for the next stage
            "tokenizer": f"{RUNS}/tokenizer",
            "held_out": "validation",
        }
    )
    config.model = ConfigDict(
        {
            "preset": "tiny",
            "parts": {
                "unet": f"{RUNS}/{before.get(stage, 'text_to_image4')}/model/unet",
                "vae": f"{RUNS}/autoencoder16/model/vae",
                "text_encoder": f"{RUNS}/clip/model/text_encoder",
            },
            "tokenizer": f"{RUNS}/tokenizer",
            "text_dropout": 0.1,
        }
    )
    if first:
        config.model.parts.old_vae = f"{RUNS}/autoencoder4/model/vae"
        config.model.noise = "matched"
    if stage == "stage1":
        config.model.ridge = 1e-6
    if stage == "stage1_out":
        config.model.ridge = 1e-5
    if stage == "stage2":
        config.model.trainable = "^unet/(conv_in|conv_out)/"
    if stage == "stage3":
        config.model.trainable = "^unet/"
    train = {
        "steps": {"stage1": 64, "stage1_sgd": 500, "stage1_out": 64, "stage2": 200, "stage3": 500}[stage],
        "batch_size": 16,
        "optimizer": "adamw",
        "learning_rate": {"stage1_sgd": 0.003, "stage2": 0.002, "stage3": 0.0005}.get(stage, 0.0),
        "weight_decay": 0.0 if first else 0.01,
        "ema_decay": 0.99 if stage in ("stage2", "stage3") else 0.0,
        "warmup": 20,
        "schedule": "cosine",
        "checkpoint_seconds": 240.0,
        "log_every": 16 if stage in ("stage1", "stage1_out") else 50,
        "sample_every": {"stage1": 64, "stage1_sgd": 500, "stage1_out": 64, "stage2": 100, "stage3": 250}[stage],
        "validate_every": {"stage1": 32, "stage1_sgd": 250, "stage1_out": 32, "stage2": 100, "stage3": 250}[stage],
        "seed": 0,
    }
    if stage in ("stage1", "stage1_out"):
        train |= SUMS | {"warmup": 0}
    config.train = ConfigDict(train)
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
