"""Classifier-free guidance (arXiv 2207.12598) over any pytree of conditions."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ragdiff_jax.diffusion.sampler import Denoise
from ragdiff_jax.errors import UserError


def interleave(conditional: PyTree, unconditional: PyTree, batch_axes: PyTree = 0) -> PyTree:
    """Both halves in one batch of 2b: sample i's pair stands at 2i (conditional) and 2i + 1.

    A pair stays on the device of its sample, so that a batch sharded over the mesh moves nothing; [b; b]
    would. `batch_axes`: the batch axis of every leaf, or a prefix tree of such, as `jax.vmap`'s `in_axes`.
    """

    def leaf(axis: int, a: Array, b: Array) -> Array:
        a, b = jnp.asarray(a), jnp.asarray(b)
        axis %= a.ndim
        pair = jnp.stack([a, b], axis=axis + 1)
        return pair.reshape(a.shape[:axis] + (2 * a.shape[axis],) + a.shape[axis + 1 :])

    return jax.tree.map(
        lambda axis, a, b: jax.tree.map(lambda x, y: leaf(axis, x, y), a, b),
        batch_axes,
        conditional,
        unconditional,
    )


def check_scale(scale: float | int) -> None:
    """Raises `UserError` for a guidance scale below 0 or not finite."""
    if not 0 <= scale < float("inf"):
        raise UserError(f"guidance {scale} must be 0 or more")


def guided(
    denoise: Callable[[Any, Array, Array], Array],
    conditions: PyTree,
    unconditional: PyTree,
    scale: float | int | Float[Array, "..."],
    *,
    interval: tuple[int, int] | None = None,
    batch_axes: PyTree | None = None,
) -> Denoise:
    """A `denoise(latents, t)` that gives unconditional + scale * (conditional - unconditional), float32.

    `denoise(conditions, latents, t)` runs once a step on both halves in one batch (`interleave`), which is
    put together here, outside of the sampling loop. `scale`: a number, or one a sample [b]; the number 1
    leaves the second half out. `interval` (first, last timestep, both included): outside of it only the
    conditional half is computed. `conditions` and `unconditional` have one structure; gates and key lengths
    inside say what is absent. `batch_axes`: a prefix of that structure with the axis of the samples in each array;
    None takes `conditions.batch_axes()`, and 0 where there is no such method.

    Raises `UserError` for a number below 0 or not finite, or an empty interval.
    """
    fixed = isinstance(scale, int | float)
    if fixed:
        check_scale(scale)
    if interval is not None and interval[0] > interval[1]:
        raise UserError(f"guidance interval {interval} must be (first, last) with first <= last")
    if fixed and scale == 1:
        return lambda latents, t: denoise(conditions, latents, t)
    if batch_axes is None:
        batch_axes = conditions.batch_axes() if hasattr(conditions, "batch_axes") else 0
    both = interleave(conditions, unconditional, batch_axes)

    def run(latents: Array, t: Array) -> tuple[Array, Array]:
        output = denoise(both, jnp.repeat(latents, 2, axis=0), jnp.repeat(t, 2, axis=0)).astype(jnp.float32)
        output = output.reshape((latents.shape[0], 2) + output.shape[1:])
        conditional, plain = output[:, 0], output[:, 1]
        factor = jnp.asarray(scale, jnp.float32)
        factor = factor.reshape(factor.shape + (1,) * (latents.ndim - 1) if factor.ndim else ())
        return conditional, plain + factor * (conditional - plain)

    if interval is None:
        return lambda latents, t: run(latents, t)[1]

    def inside(latents: Array, t: Array) -> Array:
        active = (t >= interval[0]) & (t <= interval[1])
        conditional, result = run(latents, t)
        return jnp.where(active.reshape(active.shape + (1,) * (latents.ndim - 1)), result, conditional)

    def outside(latents: Array, t: Array) -> Array:
        return denoise(conditions, latents, t).astype(jnp.float32)

    def select(latents: Array, t: Array) -> Array:
        return jax.lax.cond(jnp.any((t >= interval[0]) & (t <= interval[1])), inside, outside, latents, t)

    return select
