"""F_theta, Fashion-RAG's and LaDI-VTON's inversion adapter: its config, its tensors and the names they come under.

    CLIP ViT-H's last hidden state [b, 257, 1280] -> CLIP encoder layers -> CLS -> LayerNorm -> MLP -> [b, 16 * 1024]

Its published files (`inversion_adapter_*.pth`) differ from our tree in one name: `encoder_layers.N` is
`encoder.layers.N` here, a stack like CLIP's own. The MLP's activations and dropout (0.5) have no tensors, so that its
layers are 0, 3 and 6.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ragdiff_jax.errors import UserError
from ragdiff_jax.models.clip_encoder import common_fields
from ragdiff_jax.weights.sources import Source, View, renamed

# (theirs, ours): beginnings of tensor names.
PREFIXES = (("encoder_layers.", "encoder.layers."), ("post_layernorm.", "post_layernorm."), ("layers.", "layers."))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FThetaConfig:
    """The encoder layers are those of CLIP's vision tower `hidden_size` wide; the MLP is `mlp_dim` wide inside."""

    hidden_size: int = 1280
    intermediate_size: int = 5120
    num_attention_heads: int = 16
    num_hidden_layers: int = 1
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    mlp_dim: int = 5120
    num_tokens: int = 16
    token_dim: int = 1024

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "FThetaConfig":
        """Reads what `to_dict` wrote. Raises `UserError` for impossible values."""
        names = {field.name for field in dataclasses.fields(cls)}
        values = common_fields({"hidden_act": "gelu"} | dict(config), names, "F_theta")
        for name, value in values.items():
            if isinstance(getattr(cls, name), int) and (type(value) is not int or value < 1):
                raise UserError(f"F_theta config: {name} must be a positive number, not {value!r}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The `config.json` of the part."""
        return {"_class_name": "InversionAdapter"} | dataclasses.asdict(self)


def f_theta_tree(config: FThetaConfig) -> dict[str, Any]:
    """The abstract parameters, boxed with their logical axes as CLIP's are: what a module of F_theta has to have."""
    width, hidden = config.hidden_size, config.intermediate_size

    def leaf(shape, names, stacked):
        shape, names = ((config.num_hidden_layers, *shape), ("layers", *names)) if stacked else (shape, names)
        return nn.Partitioned(jax.ShapeDtypeStruct(shape, jnp.float32), names)

    def dense(into, out, names, stacked=False):
        return {"kernel": leaf((into, out), names, stacked), "bias": leaf((out,), names[1:], stacked)}

    def norm(stacked=False):
        return {name: leaf((width,), ("norm",), stacked) for name in ("scale", "bias")}

    attention = {name: dense(width, width, ("embed", "heads"), True) for name in ("q_proj", "k_proj", "v_proj")}
    layers = {
        "self_attn": attention | {"out_proj": dense(width, width, ("heads", "embed"), True)},
        "layer_norm1": norm(True),
        "layer_norm2": norm(True),
        "mlp": {
            "fc1": dense(width, hidden, ("embed", "mlp"), True),
            "fc2": dense(hidden, width, ("mlp", "embed"), True),
        },
    }
    return {
        "encoder": {"layers": layers},
        "post_layernorm": norm(),
        "layers_0": dense(width, config.mlp_dim, ("embed", "mlp")),
        "layers_3": dense(config.mlp_dim, config.mlp_dim, ("embed", "mlp")),
        "layers_6": dense(config.mlp_dim, config.num_tokens * config.token_dim, ("embed", "mlp")),
    }


def f_theta_view(source: Source) -> View:
    """The published names as ours; a name that fits no line of the table stays, to be reported."""
    names = {}
    for name in source.shapes:
        pair = next((pair for pair in PREFIXES if name.startswith(pair[0])), ("", ""))
        names[pair[1] + name.removeprefix(pair[0])] = name
    return renamed(source, names)
