"""TryOffDiff's adapter: an image encoder's tokens in the place of the text's (arXiv 2411.18350, 3.2).

    tokens [b, l, c] -> transformer layer -> Linear over the tokens -> [b, num_tokens, c] -> Linear -> LayerNorm
    -> [b, num_tokens, output_dim], what the U-Net's cross-attentions see

Theirs is as wide as the text, 768; here a linear layer brings any width to it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ragdiff_jax.models.clip_encoder import CLIPEncoder
from ragdiff_jax.models.layers import Dense, LayerNorm


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenAdapterConfig:
    """From `input_tokens` of `hidden_size` to `num_tokens` of `output_dim`; defaults: SigLIP-B/16's at 512 px."""

    hidden_size: int = 768
    input_tokens: int = 1024
    num_attention_heads: int = 8
    num_tokens: int = 77
    output_dim: int = 768

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "TokenAdapterConfig":
        """Reads what `to_dict` wrote."""
        return cls(**{field.name: config[field.name] for field in dataclasses.fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        """The `config.json` of the part."""
        return {"_class_name": "TokenAdapter", **dataclasses.asdict(self)}


class TokenAdapter(nn.Module):
    config: TokenAdapterConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: Float[Array, "b l c"]) -> Float[Array, "b q d"]:
        c = self.config
        x, _ = CLIPEncoder(
            1, c.num_attention_heads, 4 * c.hidden_size, act="gelu", dtype=self.dtype, name="encoder"
        )(tokens.astype(self.dtype))
        x = Dense(c.num_tokens, dtype=self.dtype, name="token_projection")(x.swapaxes(1, 2)).swapaxes(1, 2)
        x = Dense(c.output_dim, dtype=self.dtype, name="projection")(x)
        return LayerNorm(dtype=self.dtype, name="norm")(x)
