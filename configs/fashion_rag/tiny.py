r"""Fashion-RAG in the tiny world, 64 px: three stages, each from the last.

    ragdiff data people --out runs/fashion/data --count 9216 --size 64 --seed 41
    ragdiff train --config configs/clip/garments.py --workdir runs/fashion/tower --set data.folder=PAIRS
    for stage in inpaint inversion edit; do
        ragdiff train --config configs/fashion_rag/tiny.py:$stage --workdir runs/fashion/$stage \
            --set data.folder=PEOPLE
    done

`inpaint` stands for the inpainting U-Net that exists at full size; `inversion` is F's first stage (F_theta alone),
`edit` its second (U-Net and F_theta, pose from zero). docs/fashion_rag.md says how the shipped weights came.
"""

from ml_collections import ConfigDict

START = "ragdiff_jax/assets/tiny"
RUN = "runs/fashion"
# What trains, the U-Net it starts from, F_theta's, whether there is pose, garments at most, steps, learning rate.
STAGES = {
    "inpaint": ("^unet/", "", "", False, 0, 1600, 1e-3),
    "inversion": ("^inversion/", "inpaint", "", False, 3, 500, 1e-3),
    "edit": ("^(unet|inversion)/", "inpaint", "inversion", True, 3, 3000, 7e-4),
}


def get_config(stage: str = "edit") -> ConfigDict:
    if stage not in STAGES:
        raise ValueError(f"stage {stage!r}: choose one of {', '.join(STAGES)}")
    trainable, unet, inversion, pose, most, steps, rate = STAGES[stage]
    config = ConfigDict()
    config.objective = "fashion_rag"
    config.data = ConfigDict(
        {
            "folder": f"{RUN}/data",
            "held_out": "validation",
            "mask_mode": "mask",
            "cache": True,
            "retrieved": f"{RUN}/retrieved",  # keeps which garments were retrieved; empty: worked out at each start
        }
    )
    config.model = ConfigDict(
        {
            "preset": "tiny",
            "changes": {"mask_weight": 1.0},
            "parts": {
                "vae": f"{START}/vae",
                "text_encoder": f"{START}/text_encoder",
                "image_encoder": f"{RUN}/tower/model/image_encoder" if most else "",
                "inversion": f"{RUN}/{inversion}/model/inversion" if inversion else "",
                "unet": f"{RUN}/{unet}/model/unet" if unet else "",
            },
            "tokenizer": f"{START}/tokenizer",
            "pose": pose,
            "most": most,
            "pool": 0.15 if most else 0.0,
            "dropout": {"text": 0.3, "garments": 0.15, "pose": 0.15, "everything": 0.07, "own": 0.5},
            "noise_start": stage == "inpaint",
            "trainable": trainable,
            "export_dtype": "bfloat16",
        }
    )
    config.train = ConfigDict(
        {
            "steps": steps,
            "seconds": 0,
            "batch_size": 16,
            "learning_rate": rate,
            "weight_decay": 0.01,
            "ema_decay": 0.995,
            "sample_every": 400,
            "validate_every": 400,
            "warmup": 50,
            "schedule": "cosine",
            "checkpoint_seconds": 180.0,
            "log_every": 50,
            "seed": 0,
        }
    )
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
