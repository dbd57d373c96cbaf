"""Stage `flat_tower`: StructureNet's flat-lay tower alone, so that near embeddings mean near silhouettes.

What the flat tower makes of the database bounds what any photo tower can find there, and a flat-lay shows its
silhouette: so that this much can be had for little. Silhouettes have codes in closed form, their
principal components at unit length (`shape_codes`), in which the nearest neighbour is nearly the one of largest IoU.
The tower learns to give each flat-lay its silhouette's code, and among the codes of all landmarks to find those whose
silhouettes are like its own. The memory is built with the tower that comes out, and `photo_tower` follows.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from ragdiff_jax.data.augment import augment_flat, draw
from ragdiff_jax.data.pixels import to_float
from ragdiff_jax.models.unit_length import unit
from ragdiff_jax.parallel import replicated
from ragdiff_jax.retrieval.memory import Memory
from ragdiff_jax.training.objectives.common import equal_parts
from ragdiff_jax.training.objectives.contrastive import overlaps, shape_info_nce
from ragdiff_jax.training.objectives.photo_tower import SIDE, PhotoTowerObjective, coarse, coarse_landmarks
from ragdiff_jax.training.objectives.structure_net import StructureNetObjective


def shape_basis(
    masks: Shaped[np.ndarray, "n s s"], dim: int
) -> tuple[Float[np.ndarray, " s2"], Float[np.ndarray, "s2 dim"]]:
    """(mean, principal axes) of silhouettes; axes past the rank of the masks are zero."""
    rows = np.asarray(masks, np.float64).reshape(len(masks), -1)
    mean = rows.mean(axis=0)
    variances, axes = np.linalg.eigh((rows - mean).T @ (rows - mean))
    order = np.argsort(variances)[::-1][: min(dim, len(rows) - 1)]
    basis = np.zeros((rows.shape[1], dim))
    basis[:, : len(order)] = axes[:, order]
    return mean.astype(np.float32), basis.astype(np.float32)


def shape_codes(
    masks: Shaped[Array, "b s s"] | Shaped[np.ndarray, "b s s"],
    mean: Float[Array, " s2"] | Float[np.ndarray, " s2"],
    basis: Float[Array, "s2 dim"] | Float[np.ndarray, "s2 dim"],
) -> Float[Array, "b dim"]:
    """Unit vectors of silhouettes in {0,1}: their coordinates on the axes of `shape_basis`."""
    rows = jnp.asarray(masks).reshape(masks.shape[0], -1).astype(jnp.float32) - mean
    return unit(jnp.einsum("bp,pd->bd", rows, basis, precision=jax.lax.Precision.HIGHEST))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlatTowerObjective(PhotoTowerObjective):
    """Attributes beside PhotoTowerObjective's, of which `mask_weight` and those of pasting have no use here:
    memory: gives the landmarks, whatever tower embedded it; empty: they are the silhouettes of the first pairs.
    landmarks: how many of these.
    code_weight: of 1 - cosine between a flat-lay's embedding and its own silhouette's code.
    """

    memory: str = ""
    landmarks: int = 4096
    code_weight: float = 1.0
    trainable: str = "^structure_net/flat/"
    reads: ClassVar[tuple[str, ...]] = ("flat", "mask", "flat_attributes", "row")

    def init(self, key):
        return StructureNetObjective.init(self, key)

    def restore_parts(self, params):
        return StructureNetObjective.restore_parts(self, params)  # the memory may be another tower's

    def prepared(self, params, constants, mesh):
        return constants

    def constants(self, mesh):
        if self.memory:
            masks = coarse_landmarks(Memory.open(self.memory).landmarks)
        else:
            rows = self.trained_rows(self.landmarks)
            parts = np.array_split(rows, -(-len(rows) // 64))
            masks = np.asarray(coarse(np.concatenate([self.pairs.batch(rows, ("mask",))["mask"] for rows in parts])))
        mean, basis = shape_basis(masks, self.config.embed_dim)
        codes = np.asarray(shape_codes(masks, mean, basis))
        held = {"embeddings": codes, "masks": masks, "mean": mean, "basis": basis}
        return jax.device_put(held, replicated(mesh))

    def abstract_constants(self, mesh, memory_rows):
        def whole(*shape):
            return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=replicated(mesh))

        more = {"mean": whole(SIDE**2), "basis": whole(SIDE**2, self.config.embed_dim)}
        return super().abstract_constants(mesh, memory_rows) | more

    def loss(self, params, constants, batch, key):
        looks, drop = jax.random.split(key)
        mask = batch["mask"][..., None].astype(jnp.float32)
        draws = draw(looks, mask.shape[0], pad_probability=0.2, **self._looks())
        flat, mask = augment_flat(draws, to_float(batch["flat"]), mask)
        attributes = self._drop(drop, batch["flat_attributes"])
        e = self.network.apply({"params": params["structure_net"]}, flat, attributes, method="embed_flat")
        masks = coarse(mask[..., 0])
        shared = overlaps(masks, constants["masks"])
        targets = jax.nn.softmax(shared / self.shape_temperature, axis=1)
        rows, _ = shape_info_nce(e, constants["embeddings"], 1.0 / self.temperature, targets)
        near = (e * shape_codes(masks, constants["mean"], constants["basis"])).sum(axis=1)
        return rows + self.code_weight * (1.0 - near), {"code_cosine": near.mean()}

    def validation(self, params, constants, key):
        """Held-out flat-lays' nearest garment of the memory, as the tower embeds both; attributes unknown."""
        held_out = self.held_out or self.pairs
        variables = {"params": params["structure_net"]}

        def run(variables, constants, batch):
            unknown = jnp.zeros_like(batch["flat_attributes"])
            e = self.network.apply(variables, to_float(batch["flat"]), unknown, method="embed_flat")
            shared = overlaps(coarse(batch["mask"]), constants["masks"])
            found = jnp.argmax(e @ constants["embeddings"].T, axis=1)
            return jnp.take_along_axis(shared, found[:, None], axis=1)[:, 0], shared.mean(axis=1), shared.max(axis=1)

        run, found = self.program("validation", run), []
        for part, real in equal_parts(np.arange(min(256, len(held_out))), 32):
            rows = run(variables, constants, held_out.batch(part))
            found.append(np.stack(rows, axis=1)[:real])
        means = np.concatenate(found).mean(axis=0)
        return dict(zip(("iou_top1", "iou_random", "iou_oracle"), map(float, means), strict=True))
