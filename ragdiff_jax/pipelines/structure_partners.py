"""Structure partners (RAGDiffusion 3.1, 4.1): for each garment the one of most alike edges and other colours.

Edges and colours of every flat-lay are found once, by several processes; the nearest by edges come from a searcher; of
those the first whose colours differ enough is the partner.
"""

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from ragdiff_jax.data.canny import SIDE, colour_histogram, structure_descriptor
from ragdiff_jax.data.folder import open_pairs
from ragdiff_jax.data.images import decode_image, square
from ragdiff_jax.data.processes import map_processes
from ragdiff_jax.data.silhouettes import silhouette_of
from ragdiff_jax.errors import UserError
from ragdiff_jax.retrieval import make_searcher

_CHUNK = 64  # flat-lays a process reads at a time
_QUERIES = 512


@dataclasses.dataclass(frozen=True)
class Partner:
    """Of the garment `id`: its partner, the inner product of their edges, and how far their colours differ in [0, 1].

    `partner` None: none of the nearest differs enough.
    """

    id: str
    partner: str | None
    similarity: float
    difference: float

    def line(self) -> str:
        """A line of the partners' file."""
        return json.dumps(
            {
                "id": self.id,
                "structure_partner": self.partner,
                "similarity": round(self.similarity, 4),
                "texture_difference": round(self.difference, 4),
            }
        )


def describe(folder: str, split: str, rows: tuple[int, int]):
    """(ids, edges [n,d], colours [n,b], categories) of these rows: the work of one process."""
    source = _opened(folder, split)
    ids, edges, colours, categories = [], [], [], []
    for row in range(*rows):
        record = source[row]
        flat = decode_image(record.flat, f"flat-lay of record {record.id}", max_side=2 * SIDE)
        mask = silhouette_of(record, flat, SIDE)
        flat = square(flat, SIDE, fill="white")
        ids.append(record.id)
        edges.append(structure_descriptor(flat))
        colours.append(colour_histogram(flat, mask))
        categories.append(record.flat_attributes.get("Category") or record.category)
    return ids, np.stack(edges), np.stack(colours), categories


@functools.lru_cache(maxsize=1)
def _opened(folder: str, split: str):
    return open_pairs(folder, split)


def find_partners(
    folder: str | Path,
    split: str,
    *,
    least_difference: float = 0.5,
    candidates: int = 32,
    same_category: bool = False,
    processes: int = 1,
    described: Callable[[int], None] = lambda count: None,
    searched: Callable[[int], None] = lambda count: None,
) -> Iterator[Partner]:
    """The partner of each garment of a split, in its order.

    Args:
      least_difference: of colours, 1 minus the histograms' intersection.
      candidates: nearest by edges that are looked at.
      same_category: partners have the garment's own category.
      described, searched: told how many garments are done, of each of the two passes.

    Raises `UserError` for a split of one garment, and pictures that can't be read.
    """
    count = len(open_pairs(folder, split))
    if count < 2:
        raise UserError(f"{folder}: split {split!r} has {count} garment; partners need two at least")
    parts = []
    chunks = [(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    for part in map_processes(functools.partial(describe, str(folder), split), chunks, processes):
        parts.append(part)
        described(len(part[0]))
    ids, categories = (list(itertools.chain.from_iterable(part[at] for part in parts)) for at in (0, 3))
    edges, colours = (np.concatenate([part[at] for part in parts]) for at in (1, 2))
    # A garment without edges is nobody's partner, and has none.
    some = np.flatnonzero(np.linalg.norm(edges, axis=1) > 0.5)
    best = np.full(count, -1)
    scores = np.zeros((count, 2))
    if len(some) > 1:
        searcher = make_searcher("auto", edges[some])
        names = np.asarray(categories)
        for start in range(0, len(some), _QUERIES):
            own = some[start : start + _QUERIES]
            places = np.arange(start, start + len(own))
            found, near = searcher.search(edges[own], min(candidates, len(some) - 1), places)
            rows, near = some[np.asarray(found)], np.asarray(near)
            apart = 1 - _shared(colours[own], colours[rows])
            good = apart >= least_difference
            if same_category:
                good &= names[rows] == names[own][:, None]
            first = good.argmax(axis=1)
            at = np.arange(len(own))
            best[own] = np.where(good.any(axis=1), rows[at, first], -1)
            scores[own] = np.stack([near[at, first], apart[at, first]], axis=1)
            searched(len(own))
    for row, id in enumerate(ids):
        partner = None if best[row] < 0 else ids[best[row]]
        yield Partner(id, partner, *map(float, scores[row] if partner else (0.0, 0.0)))


def _shared(own: Float32[np.ndarray, "n b"], others: Float32[np.ndarray, "n k b"]) -> Float32[np.ndarray, "n k"]:
    return np.minimum(own[:, None], others).sum(axis=-1)
