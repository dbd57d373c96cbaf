"""Stage `text_to_image`: MainNet alone, flat-lays from captions (R Eq. 6): the stem that RAGDiffusion starts from."""

import dataclasses
import functools
import re
from typing import ClassVar

import jax
import jax.numpy as jnp

from ragdiff_jax.data.pixels import to_float, to_uint8
from ragdiff_jax.diffusion.ddim import ddim
from ragdiff_jax.diffusion.guidance import guided
from ragdiff_jax.diffusion.sampler import sample
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.transformer import Gates
from ragdiff_jax.parallel import flatten
from ragdiff_jax.systems.conditions import Conditions
from ragdiff_jax.systems.encodings import flat_latents, in_parts, text_of
from ragdiff_jax.systems.ragdiffusion import RAGDiffusion
from ragdiff_jax.training.objective import blank
from ragdiff_jax.training.objectives.common import PairObjective, load_parts, losses_by_time, sheet
from ragdiff_jax.training.objectives.noise_start import noise_start
from ragdiff_jax.training.rows import of_rows
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
    sample_steps: of the pictures drawn at intervals.
    """

    model: RAGDiffusion
    parts: dict[str, str]
    empty_ids: tuple[int, ...]
    text_dropout: float = 0.1
    guidance_scale: float = 3.0
    noise_start: bool = False
    sample_steps: int = 20
    trainable: str = "^unet/"
    trains: ClassVar[str] = "unet"  # the part of the tree that what is written follows from
    reads: ClassVar[tuple[str, ...]] = ("flat", "text_ids", "row")

    def init(self, key):
        tree = {part: value for part, value in blank(self.model.init, key).items() if part in PARTS}
        tree |= self.model.init(key, [part for part in tree if part not in self.parts])
        if self.noise_start and "unet" not in self.parts:
            tree["unet"] = noise_start(tree["unet"], self.model.unet)
        return tree

    def restore_parts(self, params):
        return load_parts(params, self.parts)

    def conditions(self, params, ids) -> Conditions:
        return self._of_text(self.model.encode_text(params, ids))

    def _of_text(self, text) -> Conditions:
        return Conditions(text=text, landmark_features=None, reference=None, adapter=None, gates=Gates())

    def encode(self, params, constants, batch, key):
        """What the frozen networks make of a batch, to be kept (`data.encodings`); nothing is drawn."""

        def encode(batch):
            mean, logvar = self.model.moments(params, to_float(batch["flat"]))
            text = self.model.encode_text(params, batch["text_ids"])
            return {"flat_mean": mean, "flat_logvar": logvar, "context": text.context, "pooled": text.pooled}

        return in_parts(encode, {name: batch[name] for name in ("flat", "text_ids")})

    def empty_text(self, params, constants):
        """The empty prompt's encoding [1, ...]."""
        return self.model.encode_text(params, jnp.asarray(self.empty_ids, jnp.int32)[None])

    def draw(self, params, batch, key, empty_text=None):
        """What a step draws: (conditions, latents, the keys of time and noise).

        Kept encodings stand for flat-lays and ids, and then `empty_text` for the empty prompt's ids.
        """
        drop, posterior, time, noise = jax.random.split(key, 4)
        b = batch["row"].shape[0] if "row" in batch else batch["flat"].shape[0]
        dropped = jax.random.bernoulli(drop, self.text_dropout, (b, 1))[:, 0]
        empty = jnp.asarray(self.empty_ids, jnp.int32) if empty_text is None else empty_text
        kept = "flat_mean" in batch
        rows = batch if kept else {**batch, "flat": to_float(batch["flat"])}
        latents = flat_latents(self.model, params, rows, posterior)
        return self._of_text(text_of(self.model, params, rows, dropped, empty)), latents, time, noise

    def denoising_loss(self, params, batch, key, timesteps=None, empty_text=None):
        """Text-to-image loss of each row, at random times or at `timesteps`."""
        return self.model.denoising_loss(params, *self.draw(params, batch, key, empty_text), timesteps)

    def prepared(self, params, constants, mesh):
        for path, _ in flatten(params):
            if path.split("/")[0] != self.trains and re.search(self.trainable, path):
                raise UserError(f"trainable={self.trainable}: finds {path}, and this stage writes {self.trains} alone")
        return constants

    def loss(self, params, constants, batch, key):
        kept = constants.get("empty_text") if "flat_mean" in batch else None
        return self.denoising_loss(params, batch, key, empty_text=kept), {}

    def validation(self, params, constants, key):
        batch = self.example_batch()

        def losses(params, key, batch, timesteps):
            return self.denoising_loss(params, batch, key, timesteps)

        def at(timesteps):
            return of_rows(self, "validation", losses, (params, key), (batch, timesteps))

        return losses_by_time(at, len(batch["flat"]), self.model.schedule.num_train_timesteps)

    def generate(self, params, constants, batch, key):
        model, ids = self.model, batch["text_ids"]
        shape = (len(ids), model.latent_size, model.latent_size, model.unet.in_channels)
        conditional = self.conditions(params, ids)
        empty = self.conditions(params, jnp.broadcast_to(jnp.asarray(self.empty_ids, jnp.int32), ids.shape))
        denoise = guided(functools.partial(model.denoise, params), conditional, empty, self.guidance_scale)
        latents = sample(denoise, ddim(model.schedule, self.sample_steps), jax.random.normal(key, shape))
        return model.decode(params, latents)

    def sample(self, params, constants, key):
        batch = self.example_batch()

        def draw(params, key, batch):
            return self.generate(params, {}, batch, key)

        drawn = of_rows(self, "generate", draw, (params, key), (batch,))
        return {"flat": sheet(batch["flat"], to_uint8(jnp.asarray(drawn)))}

    def export(self, params, directory):
        save_part(directory / "unet", self.model.unet.to_dict(), params["unet"])
        if jax.process_index() == 0:
            write_model_json(directory, ModelFile(system="text_to_image", parts={"unet": "UNet2DConditionModel"}))
