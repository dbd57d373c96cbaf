"""Checkpoints of a run: Orbax v1, asynchronous, each with a checksum.

A damaged one is set aside, aloud, and the one before is used. Layout under `checkpoints/`: one folder a step
(the state), and `frozen/` (the frozen parameters, written once).
"""

import contextlib
import gc
import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from orbax.checkpoint import v1 as ocp

from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import agree, barrier, replicated

logger = logging.getLogger(__name__)


def _leaf_sum(leaf: jax.Array) -> jax.Array:
    """Sum of the bit patterns modulo 2^32: exact, and the same under every sharding."""
    if leaf.dtype == jnp.bool_:
        leaf = leaf.astype(jnp.uint8)
    unsigned = jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")
    return jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32).sum(dtype=jnp.uint32)


def checksum(tree: Any, mesh: Mesh) -> jax.Array:
    """uint32 [leaves]: a sum over the bits of each array of the tree, in its order."""
    add = jax.jit(lambda leaves: jnp.stack([_leaf_sum(x) for x in leaves]), out_shardings=replicated(mesh))
    return add(jax.tree.leaves(tree))


class Checkpoints:
    """The checkpoints of one run. Every process opens it and calls the same methods in the same order."""

    def __init__(self, directory: str | os.PathLike, mesh: Mesh, *, keep: int = 2):
        """Open (or make) `directory`; the `keep` newest steps are kept."""
        self.directory = Path(directory).absolute()
        self._mesh = mesh
        self._manager = ocp.training.Checkpointer(
            self.directory,
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )

    @property
    def steps(self) -> list[int]:
        """Steps with a finished checkpoint, ascending."""
        return [int(c.step) for c in self._manager.checkpoints]

    def save(self, step: int, state: Any) -> None:
        """Start writing `state`, after an earlier save is done; returns when the arrays have been copied."""
        self._manager.save_checkpointables_async(
            step, {"state": state, "checksum": {"sums": checksum(state, self._mesh)}}, force=True
        )

    def wait(self) -> None:
        """Until the last save is on disk."""
        self._manager.wait()

    def _load(self, directory: Path, target: Any) -> Any:
        """The tree in one checkpoint folder, shaped and placed like `target`, its checksum compared."""
        sums = jax.ShapeDtypeStruct(
            (len(jax.tree.leaves(target)),), jnp.uint32, sharding=replicated(self._mesh)
        )
        loaded = ocp.load_checkpointables(directory, {"state": target, "checksum": {"sums": sums}})
        if not np.array_equal(loaded["checksum"]["sums"], checksum(loaded["state"], self._mesh)):
            raise ValueError("the checksum doesn't match: the files were changed or damaged")
        return loaded["state"]

    def _read(self, directory: Path, target: Any) -> tuple[Any, str]:
        """`_load`, or (None, what is wrong with the files)."""
        state, problem = None, ""
        with _quiet():
            try:
                state = self._load(directory, target)
            except Exception as error:  # a damaged file raises nearly anything; the caller reports it
                problem = _line(error)
            if problem:
                # The reader's abandoned tasks complain when they are collected: now, unheard.
                time.sleep(0.2)
                gc.collect()
        if agree(bool(problem))[0] and not problem:
            return None, "another process can't read its part"
        return state, problem

    def restore(self, target: Any) -> tuple[int, Any] | None:
        """(step, state) of the newest whole checkpoint, or None if there is no checkpoint at all.

        Args:
            target: the abstract state; each leaf a `ShapeDtypeStruct` with its sharding (another mesh than
                the one that saved is fine).

        Raises:
            UserError: there are checkpoints, and none of them can be read.
        """
        damaged: dict[int, str] = {}
        for step in reversed(self.steps):
            state, problem = self._read(self.directory / str(step), target)
            if problem:
                damaged[step] = problem
                logger.warning(
                    "checkpoint of step %d can't be read (%s); trying the one before", step, problem
                )
                continue
            self._set_aside(damaged)
            return step, state
        if damaged:
            step, problem = next(iter(damaged.items()))
            raise UserError(
                f"no checkpoint in {self.directory} can be read (step {step}: {problem}); "
                "restore the files, or start in a new workdir"
            )
        return None

    def _set_aside(self, damaged: dict[int, str]) -> None:
        if not damaged:
            return
        if jax.process_index() == 0:
            for step in damaged:
                broken = self.directory / f"damaged-{step}"
                if broken.exists():
                    shutil.rmtree(broken)
                os.replace(self.directory / str(step), broken)
                logger.warning("checkpoint of step %d moved to %s", step, broken)
        barrier("set_aside")
        self._manager.reload()

    def save_frozen(self, frozen: Any) -> None:
        """Write the frozen parameters, once, before the first step."""
        if not jax.tree.leaves(frozen):
            return
        ocp.save_checkpointables(
            self.directory / "frozen",
            {"state": frozen, "checksum": {"sums": checksum(frozen, self._mesh)}},
            overwrite=True,
        )

    def restore_frozen(self, target: Any) -> Any:
        """The frozen parameters, placed like `target`.

        Raises:
            UserError: they can't be read.
        """
        if not jax.tree.leaves(target):
            return target
        frozen, problem = self._read(self.directory / "frozen", target)
        if problem:
            raise UserError(
                f"frozen parameters in {self.directory / 'frozen'} can't be read ({problem}); "
                "restore the files, or start in a new workdir"
            )
        return frozen

    def close(self) -> None:
        """Finish the last save."""
        self._manager.close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps off stderr what the reader's abandoned background tasks say when a file is damaged.

    It fills pages; the error itself is reported all the same.
    """
    log, hook = logging.getLogger("asyncio"), sys.unraisablehook
    level = log.level

    def ignore_closed_loop(unraisable):
        if "Event loop is closed" not in str(unraisable.exc_value):
            hook(unraisable)

    log.setLevel(logging.CRITICAL)
    sys.unraisablehook = ignore_closed_loop
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            yield
    finally:
        sys.unraisablehook = hook
        log.setLevel(level)


def _line(error: BaseException) -> str:
    """The first words of what lies at the root of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip().splitlines()
    return text[0][:120] if text else type(error).__name__
