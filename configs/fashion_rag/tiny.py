r"""Fashion-RAG in the tiny world, 64 px: three stages, each from the last.

    ragdiff data people --out runs/fashion/data --count 9216 --size 64 --seed 41
    ragdiff train --config configs/clip/garments.py --workdir runs/fashion/tower --set data.folder=PAIRS
    for stage in inpaint inversion edit; do
        ragdiff train --config configs/fashion_rag/tiny.py:$stage --workdir runs/fashion/$stage \
            --set data.folder=PEOPLE
    done

`inpaint` stands for the inpainting U-Net that exists at full size; `inversion` is F's first stage (F_theta alone),
`edit` its second (U-Net and F_theta, pose from zero). Two more go on from the shipped weights: `detail` adds
ReferenceNet, which sees the top garment, and `image_prompt` is the baseline without F_theta, whose garments are an
image prompt as IP-Adapter has it. docs/fashion_rag.md says how the shipped weights came, and how these are trained.
"""

from ml_collections import ConfigDict

START = "ragdiff_jax/assets/tiny"
SHIPPED = "ragdiff_jax/assets/fashion_rag"
RUN = "runs/fashion"
# Folders that a stage's U-Net, F_theta and picture tower come from.
UNET, WORDS, TOWER = "unet", "inversion", "image_encoder"
INPAINT, INVERSION, SEES = f"{RUN}/inpaint/model", f"{RUN}/inversion/model", f"{RUN}/tower/model"
# What trains, where the parts come from, whether there is pose, garments at most, steps, learning rate.
STAGES = {
    "inpaint": ("^unet/", {}, False, 0, 1600, 1e-3),
    "inversion": ("^inversion/", {UNET: INPAINT, TOWER: SEES}, False, 3, 500, 1e-3),
    "edit": ("^(unet|inversion)/", {UNET: INPAINT, WORDS: INVERSION, TOWER: SEES}, True, 3, 3000, 7e-4),
    "detail": ("^(unet|inversion|reference_net)/", dict.fromkeys((UNET, WORDS, TOWER), SHIPPED), True, 3, 3000, 7e-4),
    "image_prompt": ("^(unet|image_adapter)/", dict.fromkeys((UNET, TOWER), SHIPPED), True, 3, 3000, 7e-4),
}


def get_config(stage: str = "edit") -> ConfigDict:
    if stage not in STAGES:
        raise ValueError(f"stage {stage!r}: choose one of {', '.join(STAGES)}")
    trainable, given, pose, most, steps, rate = STAGES[stage]
    config = ConfigDict()
    config.objective = "fashion_rag"
    config.data = ConfigDict(
        {
            "folder": f"{RUN}/data",
            "held_out": "validation",
            "mask_mode": "mask",
            "mask_rules": "",  # dresscode or vitonhd; empty: the data set's own
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
                **{part: f"{given[part]}/{part}" if part in given else "" for part in (TOWER, WORDS, UNET)},
                "reference_net": "",  # empty: a copy of the U-Net
                "image_adapter": "",  # empty: keys and values are copies of the text's
            },
            "tokenizer": f"{START}/tokenizer",
            "pose": pose,
            "reference_net": stage == "detail",
            "image_prompt": stage == "image_prompt",
            "most": most,
            "pool": 0.15 if most else 0.0,
            "dropout": {
                "text": 0.3,
                "garments": 0.15,
                "pose": 0.15,
                "everything": 0.07,
                "reference": 0.1,
                # What a garment looks like is learnt from the own one alone.
                "own": 0.7 if stage == "detail" else 0.5,
            },
            "noise_start": stage == "inpaint",
            "trainable": trainable,
            "export_dtype": "bfloat16",
        }
    )
    config.train = ConfigDict(
        {
            "steps": steps,
            "seconds": 0.0,
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
