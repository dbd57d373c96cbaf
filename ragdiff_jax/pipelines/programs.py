"""The programs of a pipeline: compiled once for each set of shapes, on one device or cut over a mesh, and timed."""

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh

from ragdiff_jax.parallel import RULES, batch_sharding, divided_rows, mesh_context, replicated


class Programs:
    """What compiles functions of `(params, *inputs)` and keeps them.

    On a mesh a batch is cut over `data` and `fsdp`, as in training, where these divide it; else all compute all of it.

    Attributes:
      mesh: where the parameters lie; None: on one device.
      compiling: seconds spent so far, so that they can be told apart from work.
    """

    def __init__(self, mesh: Mesh | None = None):
        self.mesh, self.compiling = mesh, 0.0
        self._kept: dict[tuple, Callable] = {}

    def __len__(self) -> int:
        """How many were compiled."""
        return len(self._kept)

    def whole_batches(self, size: int) -> int:
        """The least batch of at least `size` that the mesh divides."""
        return size if self.mesh is None else divided_rows(self.mesh, size)

    def run(self, name: str, function: Callable, params: Any, *inputs: Any, rows: int = 0) -> Any:
        """`function(params, *inputs)`. A function of a name is always the same, and so are the shapes of its `params`.

        `rows`: of the batch, the leading axis of what is cut; 0: nothing is.
        """
        shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(inputs))
        with self._placing(rows) as place:
            inputs = tuple(map(place, inputs))
            program = self._kept.get((name, shapes))
            if program is None:
                start = time.perf_counter()
                program = self._kept[name, shapes] = jax.jit(function).lower(params, *inputs).compile()
                self.compiling += time.perf_counter() - start
            return program(params, *inputs)

    @contextlib.contextmanager
    def _placing(self, rows: int) -> Iterator[Callable[[Any], Any]]:
        """The mesh's context, and what puts inputs into their places on it."""
        if self.mesh is None:
            yield lambda tree: tree
            return
        divides = rows > 0 and rows == divided_rows(self.mesh, rows)
        cut, whole = batch_sharding(self.mesh), replicated(self.mesh)

        def one(leaf):
            return jax.device_put(leaf, cut if divides and leaf.ndim and len(leaf) == rows else whole)

        with mesh_context(self.mesh, RULES if divides else ()):
            yield partial(jax.tree.map, one)


class Clock:
    """Laps of a stopwatch that stands still while `programs` compiles."""

    def __init__(self, programs: Programs):
        self.seconds: dict[str, float] = {}
        self._programs = programs
        self._last = self._now()

    def _now(self) -> float:
        return time.perf_counter() - self._programs.compiling

    def lap(self, name: str) -> None:
        now = self._now()
        self.seconds[name], self._last = now - self._last, now

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is done inside is nobody's lap."""
        start = self._now()
        try:
            yield
        finally:
            self._last += self._now() - start
