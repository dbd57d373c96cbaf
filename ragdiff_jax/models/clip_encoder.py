"""The transformer of CLIP's text and vision towers: pre-norm layers, scanned, `[b, l, c]` -> `[b, l, c]`.

The layers are one stacked module `layers` (leading axis = depth), whatever the depth.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ragdiff_jax.errors import UserError
from ragdiff_jax.models.attention import dot_product_attention
from ragdiff_jax.models.layers import Dense, LayerNorm

ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_new": nn.gelu,
}


def tower_config(config: Mapping[str, Any], tower: str) -> dict[str, Any]:
    """The `text` or `vision` part of a transformers `config.json`, of one tower's own or of a whole `CLIPModel`'s.

    A whole model's projection is as wide as its own `projection_dim` says, not the tower's; old files keep the tower
    under `text_config_dict`, which then counts alone (as transformers reads them).
    """
    nested = config.get(f"{tower}_config_dict") or config.get(f"{tower}_config")
    if nested is None:
        return dict(config)
    if not isinstance(nested, Mapping):
        raise UserError(f"CLIP {tower} config: {tower}_config must be a JSON object")
    whole = {name: config[name] for name in ("architectures", "projection_dim") if config.get(name) is not None}
    return dict(nested) | whole


def common_fields(config: Mapping[str, Any], names: set[str], kind: str) -> dict[str, Any]:
    """The entries of a transformers `config.json` that `names` lists, checked. Raises `UserError`."""
    values = {k: v for k, v in config.items() if k in names}
    act = values.get("hidden_act", "quick_gelu")
    if act not in ACTIVATIONS:
        raise UserError(f"{kind} config: hidden_act must be one of {', '.join(ACTIVATIONS)}, not {act}")
    width, heads = values.get("hidden_size"), values.get("num_attention_heads")
    if width and heads and width % heads:
        raise UserError(f"{kind} config: hidden_size {width} is no multiple of num_attention_heads {heads}")
    return values


class _Attention(nn.Module):
    heads: int
    causal: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        b, length, c = x.shape
        q, k, v = (
            Dense(c, axes=("embed", "heads"), dtype=self.dtype, name=name)(x).reshape(
                b, length, self.heads, c // self.heads
            )
            for name in ("q_proj", "k_proj", "v_proj")
        )
        out = dot_product_attention(q, k, v, causal=self.causal).reshape(b, length, c)
        return Dense(c, axes=("heads", "embed"), dtype=self.dtype, name="out_proj")(out)


class _MLP(nn.Module):
    hidden: int
    act: str
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        h = ACTIVATIONS[self.act](Dense(self.hidden, axes=("embed", "mlp"), dtype=self.dtype, name="fc1")(x))
        return Dense(x.shape[-1], axes=("mlp", "embed"), dtype=self.dtype, name="fc2")(h)


class _Layer(nn.Module):
    """Body of the scan; the carry is (this layer's input, the one before), to keep the penultimate output."""

    heads: int
    hidden: int
    act: str
    epsilon: float
    causal: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, carry, _):
        x = carry[0]
        h = LayerNorm(self.epsilon, self.dtype, name="layer_norm1")(x)
        y = x + _Attention(self.heads, self.causal, self.dtype, name="self_attn")(h)
        h = LayerNorm(self.epsilon, self.dtype, name="layer_norm2")(y)
        return (y + _MLP(self.hidden, self.act, self.dtype, name="mlp")(h), x), None


class CLIPEncoder(nn.Module):
    """`depth` layers. Returns the last one's output and input: `hidden_states[-1]` and `[-2]` elsewhere."""

    depth: int
    heads: int
    hidden: int
    act: str = "quick_gelu"
    epsilon: float = 1e-5
    causal: bool = False
    remat: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b l c"]) -> tuple[Float[Array, "b l c"], Float[Array, "b l c"]]:
        layer = nn.remat(_Layer, prevent_cse=False) if self.remat else _Layer
        stack = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        fields = (self.heads, self.hidden, self.act, self.epsilon, self.causal, self.dtype)
        (last, penultimate), _ = stack(*fields, name="layers")((x, x), None)
        return last, penultimate
