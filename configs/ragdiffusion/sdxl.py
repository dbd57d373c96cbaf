"""RAGDiffusion at the paper's size (R 4.1): SDXL with the 16-channel FLUX VAE at 768 px, AdamW 5e-5.

The paper trains with a batch of 15; 16 divides over 8 chips. Needs the parts named below as folders in diffusers'
layout.

    ragdiff train --config configs/ragdiffusion/sdxl.py --workdir runs/sdxl --set data.folder=DIR

The baselines (configs/baselines/) are the same with --set "model.conditions=('control',)" and the like; those that look
at image tokens (image_prompt, image_tokens, class_token) want --set model.parts.image_encoder=DIR too.

`ragdiff plan` (compiled, not run): batch 16 on v5p 2x2x2, fsdp 8, takes 21.3 of 95 GiB a chip and at least 0.14 s a
step; batch 32 on v6e 4x4, fsdp 16, 16.1 of 32 GiB and 0.07 s.
Batch 64 on v5e 8x8, data 4 and fsdp 16, takes 10.0 of 16 GiB and 0.16 s.
"""

from ml_collections import ConfigDict

ADDED = (
    *("reference_net", "ep_adapter", "landmark_guider", "image_adapter", "class_adapter", "token_adapter"),
    *("control_net", "photo_guider", "mask_unet"),
)


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.objective = "ragdiffusion"
    config.data = ConfigDict(
        {
            "folder": "data",
            "image_size": 768,
            "cache": False,
            "encodings": "",  # a folder that keeps what the frozen networks make of each sample (1.3 MB a variant)
            "encoding_variants": 4,  # under that many draws of augmentations
            "tokenizer": "weights/sdxl/tokenizer",
            "held_out": "validation",
        }
    )
    config.model = ConfigDict(
        {
            "preset": "sdxl_flux",
            "changes": {"dtype": "bfloat16"},  # of the computation; what is trained stays float32
            "conditions": ("reference", "structure", "landmark"),  # others: systems/variants.py
            "trainable": "",  # a regular expression of parameters; empty: the U-Net and what the conditions add
            "parts": {
                "vae": "weights/flux/vae",
                "text_encoder": "weights/sdxl/text_encoder",
                "text_encoder_2": "weights/sdxl/text_encoder_2",
                "image_encoder": "",  # predicts attributes: text_encoder_2's picture tower (OpenCLIP bigG)
                "structure_net": "weights/structure_net",
                "unet": "weights/sdxl_pgea/unet",
                # What the conditions add; empty: new, and where the paper has it so, copied from the U-Net.
                **dict.fromkeys(ADDED, ""),
            },
            "tokenizers": ("weights/sdxl/tokenizer", "weights/sdxl/tokenizer_2"),
            "memory": "memory",
            "augment": True,
            "examples": 8,  # held-out rows that are measured and drawn
            "sample_steps": 20,
            "export_dtype": "bfloat16",
            "dropout": {
                "text": 0.05,  # serve with captions (`annotate`, `generate --attributes`), or drop more
                "structure": 0.05,
                "everything": 0.05,
                "reference": 0.1,
                "retrieved_landmark": 0.5,
                "retrieved_iou": 0.8,
                "landmark": 0.0,
            },
        }
    )
    config.train = ConfigDict(
        {
            "steps": 200000,
            "batch_size": 16,
            "learning_rate": 5e-05,
            "weight_decay": 0.01,
            "ema_decay": 0.9999,
            "frozen_dtype": "bfloat16",
            "sample_every": 2000,
            "validate_every": 1000,
            "warmup": 500,
            "schedule": "constant",
            "checkpoint_seconds": 600.0,
            "log_every": 50,
            "seed": 0,
        }
    )
    # --set lora.rank=16 fits fewer cards: both U-Nets frozen but for adapters, `also` in full besides.
    config.lora = ConfigDict(
        {
            "rank": 0,
            "alpha": 16.0,
            "targets": r"^(unet|reference_net)/.*attn[12]/(to_q|to_k|to_v|to_out_0)/kernel$",
            "also": f"^({'|'.join(part for part in ADDED if part != 'reference_net')})/",
            "start": "",
        }
    )
    # Up to 16 chips. On more: --set mesh.data=-1 --set mesh.fsdp=16, half the traffic of fsdp=64 (docs/pods.md).
    config.mesh = ConfigDict({"data": 1, "fsdp": -1, "tensor": 1})
    return config
