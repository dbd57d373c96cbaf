"""From this process' numpy rows to arrays on the whole mesh, and back."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ragdiff_jax.errors import UserError

BATCH_AXES = ("data", "fsdp")


def batch_shards(mesh: Mesh) -> int:
    """Into how many parts a batch is cut."""
    return int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))


def divided_rows(mesh: Mesh, rows: int) -> int:
    """The least number of at least `rows` that `data` and `fsdp` divide."""
    return -(-rows // batch_shards(mesh)) * batch_shards(mesh)


def filled(array: np.ndarray, rows: int) -> np.ndarray:
    """With the last row repeated up to `rows`. Raises `ValueError` for an array of more."""
    if len(array) > rows:
        raise ValueError(f"a batch of {len(array)} rows; at most {rows}")
    return np.concatenate([array, np.repeat(array[-1:], rows - len(array), axis=0)]) if len(array) < rows else array


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def own_places(mesh: Mesh, rows: int) -> np.ndarray:
    """The places in a global batch of `rows` that this process' devices hold, ascending, int32.

    Processes that share a part of the batch, as along a `tensor` axis across them, have the same places; those of one
    process need not lie side by side, nor be as many as another's.

    Raises:
        UserError: the batch doesn't divide by data * fsdp.
    """
    parts = batch_shards(mesh)
    if rows % parts:
        raise UserError(
            f"batch of {rows} rows does not divide over {parts} devices (data x fsdp); "
            f"choose a multiple of {parts}"
        )
    each = rows // parts
    return (_own_parts(mesh)[:, None] * each + np.arange(each)).reshape(-1).astype(np.int32)


def _own_parts(mesh: Mesh) -> np.ndarray:
    """Which parts of a batch this process' devices hold, ascending."""
    places = batch_sharding(mesh).addressable_devices_indices_map((batch_shards(mesh),))
    return np.unique([index[0].start or 0 for index in places.values()])


def shard_batch(mesh: Mesh, batch: Mapping[str, np.ndarray], rows: int | None = None) -> dict[str, jax.Array]:
    """Put a batch on the mesh, rows over `data` and `fsdp`; numbers without axes go to every device.

    Args:
        mesh: the mesh.
        batch: this process' rows of each array, [rows, ...]: those of `own_places`, in that order.
        rows: of the global batch; None: as many as make each part of the mesh as long as this process'.

    Raises:
        UserError: an array isn't numeric, its rows aren't as many as this process holds, or the global batch doesn't
            divide by data * fsdp.
    """
    own, parts = len(_own_parts(mesh)), batch_shards(mesh)
    out = {}
    for name, value in batch.items():
        value = np.asarray(value)
        if value.dtype.kind not in "biufV":  # V: bfloat16 and its kin
            raise UserError(f"batch entry {name!r} has dtype {value.dtype}; only numbers go to the device")
        if value.ndim == 0:
            out[name] = jax.make_array_from_process_local_data(replicated(mesh), value)
            continue
        count = value.shape[0] * parts // own if rows is None else rows
        places = own_places(mesh, count)
        if len(places) != len(value):
            raise UserError(
                f"batch entry {name!r} has {len(value)} rows; this process holds {len(places)} of a batch's {count}"
            )
        out[name] = _placed(mesh, value, places, count)
    return out


def _placed(mesh: Mesh, value: np.ndarray, places: np.ndarray, count: int) -> jax.Array:
    # Not make_array_from_process_local_data: it wants as many parts on every process, and infers their number.
    each = count // batch_shards(mesh)

    def part(index):
        first = int(np.searchsorted(places, index[0].start or 0))
        return value[first : first + each]

    return jax.make_array_from_callback((count, *value.shape[1:]), batch_sharding(mesh), part)


def on_host(leaf: Any) -> np.ndarray:
    """An array as numpy has it, also where its parts lie on several processes (all of which must call this)."""
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)
