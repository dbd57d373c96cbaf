"""Landmark Guider: the silhouette, aligned with the latents (R 3.2).

    silhouette [b, H, W, 1] -> 4x4 convs of 16, 32, 64, 128 channels, SiLU -> zero-initialised 3x3 conv
    -> [b, H/8, W/8, c0], added to the output of MainNet's conv_in

R asks for four stride-2 convolutions, which would give H/16 while latents are H/8; the strides here are 1, 2, 2, 2.
The same network brings the photo to a ControlNet (its `photo_guider`), which then has three channels to see.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ragdiff_jax.errors import UserError
from ragdiff_jax.models.layers import Conv


@dataclasses.dataclass(frozen=True, kw_only=True)
class LandmarkGuiderConfig:
    """`strides` multiply to the VAE's factor (8); `features` is the width of MainNet's conv_in (320 in SDXL)."""

    channels: tuple[int, ...] = (16, 32, 64, 128)
    strides: tuple[int, ...] = (1, 2, 2, 2)
    features: int = 320

    def __post_init__(self):
        if len(self.channels) != len(self.strides) or not set(self.strides) <= {1, 2}:
            raise UserError(
                f"landmark guider config: {len(self.channels)} channels need as many strides of 1 or 2, "
                f"not {self.strides}"
            )

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "LandmarkGuiderConfig":
        return cls(
            channels=tuple(config["channels"]), strides=tuple(config["strides"]), features=config["features"]
        )

    def to_dict(self) -> dict[str, Any]:
        return {"_class_name": "LandmarkGuider", **dataclasses.asdict(self)}


class LandmarkGuider(nn.Module):
    config: LandmarkGuiderConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, silhouette: Float[Array, "b H W c"]) -> Float[Array, "b h w f"]:
        x = silhouette.astype(self.dtype)
        for index, (channels, stride) in enumerate(zip(self.config.channels, self.config.strides, strict=True)):
            # A 4x4 kernel keeps the size at stride 1 with one more pixel behind, and halves it at stride 2 with one
            # around.
            padding = ((1, 1), (1, 1)) if stride == 2 else ((1, 2), (1, 2))
            conv = Conv(
                channels, kernel_size=4, strides=stride, padding=padding, dtype=self.dtype, name=f"convs_{index}"
            )
            x = jax.nn.silu(conv(x))
        # Zero at the start: training begins from the unguided model.
        zeros = nn.initializers.zeros_init()
        return Conv(self.config.features, kernel_init=zeros, dtype=self.dtype, name="conv_out")(x)
