"""PGEA stage I (R 3.3): a conv_in for new latents whose features are those of the old conv_in on old latents.

`PGEAConvIn` is the closed form: one pass of sums over the mesh, solved in float64. `PGEAConvInSGD` is the paper's way.
Both minimise the same expected error (`latent_change`), and their losses are the same quantity.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ragdiff_jax.diffusion.process import add_noise
from ragdiff_jax.models.layers import Conv
from ragdiff_jax.parallel import on_host
from ragdiff_jax.training.least_squares import (
    SHOWN_RIDGE,
    TAPS,
    add_rows,
    as_matrix,
    total,
    zero_sums,
)
from ragdiff_jax.training.objective import Summing
from ragdiff_jax.training.objectives.latent_change import (
    NoiseMoments,
    carried_conv_in,
    conv_in_error,
    fit_conv_in,
    nearest_isometry,
    noise_error,
    row_errors,
)
from ragdiff_jax.training.objectives.pgea import LatentChange


def sum_pictures(objective: "_ConvIn", params, batches: Iterable[Any]) -> np.ndarray:
    """G of some batches, in float64 on the host; outside the loop."""
    add = jax.jit(lambda sums, params, batch: add_rows(sums, objective.columns(params, batch)))
    sums = zero_sums(objective.width)
    for batch in batches:
        sums = add(sums, params, {name: batch[name] for name in ("flat", "photo")})
    return total(sums)


class _ConvIn(LatentChange):
    @property
    def width(self) -> int:
        """Columns of G."""
        return TAPS * (self.model.vae.latent_channels + self.old_vae.latent_channels) + 1

    def validation(self, params, constants, key):
        """Beside the text-to-image loss: the features' error on held-out pictures, and the old ones' mean square."""
        gram = sum_pictures(self, params, [self.example_batch()])
        old, matrix = params["unet"]["conv_in"], self.conv_in(params)
        error = conv_in_error(gram, matrix, old, self.moments)
        if self.moments.variance:
            carried = carried_conv_in(old, self.isometry(params))
            error += noise_error(matrix, carried, self.moments, side=self.model.latent_size)
        features = conv_in_error(gram, np.zeros_like(matrix), old, NoiseMoments())
        return super().validation(params, constants, key) | {"conv_in": float(error), "features": features}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PGEAConvIn(_ConvIn, Summing):
    """The closed form. The loss of a step is the error, on its batch, of the solution of all batches before it (an
    approximation in fp32; the exported one is solved in float64 with `ridge`): it says when there was enough data.
    """

    trainable: str = "^sums/"
    trains: ClassVar[str] = "sums"

    def init(self, key):
        return super().init(key) | {"sums": zero_sums(self.width)}

    def add(self, params, constants, batch, key):
        gram, old, side = params["sums"]["gram"], params["unet"]["conv_in"], self.model.latent_size
        columns = self.columns(params, batch)
        split = TAPS * self.model.vae.latent_channels
        matrix = fit_conv_in(gram, old, self.moments, side=side, ridge=SHOWN_RIDGE, xp=jnp)
        rows = row_errors(columns[..., :split], columns[..., split:-1], matrix, old, self.moments)
        carried = carried_conv_in(old, self._isometry(gram, jnp), jnp)
        rows = rows + noise_error(matrix, carried, self.moments, side=side, xp=jnp)
        return {"sums": add_rows(params["sums"], columns)}, rows.reshape(-1, 2).mean(1), {}

    def _isometry(self, gram, xp=np):
        return nearest_isometry(gram, self.model.vae.latent_channels, self.old_vae.latent_channels, xp)

    def isometry(self, params):
        return self._isometry(total(params["sums"]))

    def conv_in(self, params):
        gram, old = total(params["sums"]), params["unet"]["conv_in"]
        return fit_conv_in(gram, old, self.moments, side=self.model.latent_size, ridge=self.ridge)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PGEAConvInSGD(_ConvIn):
    """The paper's stage I: gradient steps on a fresh conv_in.

    Attributes:
    map_pairs: pairs that the isometry of the noise is measured on, once, at the start of the run.
    """

    map_pairs: int = 256
    trainable: str = "^conv_in/"
    trains: ClassVar[str] = "conv_in"

    def init(self, key):
        new, old = self.model.vae.latent_channels, self.old_vae.latent_channels
        conv = Conv(self.model.unet.block_out_channels[0]).init(key, jnp.zeros((1, 4, 4, new)))["params"]
        return super().init(key) | {"conv_in": conv, "isometry": jnp.zeros((new, old))}

    def restore_parts(self, params):
        params = super().restore_parts(params)
        count = min(self.map_pairs, len(self.pairs))
        rows = np.linspace(0, len(self.pairs) - 1, count).astype(int)
        size = min(16, count)  # of one compiled shape; the rest of the division is left out
        batches = (self.pairs.batch(rows[i : i + size], self.reads) for i in range(0, count - size + 1, size))
        gram = sum_pictures(self, params, batches)
        isometry = nearest_isometry(gram, self.model.vae.latent_channels, self.old_vae.latent_channels)
        return params | {"isometry": jax.device_put(isometry.astype(np.float32), params["isometry"].sharding)}

    def loss(self, params, constants, batch, key):
        new, old = self.latents(params, batch)
        if self.noise == "matched":
            times, draw = jax.random.split(key)
            t = jax.random.randint(times, new.shape[:1], 0, self.model.schedule.num_train_timesteps)
            noise = jax.random.normal(draw, new.shape)
            carried = jnp.matmul(noise, params["isometry"], precision=jax.lax.Precision.HIGHEST)
            new, old = add_noise(self.model.schedule, new, noise, t), add_noise(self.model.schedule, old, carried, t)
        conv = Conv(self.model.unet.block_out_channels[0])
        mine = conv.apply({"params": params["conv_in"]}, new)
        theirs = conv.apply({"params": params["unet"]["conv_in"]}, old)
        rows = jnp.square(mine - theirs).mean((1, 2, 3)).reshape(-1, 2).mean(1)
        return rows, {}

    def isometry(self, params):
        return on_host(params["isometry"]).astype(np.float64)

    def conv_in(self, params):
        return as_matrix(params["conv_in"])
