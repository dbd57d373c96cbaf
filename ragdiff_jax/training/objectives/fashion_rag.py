"""Stage `fashion_rag`: people edited from text and retrieved garments (F 3.3).

One objective for all its stages, told apart by what trains and what the U-Net takes:
    inpaint     ^unet/               text alone: what Stable Diffusion's inpainting U-Net is at full size
    inversion   ^inversion/          F_theta, the U-Net frozen and without pose (F's stage 1)
    edit        ^(unet|inversion)/   both, with zero-initialised pose channels (F's stage 2)
    detail      ^(unet|inversion|reference_net)/   past F: the U-Net sees the top garment's keys and values as well
    image_prompt  ^(unet|image_adapter)/   the baseline: the garments as an image prompt in the words' place
Each sample sees a random number of garments and loses text, garments and pose by chance, each apart.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ragdiff_jax.data.person_garments import PersonShapes, PersonsWithGarments
from ragdiff_jax.data.pipeline import make_batches
from ragdiff_jax.data.pixels import to_float, to_uint8
from ragdiff_jax.diffusion.guidance import guided
from ragdiff_jax.diffusion.sampler import sample
from ragdiff_jax.diffusion.samplers import named_sampler
from ragdiff_jax.models.transformer import Gates
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.systems.fashion_rag import FashionRAG
from ragdiff_jax.systems.initialise import adapter_from_unet, narrow_inputs, reference_from_unet, widen_inputs
from ragdiff_jax.training.objective import blank
from ragdiff_jax.training.objectives.common import RematObjective, load_parts, sheet
from ragdiff_jax.training.objectives.noise_start import noise_start
from ragdiff_jax.training.rows import of_rows
from ragdiff_jax.weights.fashion_folder import save_fashion
from ragdiff_jax.weights.folder import read_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditDropout:
    """Chances that a training sample loses a condition, drawn apart (LaDI-VTON: 0.2 each). `everything`: all three.

    `garments` takes ReferenceNet's too, `reference` that alone. `own`: share of the samples whose own garment stands
    among those shown. Without it F_theta learns what garments of one description have in common; with it, to say what a
    garment looks like.
    """

    text: float = 0.2
    garments: float = 0.2
    pose: float = 0.2
    everything: float = 0.05
    own: float = 0.5
    reference: float = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class FashionRAGObjective(RematObjective):
    """Attributes:
    model: the system.
    parts: folder of each part that starts from given weights; a U-Net with fewer inputs is widened with zeros. Without
      one ReferenceNet and the image adapter's keys and values start as copies of the U-Net's.
    people, held_out: with the garments retrieved for them.
    tokenizer: folder copied into the model folder; `empty_ids` the empty prompt's ids, `placeholder` that of `$`.
    most: garments a sample shows at most (N_r, drawn from 1 on); 0: none ever.
    pool: share of the samples whose garments' words are averaged into one garment's, so that any number can be served.
    noise_start: begin a fresh U-Net with a linear path for the noise (`objectives/noise_start.py`).
    """

    model: FashionRAG
    parts: Mapping[str, str]
    people: PersonsWithGarments | PersonShapes
    held_out: PersonsWithGarments | PersonShapes
    tokenizer: str
    empty_ids: tuple[int, ...]
    placeholder: int
    most: int = 3
    pool: float = 0.0
    dropout: EditDropout = EditDropout()
    noise_start: bool = False
    examples: int = 8
    sample_steps: int = 20
    export_dtype: str = "float32"
    trainable: str = "^(unet|inversion)/"

    def training_only(self, trainable):
        return dataclasses.replace(self, trainable=trainable)  # F_theta's dropout follows what is trained

    def init(self, key):
        tree = blank(self.model.init, key)
        filled = {"reference_net", *self.parts}
        tree |= self.model.init(key, [part for part in tree if part not in filled])
        if self.noise_start and "unet" not in self.parts:
            tree["unet"] = noise_start(tree["unet"], self.model.unet)
        return tree

    def restore_parts(self, params):
        parts = dict(self.parts)
        folder = parts.pop("unet", None)
        params = load_parts(params, parts)
        if folder is not None:
            params["unet"] = self._given_unet(params["unet"], folder)
        unet = params["unet"]
        if "reference_net" in params and "reference_net" not in parts:
            narrow = narrow_inputs(unet, self.model.vae.latent_channels)
            params["reference_net"] = reference_from_unet(params["reference_net"], narrow)
        if "image_adapter" in params and "image_adapter" not in parts:
            params["image_adapter"] = adapter_from_unet(params["image_adapter"], unet, self.model.unet)
        return params

    def _given_unet(self, wide, folder):
        narrow = UNetConfig.from_dict(read_config(folder)).in_channels
        if narrow == self.model.unet.in_channels:
            return load_parts({"unet": wide}, {"unet": folder})["unet"]
        kernel = wide["conv_in"]["kernel"]
        given = load_parts({"unet": narrow_inputs(wide, narrow)}, {"unet": folder})["unet"]
        unet = widen_inputs(given, kernel.shape[2])
        unet["conv_in"]["kernel"] = jax.device_put(unet["conv_in"]["kernel"], kernel.sharding)
        return unet

    def batches(self, **arguments):
        return make_batches(self.people, order=self.people.rows(), **arguments)

    @property
    def epoch_rows(self) -> int:
        return len(self.people)  # which of them show nothing of their garment takes a look at all of them

    def abstract_batch(self, rows):
        if isinstance(self.people, PersonShapes):
            return self.people.abstract_batch(rows)
        first = self.people.batch(self.people.rows()[:1])
        return {name: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype) for name, x in first.items()}

    def chosen(self, b: int, key, share):
        """(which garments a sample sees [b, most], 0 its own and then by rank; how many of them count [b]; which one
        ReferenceNet sees [b]): the first K by rank, with the own garment in a random one's place for that share of the
        samples, and the own one, else the first, looked at closely.
        """
        count_key, own_key, place_key = jax.random.split(key, 3)
        count = jax.random.randint(count_key, (b,), 1, self.most + 1)
        own = jax.random.bernoulli(own_key, share, (b,))
        place = jax.random.randint(place_key, (b,), 0, count)
        index = jnp.arange(1, self.most + 1)[None]
        index = jnp.where(own[:, None] & (jnp.arange(self.most)[None] == place[:, None]), 0, index)
        return index, count, jnp.where(own, 0, 1)

    def context(self, params, batch, garments, count, no_text, no_garments, key=None, pool=None):
        """(the prompt with its garments through the text encoder, the text alone) of each sample.

        `garments` [b, n, s, s, 3] or None; `pool` [b] bool: those of it are averaged. An image prompt isn't of it.
        """
        empty = jnp.asarray(self.empty_ids, jnp.int32)[None]
        with_garments, without = batch["prompt_ids"][:, 0], batch["prompt_ids"][:, 1]
        without = jnp.where(no_text[:, None], empty, without)
        plain = self.model.encode_prompt(params, without) if self._plain else None
        if garments is None or self.model.inversion is None:
            return self.model.encode_prompt(params, without), plain
        with_garments = jnp.where(no_text[:, None], empty, with_garments)
        ids = jnp.where(no_garments[:, None], without, with_garments)
        words = self.model.words(params, garments, key)
        b, n, t, d = words.shape
        counts = count
        if pool is not None:
            share = (jnp.arange(n)[None] < count[:, None]) / count[:, None]
            mean = jnp.einsum("bntd,bn->btd", words, share)
            words = words.at[:, 0].set(jnp.where(pool[:, None, None], mean, words[:, 0]))
            counts = jnp.where(pool, 1, count)
        counts = jnp.where(no_garments, 0, counts * t)
        words = words.reshape(b, n * t, d)
        return self.model.encode_prompt(params, ids, words, counts, self.placeholder), plain

    @property
    def trains_words(self) -> bool:
        """Whether F_theta is trained, and with its dropout: frozen words stay as they are."""
        return bool(re.search(self.trainable, "inversion/layers_6/kernel"))

    @property
    def _plain(self) -> bool:
        return self.model.visual_levels is not None

    def loss(self, params, constants, batch, key):
        return self.edit_loss(params, batch, key, dataclasses.asdict(self.dropout), self.pool), {}

    def edit_loss(self, params, batch, key, chances: Mapping[str, Any], pooled: float, *, training: bool = True):
        """The loss of each row; `chances`: `EditDropout`'s, numbers or arrays. `training`: F_theta's dropout."""
        keys = jax.random.split(key, 11)
        b = batch["person"].shape[0]

        def chance(index, probability):
            return jax.random.bernoulli(keys[index], probability, (b,))

        everything = chance(0, chances["everything"])
        no_text, no_garments, no_pose = (
            everything | chance(index, chances[name])
            for index, name in enumerate(("text", "garments", "pose"), start=1)
        )
        garments, count, pool, top, gates = None, None, None, None, None
        if self.most:
            index, count, closest = self.chosen(b, keys[4], chances["own"])
            garments = to_float(jnp.take_along_axis(batch["garments"], index[..., None, None, None], axis=1))
            pool = chance(5, pooled) if pooled else None
            top = self._picture(batch, closest)
            no_reference = no_garments | chance(10, chances["reference"])
            gates = Gates(reference=1.0 - no_reference, adapter=1.0 - no_garments)
        dropout_key = keys[6] if training and self.trains_words else None
        context, plain = self.context(params, batch, garments, count, no_text, no_garments, dropout_key, pool)
        person, mask = to_float(batch["person"]), batch["mask"].astype(jnp.float32)
        latents_key, masked_key = jax.random.split(keys[7])
        conditions = self.model.condition(
            params,
            person,
            mask,
            batch["keypoints"],
            context,
            plain=plain,
            pose_gate=1.0 - no_pose,
            key=masked_key,
            top=top,
            image_prompt=self._image_prompt(params, garments, count),
            gates=gates,
        )
        latents = self.model.encode(params, person, latents_key)
        return self.model.denoising_loss(params, conditions, latents, keys[8], keys[9])

    def _picture(self, batch, place):
        """The garment `place` [b] of a batch's, at the person's size, for ReferenceNet; None for a model without."""
        if not self.model.reference_net:
            return None
        return to_float(jnp.take_along_axis(batch["pictures"], place[:, None, None, None, None], axis=1)[:, 0])

    def _image_prompt(self, params, garments, count):
        """Of the first `count` of the garments; None for a model whose garments are words."""
        if garments is None or self.model.image_adapter is None:
            return None
        weights = (jnp.arange(garments.shape[1])[None] < count[:, None]).astype(jnp.float32)
        return self.model.image_prompt(params, garments, weights)

    def _example_batch(self):
        return self.held_out.batch(self.held_out.rows()[: self.examples])

    def validation(self, params, constants, key):
        """The loss of held-out people without garments, with the retrieved ones, with their own among these."""
        batch = self._example_batch()

        def loss(params, key, garments, own, batch):
            none = dict.fromkeys(("text", "pose", "everything", "reference"), 0.0)
            chances = none | {"garments": garments, "own": own}
            return self.edit_loss(params, batch, key, chances, 0.0, training=False)

        def mean(chances):
            return float(of_rows(self, "validation", loss, (params, key, *chances), (batch,)).mean())

        kinds = {"text": (1.0, 0.0)}
        if self.most:
            kinds |= {"retrieved": (0.0, 0.0), "own": (0.0, 1.0)}
        return {f"loss_{name}": mean(chances) for name, chances in kinds.items()}

    def sample(self, params, constants, key):
        """Held-out person, mask, nearest garment, the edit with all retrieved ones, own garment, the edit with it."""
        batch = self._example_batch()
        hole = np.where(batch["mask"][..., None] > 0, np.uint8(127), batch["person"])
        columns, most = [batch["person"], hole], self.most

        def edit(params, key, batch, first, count):
            return self.edit(params, batch, first, count, key)

        for first, count in ((1, most), (0, 1)) if most else ((0, 0),):
            places = np.full(len(hole), first, np.int32)
            if most:
                columns.append(_fitted(batch["garments"][:, first], batch["person"].shape[1:3]))
            rows = batch, places, np.full(len(hole), count, np.int32)
            columns.append(to_uint8(jnp.asarray(of_rows(self, "edit", edit, (params, key), rows))))
        return {"edited": sheet(*columns)}

    def generate(self, params, constants, batch, key):
        rows, first = len(batch["person"]), 1 if self.most else 0
        return self.edit(params, batch, jnp.full(rows, first), jnp.full(rows, self.most, jnp.int32), key)

    def edit(self, params, batch, first, count, key):
        """Edited people of a batch, in [-1, 1]; with `count` [b] of its garments from the place `first` [b] on."""
        model, b = self.model, batch["person"].shape[0]
        nobody, garments, top = jnp.zeros((b,), bool), None, None
        if self.most:
            index = first[:, None] + jnp.arange(self.most)[None]
            garments = to_float(jnp.take_along_axis(batch["garments"], index[..., None, None, None], axis=1))
            top = self._picture(batch, first)
        context, plain = self.context(params, batch, garments, count, nobody, nobody)
        person, mask = to_float(batch["person"]), batch["mask"].astype(jnp.float32)
        conditions = model.condition(
            params,
            person,
            mask,
            batch["keypoints"],
            context,
            plain=plain,
            top=top,
            image_prompt=self._image_prompt(params, garments, count),
        )
        empty = model.encode_prompt(params, jnp.asarray(self.empty_ids, jnp.int32)[None])
        denoise = guided(
            functools.partial(model.denoise, params),
            conditions,
            conditions.unconditional(empty),
            model.guidance_scale,
        )
        noise = jax.random.normal(key, (b, *model.latent_size, model.vae.latent_channels))
        table = named_sampler(model.sampler, model.schedule, self.sample_steps)
        images = model.decode(params, sample(denoise, table, noise, key=key))
        return jnp.where(mask[..., None] > 0.5, images, person)

    def export(self, params, directory: Path):
        save_fashion(directory, self.model, params, self.tokenizer, dtype=self.export_dtype)


def _fitted(images, shape):
    """Squares of any size as pictures of `shape`, for the sheet."""
    resized = jax.image.resize(jnp.asarray(images, jnp.float32), (len(images), *shape, 3), "linear")
    return np.asarray(resized).clip(0, 255).astype(np.uint8)

