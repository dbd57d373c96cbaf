r"""Fashion-RAG at the paper's size (F 3.3, 4.2): SD 2's inpainting U-Net at 512x384, F_theta of CLIP ViT-H.

    ragdiff train --config configs/fashion_rag/sd2_inpaint.py:inversion --workdir runs/f1 --set data.folder=PEOPLE
    ragdiff train --config configs/fashion_rag/sd2_inpaint.py:edit      --workdir runs/f2 --set data.folder=PEOPLE

`inversion` is F's stage 1 (F_theta alone, 200,000 steps), `edit` its stage 2 (U-Net and F_theta with pose from zero,
120,000). `detail` goes on from there with ReferenceNet, `image_prompt` is the baseline beside `edit`
(docs/fashion_rag.md). F tells no learning rate, batch or dropout: these are LaDI-VTON's, whose code F's grew from
(docs/papers.md).
Needs the parts named below as folders in diffusers' layout (`ragdiff weights import`).
"""

from ml_collections import ConfigDict

# What trains, whether there is pose, steps, U-Net and F_theta to start from.
STAGES = {
    "inversion": ("^inversion/", False, 200_000, "weights/sd2_inpaint/unet", ""),
    "edit": ("^(unet|inversion)/", True, 120_000, "weights/sd2_inpaint/unet", "runs/f1/model/inversion"),
    "detail": (
        "^(unet|inversion|reference_net)/", True, 120_000, "runs/f2/model/unet", "runs/f2/model/inversion"
    ),
    "image_prompt": ("^(unet|image_adapter)/", True, 120_000, "weights/sd2_inpaint/unet", ""),
}  # fmt: skip


def get_config(stage: str = "edit") -> ConfigDict:
    if stage not in STAGES:
        raise ValueError(f"stage {stage!r}: choose one of {', '.join(STAGES)}")
    trainable, pose, steps, unet, inversion = STAGES[stage]
    config = ConfigDict()
    config.objective = "fashion_rag"
    config.data = ConfigDict(
        {
            "folder": "data/dresscode",
            "held_out": "test",
            "mask_mode": "mask",
            "mask_rules": "",  # dresscode or vitonhd; empty: the data set's own
            "cache": False,
            "retrieved": "runs/retrieved",
        }
    )
    config.model = ConfigDict(
        {
            "preset": "sd2_inpaint",
            "changes": {"dtype": "bfloat16", "prompt": "template"},
            "parts": {
                "vae": "weights/sd2_inpaint/vae",
                "text_encoder": "weights/sd2_inpaint/text_encoder",
                "image_encoder": "weights/vit_h",
                "retrieval_text_encoder": "weights/laion_l/text",
                "retrieval_image_encoder": "weights/laion_l/vision",
                "inversion": inversion,
                "unet": unet,
                "reference_net": "",
                "image_adapter": "",
            },
            "tokenizer": "weights/sd2_inpaint/tokenizer",
            "pose": pose,
            "reference_net": stage == "detail",
            "image_prompt": stage == "image_prompt",
            "most": 3,
            "pool": 0.0,
            "dropout": {
                "text": 0.2,
                "garments": 0.0 if stage == "inversion" else 0.2,  # the text alone is served too (N_r = 0)
                "pose": 0.2,
                "everything": 0.05,
                "reference": 0.1,
                "own": 0.7 if stage == "detail" else 0.5,
            },
            "noise_start": False,
            "trainable": trainable,
            "export_dtype": "float32",
        }
    )
    config.train = ConfigDict(
        {
            "steps": steps,
            "seconds": 0.0,
            "batch_size": 16,
            "learning_rate": 1e-5,
            "weight_decay": 0.01,
            "clip_norm": 1.0,
            "ema_decay": 0.9999,
            "frozen_dtype": "bfloat16",
            "sample_every": 2000,
            "validate_every": 1000,
            "warmup": 500,
            "schedule": "constant",
            "checkpoint_seconds": 600.0,
            "log_every": 50,
            "seed": 1234,
        }
    )
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
