"""Stage `text_to_image`: MainNet alone, flat-lays from captions (R Eq. 6): the stem that RAGDiffusion starts from."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32, UInt8

from ragdiff_jax.data.pixels import to_float, to_uint8
from ragdiff_jax.diffusion.ddim import ddim
from ragdiff_jax.diffusion.guidance import guided
from ragdiff_jax.diffusion.sampler import sample
from ragdiff_jax.models.transformer import Gates
from ragdiff_jax.systems.conditions import Conditions
from ragdiff_jax.systems.ragdiffusion import RAGDiffusion
from ragdiff_jax.training.objective import blank
from ragdiff_jax.training.objectives.common import PairObjective, load_parts, losses_by_time, sheet
from ragdiff_jax.training.objectives.noise_start import noise_start
from ragdiff_jax.weights.folder import ModelFile, save_part, write_model_json

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextToImageObjective(PairObjective):
    """Attributes:
    model: the system; its U-Net, autoencoder and text encoders take part.
    parts: folder of each part that starts from given weights (`vae` and `text_encoder` must).
    empty_ids: the empty prompt's ids, one tuple for all encoders.
    text_dropout: chance that a sample's caption is the empty prompt.
    noise_start: begin a fresh U-Net with a linear path for the noise (`objectives/noise_start.py`).
    """

    model: RAGDiffusion
    parts: dict[str, str]
    empty_ids: tuple[int, ...]
    text_dropout: float = 0.1
    guidance_scale: float = 3.0
    noise_start: bool = False
    trainable: str = "^unet/"

    def init(self, key):
        tree = {part: value for part, value in blank(self.model.init, key).items() if part in PARTS}
        tree |= self.model.init(key, [part for part in tree if part not in self.parts])
        if self.noise_start and "unet" not in self.parts:
            tree["unet"] = noise_start(tree["unet"], self.model.unet)
        return tree

    def restore_parts(self, params):
        return load_parts(params, self.parts)

    def conditions(self, params, ids) -> Conditions:
        text = self.model.encode_text(params, ids)
        return Conditions(text=text, landmark_features=None, reference=None, adapter=None, gates=Gates())

    def draw(self, params, batch, key):
        """What a step draws: (conditions, latents, the keys of time and noise)."""
        drop, posterior, time, noise = jax.random.split(key, 4)
        b = batch["flat"].shape[0]
        empty = jnp.asarray(self.empty_ids, jnp.int32)[None]
        ids = jnp.where(jax.random.bernoulli(drop, self.text_dropout, (b, 1)), empty, batch["text_ids"])
        latents = self.model.encode(params, to_float(batch["flat"]), posterior)
        return self.conditions(params, ids), latents, time, noise

    def denoising_loss(self, params, batch, key, timesteps=None):
        """Text-to-image loss of each row, at random times or at `timesteps`."""
        return self.model.denoising_loss(params, *self.draw(params, batch, key), timesteps)

    def loss(self, params, constants, batch, key):
        return self.denoising_loss(params, batch, key), {}

    def validation(self, params, constants, key):
        batch = self.example_batch()
        losses = jax.jit(lambda params, batch, timesteps: self.denoising_loss(params, batch, key, timesteps))
        times = self.model.schedule.num_train_timesteps
        return losses_by_time(functools.partial(losses, params, batch), len(batch["flat"]), times)

    def pictures(self, params, ids: Int32[Array, "b l"], key) -> UInt8[Array, "b h w 3"]:
        """Flat-lays from captions: 20 DDIM steps under `guidance_scale`, a pure function."""
        shape = (len(ids), self.model.latent_size, self.model.latent_size, self.model.unet.in_channels)
        conditional = self.conditions(params, ids)
        empty = self.conditions(params, jnp.broadcast_to(jnp.asarray(self.empty_ids, jnp.int32), ids.shape))
        denoise = guided(functools.partial(self.model.denoise, params), conditional, empty, self.guidance_scale)
        latents = sample(denoise, ddim(self.model.schedule, 20), jax.random.normal(key, shape))
        return to_uint8(self.model.decode(params, latents))

    def sample(self, params, constants, key):
        batch = self.example_batch()
        return {"flat": sheet(batch["flat"], jax.jit(self.pictures)(params, batch["text_ids"], key))}

    def export(self, params, directory):
        save_part(directory / "unet", self.model.unet.to_dict(), params["unet"])
        if jax.process_index() == 0:
            write_model_json(directory, ModelFile(system="text_to_image", parts={"unet": "UNet2DConditionModel"}))
