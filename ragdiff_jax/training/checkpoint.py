"""Checkpoints of a run: Orbax v1, asynchronous, each with checksums.

A damaged one is set aside, aloud, and the one before is used. Layout under `checkpoints/`: one folder a step, in which
`params`, `optimizer`, `ema` and `progress` (the step) can each be read without the others, and `frozen/` (the frozen
parameters, written once). What is restored may lie on another mesh and have another dtype than what was saved.
"""

import contextlib
import functools
import gc
import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from orbax.checkpoint import v1 as ocp

from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import agree, barrier, replicated
from ragdiff_jax.training.state import TrainState

logger = logging.getLogger(__name__)


_LEAST_SLICE = 2**20  # bytes


def _leaf_sum(leaf: jax.Array) -> jax.Array:
    """Sum of the bit patterns modulo 2^32: exact, and the same under every sharding."""
    if leaf.dtype == jnp.bool_:
        leaf = leaf.astype(jnp.uint8)
    unsigned = jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")
    return jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32).sum(dtype=jnp.uint32)


def checksum(tree: Any, mesh: Mesh) -> jax.Array | np.ndarray:
    """uint32 [leaves]: a sum over the bits of each array of the tree, in its order."""
    leaves = jax.tree.leaves(tree)
    if mesh.devices.flat[0].platform == "cpu" and all(leaf.is_fully_addressable for leaf in leaves):
        # Host memory anyway, and no program of a thousand sums has to be made first.
        return np.array([_host_sum(np.asarray(leaf)) for leaf in leaves], np.uint32)
    return _adder(mesh)(leaves)


def _host_sum(array: np.ndarray) -> np.uint32:
    bits = np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")
    return bits.sum(dtype=np.uint64).astype(np.uint32)


@functools.cache
def _adder(mesh: Mesh) -> Callable:
    # One function a mesh: a new one at each save would be compiled at each save.
    return jax.jit(lambda leaves: jnp.stack([_leaf_sum(x) for x in leaves]), out_shardings=replicated(mesh))


DTYPES = ("float32", "bfloat16", "float16", "float64", "int32", "uint32", "int64", "uint64", "int8", "uint8", "bool")


def _groups(state: Any) -> dict[str, Any]:
    """The parts of a state (or the frozen tree) that are kept apart; those without an array are left out."""
    if isinstance(state, TrainState):
        groups = {"params": state.params, "optimizer": state.opt_state, "ema": state.ema, "progress": [state.step]}
    else:
        groups = {"frozen": state}
    return {name: tree for name, tree in groups.items() if jax.tree.leaves(tree)}


def _sums(name: str) -> str:
    """Under which name a part's checksums lie beside it."""
    return f"{name}_checksum"


def _joined(groups: dict[str, Any], target: Any) -> Any:
    """The state of restored groups; the target's own empty trees stand where nothing was kept."""
    if not isinstance(target, TrainState):
        return groups["frozen"]
    return TrainState(
        step=groups["progress"][0],
        params=groups["params"],
        opt_state=groups.get("optimizer", target.opt_state),
        ema=groups.get("ema", target.ema),
    )


class Checkpoints:
    """The checkpoints of one run. Every process opens it and calls the same methods in the same order."""

    def __init__(self, directory: str | os.PathLike, mesh: Mesh, *, keep: int = 2):
        """Open (or make) `directory`; the `keep` newest steps are kept."""
        self.directory = Path(directory).absolute()
        self._mesh = mesh
        self._failed = False
        # What several devices hold, each writes a part of; cutting takes a program of each shape and device, hundreds
        # in all, so that small arrays are written whole by one.
        saving = ocp.options.ArrayOptions.Saving(min_slice_bytes_for_replica_parallel=_LEAST_SLICE)
        self._context = ocp.Context(array_options=ocp.options.ArrayOptions(saving=saving))
        self._manager = ocp.training.Checkpointer(
            self.directory,
            context=self._context,
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )

    @property
    def steps(self) -> list[int]:
        """Steps with a finished checkpoint, ascending."""
        return [int(c.step) for c in self._manager.checkpoints]

    def _with_sums(self, state: Any) -> dict[str, Any]:
        groups = _groups(state)
        sums = {
            _sums(name): {
                "sums": checksum(tree, self._mesh),
                "dtypes": np.array([DTYPES.index(x.dtype.name) for x in jax.tree.leaves(tree)], np.int32),
            }
            for name, tree in groups.items()
        }
        return {**groups, **sums}

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        """A full disk is the user's to mend: one line that says what is left."""
        try:
            yield
        except Exception as error:
            self._failed = True
            text = _line(error)
            if not any(words in str(error) or words in text for words in _NO_ROOM):
                raise
            steps = [int(p.name) for p in self.directory.iterdir() if p.name.isdigit()]
            left = f"the checkpoint of step {max(steps)} is intact" if steps else "there is no earlier one"
            raise UserError(
                f"can't save a checkpoint in {self.directory} ({text}); {left}: make room and run the same command"
            ) from error

    def save(self, step: int, state: Any) -> None:
        """Start writing `state`, after an earlier save is done; returns when the arrays have been copied.

        Raises:
            UserError: there is no room for this one or for the one before it.
        """
        with self._saving():
            self._manager.save_checkpointables_async(step, self._with_sums(state), force=True)

    def wait(self) -> None:
        """Until the last save is on disk. Raises UserError as `save` does."""
        with self._saving():
            self._manager.wait()

    def _load(self, directory: Path, target: Any) -> Any:
        """The groups in one checkpoint folder, shaped, placed and typed like `target`'s, their checksums compared."""
        groups = _groups(target)
        whole = replicated(self._mesh)

        def numbers(tree, dtype):
            return jax.ShapeDtypeStruct((len(jax.tree.leaves(tree)),), dtype, sharding=whole)

        wanted = {
            _sums(name): {"sums": numbers(tree, jnp.uint32), "dtypes": numbers(tree, jnp.int32)}
            for name, tree in groups.items()
        }
        sums = ocp.load_checkpointables(directory, wanted)
        # Bits are compared as they were written; then the dtype is the target's.
        stored = {
            name: _with_dtypes(tree, [DTYPES[i] for i in np.asarray(sums[_sums(name)]["dtypes"])])
            for name, tree in groups.items()
        }
        loaded = ocp.load_checkpointables(directory, stored)
        for name in groups:
            if not np.array_equal(sums[_sums(name)]["sums"], checksum(loaded[name], self._mesh)):
                raise ValueError(f"the checksum of {name} doesn't match: the files were changed or damaged")
        return {name: _cast(loaded[name], tree) for name, tree in groups.items()}

    def _read(self, directory: Path, target: Any) -> tuple[Any, str]:
        """`_load`'s state, or (None, what is wrong with the files)."""
        state, problem = None, ""
        with _quiet():
            try:
                state = _joined(self._load(directory, target), target)
            except Exception as error:  # a damaged file raises nearly anything; the caller reports it
                problem = _line(error)
            if problem:
                # The reader's abandoned tasks complain when they are collected: now, unheard.
                time.sleep(0.2)
                gc.collect()
        if agree(bool(problem))[0] and not problem:
            return None, "another process can't read its part"
        return state, problem

    def restore_params(self, target: Any, step: int | None = None) -> Any:
        """The trained parameters of a checkpoint (default: the newest) without its optimizer, placed like `target`."""
        step = self.steps[-1] if step is None else step
        state = TrainState(step=jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated(self._mesh)),
                           params=target, opt_state=(), ema={})  # fmt: skip
        return self._load(self.directory / str(step), state)["params"]

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
        with self._saving(), self._context:
            ocp.save_checkpointables(self.directory / "frozen", self._with_sums(frozen), overwrite=True)

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
        """Finish the last save; after one that failed, nothing more is said of it."""
        with contextlib.suppress(*((Exception,) if self._failed else ())):
            self._manager.close()


_NO_ROOM = ("No space left", "ENOSPC", "Disk quota", "File too large", "RESOURCE_EXHAUSTED")


def _with_dtypes(tree: Any, dtypes: Sequence[str]) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    typed = [
        jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(dtype), sharding=leaf.sharding)
        for leaf, dtype in zip(leaves, dtypes, strict=True)
    ]
    return jax.tree.unflatten(structure, typed)


def _cast(tree: Any, target: Any) -> Any:
    return jax.tree.map(lambda x, to: x if x.dtype == to.dtype else x.astype(to.dtype), tree, target)


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
