"""What PGEA's objectives share (R 3.3): a U-Net of one autoencoder on the latents of another.

The stages: I `pgea_conv_in` (closed form) or `pgea_conv_in_sgd`, then `pgea_conv_out`; II and III are `text_to_image`
with `trainable` conv_in and conv_out, then the whole U-Net.
"""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ragdiff_jax.data.pixels import to_float, to_uint8
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.vae import VAEConfig
from ragdiff_jax.systems.ragdiffusion import TEXT_PARTS, RAGDiffusion
from ragdiff_jax.training.least_squares import as_convolution, patches
from ragdiff_jax.training.objective import blank
from ragdiff_jax.training.objectives.common import sheet
from ragdiff_jax.training.objectives.latent_change import NoiseMoments, carried_conv_out, noise_moments
from ragdiff_jax.training.objectives.text_to_image import PARTS, TextToImageObjective


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentChange(TextToImageObjective):
    """Base of stage I. Pictures are the photos and flat-lays of the pairs.

    Attributes:
    model: the system as it will be: the new autoencoder, and a U-Net with its channels.
    parts: folders of `unet` (the old one), `vae` (the new one), `old_vae` and the text encoders; all are needed.
    old_vae: the autoencoder that the U-Net knows.
    noise: `matched` is the schedule's noise, the same in both latents; `none` matches clean latents alone.
    ridge: of the closed form, relative to the mean square of its inputs.

    Raises UserError for parts that are missing, and for autoencoders of different spatial factors.
    """

    old_vae: VAEConfig
    noise: str = "matched"
    ridge: float = 1e-6
    reads: ClassVar[tuple[str, ...]] = ("photo", "flat", "text_ids", "row")

    def __post_init__(self):
        needed = ("unet", "vae", "old_vae", *TEXT_PARTS[: len(self.model.text_encoders)])
        missing = [part for part in needed if not self.parts.get(part)]
        if missing:
            raise UserError(f"model.parts: {', '.join(missing)} missing; PGEA moves a trained U-Net, name the folders")
        if self.old_vae.factor != self.model.vae.factor:
            raise UserError(
                f"the old autoencoder's latents are 1/{self.old_vae.factor} of the picture's side, the new one's "
                f"1/{self.model.vae.factor}: a convolution can't move between them; choose autoencoders of one factor"
            )
        if self.model.noise_offset:
            raise UserError(
                f"model.changes.noise_offset={self.model.noise_offset}: stage I knows plain noise alone; set it to 0 "
                "here, and as you like in the stages behind it"
            )
        if self.noise not in ("matched", "none"):
            raise UserError(f"model.noise={self.noise!r}: choose one of matched, none")

    @property
    def old(self) -> RAGDiffusion:
        """The system that the U-Net comes from."""
        channels = self.old_vae.latent_channels
        unet = dataclasses.replace(self.model.unet, in_channels=channels, out_channels=channels)
        return dataclasses.replace(self.model, vae=self.old_vae, unet=unet)

    @property
    def moments(self) -> NoiseMoments:
        return noise_moments(self.model.schedule) if self.noise == "matched" else NoiseMoments()

    def init(self, key):
        tree = {part: value for part, value in blank(self.model.init, key).items() if part in PARTS}
        old = blank(lambda key: self.old.init(key, ("unet", "vae")), key)
        return tree | {"unet": old["unet"], "old_vae": old["vae"]}

    def latents(self, params, batch) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w d"]]:
        """New and old scaled latents (the posteriors' means) of the batch's flat-lays and photos, by turns."""
        images = jnp.stack([batch["flat"], batch["photo"]], axis=1)
        images = to_float(images.reshape(-1, *images.shape[2:]))
        return self.model.encode(params, images), self.old.encode({"vae": params["old_vae"]}, images)

    def columns(self, params, batch) -> Float[Array, "b h w k"]:
        """[patches of the new latents | of the old ones | 1]: what `latent_change` sums."""
        new, old = (patches(z) for z in self.latents(params, batch))
        return jnp.concatenate([new, old, jnp.ones_like(new[..., :1])], axis=-1)

    def conv_in(self, params) -> np.ndarray:
        """The new conv_in so far as a matrix [9 new + 1, f], in float64 on the host."""
        raise NotImplementedError

    def isometry(self, params) -> np.ndarray:
        """How noise is carried over, [new, old], in float64 on the host."""
        raise NotImplementedError

    def adapted(self, params) -> dict[str, Any]:
        """The parameters of the new text-to-image system, as stage I has them so far."""
        unet = params["unet"]
        conv_out = carried_conv_out(unet["conv_out"], self.isometry(params))
        new = {"conv_in": as_convolution(self.conv_in(params)), "conv_out": conv_out}
        parts = {part: params[part] for part in PARTS if part in params}
        return parts | {"unet": {**unet, **new}}

    def sample(self, params, constants, key):
        """Flat-lays from captions by the U-Net so far, and what each autoencoder keeps of a picture."""
        batch = self.example_batch()

        def both(params, flat):
            image, old = to_float(flat), {"vae": params["old_vae"]}
            kept = (
                self.old.decode(old, self.old.encode(old, image)),
                self.model.decode(params, self.model.encode(params, image)),
            )
            return tuple(to_uint8(x) for x in kept)

        pictures = super().sample(self.adapted(params), constants, key)
        kept = self.program("autoencoders", both)(params, batch["flat"])
        return pictures | {"autoencoders": sheet(batch["flat"], *kept)}

    def validation(self, params, constants, key):
        """The text-to-image loss of the U-Net so far: what the next stage would start from."""
        return super().validation(self.adapted(params), constants, key)

    def export(self, params, directory):
        super().export(self.adapted(params), directory)
