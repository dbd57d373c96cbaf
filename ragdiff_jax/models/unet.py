"""The U-Net of the SDXL kind: MainNet and, in another role, ReferenceNet.

    latents [b, h, w, c_in], timesteps [b], text [b, 77, cross_attention_dim], pooled text [b, p], time ids [b, 6]
      conv_in                                  [b, h, w, c0]     (+ Landmark Guider's features)
      down_blocks_i: resnets, transformers     [b, h/2^i, w/2^i, c_i]
      mid_block                                [b, h/2^n, w/2^n, c_n]
      up_blocks_i: skips, resnets, transformers
      conv_norm_out, SiLU, conv_out            [b, h, w, c_out]

`role="reference"` returns {site: KeyValue [depth, b, l, heads, d]} of every self-attention instead, and what nothing
reads after the last of them (its own last block's rest, later blocks, conv_out) has no parameters.
`role="control"` is ControlNet (Zhang et al. 2023): the blocks down and in the middle, and from each skip and the middle
a zero-initialised 1x1 convolution: what is added to MainNet's own (`control`).
Without text (`context` None) there is no cross-attention: its output bias alone is left.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from ragdiff_jax.models.attention import Implementation
from ragdiff_jax.models.embeddings import TimestepEmbedding, sinusoidal_embedding
from ragdiff_jax.models.layers import Conv, GroupNorm
from ragdiff_jax.models.transformer import Gates, KeyValue, Remat, Role
from ragdiff_jax.models.unet_blocks import DownBlock, MidBlock, UpBlock
from ragdiff_jax.models.unet_config import UNetConfig

SiteKeyValues = Mapping[str, KeyValue]
# What is added to each skip, in the order in which they are made, and to the middle block's output.
Control = tuple[tuple[Float[Array, "b _ _ _"], ...], Float[Array, "b _ _ _"]]


class UNet(nn.Module):
    """See the module's words. Gates and conditions: `ragdiff_jax.models.transformer`.

    Attributes:
      config: the architecture, as read from `unet/config.json`.
      role: `main` predicts noise; `reference` returns the keys and values of its self-attentions, `control` a Control.
      remat: `block` recomputes each resnet and transformer block in the backward pass, `dots` all of it but the matrix
        products.
      attention: see `models.attention`.
      dtype: of the computation; parameters are fp32.

    `context` may be {block: tokens} with every block that attends (`down_blocks_0`, `mid_block`, ...), for text that
    differs by level (F's layer-wise routing).
    """

    config: UNetConfig
    role: Role = "main"
    remat: Remat = "none"
    attention: Implementation = "auto"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        latents: Float[Array, "b h w c"],
        timesteps: Num[Array, "b"],
        context: Float[Array, "b l d"] | Mapping[str, Float[Array, "b l d"]] | None = None,
        pooled: Float[Array, "b p"] | None = None,
        time_ids: Float[Array, "b 6"] | None = None,
        *,
        landmark_features: Float[Array, "b h w f"] | None = None,
        reference: SiteKeyValues | None = None,
        adapter: SiteKeyValues | None = None,
        gates: Gates | None = None,
        control: Control | None = None,
    ) -> Float[Array, "b h w o"] | SiteKeyValues | Control:
        config = self.config
        common = dict(config=config, role=self.role, remat=self.remat, attention=self.attention, dtype=self.dtype)
        conditions = (
            jax.tree.map(lambda x: x.astype(self.dtype), context),
            reference,
            adapter,
            gates,
        )
        emb = self._time_embedding(timesteps, pooled, time_ids)
        x = Conv(config.block_out_channels[0], dtype=self.dtype, name="conv_in")(latents.astype(self.dtype))
        if landmark_features is not None:
            x = x + landmark_features.astype(x.dtype)

        keys_values = {}
        skips = [x]
        levels = len(config.block_out_channels)
        for level in range(levels):
            name = f"down_blocks_{level}"
            x, more, out = DownBlock(level=level, name=name, **common)(x, emb, conditions, name)
            skips += more
            keys_values |= out
        x, out = MidBlock(level=levels - 1, name="mid_block", **common)(x, emb, conditions, "mid_block")
        keys_values |= out
        if self.role == "control":
            return self._control(skips, x)
        if control is not None:
            skips = [skip + more.astype(skip.dtype) for skip, more in zip(skips, control[0], strict=True)]
            x = x + control[1].astype(x.dtype)
        for step in range(levels):
            if x is None:
                break
            name = f"up_blocks_{step}"
            x, out = UpBlock(level=levels - 1 - step, name=name, **common)(x, emb, conditions, name, skips)
            keys_values |= out
        if self.role == "reference":
            return keys_values

        x = GroupNorm(config.norm_num_groups, config.norm_eps, name="conv_norm_out")(x)
        # Zero-initialised, as latent diffusion has it: an untrained U-Net predicts nothing rather than noise.
        zeros = nn.initializers.zeros_init()
        return Conv(config.out_channels, kernel_init=zeros, dtype=self.dtype, name="conv_out")(jax.nn.silu(x))

    def _control(self, skips, middle) -> Control:
        def zero(x, name):
            zeros = nn.initializers.zeros_init()
            layer = Conv(x.shape[-1], kernel_size=1, padding=0, kernel_init=zeros, dtype=self.dtype, name=name)
            return layer(x)

        more = tuple(zero(skip, f"controlnet_down_blocks_{index}") for index, skip in enumerate(skips))
        return more, zero(middle, "controlnet_mid_block")

    def _time_embedding(self, timesteps, pooled, time_ids):
        config = self.config

        def embed(values, dim):
            return sinusoidal_embedding(
                values, dim, flip_sin_to_cos=config.flip_sin_to_cos, freq_shift=config.freq_shift
            ).astype(self.dtype)

        emb = TimestepEmbedding(config.time_embed_dim, self.dtype, name="time_embedding")(
            embed(timesteps, config.block_out_channels[0])
        )
        if config.text_embed_dim:
            b = timesteps.shape[0]
            ids = embed(time_ids.reshape(-1), config.addition_time_embed_dim).reshape(b, -1)
            added = jnp.concatenate([pooled.astype(self.dtype), ids], axis=-1)
            emb = emb + TimestepEmbedding(config.time_embed_dim, self.dtype, name="add_embedding")(added)
        return emb
