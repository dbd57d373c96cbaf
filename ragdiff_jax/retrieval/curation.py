"""Which garments a memory keeps (RAGDiffusion 9.4): balanced categories, no outliers, few for a dense region.

1. `balanced`: as many of each category as there are places, from names alone, before anything is encoded.
2. `dbscan`: garments in no dense region are noise and go (Ester et al., KDD 1996; cosine distance).
3. `represent`: those garments stay that stand for all the others best. Thinned to an even spacing instead, a memory
   has as much for shapes that nobody wears as for those that everybody does, and serves photos worse than chance.
"""

import dataclasses
import heapq
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ragdiff_jax.errors import UserError

_ROWS = 2048  # compared at a time


def balanced(categories: Sequence[str], count: int, seed: int) -> Int[np.ndarray, " chosen"]:
    """At most `count` rows, sorted, drawn so that no category has more than another one unless that one is used up."""
    rng = np.random.default_rng(seed)
    names = np.asarray(categories)
    rows = {name: rng.permutation(np.flatnonzero(names == name)) for name in sorted(set(categories))}
    chosen: list[np.ndarray] = []
    left, places = min(count, len(names)), len(rows)
    # The smallest first: what they can't fill is shared by the others.
    for own in sorted(rows.values(), key=len):
        take = min(len(own), -(-left // places))
        chosen.append(own[:take])
        left, places = left - take, places - 1
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)


def dbscan(
    vectors: Float[np.ndarray, "n d"], eps: float, min_samples: int
) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """(cluster of each unit row, -1 for noise; which rows are core), with cosine distance.

    Core rows have at least `min_samples` rows within `eps`, themselves included; a row beside a core one belongs to the
    nearest such. Noise and core rows are those of any implementation; border rows between clusters may differ.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(vectors)
    counts = np.zeros(n, np.int64)
    for start, near in _chunks(vectors):
        counts[start : start + len(near)] = (near >= 1 - eps).sum(axis=1)
    core = counts >= min_samples
    labels = np.full(n, -1)
    if not core.any():
        return labels, core
    heads, tails = [], []
    border, border_at = np.full(n, -np.inf), np.zeros(n, np.int64)
    for start, near in _chunks(vectors):
        near = np.where(core[None], near, -np.inf)
        block = slice(start, start + len(near))
        border_at[block], border[block] = near.argmax(axis=1), near.max(axis=1)
        ours = np.flatnonzero(core[block])
        i, j = np.nonzero(near[ours] >= 1 - eps)
        heads.append(start + ours[i])
        tails.append(j)
    heads, tails = np.concatenate(heads), np.concatenate(tails)
    graph = csr_matrix((np.ones(len(heads), bool), (heads, tails)), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    reached = border >= 1 - eps
    found = component[np.where(core, np.arange(n), border_at)]
    labels[reached] = np.unique(found[reached], return_inverse=True)[1]
    return labels, core


def eps_for(vectors: Float[np.ndarray, "n d"], outliers: float, min_samples: int) -> float:
    """The eps at which about the share `outliers` of the rows has fewer than `min_samples` rows within it."""
    at = min(min_samples, len(vectors))
    reach = np.concatenate([1 - np.partition(near, -at, axis=1)[:, -at] for _, near in _chunks(vectors)])
    return float(np.quantile(reach, 1 - outliers, method="higher")) + 1e-6


def represent(vectors: Float[np.ndarray, "n d"], count: int) -> Int[np.ndarray, " count"]:
    """`count` rows, sorted, so that every unit row has a chosen one near it: facility location.

    The greedy choice of the largest gain in sum_i max_chosen max(0, cos)^4, where a row looks at its nearest 512
    alone, or at 32 times as many as one chosen row stands for. A gain only falls as rows are chosen, so that a row is
    looked at again when its last gain would be the largest (Minoux, 1978).
    """
    from scipy.sparse import csc_matrix

    n = len(vectors)
    near = min(n, max(512, -(-32 * n // count)))
    columns, values = [], []
    for _, scores in _chunks(vectors):
        # A copy: a view would keep every row's whole order, 8 n^2 bytes.
        at = np.argpartition(scores, -near, axis=1)[:, -near:].astype(np.int32)
        columns.append(at)
        values.append(np.maximum(np.take_along_axis(scores, at, 1), 0) ** 4)
    places = (np.repeat(np.arange(n), near), np.concatenate(columns).ravel())
    table = csc_matrix((np.concatenate(values).ravel(), places), shape=(n, n))
    reached, chosen = np.zeros(n, np.float32), []
    heap = [(-float(gain), row, 0) for row, gain in enumerate(np.asarray(table.sum(axis=0)).ravel())]
    heapq.heapify(heap)
    while len(chosen) < count:
        _, row, seen = heapq.heappop(heap)
        part = slice(table.indptr[row], table.indptr[row + 1])
        rows, likeness = table.indices[part], table.data[part]
        if seen == len(chosen):
            reached[rows] = np.maximum(reached[rows], likeness)
            chosen.append(row)
        else:
            gain = float(np.maximum(likeness - reached[rows], 0).sum(dtype=np.float64))
            heapq.heappush(heap, (-gain, row, len(chosen)))
    return np.sort(np.asarray(chosen, np.int64))


def _chunks(vectors):
    """(first row, cosines of the next rows with all) in blocks."""
    for start in range(0, len(vectors), _ROWS):
        yield start, vectors[start : start + _ROWS] @ vectors.T


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curation:
    """What was kept and why: `kept` rows, sorted; `report` JSON values."""

    kept: Int[np.ndarray, " kept"]
    report: dict[str, Any]


def curate(
    vectors: Float[np.ndarray, "n d"],
    categories: Sequence[str],
    ids: Sequence[str],
    count: int,
    *,
    outliers: float = 0.02,
    eps: float | None = None,
    min_samples: int = 5,
) -> Curation:
    """Outliers out, then `count` that represent the others. `eps` None: so that about the share `outliers` is noise.

    Raises `UserError` where fewer than `count` are left.
    """
    if min_samples > len(vectors):
        raise UserError(f"--min-samples {min_samples}: there are {len(vectors)} garments; give at most that, e.g. 5")
    given = eps is not None
    eps = eps_for(vectors, outliers, min_samples) if eps is None else eps
    labels, core = dbscan(vectors, eps, min_samples)
    good = np.flatnonzero(labels >= 0)
    if len(good) < count:
        raise UserError(
            f"--select {count}: {len(good)} of {len(vectors)} garments are left without outliers (eps {eps:.3f}); "
            f"give a smaller --select, a {'larger --eps' if given else 'smaller --outliers'}, a smaller --min-samples "
            "or more flat-lays"
        )
    kept = good[represent(vectors[good], count)]

    def spacing(rows):
        """Mean cosine to the nearest other one: how alike neighbours are."""
        nearest = []
        for start, scores in _chunks(vectors[rows]):
            at = np.arange(len(scores))
            scores[at, start + at] = -np.inf
            nearest.append(scores.max(axis=1))
        return round(float(np.concatenate(nearest).mean()), 4)

    names = np.asarray(categories)
    return Curation(
        kept=kept,
        report={
            "encoded": len(vectors),
            "eps": round(eps, 6),
            "min_samples": min_samples,
            "clusters": int(labels.max(initial=-1)) + 1,
            "core": int(core.sum()),
            "outliers": [ids[row] for row in np.flatnonzero(labels < 0)],
            "represented": int(len(good) - len(kept)),
            "kept": len(kept),
            "nearest_cosine": {"before": spacing(good), "kept": spacing(kept)},
            "categories": {
                "encoded": dict(sorted(Counter(names.tolist()).items())),
                "kept": dict(sorted(Counter(names[kept].tolist()).items())),
            },
        },
    )
