"""A StructureNet and a memory held against pairs: numbers and pictures of retrieval (R Fig. 7, 8, 16; 4.1)."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Int32, UInt8

from ragdiff_jax.data.attributes import ATTRIBUTES, STRUCTURAL, attribute_ids
from ragdiff_jax.data.images import decode_image, square
from ragdiff_jax.data.pixels import to_float
from ragdiff_jax.data.records import PairRecord, PairSource
from ragdiff_jax.data.silhouettes import silhouette_of
from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation.charts import draw_histograms, draw_pairs
from ragdiff_jax.evaluation.retrieval import bounds, landmark_rows, mask_ious, nearest, retrieval_scores
from ragdiff_jax.evaluation.similarity import similarity, tsne
from ragdiff_jax.evaluation.twins import twin_groups
from ragdiff_jax.models.structure_net import StructureNet, StructureNetConfig, Tower
from ragdiff_jax.pipelines.panel import Cell, draw_panel, neighbour_cell, neighbour_picture
from ragdiff_jax.retrieval import LandmarkRule, Memory, slle_weights
from ragdiff_jax.retrieval.landmarks import blend_landmarks
from ragdiff_jax.systems.attribute_head import HeadAttributes
from ragdiff_jax.systems.zero_shot import ZeroShotAttributes

BATCH = 16
Picture = UInt8[np.ndarray, "h w 3"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs as arrays, one row each; attribute ids as `attribute_ids` gives them.

    `groups`: a name that a garment shares with its structure partners: the bootstrap draws all or none.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    categories: tuple[str, ...]
    photos: UInt8[np.ndarray, "n s s 3"]
    flats: UInt8[np.ndarray, "n s s 3"]
    masks: Bool[np.ndarray, "n s s"]
    photo_ids: Int32[np.ndarray, "n a"]
    flat_ids: Int32[np.ndarray, "n a"]


@dataclasses.dataclass(frozen=True)
class Picked:
    """Some rows of a source of pairs, as a source of pairs."""

    source: PairSource
    rows: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> PairRecord:
        return self.source[self.rows[row]]


def read_pairs(source: PairSource, limit: int, size: int, step: Callable[[], None] = lambda: None) -> Pairs:
    """The first `limit` pairs at `size` pixels; `step` is called after each. Raises `UserError` naming the record."""
    count = min(limit, len(source))
    photos, flats = (np.empty((count, size, size, 3), np.uint8) for _ in range(2))
    masks, rows = np.empty((count, size, size), bool), []
    for row in range(count):
        record = source[row]
        flat = decode_image(record.flat, f"flat-lay of record {record.id}")
        masks[row] = silhouette_of(record, flat, size)
        if not masks[row].any():
            raise UserError(f"record {record.id}: the garment is less than a pixel; leave it out")
        photos[row] = square(decode_image(record.photo, f"photo of record {record.id}"), size, fill="edge")
        flats[row] = square(flat, size, fill="white")
        rows.append(
            (
                attribute_ids(record.photo_attributes, f"record {record.id}"),
                attribute_ids(record.flat_attributes, f"record {record.id}"),
                record.id,
                record.structure_partner,
                record.flat_attributes.get("Category") or record.category,
            )
        )
        step()
    photo_ids, flat_ids, ids, partners, categories = zip(*rows, strict=True)
    return Pairs(
        ids=ids,
        groups=twin_groups(ids, partners),
        categories=categories,
        photos=photos,
        flats=flats,
        masks=masks,
        photo_ids=np.stack(photo_ids),
        flat_ids=np.stack(flat_ids),
    )


class Analysis:
    """The embeddings of pairs under each knowledge of the photos' attributes: `unknown`, `predicted`, `exact`."""

    def __init__(
        self,
        config: StructureNetConfig,
        params: Mapping[str, Any],
        memory: Memory,
        pairs: Pairs,
        predictor: ZeroShotAttributes | HeadAttributes | None,
        *,
        rule: LandmarkRule = LandmarkRule(),  # noqa: B008 - frozen
        step: Callable[[], None] = lambda: None,
    ):
        """`predictor` None: nothing is predicted. `step` is called after each photo of each knowledge.

        Raises `UserError` for a memory of fewer than 5 garments beside a photo's own, or fewer than the rule's k.
        """
        least = max(rule.k, 5) + 1
        if len(memory) < least:
            raise UserError(f"{memory.path}: holds {len(memory)} garments; an analysis needs at least {least}")
        self.memory, self.pairs, self.rule = memory, pairs, rule
        rows = {item.id: row for row, item in enumerate(memory.items)}
        self.own = np.array([rows.get(id, -1) for id in pairs.ids], np.int32)
        known = {"unknown": np.zeros_like(pairs.photo_ids)}
        if predictor is not None:
            known["predicted"] = predicted_ids(predictor, pairs.photos)
        known["exact"] = pairs.photo_ids
        embed = _embedder(config, params)
        self.attribute_ids = known
        self.photos = {name: embed(pairs.photos, ids, "photo", step) for name, ids in known.items()}
        self.flats = embed(pairs.flats, pairs.flat_ids, "flat", lambda: None)

    def retrieval(self, sizes: Sequence[int], seed: int) -> list[dict[str, Any]]:
        """R Tab. 4: scores of each knowledge, of random choice and of an oracle, for each size of the memory.

        A smaller memory is a random part of the whole one, the same for a size and seed.
        """
        ious = mask_ious(self.pairs.masks, self.memory.landmarks)
        order = np.random.default_rng(seed).permutation(len(self.memory))
        table = []
        for size in sizes:
            rows = np.sort(order[:size])
            place = np.full(len(self.memory) + 1, -1, np.int32)
            place[rows] = np.arange(size)
            own = place[self.own]  # -1 stays -1: the last entry
            vectors, masks = self.memory.embeddings[rows], self.memory.landmarks.part(rows)
            scores = {
                name: retrieval_scores(photos, vectors, masks, ious[:, rows], own, self.rule)
                for name, photos in self.photos.items()
            }
            table.append({"memory": int(size), **bounds(ious[:, rows], own), **scores})
        return table

    def similarity(self) -> tuple[dict[str, Any], Picture]:
        """R Fig. 8 for each knowledge: (numbers, picture)."""
        numbers = {
            name: similarity(photos, self.flats, self.memory.embeddings, self.own, np.array(self.pairs.groups))
            for name, photos in self.photos.items()
        }
        panels = [
            (
                f"cosine of photos, attributes {name}: nearer to their own flat-lay in {found['auc'] or 0:.1%}",
                {
                    "own flat-lay": found["own"]["histogram"],
                    "others' flat-lays": found["others"]["histogram"],
                    "the memory": found["memory"]["histogram"],
                },
            )
            for name, found in numbers.items()
        ]
        return numbers, draw_histograms(panels)

    def tsne(self, count: int, seed: int) -> tuple[dict[str, Any], Picture]:
        """R Fig. 7 (b) of the first `count` pairs for each knowledge: (points in [0, 1]^2, picture)."""
        count = min(count, len(self.pairs.ids))
        planes = {name: tsne(photos[:count], self.flats[:count], seed=seed) for name, photos in self.photos.items()}
        categories = self.pairs.categories[:count]
        numbers = {
            "ids": list(self.pairs.ids[:count]),
            "categories": list(categories),
            **{
                name: {"photos": photos.round(4).tolist(), "flats": flats.round(4).tolist()}
                for name, (photos, flats) in planes.items()
            },
        }
        panels = [(f"t-SNE, attributes {name}", *plane) for name, plane in planes.items()]
        return numbers, draw_pairs(panels, list(categories))

    def neighbours(self, count: int, knowledge: str) -> tuple[dict[str, Any], Picture]:
        """R Fig. 16 of `count` pairs from all over: photo, neighbours, blended and chosen landmark, true silhouette."""
        shown = np.unique(np.linspace(0, len(self.own) - 1, min(count, len(self.own))).round().astype(int))
        photos, own, memory = self.photos[knowledge][shown], self.own[shown], self.memory
        every, offered = landmark_rows(photos, memory.embeddings, memory.landmarks, own, self.rule)
        choices, may_be = offered[:, 0], np.take_along_axis(every, offered, axis=1)
        rows, cosines = nearest(photos, memory.embeddings, self.rule.k, own)
        masks = self.memory.landmarks[rows]
        weights = slle_weights(jnp.asarray(photos), jnp.asarray(self.memory.embeddings[rows]), self.rule.reg)
        blends = np.asarray(blend_landmarks(jnp.asarray(masks), weights))
        weights, records, sheet = np.asarray(weights), [], []
        for i, pair in enumerate(shown):
            truth = self.pairs.masks[pair]
            landmarks = memory.landmarks[may_be[i]]
            near, scores = np.split(mask_ious(truth[None], np.concatenate([masks[i], landmarks]))[0], [len(masks[i])])
            names = [self.memory.items[row].id for row in rows[i]]
            records.append(
                {
                    "id": self.pairs.ids[pair],
                    "neighbours": [
                        {"id": id, "cosine": float(c), "weight": float(w), "iou": float(s)}
                        for id, c, w, s in zip(names, cosines[i], weights[i], near, strict=True)
                    ],
                    "choice": int(choices[i]),
                    "landmark_iou": float(scores[0]),
                    "alternatives": [
                        {"id": memory.items[row].id, "iou": float(score)}
                        for row, score in zip(may_be[i], scores, strict=True)
                    ],
                }
            )
            cells = [Cell(picture=self.pairs.photos[pair], title="photo", lines=(self.pairs.categories[pair],))]
            for rank, row in enumerate(rows[i]):
                cells.append(
                    neighbour_cell(
                        neighbour_picture(self.memory, int(row)),
                        rank=rank,
                        id=names[rank],
                        cosine=float(cosines[i, rank]),
                        weight=float(weights[i, rank]),
                        chosen=rank == int(choices[i]),
                    )
                )
            grey = np.repeat(np.round(255 * (1 - blends[i])).astype(np.uint8)[..., None], 3, axis=2)
            chosen = Cell(picture=landmarks[0], title="landmark", lines=(f"IoU {scores[0]:.3f}",))
            cells += [Cell(picture=grey, title="blend"), chosen, Cell(picture=truth, title="truth")]
            sheet.append(cells)
        return {"attributes": knowledge, "photos": records}, draw_panel(sheet, cell=112)


def predicted_ids(
    predictor: ZeroShotAttributes | HeadAttributes, photos: UInt8[np.ndarray, "n s s 3"]
) -> Int32[np.ndarray, "n a"]:
    """The ids of what serving would predict of photos of which nothing is known."""
    found = []
    for part, real in _batches(len(photos)):
        found += predictor.predict(photos[part], [{}] * len(part))[:real]
    return np.stack([attribute_ids(values) for values in found])


def said_and_right(found: Int[np.ndarray, "n a"], truth: Int[np.ndarray, "n a"]) -> dict[str, dict[str, float | int]]:
    """Of each attribute: `photos` whose value is known, the share of them `said`, and of those the share `right`."""
    result = {}
    for column, name in enumerate(STRUCTURAL):
        known = truth[:, column] > 0
        said = known & (found[:, column] > 0)
        right = (found == truth)[said, column]
        result[name] = {
            "values": len(ATTRIBUTES[name]),
            "photos": int(known.sum()),
            "said": float(said.sum() / max(1, known.sum())),
            "right": float(right.mean()) if said.any() else None,
        }
    return result


def _batches(count: int):
    """(rows of a batch of one size, how many of them are new): the last one repeats its last row."""
    for start in range(0, count, BATCH):
        yield np.arange(start, start + BATCH).clip(max=count - 1), min(BATCH, count - start)


def _embedder(config: StructureNetConfig, params: Mapping[str, Any]):
    @functools.partial(jax.jit, static_argnames="tower")
    def program(params, images, ids, tower: Tower):
        return StructureNet(config).apply({"params": params}, to_float(images), ids, tower, method="embed")

    def embed(images, ids, tower: Tower, step) -> Float[np.ndarray, "n d"]:
        found = []
        for part, real in _batches(len(images)):
            found.append(np.asarray(program(params, images[part], ids[part], tower=tower))[:real])
            for _ in range(real):
                step()
        return np.concatenate(found)

    return embed
