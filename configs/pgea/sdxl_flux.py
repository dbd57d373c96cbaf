r"""PGEA at the paper's size (R 3.3): SDXL's U-Net moved to the 16-channel FLUX autoencoder, one stage after another.

    for STAGE in stage1 stage1_out stage2 stage3; do
        ragdiff train --config configs/pgea/sdxl_flux.py:$STAGE --workdir runs/pgea/$STAGE --set data.folder=DIR
    done

Needs SDXL's U-Net, autoencoder, text encoders and tokenizer and FLUX's autoencoder as folders in diffusers' layout,
and pictures with captions (any of them: the adapted U-Net is a general one). Stages as in configs/pgea/tiny.py: 20,000
steps of conv_in and conv_out, 200,000 of the whole U-Net (R). The batch of 64 is ours: about what R's four days on 8
H20 allow at 768 px.
"""

from ml_collections import ConfigDict

STAGES = ("stage1", "stage1_sgd", "stage1_out", "stage2", "stage3")
STEPS = {"stage1": 500, "stage1_sgd": 20_000, "stage1_out": 500, "stage2": 20_000, "stage3": 200_000}


def get_config(stage: str = "stage1") -> ConfigDict:
    if stage not in STAGES:
        raise ValueError(f"stage {stage!r}: choose one of {', '.join(STAGES)}")
    first = stage in ("stage1", "stage1_sgd")
    sums = stage in ("stage1", "stage1_out")
    before = {"stage1_out": "runs/pgea/stage1", "stage2": "runs/pgea/stage1_out", "stage3": "runs/pgea/stage2"}
    config = ConfigDict()
    config.objective = {
        "stage1": "pgea_conv_in",
        "stage1_sgd": "pgea_conv_in_sgd",
        "stage1_out": "pgea_conv_out",
    }.get(stage, "text_to_image")
    config.data = ConfigDict(
        {
            "folder": "data",
            "image_size": 768,
            "cache": False,
            "decoded": "",
            "tokenizer": "weights/sdxl/tokenizer",
            "held_out": "validation",
        }
    )
    config.model = ConfigDict(
        {
            "preset": "sdxl_flux",
            "parts": {
                "unet": f"{before[stage]}/model/unet" if stage in before else "weights/sdxl/unet",
                "vae": "weights/flux/vae",
                "text_encoder": "weights/sdxl/text_encoder",
                "text_encoder_2": "weights/sdxl/text_encoder_2",
            },
            "tokenizer": "weights/sdxl/tokenizer",
            "tokenizer_2": "weights/sdxl/tokenizer_2",  # pads with another token
            "text_dropout": 0.1,
            "guidance_scale": 5.0,
        }
    )
    if config.objective == "text_to_image":  # nothing is augmented: what the encoders make is kept once
        config.data.encodings, config.data.encoding_variants = "", 1
    if first:  # few of the U-Net's FLOPs, and features worth fp32
        config.model.parts.old_vae = "weights/sdxl/vae"
        config.model.noise = "matched"
    else:
        config.model.changes = ConfigDict({"dtype": "bfloat16"})
    if stage == "stage1":
        config.model.ridge = 1e-6
    if stage == "stage1_out":
        config.model.ridge = 1e-5
    if stage == "stage2":
        config.model.trainable = "^unet/(conv_in|conv_out)/"
    if stage == "stage3":
        config.model.trainable = "^unet/"
    config.train = ConfigDict(
        {
            "steps": STEPS[stage],
            "batch_size": 64,
            "optimizer": "none" if sums else "adamw",
            "learning_rate": 0.0 if sums else {"stage1_sgd": 1e-3, "stage2": 1e-4, "stage3": 5e-5}[stage],
            "weight_decay": 0.01 if stage in ("stage2", "stage3") else 0.0,
            "ema_decay": {"stage2": 0.999, "stage3": 0.9999}.get(stage, 0.0),
            # fp32: what a stage leaves alone is exported as it came.
            "frozen_dtype": "float32",
            "warmup": 0 if sums else 500,
            "schedule": "constant",
            "checkpoint_seconds": 600.0,
            "log_every": 50,
            "sample_every": {"stage2": 1000, "stage3": 2000, "stage1_sgd": 5000}.get(stage, 250),
            "validate_every": {"stage2": 500, "stage3": 1000, "stage1_sgd": 1000}.get(stage, 125),
            "seed": 0,
        }
    )
    # On more than 16 chips: --set mesh.data=-1 --set mesh.fsdp=16 (docs/pods.md).
    config.mesh = ConfigDict({"data": 1, "fsdp": -1, "tensor": 1})
    return config
