"""The optimizer, the state of a run and where its arrays lie."""

import math
import re
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from optax.contrib import MuonDimensionNumbers, muon

from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import replicated
from ragdiff_jax.training.settings import TrainSettings

# The EP-Adapter's keys and values are one stacked matrix each, without a module of their own.
MATRICES = frozenset({"kernel", "to_k", "to_v"})
DECAYED = MATRICES | {"embedding", "table"}

# Muon's own coefficients, said for each of its five iterations: optax loops over a list of them, where it would lay
# out the iterations one after another for each kernel (a third of the tiny U-Net's compilation).
NEWTON_SCHULZ = ((3.4445, -4.7750, 2.0315),) * 5


@flax.struct.dataclass
class TrainState:
    """What a step changes. The leaves are arrays, or stand for them: shapes, shardings.

    Attributes:
        step: int32, steps taken so far.
        params: the trainable parameters, fp32.
        opt_state: optax's.
        ema: average of `params` (same tree), or an empty dict.
    """

    step: Any
    params: Any
    opt_state: Any
    ema: Any


def learning_rate_schedule(settings: TrainSettings) -> optax.Schedule:
    """Learning rate of step t (from 0): linear rise over `warmup` steps, then constant, or down to 0."""
    peak, warmup = settings.learning_rate, settings.warmup

    def rate(step):
        step = jnp.asarray(step, jnp.float32)
        value = peak * jnp.minimum(1.0, (step + 1) / (warmup + 1))
        done = jnp.clip((step - warmup) / max(1, settings.steps - warmup), 0.0, 1.0)
        if settings.schedule == "cosine":
            value = value * 0.5 * (1 + jnp.cos(math.pi * done))
        elif settings.schedule == "linear":
            value = value * (1 - done)
        return value

    return rate


def along_cosine(start: float, end: float, step, steps: int) -> jax.Array:
    """From `start` at step 0 to `end` at step `steps` along half a cosine; `end` 0: always `start`."""
    if not end:
        return jnp.float32(start)
    done = jnp.minimum(1.0, jnp.asarray(step, jnp.float32) / steps)
    return end - (end - start) * (1 + jnp.cos(jnp.pi * done)) / 2


def decay_further(settings: TrainSettings, updates, params, step) -> Any:
    """`updates` of `make_optimizer`, whose weight decay is the first step's, with what it has become in `step`."""
    if not settings.weight_decay_end:
        return updates
    more = along_cosine(settings.weight_decay, settings.weight_decay_end, step, settings.steps) - settings.weight_decay
    return jax.tree.map(lambda u, p, decays: u + more * p if decays else u, updates, params, _decays(params))


def _decays(params) -> dict:
    return jax.tree_util.tree_map_with_path(lambda path, _: getattr(path[-1], "key", None) in DECAYED, params)


def make_optimizer(settings: TrainSettings) -> optax.GradientTransformation:
    """AdamW, Muon or Adafactor on clipped gradients, or nothing.

    The learning rate is applied by the step, from its own counter.
    """
    if settings.optimizer == "none":
        return optax.identity()
    clip = optax.clip_by_global_norm(settings.clip_norm) if settings.clip_norm else optax.identity()
    if settings.optimizer == "adafactor":
        # Updates of at most unit size, as in the paper (arXiv 1804.04235); no scaling by the parameters' own size, so
        # that a learning rate means what it means to AdamW.
        scale = optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))
    elif settings.optimizer == "muon":
        # A rate of -1 takes back optax's sign: the step applies the rate. An update's root mean square is that of
        # AdamW's (arXiv 2502.16982), so that one learning rate serves kernels and the rest.
        scale = muon(
            -1.0,
            ns_coeffs=NEWTON_SCHULZ,
            eps=settings.epsilon,
            adam_b1=settings.beta1,
            adam_b2=settings.beta2,
            muon_weight_dimension_numbers=_matrices,
            consistent_rms=0.2,
        )
    else:
        scale = optax.scale_by_adam(settings.beta1, settings.beta2, settings.epsilon)
    return optax.chain(clip, scale, optax.add_decayed_weights(settings.weight_decay, mask=_decays))


def _matrices(params) -> dict:
    """Of each kernel, which axes Muon takes for a matrix's rows and columns; None for what Adam updates.

    A kernel of three or five axes is a scanned stack of them.
    """

    def one(path, leaf):
        if getattr(path[-1], "key", None) not in MATRICES or not 2 <= leaf.ndim <= 5:
            return None
        return MuonDimensionNumbers(tuple(range(leaf.ndim % 2, leaf.ndim - 1)), (leaf.ndim - 1,))

    return jax.tree_util.tree_map_with_path(one, params)


def rate_factors(settings: TrainSettings, params) -> Any:
    """The factor of the learning rate of each parameter: a tree of numbers like `params`.

    Raises:
        UserError: an expression finds no trained parameter.
    """
    patterns = [(re.compile(pattern), factor) for pattern, factor in settings.learning_rates]
    unused = {pattern.pattern for pattern, _ in patterns}

    def one(path, _):
        name = "/".join(str(getattr(key, "key", key)) for key in path)
        for pattern, factor in patterns:
            if pattern.search(name):
                unused.discard(pattern.pattern)
                return factor
        return 1.0

    factors = jax.tree_util.tree_map_with_path(one, params)
    if unused:
        raise UserError(f"learning_rates: {sorted(unused)[0]!r} finds no trained parameter")
    return factors


def _spread(sharding: NamedSharding, shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """The sharding with `data` added to an axis that it divides, the split ones first."""
    data = mesh.shape["data"]
    spec = [*sharding.spec, *[None] * (len(shape) - len(sharding.spec))]
    for dim in sorted(range(len(shape)), key=lambda dim: (spec[dim] is None, -shape[dim])):
        axes = spec[dim] if isinstance(spec[dim], tuple) else (spec[dim],) if spec[dim] else ()
        if data > 1 and shape[dim] % (data * math.prod(mesh.shape[axis] for axis in axes)) == 0:
            spec[dim] = (*axes, "data")
            break
    return NamedSharding(mesh, PartitionSpec(*spec))


def _split_largest(shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """The largest dimension that `fsdp` divides is split over it."""
    parts = mesh.shape["fsdp"]
    fitting = [dim for dim, size in enumerate(shape) if size % parts == 0 and size >= parts]
    if parts == 1 or not fitting:
        return PartitionSpec()
    largest = max(fitting, key=lambda dim: shape[dim])
    return PartitionSpec(*("fsdp" if dim == largest else None for dim in range(len(shape))))


def optimizer_shardings(abstract_opt_state, params_shardings, abstract_params, mesh: Mesh):
    """Where the optimizer's arrays lie: like the parameter of the same name and shape.

    An array that belongs to a parameter but has another shape (a factored moment) is split along its largest
    axis; counters go everywhere.
    """
    by_path = {
        jax.tree_util.keystr(path): (leaf.shape, sharding)
        for (path, leaf), sharding in zip(
            jax.tree_util.tree_flatten_with_path(abstract_params)[0],
            jax.tree.leaves(params_shardings),
            strict=True,
        )
    }

    def one(path, leaf):
        # The name of the parameter is the tail of the path; what stands before it is the optimizer's own
        # nesting.
        for start in range(len(path)):
            found = by_path.get(jax.tree_util.keystr(path[start:]))
            if found is not None:
                shape, sharding = found
                return (
                    sharding if shape == leaf.shape else NamedSharding(mesh, _split_largest(leaf.shape, mesh))
                )
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(one, abstract_opt_state)


def state_targets(settings: TrainSettings, abstract_params, params_shardings, mesh: Mesh) -> TrainState:
    """The abstract state of the trainable tree, with shardings: what a restore asks for."""
    abstract_opt = jax.eval_shape(make_optimizer(settings).init, abstract_params)

    def place(tree, shardings):
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            tree,
            shardings,
        )

    params = place(abstract_params, params_shardings)
    return TrainState(
        step=jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated(mesh)),
        params=params,
        opt_state=place(
            abstract_opt, optimizer_shardings(abstract_opt, params_shardings, abstract_params, mesh)
        ),
        ema=_ema_targets(settings, params, mesh) if settings.ema_decay else {},
    )


def _ema_targets(settings: TrainSettings, params, mesh: Mesh):
    def one(leaf):
        sharding = _spread(leaf.sharding, leaf.shape, mesh) if settings.ema_spread else leaf.sharding
        return jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(settings.ema_dtype), sharding=sharding)

    return jax.tree.map(one, params)


def fresh_state(settings: TrainSettings, params, targets: TrainState) -> TrainState:
    """The state before the first step. `params` is the trainable tree, already in its place."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, targets)

    def build(params):
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt_state=make_optimizer(settings).init(params),
            # A copy of its own: donating the state needs distinct buffers.
            ema=jax.tree.map(lambda x: jnp.array(x, settings.ema_dtype), params) if settings.ema_decay else {},
        )

    return jax.jit(build, out_shardings=shardings)(params)
