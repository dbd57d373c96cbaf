"""StructureNet (R 3.1): a garment's structure as a unit vector `[b, embed_dim]`, of photo and flat-lay alike.

image `[b, h, w, 3]` in [-1, 1] -> CLIP ViT, penultimate tokens `[b, l, p]` through its own norm and
projection -> the 10 attributes' embeddings `[b, 10 * attribute_dim]` beside every token -> Resampler with
one query -> unit length. Two towers, `photo` and `flat`, start from the same weights and share the
attribute table. Attribute id 0 is unknown and has a learned row like any other. In small models the photo tower may
have convolutions in its ViT's place (`ConvEncoder`), which learn from less.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ragdiff_jax.errors import UserError
from ragdiff_jax.models.clip_vision import CLIPVisionConfig, CLIPVisionModel, preprocess
from ragdiff_jax.models.conv_encoder import ConvEncoder
from ragdiff_jax.models.layers import Dense, weight
from ragdiff_jax.models.resampler import Resampler
from ragdiff_jax.models.unit_length import unit

Tower = Literal["photo", "flat"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StructureNetConfig:
    """Sizes of both towers. `attribute_sizes[i]` counts the ids of attribute i, id 0 (unknown) included.

    `photo_stages`: of the photo tower's `ConvEncoder`, (width, blocks) each; empty: it has a ViT like the flat one's.
    `photo_size`: pixels a side that the convolutions see; 0: as many as the flat-lays' ViT.
    `photo_mirrored`: a photo's vector is the mean, at unit length, of its own and its mirror image's: a garment is much
      the same seen in a mirror, and what a small tower says of it isn't yet. Losses see photos as they come.
    `reads_attributes`: has a head that reads the attributes from the photo tower's tokens (`AttributeHead`).
    """

    vision: CLIPVisionConfig
    attribute_sizes: tuple[int, ...]
    attribute_dim: int = 32
    dim: int = 768
    depth: int = 4
    heads: int = 12
    dim_head: int = 64
    ff_mult: int = 4
    embed_dim: int = 768
    photo_stages: tuple[tuple[int, int], ...] = ()
    photo_size: int = 0
    photo_mirrored: bool = False
    reads_attributes: bool = False

    def __post_init__(self):
        if self.photo_size and not self.photo_stages:
            raise UserError(
                f"StructureNet config: photo_size {self.photo_size} is for photo_stages; without them leave it 0"
            )
        if self.photo_pixels % 2 ** len(self.photo_stages):
            raise UserError(
                f"StructureNet config: {len(self.photo_stages)} photo_stages halve {self.photo_pixels} pixels, "
                "which leaves no whole number"
            )

    @property
    def photo_pixels(self) -> int:
        return self.photo_size or self.vision.image_size

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "StructureNetConfig":
        """Reads what `to_dict` wrote. Raises `UserError` for a missing part."""
        names = {field.name for field in dataclasses.fields(cls)}
        values = {k: v for k, v in config.items() if k in names}
        for name in ("vision", "attribute_sizes"):
            if name not in values:
                raise UserError(f"StructureNet config: {name} is missing")
        values["vision"] = CLIPVisionConfig.from_dict(values["vision"])
        if not values["vision"].with_projection or not values["vision"].projection_dim:
            raise UserError("StructureNet config: vision must be a CLIPVisionModelWithProjection")
        values["attribute_sizes"] = tuple(values["attribute_sizes"])
        values["photo_stages"] = tuple(tuple(stage) for stage in values.get("photo_stages", ()))
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The `config.json` of the part."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values |= {"vision": self.vision.to_dict(), "attribute_sizes": list(self.attribute_sizes)}
        values["photo_stages"] = [list(stage) for stage in self.photo_stages]
        return {"_class_name": "StructureNet"} | values


class StructureTower(nn.Module):
    """CLIP-normalised pixels `[b, s, s, 3]`, attribute embeddings `[b, a]` -> unit vectors `[b, d]`."""

    config: StructureNetConfig
    stages: tuple[tuple[int, int], ...] = ()
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    def setup(self):
        c = self.config
        if self.stages:
            self.conv = ConvEncoder(self.stages, c.vision.projection_dim, self.dtype)
        else:
            self.vision = CLIPVisionModel(c.vision, self.dtype, self.remat)
        self.resampler = Resampler(
            c.dim, c.depth, c.heads, c.dim_head, 1, c.embed_dim, c.ff_mult, dtype=self.dtype
        )

    def __call__(
        self, pixels: Float[Array, "b h w 3"], attributes: Float[Array, "b a"]
    ) -> Float[Array, "b d"]:
        return self.pool(self.tokens(pixels), attributes)

    def tokens(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b l p"]:
        """What is seen: the class token, or the mean, first."""
        return self.conv(pixels) if self.stages else self.vision.project_tokens(pixels)

    def pool(self, tokens: Float[Array, "b l p"], attributes: Float[Array, "b a"]) -> Float[Array, "b d"]:
        """From the tokens on."""
        b, length, _ = tokens.shape
        beside = jnp.broadcast_to(attributes.astype(tokens.dtype)[:, None], (b, length, attributes.shape[-1]))
        return unit(self.resampler(jnp.concatenate([tokens, beside], axis=-1))[:, 0])


class AttributeTable(nn.Module):
    """One table for all attributes: ids `[b, n]` -> embeddings side by side `[b, n * attribute_dim]`."""

    sizes: tuple[int, ...]
    dim: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, ids: Int[Array, "b n"]) -> Float[Array, "b a"]:
        if ids.shape[-1] != len(self.sizes):
            raise ValueError(f"{ids.shape[-1]} attributes a sample, the table has {len(self.sizes)}")
        # Of the tokens' own size: a hundred times smaller, the attributes were not noticed for hundreds of steps.
        shape = (sum(self.sizes), self.dim)
        table = weight(self, "table", ("vocab", "embed"), nn.initializers.normal(1.0), shape, self.dtype)
        sizes = jnp.asarray(self.sizes, ids.dtype)
        # An id outside its own attribute would silently read a neighbour's row.
        ids = jnp.where((ids >= 0) & (ids < sizes), ids, 0) + (jnp.cumsum(sizes) - sizes)
        return table[ids].reshape(ids.shape[0], len(self.sizes) * self.dim)


class AttributeHead(nn.Module):
    """Tokens `[b, 1 + l, p]` -> logits of all ids of all attributes side by side; starts at zero."""

    sizes: tuple[int, ...]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: Float[Array, "b l p"]) -> Float[Array, "b v"]:
        pooled = jnp.concatenate([tokens[:, 0], tokens[:, 1:].mean(axis=1)], axis=-1)
        zeros = nn.initializers.zeros_init()
        logits = Dense(sum(self.sizes), kernel_init=zeros, dtype=self.dtype, name="proj")(pooled)
        return logits.astype(jnp.float32)


class StructureNet(nn.Module):
    """Both towers and the table; use `method="embed_photo"`, `"embed_flat"` or `"embed"`."""

    config: StructureNetConfig
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    def setup(self):
        c = self.config
        self.photo = StructureTower(c, c.photo_stages, self.dtype, self.remat)
        self.flat = StructureTower(c, (), self.dtype, self.remat)
        self.attributes = AttributeTable(c.attribute_sizes, c.attribute_dim, self.dtype)
        if c.reads_attributes:
            self.attribute_head = AttributeHead(c.attribute_sizes, self.dtype)

    def _side(self, tower: Tower) -> int:
        return self.config.photo_pixels if tower == "photo" else self.config.vision.image_size

    def embed(
        self, images: Float[Array, "b h w 3"], attributes: Int[Array, "b n"], tower: Tower
    ) -> Float[Array, "b d"]:
        """Unit vectors (fp32) of square images in [-1, 1] of any size and attribute ids (0: unknown)."""
        pixels = preprocess(images, self._side(tower))
        if tower == "flat":
            return self.flat(pixels, self.attributes(attributes))
        if not self.config.photo_mirrored:
            return self.photo(pixels, self.attributes(attributes))
        # Each beside its image, not all images behind: rows stay where the mesh has them.
        both = jnp.stack([pixels, pixels[:, :, ::-1]], axis=1).reshape(-1, *pixels.shape[1:])
        vectors = self.photo(both, self.attributes(jnp.repeat(attributes, 2, axis=0)))
        return unit(vectors.reshape(len(pixels), 2, -1).sum(axis=1))

    def embed_with_tokens(
        self, images: Float[Array, "b h w 3"], attributes: Int[Array, "b n"], tower: Tower
    ) -> tuple[Float[Array, "b d"], Float[Array, "b l p"]]:
        """`embed`, and the tower's tokens (the class token or the mean first), for losses on them."""
        pixels = preprocess(images, self._side(tower))
        tower_ = self.photo if tower == "photo" else self.flat
        tokens = tower_.tokens(pixels)
        return tower_.pool(tokens, self.attributes(attributes)), tokens

    def attribute_logits(self, tokens: Float[Array, "b l p"]) -> Float[Array, "b v"]:
        """What the head reads from the photo tower's tokens: logits of all ids of all attributes, side by side."""
        return self.attribute_head(tokens)

    def read_attributes(self, photos: Float[Array, "b h w 3"]) -> Float[Array, "b v"]:
        """`attribute_logits` of square photos in [-1, 1]."""
        return self.attribute_head(self.photo.tokens(preprocess(photos, self.config.photo_pixels)))

    def embed_photo(
        self, photo: Float[Array, "b h w 3"], attributes: Int[Array, "b n"]
    ) -> Float[Array, "b d"]:
        """`embed` of photos in the wild; the attributes must come from the photo alone."""
        return self.embed(photo, attributes, "photo")

    def embed_flat(self, flat: Float[Array, "b h w 3"], attributes: Int[Array, "b n"]) -> Float[Array, "b d"]:
        """`embed` of standard flat-lays; the attributes must come from the flat-lay alone."""
        return self.embed(flat, attributes, "flat")

    def __call__(
        self, photo: Float[Array, "b h w 3"], flat: Float[Array, "b h w 3"], attributes: Int[Array, "b n"]
    ) -> tuple[Float[Array, "b d"], Float[Array, "b d"]]:
        if self.is_initializing() and self.config.reads_attributes:
            self.read_attributes(photo)
        return self.embed_photo(photo, attributes), self.embed_flat(flat, attributes)


def twin_towers(params: Mapping[str, Any], vision: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Parameters with both towers equal in what both have: the photo tower's. Each ViT is `vision` if given.

    R 3.1: the towers start from the same weights and are then trained apart.
    """
    photo, flat = dict(params["photo"]), dict(params["flat"])
    flat |= {name: part for name, part in photo.items() if name in flat}
    if vision is not None:
        photo, flat = (tower | {"vision": vision} if "vision" in tower else tower for tower in (photo, flat))
    return {**params, "photo": photo, "flat": jax.tree.map(jnp.copy, flat)}
