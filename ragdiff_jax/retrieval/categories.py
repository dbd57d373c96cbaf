"""Search within a category: one searcher for each, behind one call (F 4.1: garments are retrieved within the category).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Int, Int32

from ragdiff_jax.errors import UserError
from ragdiff_jax.retrieval.index import Searcher, SearcherKind, make_searcher

_CHUNK = 1024  # queries searched at a time: all scores of a data set against itself are larger than memory


class CategorySearcher:
    """Nearest rows of the query's own category. `categories`: of each row of `embeddings`."""

    def __init__(self, embeddings: Float[np.ndarray, "n d"], categories: Sequence[str], kind: SearcherKind = "auto"):
        self.kind, self._embeddings = kind, embeddings
        self._rows: dict[str, np.ndarray] = {}
        for row, category in enumerate(categories):
            self._rows.setdefault(category, []).append(row)
        self._rows = {name: np.array(rows, np.int32) for name, rows in self._rows.items()}
        self._searchers: dict[str, Searcher] = {}

    def available(self, category: str) -> int:
        """How many rows the category has."""
        return len(self._rows.get(category, ()))

    def search(
        self,
        queries: Float[np.ndarray, "b d"],
        categories: Sequence[str],
        k: int,
        exclude: Int[np.ndarray, " b"] | None = None,
    ) -> tuple[Int32[np.ndarray, "b k"], Float32[np.ndarray, "b k"]]:
        """(rows, cosines), nearest first; `exclude`: a row for each query that is left out, -1 for none.

        Raises `UserError` for a category with fewer than k rows (than k + 1 where one is left out).
        """
        found = np.zeros((len(queries), k), np.int32), np.zeros((len(queries), k), np.float32)
        for category in sorted(set(categories)):
            mine = np.flatnonzero([name == category for name in categories])
            rows = self._rows.get(category, np.zeros(0, np.int32))
            leave = np.full(len(mine), -1, np.int32) if exclude is None else _places(rows, np.asarray(exclude)[mine])
            need = k + int((leave >= 0).any())
            if len(rows) < need:
                raise UserError(
                    f"category {category}: the database has {len(rows)} garments, {need} are needed to retrieve {k}; "
                    "add garments or retrieve fewer"
                )
            if category not in self._searchers:
                self._searchers[category] = make_searcher(self.kind, np.asarray(self._embeddings)[rows])
            searcher = self._searchers[category]
            for start in range(0, len(mine), _CHUNK):
                part = mine[start : start + _CHUNK]
                ids, cosines = _search(searcher, queries[part], k, leave[start : start + _CHUNK], len(mine))
                found[0][part], found[1][part] = rows[ids], cosines
        return found


def _places(rows: Int32[np.ndarray, " m"], wanted: Int[np.ndarray, " b"]) -> Int32[np.ndarray, " b"]:
    """Row numbers of the whole as places in a category's own `rows`, which ascend; -1 for one that isn't in it."""
    if not len(rows):
        return np.full(len(wanted), -1, np.int32)
    at = np.searchsorted(rows, wanted).clip(max=len(rows) - 1)
    return np.where(rows[at] == wanted, at, -1).astype(np.int32)


def _search(searcher, queries, k, leave, total):
    """Of one chunk; the last of several is filled up, so that all have one shape to compile."""
    count = len(queries)
    if count < _CHUNK < total:
        queries = np.concatenate([queries, np.repeat(queries[:1], _CHUNK - count, axis=0)])
        leave = np.concatenate([leave, np.full(_CHUNK - count, -1, np.int32)])
    found = searcher.search(queries, k, leave if (leave >= 0).any() else None)
    return tuple(np.asarray(each)[:count] for each in found)
