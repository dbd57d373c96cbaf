"""PGEA, between stages I and II: the conv_out of least text-to-image loss behind a U-Net whose conv_in is settled.

With everything before conv_out fixed, the loss of stage II is a quadratic in conv_out, so its minimum is one more least
squares fit: of the target (noise or velocity of the new latents) on the 3x3 patches of what conv_out sees. R 3.3 leaves
conv_out's start open; carried over from the old one (`latent_change.carried_conv_out`) it predicts nothing in the new
directions, which is worse at once, and random it would drive the first gradients through the whole U-Net with noise.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ragdiff_jax.diffusion.loss import min_snr_weights
from ragdiff_jax.diffusion.process import add_noise, target
from ragdiff_jax.errors import UserError
from ragdiff_jax.systems.encodings import noise_with_offset
from ragdiff_jax.training.least_squares import (
    SHOWN_RIDGE,
    TAPS,
    add_rows,
    as_convolution,
    as_matrix,
    patches,
    ridge_penalty,
    solve,
    total,
    zero_sums,
)
from ragdiff_jax.training.objective import Summing
from ragdiff_jax.training.objectives.text_to_image import TextToImageObjective


@dataclasses.dataclass(frozen=True, kw_only=True)
class PGEAConvOut(TextToImageObjective, Summing):
    """Draws captions, times and noise as `text_to_image` does. The loss of a step is that of the solution of all
    batches before it (an approximation in fp32), in `text_to_image`'s own measure.

    Attributes:
    ridge: towards the conv_out that `parts["unet"]` has, relative to the mean square of the inputs.

    Raises UserError without a `unet` in `parts`.
    """

    ridge: float = 1e-5
    trainable: str = "^sums/"
    trains: ClassVar[str] = "sums"

    def __post_init__(self):
        if not self.parts.get("unet"):
            raise UserError("model.parts: unet missing; conv_out is fitted behind stage I's U-Net, name its folder")

    @property
    def inputs(self) -> int:
        """Inputs of conv_out and its bias."""
        return TAPS * self.model.unet.block_out_channels[0] + 1

    def init(self, key):
        return super().init(key) | {"sums": zero_sums(self.inputs + self.model.unet.out_channels)}

    def features(self, params, conditions, latents, t):
        """What conv_out sees, [b, h, w, f]: the U-Net with the identity in its place."""
        width = self.model.unet.block_out_channels[0]
        identity = {
            "kernel": jnp.zeros((3, 3, width, width)).at[1, 1].set(jnp.eye(width)),
            "bias": jnp.zeros((width,)),
        }
        model = dataclasses.replace(self.model, unet=dataclasses.replace(self.model.unet, out_channels=width))
        b, h, w, _ = latents.shape
        text, factor = conditions.text, self.model.vae.factor
        return model.modules()["unet"].apply(
            {"params": {**params["unet"], "conv_out": identity}},
            latents,
            t,
            text.context,
            text.pooled,
            model.time_ids(b, h * factor, w * factor),
            gates=conditions.gates,
        )

    def add(self, params, constants, batch, key):
        conditions, latents, time, noise_key = self.draw(params, batch, key)
        schedule = self.model.schedule
        t = jax.random.randint(time, latents.shape[:1], 0, schedule.num_train_timesteps)
        noise = noise_with_offset(noise_key, latents.shape, self.model.noise_offset)
        x = patches(self.features(params, conditions, add_noise(schedule, latents, noise, t), t))
        x = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)
        y = target(schedule, latents, noise, t)
        columns = jnp.concatenate([x, y], axis=-1)
        if self.model.snr_gamma:  # a weighted row is a row times the root of its weight
            columns = columns * jnp.sqrt(min_snr_weights(schedule, t, self.model.snr_gamma))[:, None, None, None]
        shown = self._solution(params["sums"]["gram"], params["unet"]["conv_out"], SHOWN_RIDGE, jnp)
        rows = jnp.square(columns[..., : self.inputs] @ shown - columns[..., self.inputs :]).mean((1, 2, 3))
        return {"sums": add_rows(params["sums"], columns)}, rows, {}

    def _solution(self, gram, start, ridge, xp):
        n = self.inputs
        normal = gram[:n, :n]
        return solve(normal, gram[:n, n:], ridge_penalty(normal, ridge, xp), as_matrix(start, xp), xp)

    def adapted(self, params):
        """The parameters with the conv_out so far."""
        unet = params["unet"]
        matrix = self._solution(total(params["sums"]), unet["conv_out"], self.ridge, np)
        rest = {name: value for name, value in params.items() if name != "sums"}
        return rest | {"unet": {**unet, "conv_out": as_convolution(matrix)}}

    def sample(self, params, constants, key):
        return super().sample(self.adapted(params), constants, key)

    def validation(self, params, constants, key):
        return super().validation(self.adapted(params), constants, key)

    def export(self, params, directory):
        super().export(self.adapted(params), directory)
