"""AutoencoderKL: pictures to latents and back, as Stable Diffusion (4 channels) and FLUX (16) have it.

image `[b, h, w, 3]` in [-1, 1] -> encode -> mean, logvar `[b, h/8, w/8, c]` -> decode -> image. With `n`
entries in `block_out_channels` the side shrinks by `2 ** (n - 1)`. Latents inside this file are unscaled;
`scale_latents` gives what the U-Net sees.
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
from ragdiff_jax.models.layers import Conv, GroupNorm
from ragdiff_jax.models.vae_blocks import EPSILON, DownBlock, MidBlock, UpBlock


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """What diffusers' `AutoencoderKL` keeps in `config.json`; the defaults are diffusers' own."""

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 32
    sample_size: int = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "VAEConfig":
        """Reads a diffusers `config.json`. Raises `UserError` for an autoencoder of another kind."""
        blocks = tuple(config.get("block_out_channels", (64,)))
        kinds = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}
        for name, known in kinds.items():
            types = config.get(name, [known] * len(blocks))
            if any(kind != known for kind in types) or len(types) != len(blocks):
                raise UserError(f"VAE config: {name} must be {len(blocks)} times {known}, not {list(types)}")
        if config.get("act_fn", "silu") != "silu":
            raise UserError(f"VAE config: act_fn must be silu, not {config['act_fn']}")
        if config.get("latents_mean") is not None or config.get("latents_std") is not None:
            raise UserError("VAE config: per-channel latents_mean and latents_std are not supported")
        names = {field.name for field in dataclasses.fields(cls)}
        values = {k: v for k, v in config.items() if k in names}
        return cls(**(values | {"block_out_channels": blocks}))

    def to_dict(self) -> dict[str, Any]:
        """A `config.json` that diffusers reads."""
        depth = len(self.block_out_channels)
        return {
            "_class_name": "AutoencoderKL",
            "act_fn": "silu",
            "down_block_types": ["DownEncoderBlock2D"] * depth,
            "up_block_types": ["UpDecoderBlock2D"] * depth,
        } | {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @property
    def factor(self) -> int:
        """How many pixels of the image stand for one of the latents, per side."""
        return 2 ** (len(self.block_out_channels) - 1)


class Encoder(nn.Module):
    """image `[b, h, w, 3]` -> moments `[b, h/f, w/f, 2c]`."""

    config: VAEConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        c = self.config
        widths, groups = c.block_out_channels, c.norm_num_groups
        x = Conv(widths[0], dtype=self.dtype, name="conv_in")(x)
        for i, width in enumerate(widths):
            down = i < len(widths) - 1
            x = DownBlock(width, c.layers_per_block, groups, down, self.dtype, name=f"down_blocks_{i}")(x)
        x = MidBlock(widths[-1], groups, c.mid_block_add_attention, self.dtype, name="mid_block")(x)
        x = nn.silu(GroupNorm(groups, EPSILON, name="conv_norm_out")(x))
        return Conv(2 * c.latent_channels, dtype=self.dtype, name="conv_out")(x)


class Decoder(nn.Module):
    """latents `[b, h, w, c]` -> image `[b, h*f, w*f, 3]`."""

    config: VAEConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        c = self.config
        widths, groups = c.block_out_channels[::-1], c.norm_num_groups
        x = Conv(widths[0], dtype=self.dtype, name="conv_in")(x)
        x = MidBlock(widths[0], groups, c.mid_block_add_attention, self.dtype, name="mid_block")(x)
        for i, width in enumerate(widths):
            up = i < len(widths) - 1
            x = UpBlock(width, c.layers_per_block + 1, groups, up, self.dtype, name=f"up_blocks_{i}")(x)
        x = nn.silu(GroupNorm(groups, EPSILON, name="conv_norm_out")(x))
        return Conv(c.out_channels, dtype=self.dtype, name="conv_out")(x)


class AutoencoderKL(nn.Module):
    """The autoencoder: `method="encode"`, `method="decode"`; calling it reconstructs from the mean."""

    config: VAEConfig
    dtype: DTypeLike = jnp.float32

    def setup(self):
        c = self.config
        self.encoder = Encoder(c, self.dtype)
        self.decoder = Decoder(c, self.dtype)
        if c.use_quant_conv:
            self.quant_conv = Conv(2 * c.latent_channels, kernel_size=1, padding=0, dtype=self.dtype)
        if c.use_post_quant_conv:
            self.post_quant_conv = Conv(c.latent_channels, kernel_size=1, padding=0, dtype=self.dtype)

    def encode(
        self, image: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b h2 w2 d"], Float[Array, "b h2 w2 d"]]:
        """Mean and log-variance of the unscaled latents, fp32; `image` in [-1, 1], sides multiples of `factor`."""
        moments = self.encoder(image)
        if self.config.use_quant_conv:
            moments = self.quant_conv(moments)
        mean, logvar = jnp.split(moments.astype(jnp.float32), 2, axis=-1)  # what is drawn from them is, too
        return mean, jnp.clip(logvar, -30.0, 20.0)

    def decode(self, latents: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        """Image, about [-1, 1] and not clipped, of unscaled latents."""
        if self.config.use_post_quant_conv:
            latents = self.post_quant_conv(latents)
        return self.decoder(latents)

    def __call__(self, image: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        return self.decode(self.encode(image)[0])


def sample_latents(
    mean: Float[Array, "b h w c"], logvar: Float[Array, "b h w c"], key: jax.Array
) -> Float[Array, "b h w c"]:
    """One draw from the encoder's Gaussian (unscaled)."""
    return mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape, mean.dtype)


def kl_divergence(mean: Float[Array, "b h w c"], logvar: Float[Array, "b h w c"]) -> Float[Array, " b"]:
    """KL of the encoder's Gaussian from the unit one, in nats, summed over a sample's latent."""
    return 0.5 * jnp.sum(mean**2 + jnp.exp(logvar) - 1.0 - logvar, axis=(1, 2, 3))


def scale_latents(config: VAEConfig, latents: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """From the encoder's latents to what a U-Net sees: shifted, then scaled."""
    return (latents - (config.shift_factor or 0.0)) * config.scaling_factor


def unscale_latents(config: VAEConfig, latents: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """The inverse of `scale_latents`, before `decode`."""
    return latents / config.scaling_factor + (config.shift_factor or 0.0)
