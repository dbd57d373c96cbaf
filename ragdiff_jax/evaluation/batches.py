"""A program of pictures run over any number of them: fixed batches, cut over the mesh, the last one padded."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Shaped

from ragdiff_jax.parallel import batch_sharding, compiler_options, divided_rows, filled, mesh_context, replicated

Program = Callable[..., Any]


class Batched:
    """`program(params, *arrays [b, ...])` -> a tree of arrays [b, ...], compiled once, for any number of rows.

    A row's result doesn't depend on the other rows, so the numbers don't depend on `batch` or the mesh, but for the
    order of float32 sums.
    """

    def __init__(self, program: Program, params: Any, mesh: Mesh | None = None, batch: int = 16):
        """`mesh`: rows are cut over `data` and `fsdp`, and `batch` is rounded up to fit; None: one device."""
        self.batch, self._rows = batch, None
        if mesh is not None:
            self.batch = divided_rows(mesh, batch)
            self._rows = batch_sharding(mesh)
            params = jax.device_put(params, replicated(mesh))
        else:
            params = jax.device_put(params)
        self._mesh, self._params = mesh, params
        self._program = jax.jit(program, compiler_options=compiler_options(mesh))

    def __call__(self, *arrays: Shaped[np.ndarray, "_ ..."]) -> Any:
        """The results of all rows, as numpy."""
        parts = list(self.stream(tuple(array[at : at + self.batch] for array in arrays) for at in self._starts(arrays)))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    def stream(self, batches: Iterator[Sequence[np.ndarray]]) -> Iterator[Any]:
        """The results of each batch of at most `batch` rows, as numpy; the next batch is read while one computes."""
        waiting = None
        for arrays in batches:
            rows = len(arrays[0])
            found = self._run([filled(np.asarray(array), self.batch) for array in arrays])
            if waiting is not None:
                yield _numpy(*waiting)
            waiting = found, rows
        if waiting is not None:
            yield _numpy(*waiting)

    def _run(self, arrays: list[np.ndarray]) -> Any:
        if self._mesh is None:
            return self._program(self._params, *arrays)
        with mesh_context(self._mesh, rules=()):
            return self._program(self._params, *jax.device_put(arrays, self._rows))

    def _starts(self, arrays: Sequence[np.ndarray]) -> range:
        sizes = {len(array) for array in arrays}
        if len(sizes) != 1 or 0 in sizes:
            raise ValueError(f"arrays of {sorted(sizes)} rows; all need the same number, at least one")
        return range(0, sizes.pop(), self.batch)


def _numpy(found: Any, rows: int) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:rows], found)
