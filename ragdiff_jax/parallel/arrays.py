"""From this process' numpy rows to arrays on the whole mesh."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ragdiff_jax.errors import UserError

BATCH_AXES = ("data", "fsdp")


def batch_shards(mesh: Mesh) -> int:
    """Into how many parts a batch is cut."""
    return int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def shard_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Put a batch on the mesh, rows over `data` and `fsdp`; numbers without axes go to every device.

    Args:
        mesh: the mesh.
        batch: this process' rows of each array, [rows, ...]. With several processes the global batch is the
            rows of all of them; every process brings equally many.

    Raises:
        UserError: an array isn't numeric, or the global batch doesn't divide by data * fsdp.
    """
    parts, processes = batch_shards(mesh), jax.process_count()
    out = {}
    for name, value in batch.items():
        value = np.asarray(value)
        if value.dtype.kind not in "biufV":  # V: bfloat16 and its kin
            raise UserError(f"batch entry {name!r} has dtype {value.dtype}; only numbers go to the device")
        if value.ndim == 0:
            out[name] = jax.make_array_from_process_local_data(replicated(mesh), value)
            continue
        rows = value.shape[0] * processes
        if rows % parts:
            raise UserError(
                f"batch of {rows} rows does not divide over {parts} devices (data x fsdp); "
                f"choose a multiple of {parts}"
            )
        out[name] = jax.make_array_from_process_local_data(batch_sharding(mesh), value)
    return out
