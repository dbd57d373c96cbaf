"""Retrieval without any picture made: sizes of the memory, K, SLLE, attributes, an expanded memory, other curation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from ragdiff_jax.evaluation.analyze import Analysis
from ragdiff_jax.evaluation.claims.store import Measured
from ragdiff_jax.evaluation.claims.world import World, places_of, unit
from ragdiff_jax.evaluation.retrieval import landmark_rows, mask_ious, nearest, retrieval_rows
from ragdiff_jax.retrieval import LandmarkRule, Memory, fuse_landmarks, slle_weights
from ragdiff_jax.retrieval.curation import curate
from ragdiff_jax.retrieval.landmarks import blend_landmarks, iou
from ragdiff_jax.weights.folder import read_model_json
from ragdiff_jax.weights.model_folder import load_structure_net

SIZES = {"quarter": 0.25, "half": 0.5, "whole": 1.0}  # R: 1,000, 2,000 and 4,000 of one collection
NEIGHBOURS = (1, 2, 4, 8)
LIKELIEST = 256  # candidates of `likeliest_landmark`, where there are so many
CHUNK = 64  # photos whose silhouettes are fused together


def retrieval(world: World, seed: int) -> Measured:
    """Held-out photos against the stem's memory, attributes unknown and exact; see the columns' names."""
    part, memory = world.part("held_out"), world.memory()
    analysis = analysis_of(world, "held_out")
    ious, rule = mask_ious(part.pairs.masks, memory.landmarks), analysis.rule
    columns = {"random/iou": ious.mean(axis=1), "best/iou": ious.max(axis=1)}
    parts, nobody = places_of(SIZES, len(memory), seed), np.full(len(part), -1, np.int32)
    for knowledge, photos in analysis.photos.items():
        for size, rows in parts.items():
            vectors, masks = memory.embeddings[rows], memory.landmarks.part(rows)
            found = retrieval_rows(photos, vectors, masks, ious[:, rows], nobody, rule)
            columns |= {f"{knowledge}/{size}/{score}": values for score, values in found.items()}
        likeliest = dataclasses.replace(rule, candidates=LIKELIEST)
        rows, at = landmark_rows(photos, memory.embeddings, memory.landmarks, nobody, likeliest)
        columns[f"{knowledge}/likeliest_iou"] = ious[np.arange(len(rows)), rows[np.arange(len(rows)), at[:, 0]]]
        columns |= {
            f"{knowledge}/{name}": values
            for name, values in _by_k(photos, analysis.flats, part.pairs.masks, memory, ious, rule.reg).items()
        }
        columns |= {
            f"{knowledge}/{name}": values
            for name, values in _likeness(photos, analysis.flats, part.pairs.categories, part.groups).items()
        }
    facts = {"memory": len(memory), "sizes": {name: len(rows) for name, rows in parts.items()}, "photos": len(part)}
    return Measured(columns=columns, groups=part.groups, facts=facts)


def curation(world: World, seed: int) -> Measured:
    """A quarter of the memory chosen as R 9.4 does (outliers out, then what represents the rest), and a random one."""
    part, memory = world.part("held_out"), world.memory()
    photos = analysis_of(world, "held_out").photos["exact"]
    ious = mask_ious(part.pairs.masks, memory.landmarks)
    names = [str(item.metadata.get("attributes", {}).get("Category", "")) for item in memory.items]
    count = max(1, round(SIZES["quarter"] * len(memory)))
    columns = {}
    for name, rows in (
        ("curated", curate(memory.embeddings, names, [item.id for item in memory.items], count).kept),
        ("random", places_of(SIZES, len(memory), seed)["quarter"]),
    ):
        found, _ = nearest(photos, memory.embeddings[rows], 1, np.full(len(part), -1, np.int32))
        columns[f"{name}/iou"] = ious[np.arange(len(part)), rows[found[:, 0]]]
    return Measured(columns=columns, groups=part.groups, facts={"memory": count, "photos": len(part)})


def growth(world: World, seed: int) -> Measured:
    """Bottoms and dresses, retrieved from tops alone and from a memory with their like (R 4.4); nothing is trained."""
    del seed
    return _expanded(world, "lower", "upper", "whole")


def style_growth(world: World, seed: int) -> Measured:
    """Photos of garments rendered in the other style, before and after its flat-lays are added."""
    del seed
    return _expanded(world, "studio", "whole", "studio")


def extreme_growth(world: World, seed: int) -> Measured:
    """Garments of unusual shapes (R Fig. 9), before and after flat-lays of other such garments are added."""
    del seed
    return _expanded(world, "extreme", "whole", "extreme")


def _expanded(world: World, of: str, before: str, after: str) -> Measured:
    part, columns, facts = world.part(of), {}, {"photos": len(world.part(of))}
    for when, kind in (("before", before), ("after", after)):
        memory = world.memory(kind)
        analysis = analysis_of(world, of, kind)
        ious, own = mask_ious(part.pairs.masks, memory.landmarks), np.full(len(part), -1, np.int32)
        photos = analysis.photos["exact"]
        found = retrieval_rows(photos, memory.embeddings, memory.landmarks, ious, own, analysis.rule)
        columns |= {f"{when}/{score}": values for score, values in found.items()}
        columns[f"{when}/random"] = ious.mean(axis=1)
        facts[f"memory {when}"] = len(memory)
    return Measured(columns=columns, groups=part.groups, facts=facts)


@functools.lru_cache(maxsize=8)
def analysis_of(world: World, part: str, kind: str = "whole") -> Analysis:
    """The stem's towers on a part's pairs, beside a memory's kind; four neighbours, fused as R 9.3 does."""
    config, params = load_structure_net(world.stem)
    rule = dataclasses.replace(LandmarkRule.of(read_model_json(world.stem).settings), k=4, candidates=0)
    return Analysis(config, params, world.memory(kind), world.part(part).pairs, None, rule=rule)


def _by_k(
    photos: Float[np.ndarray, "n d"],
    flats: Float[np.ndarray, "n d"],
    truth: Bool[np.ndarray, "n h w"],
    memory: Memory,
    ious: Float[np.ndarray, "n m"],
    reg: float,
) -> dict[str, Float[np.ndarray, " n"]]:
    """For each K the IoU with the truth of the chosen silhouette and of the thresholded blend, and the cosine of what
    is rebuilt with the true flat-lay's own vector: by SLLE (`K=4/rebuilt`), by the plain mean (`K=4/mean`); `raw` is
    the photo's own vector, `fused` Eq. 3 with alpha one half.
    """
    rows, _ = nearest(photos, memory.embeddings, max(NEIGHBOURS), np.full(len(photos), -1, np.int32))
    columns = {"raw": _cosine(photos, flats)}
    for k in NEIGHBOURS:
        near = memory.embeddings[rows[:, :k]]
        weights = np.asarray(slle_weights(jnp.asarray(photos), jnp.asarray(near), reg))
        rebuilt = np.einsum("nk,nkd->nd", weights, near)
        columns[f"K={k}/rebuilt"] = _cosine(rebuilt, flats)
        columns[f"K={k}/mean"] = _cosine(near.mean(axis=1), flats)
        columns[f"K={k}/fused"] = _cosine((rebuilt + photos) / 2, flats)
        at, blend = _fused(memory.landmarks, rows[:, :k], weights, truth)
        columns[f"K={k}/landmark_iou"] = ious[np.arange(len(rows)), rows[np.arange(len(rows)), at]]
        columns[f"K={k}/blend_iou"] = blend
    return columns


def _cosine(a, b) -> Float[np.ndarray, " n"]:
    return (unit(a) * unit(b)).sum(axis=1)


def _fused(masks, rows, weights, truth) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """(which neighbour fusion chooses, IoU of the thresholded blend with the true silhouette) of each photo."""
    found = []
    for start in range(0, len(rows), CHUNK):
        some = np.arange(start, start + CHUNK).clip(max=len(rows) - 1)  # one size, one program
        found.append([np.asarray(x) for x in _fuse(masks[rows[some]], weights[some], truth[some])])
    choice, blend = (np.concatenate(parts)[: len(rows)] for parts in zip(*found, strict=True))
    return choice, blend


@jax.jit
def _fuse(masks, weights, truth):
    return fuse_landmarks(masks, weights)[1], iou(blend_landmarks(masks, weights) >= 0.5, truth)


def _likeness(photos, flats, categories, groups) -> dict[str, Float[np.ndarray, " n"]]:
    """Cosines of a photo with its own flat-lay, and with others' of its category and of other categories (means).

    Structure twins count as none of these; where a photo has no other of its category, the mean of all stands in.
    """
    cosines = unit(photos) @ unit(flats).T
    names = np.array(categories)
    other = groups[:, None] != groups[None]
    same = other & (names[:, None] == names[None])
    unlike = other & ~same
    every = np.where(other, cosines, 0).sum(axis=1) / np.maximum(other.sum(axis=1), 1)

    def mean(which):
        some = which.sum(axis=1)
        return np.where(some > 0, np.where(which, cosines, 0).sum(axis=1) / np.maximum(some, 1), every)

    return {"own": np.diagonal(cosines).copy(), "others": every, "category": mean(same), "unlike": mean(unlike)}
