"""Stage `photo_tower`: StructureNet's photo tower alone, against a memory of flat-lays whose tower is locked.

What retrieval asks of the photo tower is which garments of the database have the photo's silhouette. So that is the
target: for each photo a distribution over the whole memory, softmax(IoU / shape_temperature) of its true silhouette
with every landmark; no batch is too small for it. The flat tower and the attribute table stay, and the memory with
them, as in locked-image tuning (arXiv 2111.07991). The photo tower may start as a copy of the flat one (`twins`), which
knows shapes and has to learn to find them in a photo.
"""

import dataclasses
import math
import re
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Shaped

from ragdiff_jax.data.pixels import to_float
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.layers import dense_init
from ragdiff_jax.parallel import replicated
from ragdiff_jax.retrieval.memory import Memory
from ragdiff_jax.retrieval.stored_landmarks import StoredLandmarks
from ragdiff_jax.systems.attribute_head import HeadAttributes
from ragdiff_jax.training.objectives.calibration import calibrated
from ragdiff_jax.training.objectives.common import check_memory, equal_parts
from ragdiff_jax.training.objectives.contrastive import overlaps, shape_info_nce
from ragdiff_jax.training.objectives.structure_net import StructureNetObjective
from ragdiff_jax.weights.folder import survives
from ragdiff_jax.weights.model_folder import read_calibration, structure_fingerprint

SIDE = 32  # pixels a side at which silhouettes are compared


def coarse(masks: Shaped[Array, "n h w"] | Shaped[np.ndarray, "n h w"]) -> Bool[Array, "n s s"]:
    """Silhouettes at `SIDE` pixels: a cell is the garment's where half of it is."""
    masks = jnp.asarray(masks).astype(jnp.float32)
    return jax.image.resize(masks, (masks.shape[0], SIDE, SIDE), "linear", antialias=True) >= 0.5


def coarse_landmarks(landmarks: StoredLandmarks) -> Bool[np.ndarray, "n s s"]:
    """`coarse` of a memory's silhouettes, some at a time: all in float32 are 19 GB for 8,000 of 768 px."""
    parts = [np.asarray(coarse(part)) for part in landmarks.chunks()]
    return np.concatenate([np.zeros((0, SIDE, SIDE), bool), *parts])


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhotoTowerObjective(StructureNetObjective):
    """Attributes beside StructureNetObjective's, of which those of the flat-lay's augmentation have no use:
    memory: folder of a memory that the StructureNet of `init_from` built.
    mask_weight: of a second task for the tokens, which is dropped at the end: a linear layer says of each quarter of a
      patch whether it is the garment (cross-entropy), where the photo's mask is known. A tower that can tell the
      garment from what is around it finds its shape sooner.
    attribute_weight: of a third task: StructureNet's head, if it has one, reads the ten attributes from the tokens,
      which have not been told them (cross-entropy, mean over the known ones). Length, fit and sleeves are most of a
      silhouette; and serving may say what the head reads (`systems/attribute_head.py`).
    """

    memory: str
    mask_weight: float = 1.0
    attribute_weight: float = 0.0
    trainable: str = "^(structure_net/(photo|attribute_head)|mask_head)/"
    rows_interact: ClassVar[bool] = False  # each photo is held against the memory
    exact: ClassVar[str] = "^structure_net/"
    reads: ClassVar[tuple[str, ...]] = (
        *("photo", "flat", "mask", "photo_mask", "has_photo_mask", "photo_attributes", "row"),
    )

    def file_dtype(self, params):
        # The memory belongs to the frozen tower to the bit.
        frozen = not re.search(self.trainable, "structure_net/flat/")
        tower = {name: params[name] for name in ("flat", "attributes")}
        return None if frozen and not survives(tower, self.export_dtype) else self.export_dtype

    def __post_init__(self):
        super().__post_init__()
        if not self.init_from or self.shape_temperature <= 0:
            raise UserError("photo_tower needs init_from, the StructureNet of its memory, and a shape_temperature")
        if self.attribute_weight and not self.config.reads_attributes:
            raise UserError("attribute_weight: this StructureNet has no head to read attributes; set it to 0")

    def init(self, key):
        zeros = dense_init((None, None), lambda _, shape, dtype=jnp.float32: jnp.zeros(shape, dtype))
        width = self.config.vision.projection_dim
        return super().init(key) | {"mask_head": {"kernel": zeros(key, (width + 1, 4))}}

    def restore_parts(self, params):
        params = super().restore_parts(params)
        Memory.open(self.memory, structure_fingerprint(self.config, params["structure_net"]))
        return params

    def constants(self, mesh):
        memory = Memory.open(self.memory)
        held = {"embeddings": memory.embeddings, "masks": coarse_landmarks(memory.landmarks)}
        return jax.device_put(held, replicated(mesh))

    def prepared(self, params, constants, mesh):
        # A memory may have been built anew since the run began.
        check_memory(self.memory, self.config, params, self.trainable)
        return constants

    def abstract_constants(self, mesh, memory_rows):
        def whole(shape, dtype):
            return jax.ShapeDtypeStruct(shape, dtype, sharding=replicated(mesh))

        return {
            "embeddings": whole((memory_rows, self.config.embed_dim), jnp.float32),
            "masks": whole((memory_rows, SIDE, SIDE), jnp.bool_),
        }

    def loss(self, params, constants, batch, key):
        photo_key, drop, paste_key = jax.random.split(key, 3)
        rows = self.photo_rows(batch, photo_key, paste_key)
        photo, seen = self.shown_photo(rows)
        flip = rows["photo_draws"].flip
        masks = coarse(batch["mask"])
        masks = jnp.where(flip[:, None, None], masks[:, :, ::-1], masks)
        attributes = self._drop(drop, batch["photo_attributes"])
        variables = {"params": params["structure_net"]}
        e, tokens = self.network.apply(variables, photo, attributes, "photo", method="embed_with_tokens")
        shared = overlaps(masks, constants["masks"])
        targets = jax.nn.softmax(shared / self.shape_temperature, axis=1)
        rows, _ = shape_info_nce(e, constants["embeddings"], 1.0 / self.temperature, targets)
        found = jnp.argmax(e @ constants["embeddings"].T, axis=1)
        at = self._mask_loss(params["mask_head"]["kernel"], tokens[:, 1:], seen)
        top1 = jnp.take_along_axis(shared, found[:, None], axis=1).mean()
        loss, seen_of_it = rows + self.mask_weight * at, {"iou_top1": top1, "mask_loss": at.mean()}
        if self.attribute_weight:
            logits = self.network.apply(variables, tokens, method="attribute_logits")
            named, right = self._attribute_loss(logits, batch["photo_attributes"])
            loss = loss + self.attribute_weight * named
            seen_of_it["attributes_right"] = right
        return loss, seen_of_it

    def _attribute_loss(self, logits, ids):
        """(cross-entropy of each sample's known attributes [b], the share of them that is read rightly)."""
        logits = jnp.split(logits, np.cumsum(self.config.attribute_sizes)[:-1], axis=1)
        known = ids > 0
        losses = [optax.softmax_cross_entropy_with_integer_labels(of, ids[:, i]) for i, of in enumerate(logits)]
        right = jnp.stack([jnp.argmax(of, axis=1) for of in logits], axis=1) == ids
        loss = jnp.where(known, jnp.stack(losses, axis=1), 0.0).sum(axis=1) / jnp.maximum(known.sum(axis=1), 1)
        return loss, (right & known).sum() / jnp.maximum(known.sum(), 1)

    def _mask_loss(self, kernel, tokens, seen):
        """Cross-entropy of each sample's quarters of patches [b]; 0 where the mask is unknown."""
        b, length, _ = tokens.shape
        side = math.isqrt(length)
        ones = jnp.ones((b, length, 1), tokens.dtype)
        logits = jnp.concatenate([tokens, ones], axis=-1).astype(jnp.float32) @ kernel
        logits = logits.reshape(b, side, side, 2, 2).transpose(0, 1, 3, 2, 4).reshape(b, 2 * side, 2 * side)
        truth = jax.image.resize(seen[..., 0], (b, 2 * side, 2 * side), "linear", antialias=True)
        known = (seen >= 0).any(axis=(1, 2, 3))
        loss = optax.losses.sigmoid_binary_cross_entropy(logits, jnp.clip(truth, 0.0, 1.0)).mean(axis=(1, 2))
        return jnp.where(known, loss, 0.0)

    def calibration(self, params):
        if not self.attribute_weight:
            return {}
        predictor = HeadAttributes.from_params(self.config, params["structure_net"], {})
        before = read_calibration(f"{self.init_from}/structure_net")
        return calibrated(predictor, self.held_out or self.pairs, before)

    def validation(self, params, constants, key):
        """Mean IoU of the nearest garment of the memory, attributes unknown and exact, on held-out photos."""
        held_out = self.held_out or self.pairs
        variables = {"params": params["structure_net"]}

        def run(variables, constants, batch, attributes):
            shared = overlaps(coarse(batch["mask"]), constants["masks"])
            e = self.network.apply(variables, to_float(batch["photo"]), attributes, method="embed_photo")
            found = jnp.argmax(e @ constants["embeddings"].T, axis=1)
            return jnp.take_along_axis(shared, found[:, None], axis=1)[:, 0], shared.mean(axis=1), shared.max(axis=1)

        run = self.program("validation", run)
        sums = {name: [] for name in ("iou_unknown", "iou_exact", "iou_random", "iou_oracle")}
        for part, real in equal_parts(np.arange(min(256, len(held_out))), 32):
            batch = held_out.batch(part)
            ids = batch["photo_attributes"]
            unknown, random, oracle = run(variables, constants, batch, np.zeros_like(ids))
            exact = run(variables, constants, batch, ids)[0]
            for of_name, values in zip(sums.values(), (unknown, exact, random, oracle), strict=True):
                of_name.append(np.asarray(values)[:real])
        return {name: float(np.concatenate(values).mean()) for name, values in sums.items() if values}
