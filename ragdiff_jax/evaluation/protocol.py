"""RAGDiffusion's retrieval protocol (4.1, Table 4): accuracy and IoU over sizes of the database and K.

A silhouette is right if its IoU with the photo's true one exceeds 0.85; a photo's own flat-lay never counts. A smaller
database is a random part of the memory, drawn anew for each seed; beside each stand what chance gives and the best that
the database holds.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation.analyze import Analysis
from ragdiff_jax.evaluation.bootstrap import difference_interval, mean_interval
from ragdiff_jax.evaluation.charts import draw_lines
from ragdiff_jax.evaluation.retrieval import bounds, mask_ious, retrieval_rows
from ragdiff_jax.retrieval import Memory
from ragdiff_jax.retrieval.landmarks import OFFERED

SCORES = ("top1", "top5", "iou", "landmark_top1", "landmark_top5", "landmark_iou")


def check_protocol(memory: Memory, sizes: Sequence[int], neighbours: Sequence[int], other: Memory | None) -> None:
    """Before the long work. Raises `UserError` for sizes that the memory doesn't hold, more neighbours than garments,
    and an `other` of another encoder or landmark size or of fewer garments.
    """
    least = max(*neighbours, 5)
    if max(sizes) > len(memory):
        raise UserError(f"--sizes {max(sizes)}: the memory holds {len(memory)} garments; give at most that")
    if least >= min(sizes):
        raise UserError(f"--sizes {min(sizes)}: must be above the number of neighbours, {least}")
    if other is None:
        return
    other.check_encoder(memory.fingerprint)
    if other.manifest.landmark_size != memory.manifest.landmark_size:
        raise UserError(f"{other.path}: its landmarks have another size; build it with the same model")
    if len(other) < len(memory):
        raise UserError(
            f"--against {other.path}: holds {len(other)} garments, fewer than the {len(memory)} of --memory"
        )


def run_protocol(
    analysis: Analysis,
    sizes: Sequence[int],
    neighbours: Sequence[int],
    seeds: Sequence[int],
    step: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """A row for each size and K: means over photos and seeds of `random`, `oracle` and each knowledge of attributes.

    Each score comes with its 95 % bootstrap interval over photos, and `spread`, its standard deviation over seeds;
    `way` is how far from random to oracle it goes. `step` is called after each size, seed and K.
    """
    memory, pairs = analysis.memory, analysis.pairs
    ious = mask_ious(pairs.masks, memory.landmarks)
    table = []
    for size in sizes:
        of_bounds: dict[str, list[dict[str, float]]] = {"random": [], "oracle": []}
        found: dict[tuple[int, str], list[dict[str, np.ndarray]]] = {}
        for seed in seeds:
            rows, own = _part(analysis, size, seed)
            for name, scores in bounds(ious[:, rows], own).items():
                of_bounds[name].append(scores)
            vectors, masks = memory.embeddings[rows], memory.landmarks.part(rows)
            for k in neighbours:
                for name, photos in analysis.photos.items():
                    rule = dataclasses.replace(analysis.rule, k=k)
                    scores = retrieval_rows(photos, vectors, masks, ious[:, rows], own, rule)
                    found.setdefault((k, name), []).append(scores)
                step()
        limits = {
            name: {score: float(np.mean([one[score] for one in parts])) for score in parts[0]}
            for name, parts in of_bounds.items()
        }
        for k in neighbours:
            row: dict[str, Any] = {"memory": int(size), "k": int(k), "seeds": len(seeds), **limits}
            for name in analysis.photos:
                row[name] = _summary(found[k, name], limits, np.array(analysis.pairs.groups))
                if dataclasses.replace(analysis.rule, k=k).offers(size) < OFFERED:  # chance is known of five
                    row[name]["landmark_top5_way"] = None
            table.append(row)
    return table


def _part(analysis: Analysis, size: int, seed: int):
    """(rows of a random part of the memory, each photo's own flat-lay's place in it or -1)."""
    whole = len(analysis.memory)
    rows = _drawn(whole, size, seed)
    place = np.full(whole + 1, -1, np.int32)
    place[rows] = np.arange(size)
    return rows, place[analysis.own]  # -1 stays -1: the last entry


def _summary(parts: list[dict[str, np.ndarray]], limits, groups) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for score in SCORES:
        values = np.stack([part[score] for part in parts])
        interval = mean_interval(values.mean(axis=0), seed=0, groups=groups)
        summary[score] = interval.estimate
        summary[f"{score}_95"] = [interval.low, interval.high]
        summary[f"{score}_spread"] = float(values.mean(axis=1).std(ddof=1)) if len(parts) > 1 else 0.0
    for score in SCORES:
        bound = score.removeprefix("landmark_")
        low, high = limits["random"][bound], limits["oracle"][bound]
        summary[f"{score}_way"] = (summary[score] - low) / (high - low) if high > low else None
    return summary


def compare_memories(analysis: Analysis, other: Memory, knowledge: str, k: int, seeds: Sequence[int]) -> dict[str, Any]:
    """The memory against `other` on the same photos: differences of each score with paired bootstrap intervals.

    Of an `other` that is larger a random part of the memory's size is drawn for each seed, and a photo's score is the
    mean over these: a curated memory against random ones of its size. Both are as `check_protocol` wants them.
    """
    memory = analysis.memory
    photos, ids = analysis.photos[knowledge], analysis.pairs.ids

    def scores_of(memory: Memory, rows: Int[np.ndarray, " m"]) -> dict[str, Float[np.ndarray, " n"]]:
        at = {memory.items[row].id: place for place, row in enumerate(rows)}
        own = np.array([at.get(id, -1) for id in ids], np.int32)
        masks = memory.landmarks.part(rows)
        ious = mask_ious(analysis.pairs.masks, masks)
        rule = dataclasses.replace(analysis.rule, k=k)
        return retrieval_rows(photos, memory.embeddings[rows], masks, ious, own, rule)

    ours = scores_of(memory, np.arange(len(memory)))
    draws = [_drawn(len(other), len(memory), seed) for seed in (seeds if len(other) > len(memory) else seeds[:1])]
    parts = [scores_of(other, rows) for rows in draws]
    theirs = {score: np.mean([part[score] for part in parts], axis=0) for score in SCORES}
    result: dict[str, Any] = {
        "other": str(other.path), "garments": len(memory), "of": len(other), "draws": len(draws), "k": int(k),
        "attributes": knowledge,
    }  # fmt: skip
    for score in SCORES:
        interval = difference_interval(
            ours[score], theirs[score], seed=0, groups=np.array(analysis.pairs.groups)
        )
        result[score] = {
            "memory": float(ours[score].mean()),
            "other": float(theirs[score].mean()),
            "difference": interval.estimate,
            "difference_95": [interval.low, interval.high],
        }
    return result


def _drawn(whole: int, size: int, seed: int) -> Int[np.ndarray, " size"]:
    """A random part of a memory, rows sorted."""
    return np.sort(np.random.default_rng(seed).permutation(whole)[:size])


def draw_protocol(table: Sequence[dict[str, Any]]) -> UInt8[np.ndarray, "h w 3"]:
    """Top-1, top-5 and IoU over the sizes of the database, and the landmark's IoU for each K."""
    names = [name for name in table[0] if isinstance(table[0][name], dict)]
    first = min(row["k"] for row in table)
    panels = [
        (title, {name: [(row["memory"], row[name][score]) for row in table if row["k"] == first] for name in names})
        for score, title in (("top1", "top-1 accuracy"), ("top5", "top-5 accuracy"), ("iou", "IoU of the nearest"))
    ]
    known = [name for name in names if "landmark_iou" in table[0][name]]
    curves = {
        f"{name}, K = {k}": [(row["memory"], row[name]["landmark_iou"]) for row in table if row["k"] == k]
        for name in known
        for k in sorted({row["k"] for row in table})
    }
    return draw_lines([*panels, ("IoU of the chosen landmark", curves)])
