"""F_theta, Fashion-RAG's and LaDI-VTON's inversion adapter: garments become words of the text encoder (F 3.2).

    last hidden state of CLIP's picture tower [b, l, c] -> encoder layers -> CLS [b, c] -> LayerNorm
    -> Linear, GELU, dropout, Linear, GELU, dropout, Linear -> [b, num_tokens, token_dim]

At the papers' size: ViT-H's [b, 257, 1280] -> [b, 16, 1024], 136,360,704 parameters. The names of the MLP's layers
(0, 3, 6) are those of the published file, where activations and dropout stand between them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ragdiff_jax.errors import UserError
from ragdiff_jax.models.clip_encoder import CLIPEncoder, common_fields
from ragdiff_jax.models.layers import Dense, LayerNorm


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
    dropout: float = 0.5

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "FThetaConfig":
        """Reads what `to_dict` wrote. Raises `UserError` for impossible values."""
        names = {field.name for field in dataclasses.fields(cls)}
        values = common_fields({"hidden_act": "gelu"} | dict(config), names, "F_theta")
        for name, value in values.items():
            if isinstance(getattr(cls, name), int) and (type(value) is not int or value < 1):
                raise UserError(f"F_theta config: {name} must be a positive number, not {value!r}")
        dropout = values.get("dropout", 0.0)
        if type(dropout) not in (int, float) or not 0 <= dropout < 1:
            raise UserError(f"F_theta config: dropout must be at least 0 and below 1, not {dropout!r}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The `config.json` of the part."""
        return {"_class_name": "InversionAdapter"} | dataclasses.asdict(self)


class FTheta(nn.Module):
    """See the module's words. With `deterministic=False` it needs a `dropout` key."""

    config: FThetaConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, states: Float[Array, "b l c"], *, deterministic: bool = True) -> Float[Array, "b t d"]:
        c = self.config
        x, _ = CLIPEncoder(
            c.num_hidden_layers,
            c.num_attention_heads,
            c.intermediate_size,
            act=c.hidden_act,
            epsilon=c.layer_norm_eps,
            dtype=self.dtype,
            name="encoder",
        )(states.astype(self.dtype))
        x = LayerNorm(c.layer_norm_eps, self.dtype, name="post_layernorm")(x[:, 0])
        for name in ("layers_0", "layers_3"):
            x = nn.gelu(Dense(c.mlp_dim, dtype=self.dtype, name=name)(x), approximate=False)
            x = nn.Dropout(c.dropout, deterministic=deterministic)(x)
        x = Dense(c.num_tokens * c.token_dim, dtype=self.dtype, name="layers_6")(x)
        return x.reshape(-1, c.num_tokens, c.token_dim)
