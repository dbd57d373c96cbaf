"""From records to batches of numpy arrays, in an order that is a pure function of (seed, step).

A batch (B rows of this process, s pixels a side): `photo`, `flat`, `partner_flat` uint8 [B,s,s,3]; `mask`,
`partner_mask` uint8 [B,s,s] in {0,1}; `photo_mask` likewise, of the garment in the photo (zeros where
`has_photo_mask` bool [B] isn't set); `photo_attributes`, `flat_attributes`, `partner_flat_attributes` int32 [B,10];
`has_partner` bool [B]; `text_ids` int32 [B,L]; `row`, `partner_row` int32 [B]. Without a partner, the partner
fields are the record's own.
"""

import dataclasses
import functools
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import grain
import jax
import numpy as np
from jaxtyping import Int32

from ragdiff_jax.data.attributes import STRUCTURAL, attribute_ids
from ragdiff_jax.data.images import decode_image, decode_mask, square, square_mask
from ragdiff_jax.data.processes import usable_cores
from ragdiff_jax.data.records import PairRecord, PairSource, record_ids
from ragdiff_jax.data.silhouettes import check_shape, silhouette_of
from ragdiff_jax.errors import UserError

Batch = dict[str, np.ndarray]
OF_PARTNERS = {f"partner_{name}": name for name in ("flat", "mask", "flat_attributes")}
FIELDS = (
    *("photo", "flat", "mask", "photo_mask", "has_photo_mask", "photo_attributes", "flat_attributes", "text_ids"),
    *("row", "partner_row", "has_partner", *OF_PARTNERS),
)
"""Of a batch of pairs. Who reads some of them says so: a picture of 1,024 pixels takes longer to decode than to use."""


def own_fields(fields: Collection[str]) -> set[str]:
    """What of records' own fields these are made of."""
    own = {OF_PARTNERS.get(name, name) for name in fields}
    return own | {"partner_row"} if OF_PARTNERS.keys() & fields or "has_partner" in fields else own


@runtime_checkable
class BatchSource(Protocol):
    """What makes batches of its own rows: `PairArrays`, `PersonArrays`. Those of pairs also take `fields`."""

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray) -> Batch: ...


class PairArrays:
    """The records of a source as fixed-size arrays; with `cache`, each is decoded once and kept.

    A cached record of s pixels takes 8 s^2 bytes (128 px: 131 kB). `tokenizer` needs `encode(list[str]) ->
    int32 [n,L]`. Without `partners` every record is its own. Safe to read from several threads.
    """

    def __init__(
        self, source: PairSource, *, image_size: int, tokenizer, cache: bool = False, partners: bool = True
    ):
        if not len(source):
            raise UserError("the data set has no records in this split; add pairs or name another split")
        self.source, self.image_size, self.tokenizer, self.partners = source, image_size, tokenizer, partners
        self._cache: list[Batch | None] | None = [None] * len(source) if cache else None
        self._rows: dict[str, int] | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.source)

    def row_of(self, id: str) -> int | None:
        """The row of a record's id, or None; the first call reads every record once (without decoding)."""
        with self._lock:
            if self._rows is None:
                self._rows = {id: row for row, id in enumerate(self.ids)}
        return self._rows.get(id)

    @functools.cached_property
    def ids(self) -> list[str]:
        """The record's id of each row; the first time it may read every record (without decoding)."""
        return record_ids(self.source)

    def __getitem__(self, row: int) -> Batch:
        """One record's own fields, without the batch axis and without the partner's pictures."""
        if self._cache is not None and self._cache[row] is not None:
            return self._cache[row]
        item = self.item(row, self.source[row])
        if self._cache is not None:
            self._cache[row] = item
        return item

    def item(self, row: int, record: PairRecord, fields: Collection[str] = FIELDS) -> Batch:
        """Those of the fields that are a record's own, of the one that stands in this row; no picture else is read."""
        size, name = self.image_size, f"record {record.id}"
        item = {"row": np.array(row, np.int32)}
        if "flat" in fields or "mask" in fields:
            flat = decode_image(record.flat, f"flat-lay of {name}")
            if "flat" in fields:
                item["flat"] = square(flat, size, fill="white")
            if "mask" in fields:
                item["mask"] = silhouette_of(record, flat, size).astype(np.uint8)
        if "photo" in fields or "photo_mask" in fields:
            photo = decode_image(record.photo, f"photo of {name}")
            if "photo" in fields:
                item["photo"] = square(photo, size, fill="edge")
            if "photo_mask" in fields:
                item["photo_mask"] = self._in_photo(record, photo)
        if "has_photo_mask" in fields:
            item["has_photo_mask"] = np.array(record.photo_mask is not None)
        for field, attributes in (
            ("photo_attributes", record.photo_attributes),
            ("flat_attributes", record.flat_attributes),
        ):
            if field in fields:
                item[field] = attribute_ids(attributes, name)
        if "text_ids" in fields:
            item["text_ids"] = self.tokenizer.encode([record.caption])[0]
        if "partner_row" in fields:
            partner = self.row_of(record.structure_partner) if self.partners and record.structure_partner else None
            item["partner_row"] = np.array(row if partner is None else partner, np.int32)
            item["has_partner"] = np.array(partner not in (None, row))
        return item

    def _in_photo(self, record: PairRecord, photo: np.ndarray) -> np.ndarray:
        if record.photo_mask is None:
            return np.zeros((self.image_size, self.image_size), np.uint8)
        visible = decode_mask(record.photo_mask, f"photo_mask of record {record.id}")
        check_shape(visible, photo, f"record {record.id}: the photo_mask", "the photo")
        if not visible.any():
            raise UserError(
                f"record {record.id}: the photo_mask marks nothing; paint the garment white on black, or leave it out"
            )
        return square_mask(visible, self.image_size).astype(np.uint8)

    def arrays(self) -> Batch:
        """Every field of `batch` but the partner's, of all rows."""
        items = [self[row] for row in range(len(self))]
        return {name: np.stack([item[name] for item in items]) for name in items[0]}

    def batch(self, rows: np.ndarray, fields: Collection[str] = FIELDS) -> Batch:
        """These fields of these rows."""
        own, partners = own_fields(fields), [of for name, of in OF_PARTNERS.items() if name in fields]
        items = [self._fields(int(row), own) for row in rows]
        batch = {name: np.stack([item[name] for item in items]) for name in fields if name not in OF_PARTNERS}
        if partners:
            others = [
                self._fields(int(item["partner_row"]), partners) if item["has_partner"] else item for item in items
            ]
            batch |= {f"partner_{name}": np.stack([item[name] for item in others]) for name in partners}
        return batch

    def _fields(self, row: int, fields: Collection[str]) -> Batch:
        return self[row] if self._cache is not None else self.item(row, self.source[row], fields)


@dataclasses.dataclass(frozen=True)
class PairShapes:
    """Stands for pairs that aren't here: what their batches look like, to plan a run with. `count`: how many."""

    image_size: int
    text_length: int
    count: int = 0

    def __len__(self) -> int:
        return self.count

    @property
    def ids(self) -> list[str]:
        return [""] * self.count

    def abstract_batch(self, rows: int, of: Collection[str] = FIELDS) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of `PairArrays.batch`."""
        s, n = self.image_size, len(STRUCTURAL)
        picture, mask = ((s, s, 3), np.uint8), ((s, s), np.uint8)
        attributes, flag, number = ((n,), np.int32), ((), np.bool_), ((), np.int32)
        fields = {
            "photo": picture, "flat": picture, "partner_flat": picture,
            "mask": mask, "partner_mask": mask, "photo_mask": mask,
            "has_photo_mask": flag, "has_partner": flag, "photo_attributes": attributes,
            "flat_attributes": attributes, "partner_flat_attributes": attributes,
            "text_ids": ((self.text_length,), np.int32), "row": number, "partner_row": number,
        }  # fmt: skip
        return {name: jax.ShapeDtypeStruct((rows, *fields[name][0]), fields[name][1]) for name in of}


def gathered(arrays: Mapping[str, Any], rows: Any, fields: Collection[str] = FIELDS) -> dict[str, Any]:
    """These fields of these rows of `arrays()`, partners' included: of NumPy arrays, or of JAX's in a step."""
    batch = {name: arrays[name][rows] for name in fields if name not in OF_PARTNERS}
    partners = [name for name in fields if name in OF_PARTNERS]
    if partners:
        of = arrays["partner_row"][rows]
        batch |= {name: arrays[OF_PARTNERS[name]][of] for name in partners}
    return batch


def make_batches(
    source: PairSource | BatchSource,
    *,
    batch_size: int,
    seed: int,
    image_size: int | None = None,
    tokenizer=None,
    start_step: int = 0,
    places: Int32[np.ndarray, " local"] | None = None,
    num_threads: int | None = None,
    cache: bool = False,
    order: Int32[np.ndarray, " rows"] | None = None,
    rows_only: bool = False,
    fields: Collection[str] | None = None,
) -> Iterator[Batch]:
    """Endless training batches from `start_step` on: this process' part of each global batch of `batch_size`.

    `places`: which rows of the global batch, in this order (None: all); what the global batch of a step is doesn't
    depend on them. Every epoch shows each record once, in its own order. Batches are prepared ahead by `num_threads`
    threads (0: none; None: one a core of this process, 2 to 16), fewer where these batches would take more than
    `AHEAD` bytes; close the iterator, or drop it, to stop them.
    `order`: the rows of an epoch, where some come more than once. `rows_only`: batches hold `row` alone; `fields`:
    these of the source's (None: all that it has).
    """
    if batch_size < 1:
        raise UserError(f"batch size {batch_size}: must be at least 1")
    arrays = _arrays(source, image_size, tokenizer, cache)
    order = np.arange(len(arrays), dtype=np.int32) if order is None else order
    global_batch = global_rows(len(order), batch_size, seed)
    read = arrays.batch if fields is None else functools.partial(arrays.batch, fields=fields)

    def load(step: int) -> Batch:
        rows = order[global_batch(step, places)]
        return {"row": rows} if rows_only else read(rows)

    size = 0
    if num_threads != 0 and not rows_only:
        size = batch_bytes(read(order[:1]), batch_size if places is None else len(places))
    return ahead(load, start=start_step, num_threads=num_threads, size=size)


def global_rows(length: int, batch_size: int, seed: int) -> Callable[..., np.ndarray]:
    """`rows(step, places=None)`: the rows at these places of a step's global batch (None: all), int32.

    A pure function of (length, batch_size, seed, step): nothing is stored, any step costs the same.
    """

    @functools.lru_cache(maxsize=8)
    def epoch_key(epoch: int) -> int:
        # Not seed + epoch: runs with neighbouring seeds would see each other's epochs.
        return int(np.random.SeedSequence([seed % 2**32, epoch]).generate_state(1)[0])

    def row(position: int) -> int:
        epoch, place = divmod(position, length)
        return grain.experimental.index_shuffle(place, max_index=length - 1, seed=epoch_key(epoch), rounds=4)

    def rows(step: int, places: np.ndarray | None = None) -> np.ndarray:
        # Python's integers: step * batch_size + an int32 would overflow in a long run.
        chosen = range(batch_size) if places is None else np.asarray(places).tolist()
        return np.array([row(step * batch_size + place) for place in chosen], np.int32)

    return rows


def _arrays(source, image_size, tokenizer, cache):
    if isinstance(source, BatchSource):
        return source
    if image_size is None or tokenizer is None:
        raise TypeError("a source of records needs image_size and tokenizer")
    return PairArrays(source, image_size=image_size, tokenizer=tokenizer, cache=cache)


_ENDLESS = 2**40
AHEAD = 8 * 2**30
"""Bytes of batches that are prepared ahead, at most, where two fit: each thread makes a whole one."""


def batch_bytes(one: Batch, rows: int) -> int:
    """Of a batch of so many rows like the `one`."""
    return rows * sum(value.nbytes for value in one.values())


def ahead(
    load: Callable[[int], Batch],
    *,
    start: int = 0,
    stop: int = _ENDLESS,
    num_threads: int | None = None,
    size: int = 0,
) -> Iterator[Batch]:
    """`load(step)` for start <= step < stop, in order, prepared by Grain's threads.

    `num_threads` as in `make_batches`; fewer where batches of `size` bytes would take more than `AHEAD`.
    """
    num_threads = max(2, min(16, usable_cores())) if num_threads is None else num_threads
    if size:
        num_threads = min(num_threads, max(1, AHEAD // size - 2))
    # Each thread prepares a whole batch: few wait beside those under way.
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads and num_threads + 2)
    steps = grain.MapDataset.source(_Steps(start, stop)).map(load).to_iter_dataset(options)
    iterator = iter(steps)
    try:
        yield from iterator
    finally:
        # Grain's reader threads outlive an abandoned iterator and can hang the exit.
        iterator.close()


class _Steps:
    """The step numbers as a random-access source (a range of 2**40 has a length, but Grain copies lists)."""

    def __init__(self, start, stop):
        self._start, self._stop = start, stop

    def __len__(self):
        return self._stop - self._start

    def __getitem__(self, place):
        return self._start + int(place)
