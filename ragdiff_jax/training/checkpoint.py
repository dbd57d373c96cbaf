"""Checkpoints of a run: Orbax v1, asynchronous, each with a checksum; a damaged one is set aside and the one
before used.

Layout under `checkpoints/`: one folder a step (the state), and `frozen/` (the frozen parameters, written
once).
"""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from orbax.checkpoint import v1 as ocp

from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import replicated

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
        """Start writing `state`; returns when the arrays have been copied, and waits for an earlier save
        first.
        """
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

    def restore(self, target: Any) -> tuple[int, Any] | None:
        """(step, state) of the newest whole checkpoint, or None if there is no checkpoint at all.

        Args:
            target: the abstract state; each leaf a `ShapeDtypeStruct` with its sharding (another mesh than
                the one that saved is fine).

        Raises:
            UserError: there are checkpoints, and none of them can be read.
        """
        damaged: dict[int, Exception] = {}
        for step in reversed(self.steps):
            try:
                state = self._load(self.directory / str(step), target)
            except Exception as error:  # whatever the reader of a damaged file raises; said aloud below
                damaged[step] = error
                logger.warning(
                    "checkpoint of step %d can't be read (%s); trying the one before", step, _line(error)
                )
                continue
            self._set_aside(damaged)
            return step, state
        if damaged:
            step, error = next(iter(damaged.items()))
            raise UserError(
                f"no checkpoint in {self.directory} can be read (step {step}: {_line(error)}); "
                "restore the files, or start in a new workdir"
            )
        return None

    def _set_aside(self, damaged: dict[int, Exception]) -> None:
        if not damaged:
            return
        if jax.process_index() == 0:
            for step in damaged:
                broken = self.directory / f"damaged-{step}"
                if broken.exists():
                    shutil.rmtree(broken)
                os.replace(self.directory / str(step), broken)
                logger.warning("checkpoint of step %d moved to %s", step, broken)
        _barrier("set_aside")
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
        try:
            return self._load(self.directory / "frozen", target)
        except Exception as error:
            raise UserError(
                f"frozen parameters in {self.directory / 'frozen'} can't be read ({_line(error)}); "
                "restore the files, or start in a new workdir"
            ) from error

    def close(self) -> None:
        """Finish the last save."""
        self._manager.close()


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def _line(error: Exception) -> str:
    """The first line of an error, cut to a readable length."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200] if text else ''}"
