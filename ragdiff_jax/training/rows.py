"""A few rows that are measured or drawn between steps, shared out over the mesh as a step's are."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ragdiff_jax.parallel import batch_sharding, divided_rows, filled, mesh_context, replicated
from ragdiff_jax.training.objective import Objective


def of_rows(
    objective: Objective, name: str, function: Callable, fixed: tuple[Any, ...], rows: tuple[Any, ...]
) -> Any:
    """`function(*fixed, *rows)` as NumPy, whole on every process: the objective's `program` of this name.

    The leading axis of all arrays in `rows` and of all results is that of the rows, of which each is computed for
    itself. On a mesh (the one that is entered) they are filled up by copies of the last until `data` and `fsdp` divide
    them, and cut: a device has no more of them than it must, where all of them would not fit beside a step's own.
    """
    mesh, count = jax.sharding.get_mesh(), len(jax.tree.leaves(rows)[0])
    if mesh.size <= 1:
        return jax.tree.map(np.asarray, objective.program(name, function)(*fixed, *rows))
    whole = jax.tree.map(lambda x: filled(np.asarray(x), divided_rows(mesh, count)), rows)
    placed = jax.device_put(whole, batch_sharding(mesh))
    with mesh_context(mesh):
        found = objective.program(name, function, out_shardings=replicated(mesh))(*fixed, *placed)
    return jax.tree.map(lambda x: np.asarray(x)[:count], found)
