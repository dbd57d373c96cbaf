"""The training loop of every objective: sharded start or resume, steps, checkpoints, metrics, export."""

import contextlib
import errno
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
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
    barrier,
    ending_as_one,
    flatten,
    make_mesh,
    merge,
    mesh_context,
    own_places,
    partition,
    same_everywhere,
    shard_batch,
    shardings_for,
    unboxed,
)
from ragdiff_jax.training.checkpoint import Checkpoints
from ragdiff_jax.training.feed import Feed
from ragdiff_jax.training.flops import known_flops
from ragdiff_jax.training.metrics import MetricWriter
from ragdiff_jax.training.objective import Objective
from ragdiff_jax.training.profiling import Profiler
from ragdiff_jax.training.settings import TrainSettings
from ragdiff_jax.training.startup import check_replicated, report
from ragdiff_jax.training.state import TrainState, fresh_state, state_targets
from ragdiff_jax.training.step import ROW_LOSSES, jit_step
from ragdiff_jax.training.stopping import Signals, StoppedEarly
from ragdiff_jax.training.workdir import check_config, describe, export_model, locked, write_config
from ragdiff_jax.version import __version__


@dataclass(frozen=True)
class TrainResult:
    """How a run ended: steps taken so far, whether that is all of them, the model folder if so.

    `stopped_by`: the signal that ended it before, else None.
    """

    step: int
    finished: bool
    model: Path | None
    stopped_by: str | None = None


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
    keeps = objective.exact and any(re.search(objective.exact, path) for path, _ in flatten(frozen))
    exact, rounded = partition(frozen, objective.exact) if keeps else ({}, frozen)
    rounded = _placed(rounded, jax.tree.map(lambda x: x.sharding, rounded), jnp.dtype(settings.frozen_dtype))
    frozen = merge(exact, rounded)
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


def train(
    objective: Objective,
    workdir: str | os.PathLike,
    settings: TrainSettings,
    mesh: Mesh | None = None,
    *,
    profile: int = 0,
    same: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Train `objective` in `workdir`, from its newest checkpoint if there is one; export the model.

    SIGTERM and SIGINT save a checkpoint at the current step and return (before the first step at once, where one
    process trains); calling again goes on from there. The result is the same, bit for bit, as that of a run that wasn't
    interrupted (on the same mesh).

    Args:
        objective: what is trained.
        workdir: the folder of the run: `config.json`, `checkpoints/`, `metrics.jsonl`, `tensorboard/`,
            `samples/`, `model/`.
        settings: how long and how.
        mesh: default: all devices on the `data` axis.
        profile: trace this many steps, from the fourth on, for xprof, into `profile/`.
        same: the plain config that `objective` was made of: must be the same in all processes, and its `data` and
            `model` those that `workdir` was started with, but for what may change (`workdir.CONFIG_MAY_CHANGE`).

    Raises:
        UserError: the settings contradict each other, the mesh or the run in `workdir`; the loss is not
            finite; no checkpoint can be read; there is no room for one; another process of the run failed.
    """
    mesh = mesh if mesh is not None else make_mesh()
    workdir = Path(workdir).absolute()
    with ending_as_one(), Signals().installed() as signals, _full_disk(workdir), contextlib.ExitStack() as stack:
        stack.enter_context(locked(workdir))
        config = describe(objective, settings, same)
        same_everywhere({**config, "config": dict(same or {}), "version": __version__})
        try:
            return _Run(objective, workdir, settings, mesh, signals, stack, config, profile).run()
        except StoppedEarly:
            return TrainResult(signals.step, False, None, signals.stop)


@contextlib.contextmanager
def _full_disk(workdir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise UserError(
            f"can't write to {workdir} ({error.strerror}); the last checkpoint is intact: make room and run the same "
            "command"
        ) from error


def chosen_evaluators(objective: Objective, settings: TrainSettings) -> dict[str, Callable]:
    """The objective's evaluators that `settings` names. Raises UserError for one that it hasn't."""
    there = objective.evaluators()
    for name in settings.evaluators:
        if name not in there:
            raise UserError(f"evaluators: {name!r} is none of {', '.join(there) or 'this objective (it has none)'}")
    return {name: there[name] for name in settings.evaluators}


class _Run:
    """One call of `train`; its methods are the phases of the loop."""

    def __init__(self, objective, workdir, settings, mesh, signals, stack, config, profile):
        self.objective, self.workdir, self.settings, self.mesh = objective, workdir, settings, mesh
        self.signals = signals
        self.evaluators = chosen_evaluators(objective, settings)
        if settings.accumulate > 1 and objective.rows_interact:
            raise UserError(
                f"accumulate={settings.accumulate}: {type(objective).__name__} compares the rows of a batch, and would "
                "compare fewer; leave it 1, and cut the towers' work by model.micro_batches where the config has it"
            )
        changed = check_config(workdir, config)
        self.plan = make_plan(objective, settings, mesh)
        check_replicated(self.plan, settings)
        self.step_fn = jit_step(objective, settings, mesh, self.plan.state)
        self.checkpoints = Checkpoints(workdir / "checkpoints", mesh, keep=settings.keep)
        stack.callback(self.checkpoints.close)
        self.start, self.state, self.frozen = self._begin()
        signals.step = self.start
        if self.start > settings.steps:
            raise UserError(
                f"{workdir} has {self.start} steps already; set train.steps to at least that, or start in a new workdir"
            )
        if jax.process_index() == 0:
            write_config(workdir, config)
        self.writer = MetricWriter(
            workdir,
            start_step=self.start,
            steps=settings.steps,
            batch_size=settings.batch_size,
            log_every=settings.log_every,
            wandb=settings.wandb,
            config=config,
        )
        stack.callback(self.writer.close)
        self.constants = objective.prepared(merge(self.state.params, self.frozen), objective.constants(mesh), mesh)
        self.writer.reckon(known_flops(workdir, objective, self.constants, settings.batch_size, config), mesh)
        for line in report(self.plan, settings, self.constants):
            self.writer.say(line)
        self.writer.say(f"encodings: {objective.encodings}")
        self.profiler = Profiler(workdir / "profile", first=self.start + 4, steps=profile)
        stack.callback(self.profiler.close)
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
                    places=own_places(self.mesh, settings.batch_size),
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
                batch = shard_batch(self.mesh, rows, settings.batch_size)
                if began is None and jax.process_count() > 1:
                    self._compile_together(batch)
                with self.profiler.step(step + 1):
                    self.state, metrics = self.step_fn(self.state, self.frozen, self.constants, batch)
                step += 1
                self.signals.stepped = True
                began = began or time.monotonic()  # compiling doesn't count
                self._flush()
                self.pending = (step, metrics)
                save, stop = self._due(step)
                if save or stop:  # before a look, which may take longer than what a signal leaves
                    self._save(step)
                if self._look(step):
                    self._flush()
                    self._sample_and_validate(step)
                if stop and step < settings.steps:
                    self.checkpoints.wait()
                    self.writer.say(f"stopped at step {step}/{settings.steps} (saved); run again to go on")
                    return TrainResult(step, False, None, self.signals.stop)
            self._flush()
        self._save(step)
        self.checkpoints.wait()
        params = self.ema_params()
        model = export_model(self.workdir, lambda directory: self.objective.export(params, directory))
        done = "done" if step == settings.steps else f"{settings.seconds} s are over (run again to go on)"
        self.writer.say(f"step {step}/{settings.steps}: {done}, model in {model}")
        return TrainResult(step, True, model)

    def _compile_together(self, batch) -> None:
        """Who is done first waits for the others here: a collective would give up on them after half a minute."""
        self.step_fn = self.step_fn.lower(self.state, self.frozen, self.constants, batch).compile()
        barrier("compiled")

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
            raise UserError(
                f"step {step}: loss {scalars['loss']}, gradient {scalars['grad']} ({self._named(step, bad)}); "
                "look at these rows, or lower learning_rate; the last checkpoint is from before"
            )
        self.writer.step(step, scalars)

    def _named(self, step: int, bad: np.ndarray) -> str:
        """The rows of a batch whose loss isn't finite, by their ids in the data where there are any."""
        if not bad.size:
            return "gradient only, every row's loss is finite"
        settings = self.settings
        ids = self.objective.batch_ids(step - 1, batch_size=settings.batch_size, seed=settings.seed)
        names = [f"{row} ({ids[row]})" if ids else str(row) for row in bad[:8]]
        return f"batch rows {', '.join(names)}" + (f" and {bad.size - 8} more" if bad.size > 8 else "")

    def _due(self, step: int) -> tuple[bool, bool]:
        """(save now, stop now), the same on every process."""
        settings = self.settings
        elapsed = time.monotonic() - self.saved_time
        by_time = settings.checkpoint_seconds > 0 and elapsed >= settings.checkpoint_seconds
        stop, by_time = self.signals.asked(step, settings.log_every, by_time)
        by_step = settings.checkpoint_every > 0 and step % settings.checkpoint_every == 0
        return by_step or by_time, stop

    def _time_is_up(self, step: int, began: float) -> bool:
        """The same on every process; asked at the step lines only where there are several."""
        seconds = self.settings.seconds
        if not seconds:
            return False
        over = time.monotonic() - began >= seconds
        if jax.process_count() > 1:
            return agree(over, False)[0] if step % (self.settings.log_every or 50) == 0 else False
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
            for every in (self.settings.sample_every, self.settings.validate_every, self.settings.evaluate_every)
        )

    def _sample_and_validate(self, step: int) -> None:
        settings, params = self.settings, self.ema_params()
        key = jax.random.key(settings.seed)
        # Few rows, seldom a multiple of the mesh: no constraints on activations.
        with self.writer.pause(), mesh_context(self.mesh, rules=()):
            if settings.validate_every and step % settings.validate_every == 0:
                self.writer.extra(step, self.objective.validation(params, self.constants, key), "validation")
            if settings.evaluate_every and step % settings.evaluate_every == 0:
                for name, evaluate in self.evaluators.items():
                    self.writer.extra(step, evaluate(params, self.constants, key), name)
            if settings.sample_every and step % settings.sample_every == 0:
                self.writer.images(step, self.objective.sample(params, self.constants, key))
