"""OpenCLIP's checkpoints as transformers' CLIP towers: one fused projection is three, two matrices are transposed."""

from collections.abc import Mapping
from typing import Any

from ragdiff_jax.errors import UserError
from ragdiff_jax.weights.sources import Piece, Source, View

# Theirs -> transformers', in a tower and in each of its layers; ".weight" and ".bias" follow where there are both.
_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_TOWERS = {
    "text": {
        "prefix": "",
        "new": "text_model.",
        "norms": {"ln_final": "final_layer_norm"},
        "tables": {
            "positional_embedding": "embeddings.position_embedding.weight",
            "token_embedding.weight": "embeddings.token_embedding.weight",
        },
        "projection": ("text_projection", "text_projection.weight"),
    },
    "vision": {
        "prefix": "visual.",
        "new": "vision_model.",
        "norms": {"ln_pre": "pre_layrnorm", "ln_post": "post_layernorm"},
        "tables": {
            "class_embedding": "embeddings.class_embedding",
            "positional_embedding": "embeddings.position_embedding.weight",
            "conv1.weight": "embeddings.patch_embedding.weight",
        },
        "projection": ("proj", "visual_projection.weight"),
    },
}


def is_open_clip(source: Source) -> bool:
    """Whether the tensors are named as OpenCLIP names them."""
    return any(".resblocks." in f".{name}" for name in source.shapes)


def open_clip_view(source: Source, tower: str) -> View:
    """The `text` or `vision` tower under transformers' names; the other tower and the temperature are left out.

    A name of this tower that is not known stays, to be reported as not expected.
    """
    table = _TOWERS[tower]
    prefix, new = table["prefix"], table["new"]
    pieces: dict[str, Piece] = {}
    for name, shape in source.shapes.items():
        if not name.startswith(prefix) or (tower == "text" and name.startswith("visual.")):
            continue
        if name in ("logit_scale", "logit_bias", "attn_mask"):
            continue
        own = name.removeprefix(prefix)
        module, _, leaf = own.rpartition(".")
        if own == table["projection"][0]:
            pieces[table["projection"][1]] = Piece(name, transposed=True)
        elif own in table["tables"]:
            pieces[new + table["tables"][own]] = Piece(name)
        elif module in table["norms"]:
            pieces[f"{new}{table['norms'][module]}.{leaf}"] = Piece(name)
        elif own.startswith("transformer.resblocks."):
            pieces |= _layer(name, own.removeprefix("transformer.resblocks."), f"{new}encoder.layers.", shape)
        else:
            pieces[name] = Piece(name)
    return View(source, pieces)


def _layer(name: str, own: str, new: str, shape: tuple[int, ...]) -> dict[str, Piece]:
    number, _, rest = own.partition(".")
    module, _, leaf = rest.rpartition(".")
    if rest in ("attn.in_proj_weight", "attn.in_proj_bias"):
        third = shape[0] // 3
        kind = rest.removeprefix("attn.in_proj_")
        return {
            f"{new}{number}.self_attn.{letter}_proj.{kind}": Piece(name, rows=(third * i, third * (i + 1)))
            for i, letter in enumerate("qkv")
        }
    if module in _LAYER:
        return {f"{new}{number}.{_LAYER[module]}.{leaf}": Piece(name)}
    return {name: Piece(name)}


def open_clip_config(config: Mapping[str, Any], tower: str, where: str) -> dict[str, Any]:
    """transformers' config of a tower, of what `open_clip_config.json` says.

    Raises `UserError` for a model that has more than CLIP's two plain transformers.
    """
    model = config.get("model_cfg", config)
    try:
        own = model[f"{tower}_cfg"]
        width, embed = own["width"], model["embed_dim"]
        layers = own["layers"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{where}: has no {error} of an OpenCLIP model; get it again") from error
    plain = {
        "text": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"},
        "vision": {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"},
    }[tower]
    other = sorted(set(own) - plain)
    if other or not isinstance(layers, int):
        raise UserError(
            f"{where}: {tower}_cfg has {', '.join(other) or 'layers of a ResNet'}, which plain CLIP has not"
        )
    common = {
        "hidden_size": width,
        "intermediate_size": int(width * own.get("mlp_ratio", 4.0)),
        "num_hidden_layers": layers,
        "hidden_act": "quick_gelu" if model.get("quick_gelu") else "gelu",
        "projection_dim": embed,
    }
    if tower == "text":
        return common | {
            "architectures": ["CLIPTextModelWithProjection"],
            "num_attention_heads": own["heads"],
            "vocab_size": own.get("vocab_size", 49408),
            "max_position_embeddings": own.get("context_length", 77),
            "eos_token_id": own.get("vocab_size", 49408) - 1,
        }
    return common | {
        "architectures": ["CLIPVisionModelWithProjection"],
        "num_attention_heads": width // own.get("head_width", 64),
        "image_size": own["image_size"],
        "patch_size": own["patch_size"],
    }
