"""Stage `zero_shot`: CLIP's picture tower learns the prompts that serving asks it, the text tower locked.

Captions name colours and prints first, and a small picture tower that learns from captions goes by these alone: it
tells no sleeve from another. Here a photo is set against the very prompts of its ten attributes (`systems/zero_shot`),
a softmax over each attribute's values, as if the text tower were a classifier's last layer (arXiv 2109.01903 has it as
the zero-shot head). The picture tower starts from a photo tower of StructureNet, which has learned to see garments.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from ragdiff_jax.data.attributes import ATTRIBUTES, STRUCTURAL
from ragdiff_jax.data.augment import augment_photo, draw
from ragdiff_jax.data.pixels import to_float
from ragdiff_jax.data.tokenizer import Tokenizer
from ragdiff_jax.data.wording import UNSAID
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.clip_text import CLIPTextModel
from ragdiff_jax.models.layers import dense_init
from ragdiff_jax.models.structure_net import StructureNetConfig
from ragdiff_jax.parallel import replicated
from ragdiff_jax.systems.zero_shot import PromptTables, clip_prompts
from ragdiff_jax.training.objectives.clip import CLIPObjective
from ragdiff_jax.training.objectives.common import at_most, equal_parts
from ragdiff_jax.weights.folder import load_part, read_config

PHOTO_TOWER = "photo_tower"  # in `parts`, in place of `image_encoder`: a folder of StructureNet
SCALES = "scales"  # among the constants
STEEPEST = 300.0  # as far as calibration looks


def start_scales(tables: Mapping[str, Float[np.ndarray, "..."]]) -> Float[np.ndarray, " n"]:
    """Of each attribute's cosines, so that the logits of a picture that lies on a prompt stand 3 apart.

    Prompts that differ in a word may be alike to the third digit, and others are not.
    """
    found = []
    for name in STRUCTURAL:
        rows = tables[name]
        apart = np.linalg.norm(rows - rows.mean(axis=-2, keepdims=True), axis=-1).mean()
        found.append(min(3.0 / max(float(apart), 1e-6), STEEPEST))
    return np.asarray(found, np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroShotObjective(CLIPObjective):
    """`parts.text_encoder` is needed; the picture tower starts from `parts.photo_tower`, the folder of a StructureNet,
    or from `parts.image_encoder`. Of CLIPObjective's fields those of the contrastive loss have no use here.
    """

    trainable: str = "^image_encoder/|^scales"
    reads: ClassVar[tuple[str, ...]] = ("photo", "photo_attributes", "row")

    def __post_init__(self):
        if not self.parts.get("text_encoder"):
            raise UserError("zero_shot: the text tower is locked, so it must be given: set model.parts.text_encoder")

    def init(self, key):
        scales = dense_init((None,), lambda _, shape: jnp.zeros(shape))(key, (len(STRUCTURAL),))
        return super().init(key) | {"scales": scales}

    def restore_parts(self, params):
        parts = {name: folder for name, folder in self.parts.items() if name != PHOTO_TOWER}
        params = super(ZeroShotObjective, dataclasses.replace(self, parts=parts)).restore_parts(params)
        if PHOTO_TOWER in self.parts:
            own = params["image_encoder"]
            abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), own)
            # A photo tower of convolutions has no ViT: the flat tower's is the nearest to it.
            convolutions = StructureNetConfig.from_dict(read_config(self.parts[PHOTO_TOWER])).photo_stages
            tower = "flat" if convolutions else "photo"
            tree = {tower: {"vision": abstract}}
            shardings = {tower: {"vision": jax.tree.map(lambda x: x.sharding, own)}}
            found = load_part(self.parts[PHOTO_TOWER], tree, shardings=shardings, allow_surplus=True)
            params = params | {"image_encoder": found[tower]["vision"]}
        return params

    def constants(self, mesh):
        abstract = jax.eval_shape(CLIPTextModel(self.text).init, jax.random.key(0), jnp.zeros((1, 8), jnp.int32))
        params = load_part(self.parts["text_encoder"], abstract["params"])
        embed = jax.jit(lambda ids: clip_prompts(self.text, params, ids))
        prompts = PromptTables(embed, Tokenizer.from_folder(self.tokenizer))
        tables = {"Category": prompts("", "Category")}
        for name in STRUCTURAL[1:]:
            tables[name] = np.stack([prompts(noun, name) for noun in ATTRIBUTES["Category"]])
        return jax.device_put(tables | {SCALES: start_scales(tables)}, replicated(mesh))

    def abstract_constants(self, mesh, memory_rows):
        def whole(*shape):
            return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=replicated(mesh))

        width, nouns = self.vision.projection_dim, len(ATTRIBUTES["Category"])
        tables = {name: whole(nouns, len(ATTRIBUTES[name]), width) for name in STRUCTURAL}
        return tables | {"Category": whole(nouns, width), SCALES: whole(len(STRUCTURAL))}

    def logits(self, params, tables, photos, nouns):
        """{attribute: [b, values]} of photos in [-1,1]; `nouns` [b]: the row of the category that prompts name."""
        images = self.embed_images(params, photos)
        scales = at_most(tables[SCALES] * jnp.exp(params["scales"]), STEEPEST)
        found = {}
        for name, scale in zip(STRUCTURAL, scales, strict=True):
            if name == "Category":
                cosines = jnp.einsum("bp,vp->bv", images, tables[name])
            else:
                cosines = jnp.einsum("bp,bvp->bv", images, tables[name][nouns])
            unsaid = np.array([(name, value) in UNSAID for value in ATTRIBUTES[name]])
            found[name] = jnp.where(unsaid, -1e9, scale * cosines)
        return found

    def loss(self, params, constants, batch, key):
        draws = draw(key, batch["photo"].shape[0], hue_probability=0.8, max_hue=180.0)  # no attribute is a colour
        photos = augment_photo(draws, to_float(batch["photo"]))
        losses, right, known = self._read(params, constants, photos, batch["photo_attributes"])
        count = jnp.maximum(known.sum(axis=1), 1)
        return losses.sum(axis=1) / count, {"right": right.sum() / jnp.maximum(known.sum(), 1)}

    def _read(self, params, tables, photos, ids):
        """(cross-entropy, whether it is read rightly, whether it is known) of each photo's attributes [b, 10]."""
        known, truth = ids > 0, jnp.maximum(ids - 1, 0)
        known = known.at[:, 1:].set(known[:, 1:] & known[:, :1])  # the other prompts name the category
        for name, value in UNSAID:
            at = STRUCTURAL.index(name)
            known = known.at[:, at].set(known[:, at] & (truth[:, at] != ATTRIBUTES[name].index(value)))
        logits = self.logits(params, tables, photos, truth[:, 0])
        of = [(logits[name], truth[:, at]) for at, name in enumerate(STRUCTURAL)]
        losses = jnp.stack([optax.softmax_cross_entropy_with_integer_labels(*each) for each in of], axis=1)
        right = jnp.stack([jnp.argmax(rows, axis=1) == row for rows, row in of], axis=1)
        return jnp.where(known, losses, 0.0), right & known, known

    def validation(self, params, constants, key):
        """Share of held-out photos whose value is read rightly, attribute by attribute; the true category is named."""
        arrays = self.held_out or self.pairs
        read = jax.jit(self._read)
        found = []
        for part, real in equal_parts(np.arange(min(256, len(arrays))), 32):
            batch = arrays.batch(part)
            rows = read(params, constants, to_float(batch["photo"]), batch["photo_attributes"])
            found.append([np.asarray(each)[:real] for each in rows[1:]])
        right, known = (np.concatenate([each[at] for each in found]).sum(axis=0) for at in (0, 1))
        shares = {name: float(r / k) for name, r, k in zip(STRUCTURAL, right, known, strict=True) if k}
        return shares | {"all": float(right.sum() / max(known.sum(), 1))}
