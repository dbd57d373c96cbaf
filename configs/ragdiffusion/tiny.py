r"""RAGDiffusion in the tiny world: every trained part at once.

From the parts of the stages before:
    ragdiff train --config configs/ragdiffusion/tiny.py --workdir runs/tiny/ragdiffusion \
        --set data.folder=runs/tiny/data
From a whole model, on your own pairs and a memory of your own flat-lays (a sample's own flat-lay is left out):
    ragdiff train --config configs/ragdiffusion/tiny.py:ragdiff_jax/assets/tiny --workdir runs/garments \
        --set data.folder=pairs --set model.memory=memory
The next weights of the tiny world, on the way (docs/tiny.md):
    ragdiff train --config configs/ragdiffusion/tiny.py:checkpoints/tiny --workdir runs/tiny/next \
        --set data.folder=runs/tiny/data --set model.memory=ragdiff_jax/assets/memory
"""

from pathlib import Path

from ml_collections import ConfigDict

PARTS = {
    "vae": "runs/tiny/autoencoder/model/vae",
    "text_encoder": "runs/tiny/clip/model/text_encoder",
    "image_encoder": "runs/tiny/clip/model/image_encoder",  # predicts attributes; empty: the model has none
    "structure_net": "runs/tiny/structure_net/model/structure_net",
    "unet": "runs/tiny/text_to_image/model/unet",
}
# What the conditions add. Empty: new, and where the paper has it so, copied from the U-Net.
ADDED = (
    *("reference_net", "ep_adapter", "landmark_guider", "image_adapter", "class_adapter", "token_adapter"),
    *("control_net", "photo_guider", "mask_unet"),
)
SHIPPED = Path("ragdiff_jax/assets/tiny")
# Of the CLIP whose text encoder assets/tiny has.
IMAGE_ENCODER = Path(__file__).parents[2] / "ragdiff_jax/assets/fashion_rag/image_encoder"


def get_config(start: str = "") -> ConfigDict:
    """`start`: a model folder that every part starts from; frozen ones that it lacks are the shipped model's."""
    tokenizer = _place(start, "tokenizer") if start else "runs/tiny/tokenizer"
    parts = PARTS | dict.fromkeys(ADDED, "")
    if start:
        lacking = [part for part in ("image_encoder", *ADDED) if not (Path(start) / part).is_dir()]
        parts = {part: "" if part in lacking else _place(start, part) for part in parts}
    config = ConfigDict()
    config.objective = "ragdiffusion"
    config.data = ConfigDict(
        {
            "folder": "runs/tiny/data",
            "image_size": 64,
            "cache": True,
            "decoded": "",  # a folder that keeps the decoded pairs for the next stage
            "resident": False,  # the whole data set on the device: for a card, 8 s^2 bytes a pair of s pixels
            "also": "",  # a folder of more pairs (photos/, flats/, masks/), each also_repeat times an epoch
            "also_repeat": 1,
            "encodings": "",  # a folder that keeps what the frozen networks make of each sample
            "encoding_variants": 4,  # under that many draws of augmentations
            "tokenizer": tokenizer,
            "held_out": "validation",
        }
    )
    config.model = ConfigDict(
        {
            "preset": "tiny",
            "changes": {"dtype": "float32"},
            "conditions": ("reference", "structure", "landmark"),  # others: systems/variants.py, configs/baselines/
            "trainable": "",  # a regular expression of parameters; empty: the U-Net and what the conditions add
            "parts": parts,
            "tokenizers": (tokenizer,),
            "memory": "runs/tiny/memory",
            "augment": True,
            "paste_share": 0.5,
            "export_dtype": "bfloat16",
            "dropout": {
                "text": 0.5,
                "structure": 0.05,
                "everything": 0.05,
                "reference": 0.1,
                "retrieved_landmark": 0.3,
                "retrieved_iou": 0.8,
                "landmark": 0.0,
            },
        }
    )
    config.train = ConfigDict(
        {
            "steps": 2000,
            "seconds": 0.0,
            "batch_size": 16,
            "learning_rate": 8e-4,
            "weight_decay": 0.01,
            "ema_decay": 0.997,
            "sample_every": 500,
            "validate_every": 500,
            "warmup": 50,
            "schedule": "cosine",
            "checkpoint_seconds": 240.0,
            "log_every": 50,
            "seed": 0,
        }
    )
    # --set lora.rank=8: the U-Nets stay frozen but for adapters in their attentions; `also` trains in full besides.
    config.lora = ConfigDict(
        {
            "rank": 0,
            "alpha": 8.0,
            "targets": r"^(unet|reference_net)/.*attn[12]/(to_q|to_k|to_v|to_out_0)/kernel$",
            "also": f"^({'|'.join(part for part in ADDED if part != 'reference_net')})/",
            "start": "",
        }
    )
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config


def _place(start: str, part: str) -> str:
    lacks = part in ("text_encoder", "structure_net", "tokenizer") and not (Path(start) / part).is_dir()
    return f"{SHIPPED if lacks else start}/{part}"


def branch(stem: str, *conditions: str) -> ConfigDict:
    """Other conditions, made anew, on the U-Net and the frozen parts of `stem`, a model folder (configs/baselines/)."""
    config = get_config(stem)
    config.model.conditions = conditions
    for part in ADDED:
        config.model.parts[part] = ""
    if {"image_prompt", "image_tokens", "class_token"} & set(conditions) and not config.model.parts.image_encoder:
        config.model.parts.image_encoder = str(IMAGE_ENCODER)
    return config
