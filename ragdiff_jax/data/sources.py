"""Several data sets as one, and which of their rows an epoch shows."""

import dataclasses
import json
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int32

from ragdiff_jax.data.attributes import ATTRIBUTES, STRUCTURAL, attribute_ids
from ragdiff_jax.data.decoded import DecodedPairs
from ragdiff_jax.data.folder import FolderPairs, open_pairs
from ragdiff_jax.data.pipeline import FIELDS, Batch, PairArrays
from ragdiff_jax.data.records import PairRecord, PairSource, record_ids
from ragdiff_jax.errors import UserError


class JoinedPairs:
    """Several sources one after another. Ids must differ: a memory knows a sample's own flat-lay by them."""

    def __init__(self, sources: Sequence[PairSource]):
        self.sources = tuple(sources)
        self.ends = np.cumsum([len(source) for source in self.sources])

    @property
    def ids(self) -> list[str]:
        return [id for source in self.sources for id in record_ids(source)]

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, row: int) -> PairRecord:
        if not 0 <= row < len(self):
            raise IndexError(row)
        part = int(np.searchsorted(self.ends, row, side="right"))
        return self.sources[part][row - int(self.ends[part - 1] if part else 0)]


class PartneredPairs:
    """A source whose records have the structure partners of a file (`ragdiff data partners`), where it knows them."""

    def __init__(self, source: PairSource, file: str | Path):
        self.source, self.partners = source, read_partners(file)

    @property
    def ids(self) -> list[str]:
        return record_ids(self.source)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> PairRecord:
        record = self.source[row]
        if record.id not in self.partners:
            return record
        return dataclasses.replace(record, structure_partner=self.partners[record.id])


@dataclasses.dataclass(frozen=True)
class SomePairs:
    """A batch source of some rows of another one. What its batches say of rows and partners is of the whole."""

    pairs: PairArrays | DecodedPairs
    rows: Int[np.ndarray, " rows"]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> list[str]:
        ids = self.pairs.ids
        return [ids[row] for row in self.rows]

    def batch(self, rows: Int[np.ndarray, " b"], fields: Collection[str] = FIELDS) -> Batch:
        return self.pairs.batch(self.rows[rows], fields)


def read_partners(file: str | Path) -> dict[str, str | None]:
    """Garment -> partner of a JSONL file with `id` and `structure_partner`. Raises `UserError` naming file and line."""
    file = Path(file)
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: can't read the partners ({error}); make them: ragdiff data partners") from error
    partners: dict[str, str | None] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            id, partner = value["id"], value["structure_partner"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(f"{file} line {number}: needs an object with id and structure_partner") from error
        if not isinstance(id, str) or not isinstance(partner, str | None) or id in partners:
            raise UserError(f"{file} line {number}: id {id!r} is no text, or twice, or its partner is no id")
        partners[id] = partner
    return partners


def open_sources(folder: str, split: str, also: str = "", partners: str = "") -> PairSource:
    """A split of `folder`, and behind it the whole of the picture folder `also` if there is one; with the structure
    partners of the file `partners`. Raises `UserError` for an id that both folders have, in any split: a garment is
    known by it.
    """
    source = open_pairs(folder, split)
    if also:
        more = FolderPairs(Path(also))
        # Of every split: what is held out is not to come in by another door.
        twice = source.names & more.names if isinstance(source, FolderPairs) else ()
        if twice:
            raise UserError(f"{also}: has {len(twice)} names that {folder} has too, {min(twice)!r} for one; rename")
        source = JoinedPairs([source, more])
    return PartneredPairs(source, partners) if partners else source


def repeated_rows(sizes: Sequence[int], repeat: int) -> Int32[np.ndarray, " rows"]:
    """The rows of an epoch over sources of these sizes in which every source behind the first comes `repeat` times.

    A small data set beside a large one is otherwise hardly seen. Raises `UserError` for a `repeat` below 0.
    """
    if repeat < 0:
        raise UserError(f"also_repeat={repeat}: must be at least 0")
    first, total = sizes[0], sum(sizes)
    return np.concatenate([np.arange(first), np.tile(np.arange(first, total), repeat)]).astype(np.int32)


def flat_attribute_ids(pairs: PairArrays | DecodedPairs) -> Int32[np.ndarray, "n a"]:
    """Ids of each flat-lay's ten attributes, 0 unknown, without a look at pictures."""
    if isinstance(pairs, DecodedPairs):
        return np.asarray(pairs.arrays()["flat_attributes"])
    records = (pairs.source[row] for row in range(len(pairs)))
    return np.stack([attribute_ids(record.flat_attributes, f"record {record.id}") for record in records])


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
