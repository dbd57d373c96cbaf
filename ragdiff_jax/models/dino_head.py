"""DINO's projection head: tokens `[..., c]` -> prototype logits `[..., k]` (arXiv 2104.14294, 2304.07193).

An MLP to a narrow layer, unit length, then inner products with unit prototypes: logits are cosines.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ragdiff_jax.axes import gathered
from ragdiff_jax.models.layers import Dense, dense_init
from ragdiff_jax.models.unit_length import unit


class DINOHead(nn.Module):
    """`frozen` 1 holds the prototypes (no gradient), as DINO does in its first epoch."""

    prototypes: int
    hidden: int = 2048
    bottleneck: int = 256
    layers: int = 3

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"], frozen: float | Float[Array, ""] = 0.0) -> Float[Array, "*b k"]:
        x = x.astype(jnp.float32)
        init = nn.initializers.truncated_normal(0.02)
        for number in range(self.layers - 1):
            x = nn.gelu(Dense(self.hidden, kernel_init=init, name=f"mlp_{number}")(x), approximate=False)
        x = Dense(self.bottleneck, axes=("mlp", "embed"), kernel_init=init, name="out")(x)
        table = self.param("prototypes", dense_init(("embed", "vocab"), init), (self.bottleneck, self.prototypes))
        table = gathered(table, ("embed", "vocab"))
        table = table * (1 - frozen) + jax.lax.stop_gradient(table) * frozen
        return unit(x) @ unit(table, axis=0)
