"""How good retrieval is, as R 4.1 counts it: a silhouette is right if its IoU with the true one exceeds 0.85."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from ragdiff_jax.retrieval import LandmarkRule, exact_search
from ragdiff_jax.retrieval.stored_landmarks import StoredLandmarks

ACCURATE = 0.85
_ROWS = 256  # silhouettes compared at a time, with as many of the memory
_FLOATS = 2**26  # of their pixels, at most
_PHOTOS = 64  # whose landmarks are chosen at a time, at most
_PIXELS = 2**28  # of their candidates at a time: of 256 px and 256 candidates those of 16 photos

Landmarks = Bool[np.ndarray, "m h w"] | StoredLandmarks


def mask_ious(truth: Bool[np.ndarray, "n h w"], masks: Landmarks) -> Float[np.ndarray, "n m"]:
    """IoU of each true silhouette with each of the memory's, in [0, 1]."""
    truth = truth.reshape(len(truth), -1)
    at_a_time = max(1, min(_ROWS, _FLOATS // truth.shape[1]))
    scores, areas = np.empty((len(truth), len(masks)), np.float32), truth.sum(axis=1, dtype=np.float32)
    for start in range(0, len(masks), at_a_time):
        theirs = masks[start : start + at_a_time].reshape(-1, truth.shape[1]).astype(np.float32)
        for first in range(0, len(truth), at_a_time):
            rows = slice(first, first + at_a_time)
            both = truth[rows].astype(np.float32) @ theirs.T
            either = areas[rows, None] + theirs.sum(axis=1)[None] - both
            scores[rows, start : start + at_a_time] = both / np.maximum(either, 1)
    return scores


def nearest(
    embeddings: Float[np.ndarray, "n d"], memory: Float[np.ndarray, "m d"], k: int, own: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
    """(rows, cosines) of the k nearest; `own`: the photo's own flat-lay in the memory, which doesn't count, or -1."""
    # Without an own row there, exclusion would only cost a row of small memories.
    exclude = jnp.asarray(own) if (own >= 0).any() else None
    rows, cosines = exact_search(jnp.asarray(memory), jnp.asarray(embeddings), k, exclude)
    return np.asarray(rows), np.asarray(cosines)


def retrieval_rows(
    embeddings: Float[np.ndarray, "n d"],
    memory: Float[np.ndarray, "m d"],
    masks: Landmarks,
    ious: Float[np.ndarray, "n m"],
    own: Int[np.ndarray, " n"],
    rule: LandmarkRule,
) -> dict[str, Float[np.ndarray, " n"]]:
    """`retrieval_scores` of each photo."""
    rows, at = landmark_rows(embeddings, memory, masks, own, rule)
    found = np.take_along_axis(ious, rows, axis=1)
    offered = np.take_along_axis(found, at, axis=1)
    landmark = offered[:, 0]
    return {
        "top1": (found[:, 0] > ACCURATE).astype(np.float64),
        "top5": (found[:, :5] > ACCURATE).any(axis=1).astype(np.float64),
        "iou": found[:, 0].astype(np.float64),
        "landmark_top1": (landmark > ACCURATE).astype(np.float64),
        "landmark_top5": (offered > ACCURATE).any(axis=1).astype(np.float64),
        "landmark_iou": landmark.astype(np.float64),
    }


def landmark_rows(
    embeddings: Float[np.ndarray, "n d"],
    memory: Float[np.ndarray, "m d"],
    masks: Landmarks,
    own: Int[np.ndarray, " n"],
    rule: LandmarkRule,
) -> tuple[Int[np.ndarray, "n c"], Int[np.ndarray, "n o"]]:
    """(the nearest rows, at least five; which of them have the landmarks that the rule offers, up to five, the one that
    it chooses first) of each photo.
    """
    there = len(memory) - int((own >= 0).any())  # a photo's own garment is left out
    rows, cosines = nearest(embeddings, memory, min(max(rule.considered(there), 5), there), own)
    considered, found = min(rule.considered(there), rows.shape[1]), []
    photos = min(max(_PIXELS // (considered * math.prod(masks.shape[1:])), 1), _PHOTOS)
    for start in range(0, len(rows), photos):
        part = np.arange(start, start + photos).clip(max=len(rows) - 1)  # one size, one program
        some = rows[part, :considered]
        near = memory[some[:, : rule.k]]
        found.append(np.asarray(_choose(rule, embeddings[part], near, cosines[part, : some.shape[1]], masks[some])))
    return rows, np.concatenate(found)[: len(rows)]


@functools.partial(jax.jit, static_argnums=0)
def _choose(rule, embeddings, near, cosines, masks):
    return rule(embeddings, near, cosines, masks).ranks


def retrieval_scores(
    embeddings: Float[np.ndarray, "n d"],
    memory: Float[np.ndarray, "m d"],
    masks: Landmarks,
    ious: Float[np.ndarray, "n m"],
    own: Int[np.ndarray, " n"],
    rule: LandmarkRule,
) -> dict[str, float]:
    """Shares and means over the photos, all in [0, 1].

    `top1`, `top5`: the nearest, or one of the five nearest, is right; `iou`: of the nearest. `landmark_top1` and
    `landmark_iou`: of the silhouette that the rule chooses; `landmark_top5`: one of those that it offers is right.
    """
    rows = retrieval_rows(embeddings, memory, masks, ious, own, rule)
    return {name: float(values.mean()) for name, values in rows.items()}


def bounds(ious: Float[np.ndarray, "n m"], own: Int[np.ndarray, " n"]) -> dict[str, dict[str, float]]:
    """`random`: what choosing any garment of the memory gives on average, exactly; `oracle`: the best that it holds."""
    counted = np.arange(ious.shape[1])[None] != own[:, None]
    rest = counted.sum(axis=1)
    right = ((ious > ACCURATE) & counted).sum(axis=1)
    missed = [math.comb(int(n - r), 5) / math.comb(int(n), 5) for n, r in zip(rest, right, strict=True)]
    best = np.where(counted, ious, -1).max(axis=1)
    return {
        "random": {
            "top1": float((right / rest).mean()),
            "top5": float(1 - np.mean(missed)),
            "iou": float((np.where(counted, ious, 0).sum(axis=1) / rest).mean()),
        },
        "oracle": {
            "top1": float((best > ACCURATE).mean()),
            "top5": float((best > ACCURATE).mean()),
            "iou": float(best.mean()),
        },
    }
