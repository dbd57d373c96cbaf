"""Bytes of trees of arrays, or of what stands for them, on one device."""

from typing import Any

import jax
import numpy as np


def _bytes(shape: tuple[int, ...], dtype: Any) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize


def held_on_device(tree: Any) -> int:
    """Bytes that one device holds of arrays or `ShapeDtypeStruct`s with shardings."""
    return sum(_bytes(leaf.sharding.shard_shape(leaf.shape), leaf.dtype) for leaf in jax.tree.leaves(tree))


def replicated_bytes(tree: Any) -> tuple[int, int, str]:
    """(bytes that every device holds whole, bytes of all, the largest array that isn't split)."""
    whole = everything = most = 0
    largest = "nothing"
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        size = _bytes(leaf.shape, leaf.dtype)
        everything += size
        if leaf.sharding.shard_shape(leaf.shape) == tuple(leaf.shape):
            whole += size
            if size > most:
                most, largest = size, f"{jax.tree_util.keystr(path, simple=True, separator='/')} {tuple(leaf.shape)}"
    return whole, max(1, everything), largest
