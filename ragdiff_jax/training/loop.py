"""The training loop of every objective: sharded start or resume, steps, checkpoints, metrics, export."""

import contextlib
import math
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import (
    agree,
    make_mesh,
    merge,
    mesh_context,
    partition,
    shard_batch,
    shardings_for,
    unboxed,
)
from ragdiff_jax.training.checkpoint import Checkpoints
from ragdiff_jax.training.feed import Feed
from ragdiff_jax.training.metrics import MetricWriter
from ragdiff_jax.training.objective import Objective
from ragdiff_jax.training.settings import TrainSettings
from ragdiff_jax.training.state import TrainState, fresh_state, state_targets
from ragdiff_jax.training.step import ROW_LOSSES, jit_step
from ragdiff_jax.training.workdir import check_config, describe, export_model, locked, write_config


@dataclass(frozen=True)
class TrainResult:
    """How a run ended: steps taken so far, whether that is all of them, the model folder if so."""

    step: int
    finished: bool
    model: Path | None


@dataclass(frozen=True)
class Plan:
    """Shapes and places of everything a step takes: made without allocating an array."""

    mesh: Mesh
    params: Any
    state: TrainState
    frozen: Any


def _placed(abstract, shardings, dtype=None):
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, dtype or leaf.dtype, sharding=sharding),
        abstract,
        shardings,
    )


def make_plan(objective: Objective, settings: TrainSettings, mesh: Mesh) -> Plan:
    """Parameters, state and frozen tree of a run on `mesh`, as `ShapeDtypeStruct` with shardings."""
    boxed = jax.eval_shape(objective.init, jax.random.key(0))
    params = _placed(unboxed(boxed), shardings_for(boxed, mesh))
    trainable, frozen = partition(params, objective.trainable)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, trainable)
    frozen = _placed(frozen, jax.tree.map(lambda x: x.sharding, frozen), jnp.dtype(settings.frozen_dtype))
    return Plan(mesh, params, state_targets(settings, trainable, shardings, mesh), frozen)


def initial_state(objective: Objective, settings: TrainSettings, plan: Plan) -> tuple[TrainState, Any]:
    """(state, frozen) before the first step: random on the mesh, then the objective's pretrained parts."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, plan.params)
    key = jax.random.key(settings.seed)
    params = jax.jit(lambda key: unboxed(objective.init(key)), out_shardings=shardings)(key)
    params = jax.device_put(objective.restore_parts(params), shardings)
    trainable, frozen = partition(params, objective.trainable)
    del params
    frozen = jax.tree.map(lambda x, target: x.astype(target.dtype), frozen, plan.frozen)
    trainable = jax.tree.map(lambda x: x.astype(jnp.float32), trainable)
    return fresh_state(settings, trainable, plan.state), frozen


class _Signals:
    """SIGTERM and SIGINT ask the loop to save and stop; a second SIGINT stops at once."""

    def __init__(self):
        self.stop: str | None = None

    def _handle(self, number, frame):
        del frame
        if self.stop is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.stop = signal.Signals(number).name

    @contextlib.contextmanager
    def installed(self) -> Iterator["_Signals"]:
        try:
            old = {number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not the main thread: whoever runs it there takes the signals
            old = {}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


def train(
    objective: Objective, workdir: str | os.PathLike, settings: TrainSettings, mesh: Mesh | None = None
) -> TrainResult:
    """Train `objective` in `workdir`, from its newest checkpoint if there is one; export the model.

    SIGTERM and SIGINT save a checkpoint at the current step and return; calling again goes on from there. The
    result is the same, bit for bit, as that of a run that wasn't interrupted (on the same mesh).

    Args:
        objective: what is trained.
        workdir: the folder of the run: `config.json`, `checkpoints/`, `metrics.jsonl`, `tensorboard/`,
            `samples/`, `model/`.
        settings: how long and how.
        mesh: default: all devices on the `data` axis.

    Raises:
        UserError: the settings contradict each other, the mesh or the run in `workdir`; the loss is not
            finite; no checkpoint can be read.
    """
    mesh = mesh if mesh is not None else make_mesh()
    workdir = Path(workdir).absolute()
    with locked(workdir), _Signals().installed() as signals, contextlib.ExitStack() as stack:
        return _Run(objective, workdir, settings, mesh, signals, stack).run()


class _Run:
    """One call of `train`; its methods are the phases of the loop."""

    def __init__(self, objective, workdir, settings, mesh, signals, stack):
        self.objective, self.workdir, self.settings, self.mesh = objective, workdir, settings, mesh
        self.signals = signals
        config = describe(objective, settings)
        changed = check_config(workdir, config)
        self.plan = make_plan(objective, settings, mesh)
        self.step_fn = jit_step(objective, settings, mesh, self.plan.state)
        self.checkpoints = Checkpoints(workdir / "checkpoints", mesh, keep=settings.keep)
        stack.callback(self.checkpoints.close)
        self.start, self.state, self.frozen = self._begin()
        if jax.process_index() == 0:
            write_config(workdir, config)
        self.writer = MetricWriter(
            workdir,
            start_step=self.start,
            steps=settings.steps,
            batch_size=settings.batch_size,
            log_every=settings.log_every,
        )
        stack.callback(self.writer.close)
        self.constants = objective.constants(mesh)
        if self.start:
            note = f" ({'; '.join(changed)})" if changed else ""
            self.writer.say(f"resuming {workdir} at step {self.start}/{settings.steps}{note}")
        self.pending: tuple[int, dict] | None = None
        self.saved_step, self.saved_time = self.start, time.monotonic()
        self.stack = stack

    def _begin(self) -> tuple[int, TrainState, Any]:
        restored = self.checkpoints.restore(self.plan.state)
        if restored is not None:
            step, state = restored
            return step, state, self.checkpoints.restore_frozen(self.plan.frozen)
        state, frozen = initial_state(self.objective, self.settings, self.plan)
        self.checkpoints.save_frozen(frozen)
        return 0, state, frozen

    def run(self) -> TrainResult:
        settings = self.settings
        feed = None
        if self.start < settings.steps:
            feed = Feed(
                self.objective.batches(
                    batch_size=settings.batch_size,
                    seed=settings.seed,
                    start_step=self.start,
                    process_index=jax.process_index(),
                    process_count=jax.process_count(),
                )
            )
            self.stack.callback(feed.close)
        step, began = self.start, None
        with mesh_context(self.mesh):
            while step < settings.steps:
                if began is not None and self._time_is_up(step, began):
                    break
                try:
                    rows = next(feed)
                except StopIteration:
                    raise UserError(
                        f"the data ended before step {step + 1}; batches must go on for ever"
                    ) from None
                batch = shard_batch(self.mesh, rows)
                self.state, metrics = self.step_fn(self.state, self.frozen, self.constants, batch)
                step += 1
                began = began or time.monotonic()  # compiling doesn't count
                self._flush()
                self.pending = (step, metrics)
                save, stop = self._due(step)
                if self._look(step):
                    self._flush()
                    self._sample_and_validate(step)
                if save or stop:
                    self._save(step)
                if stop and step < settings.steps:
                    self.checkpoints.wait()
                    self.writer.say(f"stopped at step {step}/{settings.steps} (saved); run again to go on")
                    return TrainResult(step, False, None)
            self._flush()
        self._save(step)
        self.checkpoints.wait()
        params = self.ema_params()
        model = export_model(self.workdir, lambda directory: self.objective.export(params, directory))
        done = "done" if step == settings.steps else f"{settings.seconds} s are over (run again to go on)"
        self.writer.say(f"step {step}/{settings.steps}: {done}, model in {model}")
        return TrainResult(step, True, model)

    def ema_params(self):
        """The whole tree with the averaged parameters where there are any."""
        return merge(self.state.ema if self.settings.ema_decay else self.state.params, self.frozen)

    def _flush(self) -> None:
        """Write the metrics of the step before; called while the next one runs."""
        if self.pending is None:
            return
        (step, metrics), self.pending = self.pending, None
        metrics = jax.device_get(metrics)
        rows = metrics.pop(ROW_LOSSES)
        scalars = {name: float(metrics[name]) for name in ("loss", "grad", "lr")}
        scalars |= {name: float(value) for name, value in metrics.items() if name not in scalars}
        if not (math.isfinite(scalars["loss"]) and math.isfinite(scalars["grad"])):
            bad = np.flatnonzero(~np.isfinite(rows))
            where = (
                f"batch rows {', '.join(map(str, bad[:8]))}"
                if bad.size
                else "gradient only, every row's loss is finite"
            )
            more = f" and {bad.size - 8} more" if bad.size > 8 else ""
            raise UserError(
                f"step {step}: loss {scalars['loss']}, gradient {scalars['grad']} ({where}{more}); "
                "look at these rows, or lower learning_rate; the last checkpoint is from before"
            )
        self.writer.step(step, scalars)

    def _due(self, step: int) -> tuple[bool, bool]:
        """(save now, stop now), the same on every process."""
        settings = self.settings
        elapsed = time.monotonic() - self.saved_time
        by_time = settings.checkpoint_seconds > 0 and elapsed >= settings.checkpoint_seconds
        stop = self.signals.stop is not None
        # Clocks and signals differ between processes: they ask each other, not at every step.
        if jax.process_count() > 1:
            by_time, stop = agree(by_time, stop) if step % max(1, settings.log_every) == 0 else (False, False)
        by_step = settings.checkpoint_every > 0 and step % settings.checkpoint_every == 0
        return by_step or by_time, stop

    def _time_is_up(self, step: int, began: float) -> bool:
        """The same on every process; asked at the step lines only where there are several."""
        seconds = self.settings.seconds
        if not seconds:
            return False
        over = time.monotonic() - began >= seconds
        if jax.process_count() > 1:
            return agree(over, False)[0] if step % max(1, self.settings.log_every) == 0 else False
        return over

    def _save(self, step: int) -> None:
        if step == self.saved_step:
            return
        self._flush()  # a state whose loss isn't finite is not saved
        self.checkpoints.save(step, self.state)
        self.saved_step, self.saved_time = step, time.monotonic()

    def _look(self, step: int) -> bool:
        return any(
            every and step % every == 0
            for every in (self.settings.sample_every, self.settings.validate_every)
        )

    def _sample_and_validate(self, step: int) -> None:
        settings, params = self.settings, self.ema_params()
        key = jax.random.key(settings.seed)
        # Few rows, seldom a multiple of the mesh: no constraints on activations.
        with self.writer.pause(), mesh_context(self.mesh, rules=()):
            if settings.validate_every and step % settings.validate_every == 0:
                self.writer.extra(step, self.objective.validation(params, self.constants, key), "validation")
            if settings.sample_every and step % settings.sample_every == 0:
                self.writer.images(step, self.objective.sample(params, self.constants, key))
