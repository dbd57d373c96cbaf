"""Stage `structure_net`: both towers by InfoNCE, photo against flat-lay (R 3.1, Eq. 1).

The positive of a photo is its own flat-lay or its structure partner (like structure, other texture), as often as
`partner_share` says; what else in the batch is a flat-lay of the same garment or partner is no negative. Two shortcuts
solve the task without a look at the shape: equal labels, so that attributes are dropped for each tower on its own, and
equal colours, so that each picture may get colours of its own (`recolour`).
"""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ragdiff_jax.data.augment import (
    augment_flat,
    augment_photo,
    draw,
    draw_placement,
    move,
    paste_at,
    shift_colours,
)
from ragdiff_jax.data.pixels import to_float
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.layers import dense_init
from ragdiff_jax.models.structure_net import StructureNet, StructureNetConfig, twin_towers
from ragdiff_jax.parallel import on_host
from ragdiff_jax.systems.zero_shot import Calibration
from ragdiff_jax.training.large_batch import micro_batched
from ragdiff_jax.training.objectives.common import LARGEST_LOGIT_SCALE, PairObjective, at_most, equal_parts, load_parts
from ragdiff_jax.training.objectives.contrastive import PairLoss, overlaps, shape_info_nce
from ragdiff_jax.weights.folder import ModelFile, load_part, save_part, write_model_json
from ragdiff_jax.weights.model_folder import write_calibration

HUE = {"hue_probability": 0.8, "max_hue": 180.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StructureNetObjective(PairObjective):
    """Attributes:
    config: sizes of the towers.
    vision: folder of a CLIP vision model that the ViTs start from; empty starts from scratch.
    init_from: a model folder with a whole `structure_net` to start from instead.
    temperature: tau of Eq. 1; with `learn_temperature` its start.
    symmetric: adds the direction flat-lay -> photo.
    partner_share: chance that the positive is the structure partner.
    recolour: draws any hue for each picture on its own, and for the flat-lay any contrast down to its negative: towers
      that may match by colour do, and bring garments of like colour instead of like structure.
    shape_temperature: above 0, each photo's target is the distribution softmax(IoU / temperature) over the batch's
      flat-lays in place of Eq. 1's one positive. It says of every pair how alike the silhouettes are, where Eq. 1 says
      of all but one that they are equally wrong: small runs learn shape from it that learn none otherwise.
    paste_share: chance that a sample's photo is its flat-lay pasted on another photo's surroundings (`augment.paste`),
      half-way between flat-lays, whose shape is learned soon, and photos, whose shape isn't.
    paste_from_easy: pastes on surroundings of any strength, from none (the flat-lay as it lies) to the photo's own, so
      that a tower that knows flat-lays has something to hold on to.
    twins: with `init_from`, the photo tower starts as a copy of the flat-lay tower, in what it has of it.
    attribute_dropout: chance for a tower to see no attribute at all, and for each attribute to be unknown.
    export_dtype: of the written weights. A memory belongs to the written ones, so that a system that ships in bfloat16
      wants its encoder rounded here, before its memory is built.
    dtype: of the computation; parameters are trained in float32 whatever it is.
    remat: computes each ViT layer again in the backward pass instead of keeping what is inside it.
    contrast: `info_nce` (Eq. 1) or `sigmoid` (arXiv 2303.15343), which learns its temperature and bias.
    micro_batches: the towers see a batch in this many parts, which takes their memory down and leaves the gradient that
      of the whole batch (GradCache).
    tile, method: of the loss, see `large_batch.info_nce`.
    """

    config: StructureNetConfig
    vision: str = ""
    init_from: str = ""
    temperature: float = 0.07
    learn_temperature: bool = False
    symmetric: bool = False
    partner_share: float = 0.5
    recolour: bool = False
    shape_temperature: float = 0.0
    paste_share: float = 0.0
    paste_from_easy: bool = False
    twins: bool = False
    attribute_dropout: tuple[float, float] = (0.5, 0.2)
    export_dtype: str = "float32"
    dtype: str = "float32"
    remat: bool = False
    contrast: str = "info_nce"
    micro_batches: int = 1
    tile: int = 1024
    method: str = "auto"
    trainable: str = "."
    rows_interact: ClassVar[bool] = True

    def __post_init__(self):
        if self.contrast == "sigmoid" and (self.shape_temperature or not self.learn_temperature):
            raise UserError("contrast='sigmoid' learns its temperature and has one positive: set learn_temperature, "
                            "and shape_temperature to 0")  # fmt: skip
        _ = self.pair_loss

    @property
    def pair_loss(self) -> PairLoss:
        return PairLoss(loss=self.contrast, symmetric=self.symmetric, tile=self.tile, method=self.method)

    @property
    def network(self) -> StructureNet:
        return StructureNet(self.config, jnp.dtype(self.dtype), self.remat)

    def init(self, key):
        image = jnp.zeros((1, 32, 32, 3))
        attributes = jnp.zeros((1, len(self.config.attribute_sizes)), jnp.int32)
        tree = {"structure_net": twin_towers(self.network.init(key, image, image, attributes)["params"])}
        numbers = {"logit_scale": math.log(1 / self.temperature)} if self.learn_temperature else {}
        if self.contrast == "sigmoid":
            numbers["logit_bias"] = -10.0
        for name, value in numbers.items():
            tree[name] = dense_init((), lambda key, shape, value=value: jnp.full(shape, value))(key, ())
        return tree

    def restore_parts(self, params):
        if self.init_from:
            params = load_parts(params, {"structure_net": f"{self.init_from}/structure_net"})
            if self.twins:
                towers = params["structure_net"]
                shared = {name: part for name, part in towers["flat"].items() if name in towers["photo"]}
                params["structure_net"] = towers | {"photo": towers["photo"] | jax.tree.map(jnp.copy, shared)}
            return params
        if not self.vision:
            return params
        own = params["structure_net"]["flat"]["vision"]
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), own)
        vision = load_part(self.vision, abstract, shardings=jax.tree.map(lambda x: x.sharding, own))
        return params | {"structure_net": twin_towers(params["structure_net"], vision)}

    def _drop(self, key, attributes):
        whole, each = jax.random.split(key)
        keep = ~jax.random.bernoulli(whole, self.attribute_dropout[0], (attributes.shape[0], 1))
        keep &= ~jax.random.bernoulli(each, self.attribute_dropout[1], attributes.shape)
        return jnp.where(keep, attributes, 0)

    def _looks(self) -> dict[str, Any]:
        """How far a flat-lay's colours are drawn."""
        if not self.recolour:
            return {}
        return HUE | {"contrast_probability": 0.8, "contrast_range": (-1.0, 1.0)}

    def photo_rows(self, batch, key, paste_key) -> dict[str, Any]:
        """What `shown_photo` takes: the batch's own arrays, and what is drawn for each row."""
        b = batch["photo"].shape[0]
        rows = {name: batch[name] for name in ("photo", "photo_mask", "has_photo_mask")}
        rows["photo_draws"] = draw(key, b, **(HUE if self.recolour else {}))
        if self.paste_share:
            coin, place, look, easing = jax.random.split(paste_key, 4)
            ease = jax.random.uniform(easing, (b,)) if self.paste_from_easy else None
            rows |= {
                "flat": batch["flat"],
                "mask": batch["mask"],
                "behind": jnp.roll(batch["photo"], 1, axis=0),
                "pastes": jax.random.bernoulli(coin, self.paste_share, (b, 1, 1, 1))[:, 0, 0, 0],
                "paste_draws": draw(look, b, flip_probability=0.0, pad_probability=0.0, **self._looks()),
                "placement": draw_placement(place, b, ease=ease),
            }
        return rows

    def shown_photo(self, rows):
        """(photos as they are shown [b,s,s,3], where the garment is in them [b,s,s,1], -1 where nobody knows)."""
        draws, photo = rows["photo_draws"], to_float(rows["photo"])
        seen = jnp.where(rows["has_photo_mask"][:, None, None], rows["photo_mask"], -1.0)[..., None]
        if self.paste_share:
            mask = rows["mask"][..., None].astype(jnp.float32)
            flat = shift_colours(rows["paste_draws"], to_float(rows["flat"]))
            pasted, there = paste_at(rows["placement"], flat, mask, to_float(rows["behind"]))
            heads = rows["pastes"][:, None, None, None]
            photo, seen = jnp.where(heads, pasted, photo), jnp.where(heads, there, seen)
        unknown = (seen < 0).all(axis=(1, 2, 3))[:, None, None, None]
        seen = jnp.where(unknown, -1.0, move(draws, seen, fill=0.0))
        return augment_photo(draws, photo), seen

    def _drawn_rows(self, batch, key) -> dict[str, Any]:
        """The batch with everything random drawn, row by row: what is left is the same in parts and at once."""
        pick, photo_key, flat_key, drop_photo, drop_flat, paste_key = jax.random.split(key, 6)
        b = batch["photo"].shape[0]
        partner = jax.random.bernoulli(pick, self.partner_share, (b,)) & batch["has_partner"]
        attributes = jnp.where(partner[:, None], batch["partner_flat_attributes"], batch["flat_attributes"])
        rows = self.photo_rows(batch, photo_key, paste_key)
        # A flip turns both; frame and colour are each picture's own, so that structure is what they share.
        draws = draw(flat_key, b, pad_probability=0.2, **self._looks())._replace(flip=rows["photo_draws"].flip)
        names = ("flat", "mask", "partner_flat", "partner_mask")
        return rows | {name: batch[name] for name in names} | {
            "partner": partner,
            "flat_draws": draws,
            "photo_attributes": self._drop(drop_photo, batch["photo_attributes"]),
            "flat_attributes": self._drop(drop_flat, attributes),
        }

    def _embed_rows(self, params, rows):
        """(photos, flat-lays) of rows whose randomness is drawn."""
        photo, _ = self.shown_photo(rows)
        shows = rows["partner"][:, None, None]
        flat = jnp.where(shows[..., None], rows["partner_flat"], rows["flat"])
        mask = jnp.where(shows, rows["partner_mask"], rows["mask"])[..., None].astype(jnp.float32)
        flat, _ = augment_flat(rows["flat_draws"], to_float(flat), mask)
        variables = {"params": params}
        return (
            self.network.apply(variables, photo, rows["photo_attributes"], "photo", method="embed_with_tokens")[0],
            self.network.apply(variables, flat, rows["flat_attributes"], method="embed_flat"),
        )

    def loss(self, params, constants, batch, key):
        rows = self._drawn_rows(batch, key)
        e_photo, e_flat = micro_batched(self._embed_rows, self.micro_batches)(params["structure_net"], rows)
        scale: Any = 1.0 / self.temperature
        if self.learn_temperature:
            scale = jnp.exp(at_most(params["logit_scale"], LARGEST_LOGIT_SCALE))
        if self.shape_temperature > 0:
            flip, partner = rows["flat_draws"].flip[:, None, None], rows["partner"][:, None, None]
            own, shown = batch["mask"], jnp.where(partner, batch["partner_mask"], batch["mask"])
            own, shown = (jnp.where(flip, m[:, :, ::-1], m) for m in (own, shown))
            there = overlaps(own, shown)
            targets = jax.nn.softmax(there / self.shape_temperature, axis=1)
            losses, accuracy = shape_info_nce(e_photo, e_flat, scale, targets)
            if self.symmetric:
                back = jax.nn.softmax(there.T / self.shape_temperature, axis=1)
                losses = (losses + shape_info_nce(e_flat, e_photo, scale, back)[0]) / 2
            return losses, {"accuracy": accuracy}
        losses, accuracy = self.pair_loss(
            e_photo,
            e_flat,
            scale,
            params.get("logit_bias", jnp.zeros(())),
            # No negative of a photo: its own flat-lay and its partner's, wherever they come.
            query_ids=jnp.stack([batch["row"], batch["partner_row"]], axis=1),
            key_ids=jnp.where(rows["partner"], batch["partner_row"], batch["row"]),
        )
        return losses, {"accuracy": accuracy, "scale": jnp.asarray(scale)}

    def calibration(self, params) -> dict[str, Calibration]:
        """Of what the attributes' head may say, on the held-out photos; empty where it learned nothing."""
        return {}

    def validation(self, params, constants, key):
        """Retrieval as it is served, attributes unknown: held-out photos against the first training flat-lays."""

        def embed(variables, images, tower):
            unknown = jnp.zeros((images.shape[0], len(self.config.attribute_sizes)), jnp.int32)
            return self.network.apply({"params": variables}, to_float(images), unknown, method=f"embed_{tower}")

        embed = self.program("embed", embed, static_argnames="tower")

        def rows(arrays, places, tower):
            out, masks = [], []
            for part, real in equal_parts(places, 64):
                batch = arrays.batch(part)
                out.append(on_host(embed(params["structure_net"], batch[tower], tower))[:real])
                masks.append(batch["mask"].astype(bool)[:real])
            return np.concatenate(out), np.concatenate(masks)

        held_out = self.held_out or self.pairs
        database, masks = rows(self.pairs, self.trained_rows(1024), "flat")
        queries, truth = rows(held_out, np.arange(min(128, len(held_out))), "photo")
        top = masks[np.argmax(queries @ database.T, axis=1)]
        random = masks[np.random.default_rng(0).integers(0, len(masks), len(truth))]

        def iou(a, b):
            return float(((a & b).sum((1, 2)) / np.maximum((a | b).sum((1, 2)), 1)).mean())

        return {"iou_top1": iou(top, truth), "iou_random": iou(random, truth)}

    def file_dtype(self, params) -> str | None:
        """Of the exported weights; None: their own."""
        del params
        return self.export_dtype

    def export(self, params, directory):
        own = params["structure_net"]
        save_part(directory / "structure_net", self.config.to_dict(), own, self.file_dtype(own))
        calibration = self.calibration(params)
        if jax.process_index() == 0:
            if calibration:
                write_calibration(directory / "structure_net", calibration)
            write_model_json(directory, ModelFile(system="structure_net", parts={"structure_net": "StructureNet"}))
