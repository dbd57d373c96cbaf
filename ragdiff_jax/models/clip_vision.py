"""CLIP's vision transformer: pixels `[b, s, s, 3]` -> tokens `[b, 1 + (s/p)^2, c]`, CLS -> `[b, p]`."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from ragdiff_jax.models.clip_encoder import CLIPEncoder, common_fields, tower_config
from ragdiff_jax.models.dinov2 import bicubic_matrix
from ragdiff_jax.models.layers import Conv, Dense, Embed, LayerNorm

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's training pictures, RGB in [0, 1]
STD = (0.26862954, 0.26130258, 0.27577711)

# {name: (mean, deviation)}. `half` is OpenCLIP's ViT-L-14 of laion2b_s32b_b82k alone: its towers see noise otherwise.
NORMALISATIONS = {"clip": (MEAN, STD), "half": ((0.5,) * 3, (0.5,) * 3)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPVisionConfig:
    """What transformers' `CLIPVisionConfig` keeps in `config.json`; the defaults are transformers' own."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    projection_dim: int | None = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    with_projection: bool = True

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "CLIPVisionConfig":
        """Reads a transformers `config.json` (a tower's own, or a whole `CLIPModel`'s). Raises `UserError` if it can't.

        Whether there is a projection follows from `architectures`; without that entry there is one.
        """
        config = tower_config(config, "vision")
        values = common_fields(config, {f.name for f in dataclasses.fields(cls)}, "CLIP vision")
        if config.get("architectures"):
            values["with_projection"] = "CLIPVisionModel" not in config["architectures"]
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """A `config.json` that transformers reads."""
        values = dataclasses.asdict(self)
        projected = values.pop("with_projection")
        name = "CLIPVisionModelWithProjection" if projected else "CLIPVisionModel"
        return {"architectures": [name], "model_type": "clip_vision_model"} | values


class CLIPVisionOutput(NamedTuple):
    """Tokens of the last two layers without the post norm; `pooled` is CLS after it, then projected."""

    last_hidden_state: Float[Array, "b l c"]
    penultimate: Float[Array, "b l c"]
    pooled: Float[Array, "b c"]
    image_embeds: Float[Array, "b p"] | None = None


def preprocess(
    images: Float[Array, "b h w 3"], size: int, normalisation: str = "clip"
) -> Float[Array, "b s s 3"]:
    """Images in [-1, 1] to CLIP's input: antialiased bicubic resize, clip, then mean and deviation (NORMALISATIONS).

    The aspect is not kept: callers pad to a square first.
    """
    x = (images + 1.0) / 2.0
    if x.shape[1:3] != (size, size):
        x = jax.image.resize(x, (x.shape[0], size, size, x.shape[3]), method="cubic", antialias=True)
    x = jnp.clip(x, 0.0, 1.0)
    mean, deviation = NORMALISATIONS[normalisation]
    return (x - jnp.asarray(mean, x.dtype)) / jnp.asarray(deviation, x.dtype)


def resampled_positions(
    table: Float[Array, "l c"], grid: int, rows: int, columns: int
) -> Float[Array, "m c"]:
    """A position table [1 + grid^2, c] for another number of patches (torch's bicubic), the class token's first."""
    patches = jnp.einsum(
        "rg,ch,ghd->rcd",
        bicubic_matrix(grid, rows),
        bicubic_matrix(grid, columns),
        table[1:].reshape(grid, grid, -1).astype(jnp.float32),
        precision=jax.lax.Precision.HIGHEST,
    )
    return jnp.concatenate([table[:1], patches.reshape(rows * columns, -1).astype(table.dtype)])


class _Embeddings(nn.Module):
    config: CLIPVisionConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, pixels, mask=None, mask_token=None, any_size=False):
        c = self.config
        b, h, w, _ = pixels.shape
        if any_size and (h % c.patch_size or w % c.patch_size):
            raise ValueError(f"pixels are {h}x{w}; both sides must be multiples of the patch size {c.patch_size}")
        if not any_size and (h, w) != (c.image_size, c.image_size):
            raise ValueError(f"pixels are {h}x{w}, the model takes {c.image_size}: see preprocess()")
        patches = Conv(
            c.hidden_size,
            kernel_size=c.patch_size,
            strides=c.patch_size,
            padding=0,
            use_bias=False,
            dtype=self.dtype,
            name="patch_embedding",
        )(pixels)
        init = nn.with_logical_partitioning(nn.initializers.normal(c.hidden_size**-0.5), ("norm",))
        cls = self.param("class_embedding", init, (c.hidden_size,))
        cls = jnp.broadcast_to(cls.astype(self.dtype), (b, 1, c.hidden_size))
        grid, rows, columns = c.image_size // c.patch_size, *patches.shape[1:3]
        patches = patches.reshape(b, -1, c.hidden_size)
        if mask is not None:
            patches = jnp.where(mask[..., None], mask_token.astype(self.dtype), patches)
        x = jnp.concatenate([cls, patches], axis=1)
        positions = Embed(
            1 + grid**2, c.hidden_size, axes=(None, "embed"), dtype=self.dtype, name="position_embedding"
        )
        table = positions(jnp.arange(1 + grid**2))
        if (rows, columns) != (grid, grid):
            table = resampled_positions(table, grid, rows, columns)
        return x + table[None]


class _VisionTransformer(nn.Module):
    config: CLIPVisionConfig
    remat: bool
    dtype: DTypeLike

    def setup(self):
        c = self.config
        self.embeddings = _Embeddings(c, self.dtype)
        self.pre_layrnorm = LayerNorm(c.layer_norm_eps, self.dtype)  # sic, transformers' spelling
        self.encoder = CLIPEncoder(
            c.num_hidden_layers,
            c.num_attention_heads,
            c.intermediate_size,
            act=c.hidden_act,
            epsilon=c.layer_norm_eps,
            remat=self.remat,
            dtype=self.dtype,
        )
        self.post_layernorm = LayerNorm(c.layer_norm_eps, self.dtype)

    def __call__(self, pixels, mask=None, mask_token=None, any_size=False):
        return self.encoder(self.pre_layrnorm(self.embeddings(pixels, mask, mask_token, any_size)))


class CLIPVisionModel(nn.Module):
    """The encoder; `method="project_tokens"` gives every penultimate token in the joint space."""

    config: CLIPVisionConfig
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    def setup(self):
        self.vision_model = _VisionTransformer(self.config, self.remat, self.dtype)
        if self.config.with_projection and self.config.projection_dim:
            self.visual_projection = Dense(self.config.projection_dim, use_bias=False, dtype=self.dtype)

    def project_tokens(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b l p"]:
        """All tokens of `hidden_states[-2]` through the post layer norm and the visual projection."""
        _, penultimate = self.vision_model(pixels)
        return self.visual_projection(self.vision_model.post_layernorm(penultimate))

    def normed_tokens(
        self,
        pixels: Float[Array, "b h w 3"],
        mask: Bool[Array, "b l"] | None = None,
        mask_token: Float[Array, " c"] | None = None,
    ) -> Float[Array, "b m c"]:
        """All tokens of the last layer through the post layer norm, the class token first; of pixels of any multiple of
        the patch size, the position table resampled. Patches in `mask` are `mask_token` instead.
        """
        last, _ = self.vision_model(pixels, mask, mask_token, any_size=True)
        return self.vision_model.post_layernorm(last)

    def __call__(self, pixels: Float[Array, "b h w 3"]) -> CLIPVisionOutput:
        """Encodes CLIP-normalised pixels of the config's `image_size` (see `preprocess`)."""
        last, penultimate = self.vision_model(pixels)
        pooled = self.vision_model.post_layernorm(last[:, 0])
        if not (self.config.with_projection and self.config.projection_dim):
            return CLIPVisionOutput(last, penultimate, pooled)
        return CLIPVisionOutput(last, penultimate, pooled, self.visual_projection(pooled))
