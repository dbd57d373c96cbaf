"""Several data sets as one, and which of their rows an epoch shows."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from ragdiff_jax.data.attributes import ATTRIBUTES, STRUCTURAL
from ragdiff_jax.data.folder import FolderPairs, open_pairs
from ragdiff_jax.data.records import PairRecord, PairSource
from ragdiff_jax.errors import UserError


class JoinedPairs:
    """Several sources one after another. Ids must differ: a memory knows a sample's own flat-lay by them."""

    def __init__(self, sources: Sequence[PairSource]):
        self.sources = tuple(sources)
        self.ends = np.cumsum([len(source) for source in self.sources])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, row: int) -> PairRecord:
        if not 0 <= row < len(self):
            raise IndexError(row)
        part = int(np.searchsorted(self.ends, row, side="right"))
        return self.sources[part][row - int(self.ends[part - 1] if part else 0)]


def open_sources(folder: str, split: str, also: str = "") -> PairSource:
    """A split of `folder`, and behind it the whole of the picture folder `also` if there is one."""
    source = open_pairs(folder, split)
    return JoinedPairs([source, FolderPairs(Path(also))]) if also else source


def repeated_rows(sizes: Sequence[int], repeat: int) -> Int32[np.ndarray, " rows"]:
    """The rows of an epoch over sources of these sizes in which every source behind the first comes `repeat` times.

    A small data set beside a large one is otherwise hardly seen. Raises `UserError` for a `repeat` below 0.
    """
    if repeat < 0:
        raise UserError(f"also_repeat={repeat}: must be at least 0")
    first, total = sizes[0], sum(sizes)
    return np.concatenate([np.arange(first), np.tile(np.arange(first, total), repeat)]).astype(np.int32)


def rows_of_categories(
    flat_attributes: Int32[np.ndarray, "n a"], categories: Collection[str]
) -> Int32[np.ndarray, " rows"]:
    """The rows whose flat-lay is of one of `categories`. Raises `UserError` for a name Table 6 lacks, or no row."""
    names = ATTRIBUTES["Category"]
    if unknown := sorted(set(categories) - set(names)):
        raise UserError(f"data.categories: no category {unknown[0]!r}; choose of {', '.join(names)}")
    ids = [names.index(name) + 1 for name in categories]
    rows = np.flatnonzero(np.isin(flat_attributes[:, STRUCTURAL.index("Category")], ids))
    if not len(rows):
        raise UserError(f"data.categories: the data set has no {' or '.join(sorted(categories))}")
    return rows.astype(np.int32)
