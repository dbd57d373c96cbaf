"""The memory as arrays on the devices: what train and sampling steps search."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32, UInt8

from ragdiff_jax.retrieval.index import exact_search
from ragdiff_jax.retrieval.stored_landmarks import StoredLandmarks

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class BitMasks:
    """Masks [N, h, w] of which a byte holds eight pixels of a row; `masks[ids]` unpacks those asked for. A pytree."""

    packed: Any
    width: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """[N, h, w]."""
        return (*self.packed.shape[:2], self.width)

    def __getitem__(self, ids: Int[Array, "..."] | Int[np.ndarray, "..."]) -> Bool[Array, "... h w"]:
        return jnp.unpackbits(self.packed[ids], axis=-1, count=self.width).astype(bool)


@dataclasses.dataclass(frozen=True)
class DeviceMemory:
    """`embeddings` float32 [N, D], unit rows; `landmarks` [N, h, w], bits. A pytree: pass it to jitted functions."""

    embeddings: Any
    landmarks: BitMasks

    @property
    def size(self) -> int:
        """The number of rows."""
        return self.embeddings.shape[0]


jax.tree_util.register_dataclass(BitMasks, data_fields=["packed"], meta_fields=["width"])
jax.tree_util.register_dataclass(DeviceMemory, data_fields=["embeddings", "landmarks"], meta_fields=[])


def abstract_memory(rows: int, dim: int, side: int, sharding: jax.sharding.Sharding | None = None) -> DeviceMemory:
    """What `place` gives, as `ShapeDtypeStruct`s: `rows` embeddings of `dim` numbers, landmarks of side x side."""
    packed = jax.ShapeDtypeStruct((rows, side, -(-side // 8)), jnp.uint8, sharding=sharding)
    return DeviceMemory(jax.ShapeDtypeStruct((rows, dim), jnp.float32, sharding=sharding), BitMasks(packed, side))


def place(
    embeddings: Float[np.ndarray, "n d"],
    landmarks: Bool[np.ndarray, "n h w"] | StoredLandmarks,
    mesh: jax.sharding.Mesh | None = None,
    rows_over: str | Sequence[str] | None = None,
) -> DeviceMemory:
    """Puts the arrays on the default device, or on all of `mesh`: replicated, or rows split over its axes
    `rows_over`.

    Rows that don't divide over the axes are replicated, with a line in the log.
    """
    width = landmarks.shape[-1]

    @functools.cache  # devices that hold the same rows share one decoding
    def packed(start: int | None = None, stop: int | None = None) -> UInt8[np.ndarray, "m h bytes"]:
        if isinstance(landmarks, StoredLandmarks):
            return landmarks.packed(slice(start, stop))
        return np.packbits(landmarks[start:stop], axis=-1)

    if mesh is None:
        return DeviceMemory(jnp.asarray(embeddings), BitMasks(jnp.asarray(packed()), width))
    axes = (rows_over,) if isinstance(rows_over, str) else tuple(rows_over or ())
    parts = int(np.prod([mesh.shape[axis] for axis in axes]))
    if len(embeddings) % parts:
        _log.warning(
            "%d rows of the memory don't divide over %s = %d: replicated", len(embeddings), axes, parts
        )
        axes = ()
    sharding = jax.NamedSharding(mesh, jax.P(axes or None))

    def put(shape: tuple[int, ...], part: Callable[[int | None, int | None], np.ndarray]) -> jax.Array:
        # Each process hands over the rows of its own devices only.
        return jax.make_array_from_callback(shape, sharding, lambda index: part(index[0].start, index[0].stop))

    masks = put((*landmarks.shape[:2], -(-width // 8)), packed)
    return DeviceMemory(put(embeddings.shape, lambda start, stop: embeddings[start:stop]), BitMasks(masks, width))


def search(
    memory: DeviceMemory, queries: Float[Array, "b d"], k: int, exclude: Int[Array, " b"] | None = None
) -> tuple[Int32[Array, "b k"], Float[Array, "b k d"]]:
    """The rows of the k nearest embeddings by cosine, nearest first, and the embeddings; jnp, for use inside
    jit.

    `queries` are unit vectors; `exclude`: a row for each that is left out, -1 for none. Landmarks are
    `memory.landmarks[ids]`. Raises `UserError` if k is larger than the rows left.
    """
    ids, _ = exact_search(memory.embeddings, queries, k, exclude)
    return ids, memory.embeddings[ids]
