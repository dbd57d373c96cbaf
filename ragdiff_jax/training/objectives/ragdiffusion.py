"""Stage `ragdiffusion`: MainNet, ReferenceNet, EP-Adapter and Landmark Guider together (R 3, 4.1).

Or whichever conditions the model has in their place (`systems/variants.py`).

Retrieval, SLLE and landmark fusion run inside the step, on the augmented photo's own embedding; a sample's own flat-lay
is never among its neighbours. What comes in is a memory of training flat-lays, made by the very encoder of this model.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ragdiff_jax.data.augment import augment_pair, draw, paste
from ragdiff_jax.data.pixels import to_float, to_uint8
from ragdiff_jax.data.silhouettes import flat_mask
from ragdiff_jax.data.tokenizer import Tokenizer
from ragdiff_jax.diffusion.guidance import guided
from ragdiff_jax.diffusion.sampler import sample
from ragdiff_jax.diffusion.samplers import named_sampler
from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import replicated
from ragdiff_jax.retrieval.device_memory import abstract_memory
from ragdiff_jax.retrieval.landmarks import iou
from ragdiff_jax.retrieval.memory import Memory
from ragdiff_jax.systems.attribute_head import HeadAttributes
from ragdiff_jax.systems.encodings import encode_pairs, in_parts
from ragdiff_jax.systems.initialise import adapter_from_unet, control_from_unet, reference_from_unet
from ragdiff_jax.systems.parts import TRAINED_PARTS
from ragdiff_jax.systems.ragdiffusion import TEXT_PARTS, RAGDiffusion
from ragdiff_jax.systems.zero_shot import Calibration, ZeroShotAttributes
from ragdiff_jax.training.objective import blank
from ragdiff_jax.training.objectives.calibration import calibrated
from ragdiff_jax.training.objectives.common import PairObjective, check_memory, load_parts, losses_by_time, sheet
from ragdiff_jax.training.rows import of_rows
from ragdiff_jax.weights.model_folder import IMAGE_ENCODER, encoder_fingerprint, read_calibration, save_model


@dataclasses.dataclass(frozen=True, kw_only=True)
class RAGDiffusionObjective(PairObjective):
    """Attributes:
    model: the system.
    parts: folder of each part that starts from given weights; without one `reference_net`, `control_net`, `ep_adapter`
      and `image_adapter` start as copies of `unet`.
    memory: folder of the memory that training retrieves from.
    tokenizers: a folder for each text encoder, copied into the model folder.
    empty_ids: the empty prompt's ids.
    augment: R 9.5's augmentations on the device.
    paste_share: chance that a sample's photo is its flat-lay pasted, little turned, on another photo's surroundings
      (`data.augment.paste`). A U-Net whose attention doesn't yet match content with content doesn't find the garment in
      the photo, and learns to do without ReferenceNet; from these it learns to copy.
    sample_steps: of the pictures drawn at intervals.
    """

    model: RAGDiffusion
    parts: Mapping[str, str]
    memory: str
    tokenizers: tuple[str, ...]
    empty_ids: tuple[int, ...]
    augment: bool = True
    paste_share: float = 0.0
    sample_steps: int = 20
    export_dtype: str = "float32"
    trainable: str = f"^({'|'.join(TRAINED_PARTS)})/"
    exact: ClassVar[str] = "^structure_net/"  # a memory belongs to it to the bit
    reads: ClassVar[tuple[str, ...]] = ("photo", "flat", "mask", "photo_attributes", "text_ids", "row")

    def init(self, key):
        # What restore_parts fills needs no random numbers.
        filled = {"reference_net", "control_net", *self.parts}
        tree = blank(self.model.init, key)
        return tree | self.model.init(key, [part for part in tree if part not in filled])

    def restore_parts(self, params):
        params = load_parts(params, self.parts)
        Memory.open(self.memory, encoder_fingerprint(self.model, params))  # refuses another encoder's
        unet = params["unet"]
        adapter = functools.partial(adapter_from_unet, config=self.model.unet)
        copies = {"reference_net": reference_from_unet, "control_net": control_from_unet}
        for part, copied in (copies | {"ep_adapter": adapter, "image_adapter": adapter}).items():
            if part in params and part not in self.parts:
                params[part] = copied(params[part], unet)
        return params

    def constants(self, mesh) -> Any:
        memory, side = Memory.open(self.memory), self.model.image_size
        if memory.manifest.landmark_size != (side, side):
            found = "x".join(map(str, memory.manifest.landmark_size))
            raise UserError(
                f"{self.memory}: its landmarks are {found}, the model's pictures {side}x{side}; build it for this model"
            )
        rows = {item.id: row for row, item in enumerate(memory.items)}
        own = np.array([rows.get(id, -1) for id in self.pairs.ids], np.int32)
        empty = np.asarray(self.empty_ids, np.int32)
        return {
            "memory": memory.to_device(mesh),
            "own_rows": jax.device_put(own, replicated(mesh)),
            "empty_ids": jax.device_put(empty, replicated(mesh)),
        }

    def prepared(self, params, constants, mesh):
        # A memory may have been built anew since the run began.
        check_memory(self.memory, self.model.structure_net, params, self.trainable)
        return constants

    def abstract_constants(self, mesh, memory_rows):
        def whole(shape, dtype):
            return jax.ShapeDtypeStruct(shape, dtype, sharding=replicated(mesh))

        side, width = self.model.image_size, self.model.structure_net.embed_dim
        return {
            "memory": abstract_memory(memory_rows, width, side, replicated(mesh)),
            "own_rows": whole((len(self.pairs),), jnp.int32),
            "empty_ids": whole((len(self.empty_ids),), jnp.int32),
        }

    def prepare(self, constants, batch, key):
        """What `RAGDiffusion.loss` takes, of what the pipeline gives."""
        photo, flat = to_float(batch["photo"]), to_float(batch["flat"])
        mask = batch["mask"][..., None].astype(jnp.float32)
        augment_key, coin, place = jax.random.split(key, 3)
        padding = jnp.zeros(len(photo))
        if self.augment:
            draws = draw(augment_key, len(photo))
            padding = draws.padding
            photo, flat, mask = augment_pair(draws, photo, flat, mask)
        if self.paste_share:
            pasted, _ = paste(place, flat, mask, photo, max_turn=20.0, scale_range=(0.8, 1.05), max_shift=0.05)
            photo = jnp.where(jax.random.bernoulli(coin, self.paste_share, (len(photo), 1, 1, 1)), pasted, photo)
        return {
            "photo": photo,
            "flat": flat,
            "mask": mask,
            "padding": padding,
            "photo_attributes": batch["photo_attributes"],
            "text_ids": batch["text_ids"],
            "memory_row": constants["own_rows"][batch["row"]],
        }

    def encode(self, params, constants, batch, key):
        """What the frozen networks make of a batch under one draw of augmentations, to be kept (`data.encodings`)."""
        ready = self.prepare(constants, batch, key)
        own = {"mask": ready["mask"][..., 0] >= 0.5, "padding": ready["padding"]}
        return in_parts(functools.partial(encode_pairs, self.model, params), ready) | own

    def empty_text(self, params, constants):
        """The empty prompt's encoding [1, ...]."""
        return self.model.encode_text(params, constants["empty_ids"][None])

    def loss(self, params, constants, batch, key, timesteps=None):
        augment, attributes, loss = jax.random.split(key, 3)
        # Whoever has no attributes at hand must be served as well: half the samples know none.
        known = jax.random.bernoulli(attributes, 0.5, (batch["row"].shape[0], 1))
        if "flat_mean" in batch:
            ready = dict(batch)
            ready["embedding"] = jnp.where(known, batch["embedding"], batch["embedding_unknown"])
            ready["memory_row"] = constants["own_rows"][batch["row"]]
            ready["mask"] = batch["mask"][..., None].astype(jnp.float32)
        else:
            ready = self.prepare(constants, batch, augment)
            ready["photo_attributes"] = jnp.where(known, ready["photo_attributes"], 0)
        empty = constants["empty_text" if "flat_mean" in batch else "empty_ids"]
        rows = self.model.loss(
            params, ready, loss, memory=constants["memory"], empty_ids=empty, timesteps=timesteps
        )
        return rows, {}

    def _held_out(self):
        batch = self.example_batch()
        # Rows of another split are in no memory of this one.
        return batch | {"row": np.zeros_like(batch["row"])}

    def validation(self, params, constants, key):
        batch = self._held_out()
        objective = dataclasses.replace(self, augment=False, paste_share=0.0)

        def losses(params, constants, key, batch, timesteps):
            nobody = constants | {"own_rows": jnp.full_like(constants["own_rows"], -1)}
            return objective.loss(params, nobody, batch, key, timesteps)[0]

        def at(timesteps):
            return of_rows(self, "validation", losses, (params, constants, key), (batch, timesteps))

        return losses_by_time(at, len(batch["row"]), self.model.schedule.num_train_timesteps)

    def evaluators(self):
        return {"retrieval": self.measure_retrieval, "generation": self.measure_generation}

    def measure_retrieval(self, params, constants, key) -> dict[str, float]:
        """IoU of the landmark (predicted, else fused) with the examples' true silhouette, attributes unknown."""
        del key
        batch = self._held_out()

        def run(params, constants, batch):
            photo = to_float(batch["photo"])
            e = self.model.embed(params, photo, jnp.zeros_like(batch["photo_attributes"]))
            ids, cosines, _, weights = self.model.retrieve(constants["memory"], e)
            landmark = self.model.landmark(params, photo, constants["memory"].landmarks[ids], weights)
            return iou(landmark, batch["mask"]), cosines[:, 0]

        overlap, cosine = of_rows(self, "retrieval", run, (params, constants), (batch,))
        return {"landmark_iou": float(overlap.mean()), "cosine": float(cosine.mean())}

    def measure_generation(self, params, constants, key) -> dict[str, float]:
        """Mean absolute error, in 0..255, of the generated flat-lays of the examples, and IoU of their silhouettes."""
        batch = self._held_out()
        images, _ = self._generate(params, constants, batch, key)
        images = to_uint8(jnp.asarray(images))
        error = np.abs(np.asarray(images, np.float32) - batch["flat"]).mean()
        masks = np.stack([flat_mask(image) for image in np.asarray(images)])
        return {"error": float(error), "iou": float(np.mean(iou(jnp.asarray(masks), jnp.asarray(batch["mask"] > 0))))}

    def sample(self, params, constants, key):
        """Held-out photo, landmark, generated and true flat-lay, attributes unknown."""
        batch = self._held_out()
        images, landmarks = self._generate(params, constants, batch, key)
        shown = np.repeat(np.where(np.asarray(landmarks), 0, 255).astype(np.uint8)[..., None], 3, axis=-1)
        return {"generated": sheet(batch["photo"], shown, to_uint8(jnp.asarray(images)), batch["flat"])}

    def generate(self, params, constants, batch, key):
        return self._generated(params, constants, key, batch)[0]

    def _generate(self, params, constants, batch, key):
        return of_rows(self, "generate", self._generated, (params, constants, key), (batch,))

    def _generated(self, params, constants, key, batch):
        """(pictures [b,H,W,3] of the batch's photos, landmarks [b,H,W]), attributes unknown."""
        model, photo = self.model, to_float(batch["photo"])
        e = model.embed(params, photo, jnp.zeros_like(batch["photo_attributes"]))
        ids, _, neighbours, weights = model.retrieve(constants["memory"], e)
        landmark = model.landmark(params, photo, constants["memory"].landmarks[ids], weights)
        empty = model.encode_text(params, constants["empty_ids"][None])
        text = model.encode_text(params, jnp.broadcast_to(constants["empty_ids"], batch["text_ids"].shape))
        conditions = model.condition(params, photo, e, neighbours, weights, None, text, landmark=landmark)
        denoise = guided(
            functools.partial(model.denoise, params),
            conditions,
            model.unconditional(params, conditions, empty),
            model.guidance_scale,
        )
        shape = (photo.shape[0], model.latent_size, model.latent_size, model.unet.in_channels)
        table = named_sampler(model.sampler, model.schedule, self.sample_steps)
        latents = sample(denoise, table, jax.random.normal(key, shape), key=key)
        return model.decode(params, latents), landmark

    def calibration(self, params) -> dict[str, Calibration] | None:
        """Of the attributes that the model predicts, on the held-out photos; None where it predicts none."""
        arrays = self.held_out or self.pairs
        if self.model.image_encoder is None:
            if not self.model.retrieves or not self.model.structure_net.reads_attributes:
                return None
            head = HeadAttributes.from_params(self.model.structure_net, params["structure_net"], {})
            return calibrated(head, arrays, read_calibration(self.parts.get("structure_net") or ""))
        predictor = ZeroShotAttributes.from_towers(
            self.model.text_encoders[-1],
            self.model.image_encoder,
            params[TEXT_PARTS[len(self.model.text_encoders) - 1]],
            params[IMAGE_ENCODER],
            Tokenizer.from_folder(self.tokenizers[-1]),
            {},
        )
        return calibrated(predictor, arrays, read_calibration(self.parts[IMAGE_ENCODER]))

    def export(self, params, directory: Path):
        save_model(
            directory,
            self.model,
            params,
            self.tokenizers,
            dtype=self.export_dtype,
            calibration=self.calibration(params),
        )
