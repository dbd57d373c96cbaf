"""Samplers as tables of coefficients, and the one loop that runs them.

Every deterministic or ancestral sampler with one network call a step and one remembered prediction is linear
in (latents x, network output m, this and the last step's predicted x_0, fresh noise n):

    x0     = x0_x * x + x0_m * m
    x_next = next_x * x + next_m * m + next_x0 * x0 + next_x0_last * x0_last + next_noise * n

A sampler is the table of these numbers, made once on the host in float64; the loop is one `lax.scan` over its
rows.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ragdiff_jax.errors import UserError

# denoise(latents [b, ...], t int32 [b]) -> the network's output, shaped as the latents.
Denoise = Callable[[Array, Array], Array]
# A pytree's leaf: an array of the shape its class says; inside transformations, whatever JAX puts there.
Column = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """A table of coefficients, one row a step; a pytree, so that it can be an argument of a jitted function.

    `timesteps` int32 [steps], descending; the rest float32 [steps], named as in the module's formulas.
    `stochastic` (static): whether `sample` needs a key.
    """

    timesteps: Column
    x0_x: Column
    x0_m: Column
    next_x: Column
    next_m: Column
    next_x0: Column
    next_x0_last: Column
    next_noise: Column
    stochastic: bool = False

    @property
    def steps(self) -> int:
        """The number of network calls."""
        return self.timesteps.shape[0]


jax.tree_util.register_dataclass(
    Sampler,
    data_fields=[field.name for field in dataclasses.fields(Sampler) if field.name != "stochastic"],
    meta_fields=["stochastic"],
)


def make_sampler(
    timesteps: np.ndarray, *, stochastic: bool = False, **coefficients: np.ndarray | float
) -> Sampler:
    """Builds a table from float64 columns named as in `Sampler`; an absent column is 0, a number fills its
    column.
    """
    columns = {
        field.name: np.broadcast_to(np.float32(coefficients.pop(field.name, 0.0)), timesteps.shape)
        for field in dataclasses.fields(Sampler)
        if field.name not in ("timesteps", "stochastic")
    }
    if coefficients:
        raise TypeError(f"no such column: {', '.join(coefficients)}")
    return Sampler(timesteps=timesteps.astype(np.int32), stochastic=stochastic, **columns)


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """`latents` and `x0`, float32 [steps, b, ...]: after each step, and as predicted in it."""

    latents: Column
    x0: Column


jax.tree_util.register_dataclass(Trajectory, data_fields=["latents", "x0"], meta_fields=[])


def _scan(denoise: Denoise, sampler: Sampler, noise: Array, key: Key[Array, "*b"] | None, keep: bool):
    if sampler.stochastic and key is None:
        raise UserError(
            "this sampler adds noise in each step (eta > 0): pass key=jax.random.key(seed), or set eta to 0"
        )
    noise = noise.astype(jnp.float32)

    def step(carry, row):
        x, x0_last = carry
        index, c = row
        t = jnp.full((x.shape[0],), c.timesteps, jnp.int32)
        # The network may compute in bf16; the latents stay float32, or small last steps would be lost.
        m = denoise(x, t).astype(jnp.float32)
        x0 = c.x0_x * x + c.x0_m * m
        x_next = c.next_x * x + c.next_m * m + c.next_x0 * x0 + c.next_x0_last * x0_last
        if sampler.stochastic:
            x_next += c.next_noise * _step_noise(key, index, x.shape)
        return (x_next, x0), (Trajectory(x_next, x0) if keep else None)

    rows = (jnp.arange(sampler.steps), jax.tree.map(jnp.asarray, sampler))
    (latents, _), trajectory = jax.lax.scan(step, (noise, jnp.zeros_like(noise)), rows)
    return trajectory if keep else latents


def _step_noise(key, index, shape):
    if key.ndim == 0:
        return jax.random.normal(jax.random.fold_in(key, index), shape, jnp.float32)
    keys = jax.vmap(jax.random.fold_in, (0, None))(key, index)
    return jax.vmap(lambda own: jax.random.normal(own, shape[1:], jnp.float32))(keys)


def sample(
    denoise: Denoise, sampler: Sampler, noise: Float[Array, "b *rest"], *, key: Key[Array, "*b"] | None = None
) -> Float[Array, "b *rest"]:
    """From unit normal noise to latents, float32, in one `lax.scan`.

    `denoise(latents, t int32 [b])` gives what the schedule's `prediction_type` says. The noise of step i
    comes from `fold_in(key, i)`; with a key a row, [b], a row's noise does not depend on its place. Raises
    `UserError` if the sampler is stochastic and `key` is missing.
    """
    return _scan(denoise, sampler, noise, key, keep=False)


def sample_trajectory(
    denoise: Denoise, sampler: Sampler, noise: Float[Array, "b *rest"], *, key: Key[Array, "*b"] | None = None
) -> Trajectory:
    """As `sample`, but returns the latents after every step and the x_0 predicted in it; the last latents
    are `sample`'s.
    """
    return _scan(denoise, sampler, noise, key, keep=True)
