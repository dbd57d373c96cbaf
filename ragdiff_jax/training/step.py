"""One optimizer step of any objective, compiled with shardings and a donated state."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import batch_shards, compiler_options, merge, replicated
from ragdiff_jax.training.large_batch.micro_batches import cut_rows, join_rows
from ragdiff_jax.training.objective import Objective, Summing
from ragdiff_jax.training.settings import TrainSettings
from ragdiff_jax.training.state import (
    TrainState,
    along_cosine,
    decay_further,
    learning_rate_schedule,
    make_optimizer,
    rate_factors,
)

ROW_LOSSES = "row_losses"


def _summing_step(objective: Summing, settings: TrainSettings) -> Callable:
    for name, needed in (("optimizer", "none"), ("accumulate", 1), ("ema_decay", 0)):
        if getattr(settings, name) != needed:
            raise UserError(
                f"{name}={getattr(settings, name)!r}: {type(objective).__name__} sums over the data and takes no "
                f"gradient; set {name} to {needed!r}"
            )

    def step(state: TrainState, frozen: Any, constants: Any, batch: Any) -> tuple[TrainState, dict]:
        key = jax.random.fold_in(jax.random.key(settings.seed), state.step)
        params, rows, metrics = objective.add(merge(state.params, frozen), constants, batch, key)
        zero = jnp.zeros((), jnp.float32)
        metrics = {**metrics, "loss": rows.mean(), "grad": zero, "lr": zero, ROW_LOSSES: rows}
        return state.replace(step=state.step + 1, params=params), metrics

    return step


def update_average(settings: TrainSettings, ema: Any, params: Any, step: jax.Array, key: jax.Array) -> Any:
    """The average after `step` + 1 steps, with the decay that `settings` say."""
    t = step.astype(jnp.float32)
    decay = along_cosine(settings.ema_decay, settings.ema_end, t, settings.steps)
    decay = (jnp.minimum(decay, (1 + t) / (10 + t)) if settings.ema_warmup else decay) ** settings.ema_every
    seed = jax.random.fold_in(key, 2**31 - 1)

    def moved():
        leaves, tree = jax.tree.flatten(ema)
        out = []
        for index, (average, p) in enumerate(zip(leaves, jax.tree.leaves(params), strict=True)):
            wide = average.astype(jnp.float32)
            wide = wide + (1 - decay) * (p - wide)
            if average.dtype != jnp.float32:
                wide = _rounded_by_chance(wide, jax.random.fold_in(seed, index))
            out.append(wide)
        return jax.tree.unflatten(tree, out)

    if settings.ema_every == 1:
        return moved()
    return jax.lax.cond((step + 1) % settings.ema_every == 0, moved, lambda: ema)


def _rounded_by_chance(x: jax.Array, key: jax.Array) -> jax.Array:
    """fp32 -> bf16, up or down with chances that keep the mean: a step below half a unit moves it now and then."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    bits = bits + jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    return jax.lax.bitcast_convert_type((bits >> 16).astype(jnp.uint16), jnp.bfloat16)


def make_step(objective: Objective, settings: TrainSettings, mesh: Mesh) -> Callable:
    """`step(state, frozen, constants, batch) -> (state, metrics)`, to be traced under `mesh_context(mesh)`.

    The pure function, not compiled: `jit_step` compiles it. The gradient is taken of `state.params` alone.
    `metrics` are scalars (`loss`, `grad`, `lr` and the objective's own) and `row_losses` [batch_size].
    """
    if isinstance(objective, Summing):
        return _summing_step(objective, settings)
    if settings.optimizer == "none":
        raise UserError(f"optimizer='none': {type(objective).__name__} is trained by gradients; choose adamw")
    optimizer = make_optimizer(settings)
    rate = learning_rate_schedule(settings)

    if objective.wants_average and not settings.ema_decay:
        raise UserError(f"ema_decay=0: {type(objective).__name__} learns from its own average; give it one")

    def mean_loss(params, frozen, constants, batch, key, ema):
        teacher = {"average": merge(ema, frozen)} if objective.wants_average else {}
        rows, metrics = objective.loss(merge(params, frozen), constants, batch, key, **teacher)
        rows = rows.astype(jnp.float32)
        return rows.mean(), (rows, metrics)

    gradient = jax.value_and_grad(mean_loss, has_aux=True)

    def step(state: TrainState, frozen: Any, constants: Any, batch: Any) -> tuple[TrainState, dict]:
        key = jax.random.fold_in(jax.random.key(settings.seed), state.step)
        if settings.accumulate == 1:
            (loss, (rows, metrics)), grads = gradient(state.params, frozen, constants, batch, key, state.ema)
        else:

            def body(total, item):
                index, micro = item
                (loss, (rows, metrics)), grads = gradient(
                    state.params, frozen, constants, micro, jax.random.fold_in(key, index), state.ema
                )
                return jax.tree.map(jnp.add, total, (loss, grads)), (rows, metrics)

            zero = (jnp.zeros((), jnp.float32), jax.tree.map(jnp.zeros_like, state.params))
            micro = cut_rows(batch, settings.accumulate, mesh)
            indices = jnp.arange(settings.accumulate)
            total, (rows, metrics) = jax.lax.scan(body, zero, (indices, micro))
            loss, grads = jax.tree.map(lambda x: x / settings.accumulate, total)
            metrics = jax.tree.map(lambda x: x.mean(0), metrics)
            rows = join_rows(rows, mesh)

        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        updates = decay_further(settings, updates, state.params, state.step)
        multipliers = objective.rate_multipliers(state.params)
        if multipliers is not None:
            updates = jax.tree.map(jnp.multiply, updates, multipliers)
        lr = rate(state.step)
        factors = rate_factors(settings, state.params)
        params = jax.tree.map(
            lambda p, u, factor: p - (lr if factor == 1.0 else lr * factor) * u, state.params, updates, factors
        )
        ema = update_average(settings, state.ema, params, state.step, key) if settings.ema_decay else state.ema
        state = TrainState(step=state.step + 1, params=params, opt_state=opt_state, ema=ema)
        metrics = {**metrics, "loss": loss, "grad": optax.tree.norm(grads), "lr": lr, ROW_LOSSES: rows}
        return state, metrics

    return step


def check_rows(settings: TrainSettings, mesh: Mesh) -> None:
    """Raises UserError where the batch doesn't divide over the devices, with the nearest sizes that do."""
    rows = settings.batch_size // settings.accumulate
    if rows % batch_shards(mesh):
        every = batch_shards(mesh) * settings.accumulate
        below = settings.batch_size // every * every
        nearest = " or ".join(str(size) for size in (below, below + every) if size)
        raise UserError(
            f"{rows} rows at a time (batch_size={settings.batch_size}, accumulate={settings.accumulate}) "
            f"do not divide over {batch_shards(mesh)} devices (data x fsdp); "
            f"choose a multiple of {every}: the nearest batch_size is {nearest}"
        )


def jit_step(objective: Objective, settings: TrainSettings, mesh: Mesh, targets: TrainState) -> Callable:
    """`make_step` under jit: the state donated and kept in its place, the metrics on every device."""
    check_rows(settings, mesh)
    state = jax.tree.map(lambda leaf: leaf.sharding, targets)
    return jax.jit(
        make_step(objective, settings, mesh),
        donate_argnums=0,
        out_shardings=(state, replicated(mesh)),
        compiler_options=compiler_options(mesh),
    )
