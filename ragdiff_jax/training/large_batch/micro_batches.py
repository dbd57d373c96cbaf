"""GradCache (arXiv 2101.06983): towers over a batch in micro-batches, with the gradient of the whole batch.

Only embeddings are kept; each micro-batch is computed again when its part of the gradient is due. That is what
`jax.checkpoint` inside a `lax.scan` does, without a second pass by hand or a loss of its own: whatever loss
is taken of the embeddings, the gradient is exact. Randomness has to belong to rows (`row_keys`), not to batches.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Key

from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel.arrays import BATCH_AXES


def row_keys(key: Key[Array, ""], rows: int) -> Key[Array, " rows"]:
    """A key for each row: dropout drawn with these is the same in a micro-batch and in the whole batch."""
    return jax.random.split(key, rows)


def cut_rows(batch: Any, count: int, mesh: Mesh | None = None) -> Any:
    """[b, ...] -> [count, b / count, ...]: each device cuts its own rows in pieces, so that none moves.

    A number without axes is repeated. `mesh` None: that of the context, if any. Raises `UserError` where the rows don't
    divide by devices x count.
    """
    sharding, parts = _rows_of(mesh)

    def cut(x):
        if x.ndim == 0:
            return jnp.broadcast_to(x, (count,))
        if x.shape[0] % (parts * count):
            raise UserError(
                f"{x.shape[0]} rows don't divide into {count} micro-batches on {parts} devices; "
                f"choose a multiple of {parts * count} rows"
            )
        x = x.reshape(parts, count, x.shape[0] // (parts * count), *x.shape[1:]).swapaxes(0, 1)
        x = x.reshape(count, -1, *x.shape[3:])
        return x if sharding is None else jax.lax.with_sharding_constraint(x, sharding)

    return jax.tree.map(cut, batch)


def join_rows(pieces: Any, mesh: Mesh | None = None) -> Any:
    """Undoes `cut_rows` for arrays [count, b / count, ...]."""
    _, parts = _rows_of(mesh)

    def join(x):
        x = x.reshape(x.shape[0], parts, -1, *x.shape[2:]).swapaxes(0, 1)
        return x.reshape(-1, *x.shape[3:])

    return jax.tree.map(join, pieces)


def _rows_of(mesh: Mesh | None) -> tuple[Any, int]:
    """(where [count, rows, ...] lies, over how many devices rows are split)."""
    context = mesh or jax.sharding.get_abstract_mesh()
    axes = tuple(axis for axis in BATCH_AXES if context.shape.get(axis, 1) > 1)
    if not axes:
        return None, 1
    spec = PartitionSpec(None, axes)
    return (NamedSharding(mesh, spec) if mesh is not None else spec), math.prod(context.shape[axis] for axis in axes)


def micro_batched(function: Callable[[Any, Any], Any], count: int) -> Callable[[Any, Any], Any]:
    """`function(params, rows) -> arrays [b, ...]`, computed in `count` micro-batches of b / count rows.

    `function` must treat rows one by one (no batch statistics; keys a row, in `rows`). `count` 1 is `function` itself.
    """
    if count == 1:
        return function

    def run(params, rows):
        # prevent_cse: inside a scan nothing can be merged with the forward pass, and the barrier costs.
        again = jax.checkpoint(function, prevent_cse=False)
        _, parts = jax.lax.scan(lambda _, part: (None, again(params, part)), None, cut_rows(rows, count))
        return join_rows(parts)

    return run
