"""Stage `dino`: the picture tower alone, on pictures without labels, by DINOv2's recipe (R 4.1; arXiv 2304.07193).

Two large and several small views of each picture; a student sees them all, a teacher, the student's average, the large
ones. Class tokens agree across views (DINO), masked patches with what the teacher sees there (iBOT), and class tokens
keep apart (KoLeo). The tower is a CLIP ViT from CLIP's weights, and what is exported, the teacher, is one too: what
`structure_net` takes as `model.vision`. A sample is the photo or the flat-lay of a pair, half each.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ragdiff_jax.data.attributes import STRUCTURAL
from ragdiff_jax.data.multi_crop import block_masks, jitter, random_crop
from ragdiff_jax.data.pixels import to_float
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.clip_vision import MEAN, STD, CLIPVisionConfig, CLIPVisionModel
from ragdiff_jax.models.dino_head import DINOHead
from ragdiff_jax.models.layers import dense_init
from ragdiff_jax.models.unit_length import unit
from ragdiff_jax.parallel import on_host
from ragdiff_jax.training.objectives.common import PairObjective, equal_parts
from ragdiff_jax.training.objectives.contrastive import overlaps
from ragdiff_jax.training.objectives.dino_losses import cross_entropy, koleo, sinkhorn_targets
from ragdiff_jax.weights.folder import ModelFile, load_part, save_part, write_model_json

STUDENT_TEMPERATURE = 0.1
GLOBALS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class DINOObjective(PairObjective):
    """Attributes:
    vision: the tower; views have multiples of its patch size.
    init_from: folder of a CLIP vision model that it starts from; empty starts from scratch.
    prototypes, hidden, bottleneck: of the heads; `separate_heads`: iBOT has its own.
    local_views, local_size: number and pixels of the small views; the large ones have the tower's image size.
    global_scale, local_scale: shares of the picture's area that a view shows.
    mask_ratio: shares of the patches that are masked in one of each picture's two large views.
    ibot_weight, koleo_weight: of the losses beside DINO's.
    teacher_temperature: (at the start, after `teacher_warmup` steps).
    freeze_prototypes: steps in which the prototypes stay.
    layer_decay: learning rate of a layer, as a factor for each layer above it; `patch_rate`: a further one for patches.
    """

    vision: CLIPVisionConfig
    init_from: str = ""
    prototypes: int = 65_536
    hidden: int = 2048
    bottleneck: int = 256
    separate_heads: bool = False
    local_views: int = 8
    local_size: int = 98
    global_scale: tuple[float, float] = (0.32, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.32)
    mask_ratio: tuple[float, float] = (0.1, 0.5)
    ibot_weight: float = 1.0
    koleo_weight: float = 0.1
    teacher_temperature: tuple[float, float] = (0.04, 0.07)
    teacher_warmup: int = 0
    freeze_prototypes: int = 0
    layer_decay: float = 0.9
    patch_rate: float = 0.2
    dtype: str = "float32"
    remat: bool = False
    trainable: str = "^(?!.*visual_projection)"  # CLIP's projection has no part in this, and is exported as it came
    wants_average: ClassVar[bool] = True
    rows_interact: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("photo", "flat", "row")

    def __post_init__(self):
        if self.local_views < 1 or self.local_size % self.vision.patch_size:
            raise UserError(
                f"local_views={self.local_views}, local_size={self.local_size}: at least one view, of a multiple of "
                f"the patch size {self.vision.patch_size}"
            )

    @property
    def network(self) -> CLIPVisionModel:
        return CLIPVisionModel(self.vision, jnp.dtype(self.dtype), self.remat)

    @property
    def head(self) -> DINOHead:
        return DINOHead(self.prototypes, self.hidden, self.bottleneck)

    @property
    def grid(self) -> int:
        """Patches a side of a large view."""
        return self.vision.image_size // self.vision.patch_size

    def init(self, key):
        tower, *heads = jax.random.split(key, 3)
        side, width = self.vision.image_size, self.vision.hidden_size
        zeros = dense_init(("norm",), lambda _, shape: jnp.zeros(shape))
        tree = {
            "image_encoder": self.network.init(tower, jnp.zeros((1, side, side, 3)))["params"],
            "mask_token": zeros(key, (width,)),
            "dino_head": self.head.init(heads[0], jnp.zeros((1, width)))["params"],
        }
        if self.separate_heads:
            tree["ibot_head"] = self.head.init(heads[1], jnp.zeros((1, width)))["params"]
        return tree

    def restore_parts(self, params):
        if not self.init_from:
            return params
        own = params["image_encoder"]
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), own)
        loaded = load_part(self.init_from, abstract, shardings=jax.tree.map(lambda x: x.sharding, own))
        return dict(params) | {"image_encoder": loaded}

    def batches(self, *, start_step, **arguments):
        for number, batch in enumerate(super().batches(start_step=start_step, **arguments), start=start_step):
            yield batch | {"step": np.full(len(batch["row"]), number, np.int32)}

    def abstract_batch(self, rows):
        return super().abstract_batch(rows) | {"step": jax.ShapeDtypeStruct((rows,), jnp.int32)}

    def rate_multipliers(self, params):
        """Layer-wise learning rates: those near the pixels learn least."""
        depth = self.vision.num_hidden_layers
        by_layer = self.layer_decay ** (depth - jnp.arange(depth, dtype=jnp.float32))

        def rate(path, leaf):
            names = [getattr(part, "key", "") for part in path]
            if "mask_token" in names:  # stands among the patches' embeddings
                return jnp.asarray(self.layer_decay ** (depth + 1))
            if "image_encoder" not in names:
                return jnp.ones(())
            if "layers" in names:
                return by_layer.reshape(-1, *[1] * (leaf.ndim - 1))
            if "embeddings" in names or "pre_layrnorm" in names:
                first = jnp.asarray(self.layer_decay ** (depth + 1))
                return first * (self.patch_rate if "patch_embedding" in names else 1.0)
            return jnp.ones(())

        return jax.tree_util.tree_map_with_path(rate, params)

    def tokens(self, tower, views, mask=None, mask_token=None):
        """Normed tokens [n, 1 + patches, c] of views in [-1, 1]."""
        pixels = ((views + 1) / 2 - jnp.asarray(MEAN)) / jnp.asarray(STD)
        return self.network.apply({"params": tower}, pixels, mask, mask_token, method="normed_tokens")

    def _views(self, pictures, key):
        """(large [b,2,s,s,3], small [b,n,t,t,3])."""
        large, small = jax.random.split(key)
        side = self.vision.image_size
        globals_ = []
        for number, (blur, solarize) in enumerate(((1.0, 0.0), (0.1, 0.2))):
            crop, colour = jax.random.split(jax.random.fold_in(large, number))
            view = random_crop(crop, pictures, side, self.global_scale)
            globals_.append(jitter(colour, view, blur=blur, solarize=solarize))
        locals_ = []
        for number in range(self.local_views):
            crop, colour = jax.random.split(jax.random.fold_in(small, number))
            view = random_crop(crop, pictures, self.local_size, self.local_scale)
            locals_.append(jitter(colour, view, blur=0.5, solarize=0.0))
        return jnp.stack(globals_, axis=1), jnp.stack(locals_, axis=1)

    def loss(self, params, constants, batch, key, average):
        pick, view_key, mask_key, side_key = jax.random.split(key, 4)
        b = batch["photo"].shape[0]
        photo = jax.random.bernoulli(pick, 0.5, (b, 1, 1, 1))
        large, small = self._views(to_float(jnp.where(photo, batch["photo"], batch["flat"])), view_key)
        step = batch["step"].max().astype(jnp.float32)
        cold, warm = self.teacher_temperature
        temperature = cold + (warm - cold) * jnp.minimum(1.0, step / max(1, self.teacher_warmup))
        frozen = (step < self.freeze_prototypes).astype(jnp.float32)

        def flat(x):
            return x.reshape(-1, *x.shape[2:])

        # One of the two large views of each picture is masked, which of them by chance: static shapes, half the tokens.
        masked, count = block_masks(mask_key, b, self.grid, self.mask_ratio)
        which = jax.random.bernoulli(side_key, 0.5, (b,)).astype(jnp.int32)
        mask = masked[:, None] & (jnp.arange(GLOBALS)[None, :, None] == which[:, None, None])

        teacher = jax.lax.stop_gradient(average)
        of_teacher = jax.lax.stop_gradient(self.tokens(teacher["image_encoder"], flat(large)))
        of_large = self.tokens(params["image_encoder"], flat(large), flat(mask), params["mask_token"])
        of_small = self.tokens(params["image_encoder"], flat(small))[:, 0]
        heads = {name: head for name, head in params.items() if name.endswith("_head")}

        def logits(tree, x, head="dino_head"):
            name = head if head in heads else "dino_head"
            hold = frozen if tree is params else 0.0
            return self.head.apply({"params": tree[name]}, x, hold)

        targets = sinkhorn_targets(logits(teacher, of_teacher[:, 0]), temperature).reshape(b, GLOBALS, -1)
        seen = jnp.concatenate(
            [
                logits(params, of_large[:, 0]).reshape(b, GLOBALS, -1),
                logits(params, of_small).reshape(b, self.local_views, -1),
            ],
            axis=1,
        )
        pairs = [(t, s) for t in range(GLOBALS) for s in range(GLOBALS + self.local_views) if t != s]
        dino = sum(cross_entropy(targets[:, t], seen[:, s], STUDENT_TEMPERATURE) for t, s in pairs) / len(pairs)

        ibot = self._ibot(params, teacher, logits, of_teacher, of_large, masked, count, which, temperature)
        cls = of_large[:, 0].reshape(b, GLOBALS, -1)
        apart = sum(koleo(cls[:, view]) for view in range(GLOBALS))
        rows = dino + self.ibot_weight * ibot + self.koleo_weight * apart
        used = jnp.exp(-jnp.sum(jax.scipy.special.xlogy(m := targets.mean(axis=(0, 1)), m)))
        # Sinkhorn spreads the prototypes even over pictures that are all one: the tokens' cosine shows a collapse.
        own = unit(of_teacher[:, 0].reshape(b, GLOBALS, -1)[:, 0])
        alike = (own * jnp.roll(own, 1, axis=0)).sum(axis=1).mean()
        metrics = {"dino": dino.mean(), "ibot": ibot.mean(), "koleo": apart.mean()}
        metrics |= {"prototypes_used": used, "alike": alike}
        return rows, metrics

    def _ibot(self, params, teacher, logits, of_teacher, of_large, masked, count, which, temperature):
        """Cross-entropy of each picture's masked patches, [b], by the share of large crops that are masked: DINOv2's
        mean is over all of them.
        """
        b, patches = masked.shape
        most = max(1, int(np.ceil(self.mask_ratio[1] * patches)))
        places = jnp.argsort(~masked, axis=1)[:, :most]  # the masked ones first
        real = (jnp.arange(most)[None] < count[:, None]).astype(jnp.float32)

        def pick(tokens):
            own = tokens[:, 1:].reshape(b, GLOBALS, patches, -1)
            own = jnp.take_along_axis(own, which[:, None, None, None], axis=1)[:, 0]
            return jnp.take_along_axis(own, places[..., None], axis=1).reshape(b * most, -1)

        goals = sinkhorn_targets(logits(teacher, pick(of_teacher), "ibot_head"), temperature, real.reshape(-1))
        losses = cross_entropy(goals, logits(params, pick(of_large), "ibot_head"), STUDENT_TEMPERATURE)
        return (losses.reshape(b, most) * real).sum(axis=1) / jnp.maximum(real.sum(axis=1), 1.0) / GLOBALS

    def validation(self, params, constants, key):
        """Nearest training flat-lay of each held-out one by class token: how often of its category, and the IoU; both
        of a random one beside it; `alike`: the mean cosine of two pictures, 1 for a tower that has collapsed.
        """
        held_out = self.held_out or self.pairs
        side = self.vision.image_size

        def embed(variables, images):
            views = jax.image.resize(to_float(images), (images.shape[0], side, side, 3), "linear")
            return unit(self.tokens(variables, views)[:, 0])

        embed = self.program("embed", embed)

        def rows(arrays, places):
            found: dict[str, list[Any]] = {"x": [], "mask": [], "category": []}
            for part, real in equal_parts(places, 32):
                batch = arrays.batch(part)
                found["x"].append(on_host(embed(params["image_encoder"], batch["flat"]))[:real])
                found["mask"].append(batch["mask"].astype(bool)[:real])
                found["category"].append(batch["flat_attributes"][:real, STRUCTURAL.index("Category")])
            return {name: np.concatenate(parts) for name, parts in found.items() if parts}

        database = rows(self.pairs, self.trained_rows(1024))
        queries = rows(held_out, np.arange(min(128, len(held_out))))
        if not database or not queries:
            return {}
        cosines = queries["x"] @ database["x"].T
        shared = np.asarray(overlaps(jnp.asarray(queries["mask"]), jnp.asarray(database["mask"])))
        same = queries["category"][:, None] == database["category"][None]
        row, nearest = np.arange(len(cosines)), cosines.argmax(axis=1)
        return {
            "nearest_category": float(same[row, nearest].mean()),
            "random_category": float(same.mean()),
            "nearest_iou": float(shared[row, nearest].mean()),
            "random_iou": float(shared.mean()),
            "alike": float(cosines.mean()),
        }

    def export(self, params, directory):
        save_part(directory / "image_encoder", self.vision.to_dict(), params["image_encoder"])
        if jax.process_index() == 0:
            parts = {"image_encoder": "CLIPVisionModelWithProjection"}
            write_model_json(directory, ModelFile(system="dino", parts=parts))
