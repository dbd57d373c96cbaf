"""EP-Adapter: the structure embedding as a second prompt (R 3.2 and 9.3, after IP-Adapter-plus).

    embedding [b, d], or tokens [b, l, d] -> Resampler -> tokens [b, q, cross_attention_dim]
    -> its own K, V projections for each cross-attention of MainNet: {site: KeyValue [depth, b, q, heads, width/heads]}

The keys and values don't depend on the timestep: they are made once an image, outside the sampling loop. On the tokens
of CLIP's picture tower it is IP-Adapter-plus itself.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ragdiff_jax.axes import constrain
from ragdiff_jax.models.layers import weight
from ragdiff_jax.models.resampler import Resampler
from ragdiff_jax.models.transformer import KeyValue, split_heads
from ragdiff_jax.models.unet_config import UNetConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class EPAdapterConfig:
    """The Resampler behind the structure embedding; 16 queries of SDXL's 2048 in the paper's size."""

    embed_dim: int = 768
    dim: int = 1280
    depth: int = 4
    heads: int = 20
    dim_head: int = 64
    num_queries: int = 16
    ff_mult: int = 4

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "EPAdapterConfig":
        return cls(**{field.name: config[field.name] for field in dataclasses.fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        return {"_class_name": "EPAdapter", **dataclasses.asdict(self)}


class _KeyValueProjection(nn.Module):
    """Bias-free K and V of a stack of `depth` cross-attentions at once: [b, q, c] -> [depth, b, q, heads, d]."""

    depth: int
    width: int
    heads: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, tokens) -> KeyValue:
        def project(name):
            axes, shape = ("layers", "embed", "heads"), (self.depth, tokens.shape[-1], self.width)
            kernel = weight(self, name, axes, nn.initializers.lecun_normal(batch_axis=(0,)), shape, self.dtype)
            out = jnp.einsum("bqc,lcw->lbqw", tokens.astype(self.dtype), kernel)
            out = constrain(out, (None, "act_batch", None, "act_heads"))
            return split_heads(out, self.heads)

        return KeyValue(project("to_k"), project("to_v"))


class EPAdapter(nn.Module):
    """`config` describes the Resampler, `unet` the sites that its keys and values go to."""

    config: EPAdapterConfig
    unet: UNetConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, embedding: Float[Array, "b d"] | Float[Array, "b l d"]) -> dict[str, KeyValue]:
        config = self.config
        if embedding.ndim == 2:
            embedding = embedding[:, None, :]
        tokens = Resampler(
            dim=config.dim,
            depth=config.depth,
            heads=config.heads,
            dim_head=config.dim_head,
            num_queries=config.num_queries,
            output_dim=self.unet.cross_attention_dim,
            ff_mult=config.ff_mult,
            dtype=self.dtype,
            name="resampler",
        )(embedding.astype(self.dtype))
        return {
            site: _KeyValueProjection(depth, width, heads, self.dtype, name=site.replace("/", "_"))(tokens)
            for site, depth, width, heads in self.unet.sites()
        }
