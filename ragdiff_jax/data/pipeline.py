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
from collections.abc import Callable, Iterator, Mapping
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


@runtime_checkable
class BatchSource(Protocol):
    """What makes batches of its own rows: `PairArrays`, `PersonArrays`."""

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

    def item(self, row: int, record: PairRecord) -> Batch:
        """The fields of a record that stands in this row."""
        size = self.image_size
        flat = decode_image(record.flat, f"flat-lay of record {record.id}")
        photo = decode_image(record.photo, f"photo of record {record.id}")
        mask = silhouette_of(record, flat, size)
        in_photo = np.zeros((size, size), np.uint8)
        if record.photo_mask is not None:
            visible = decode_mask(record.photo_mask, f"photo_mask of record {record.id}")
            check_shape(visible, photo, f"record {record.id}: the photo_mask", "the photo")
            in_photo = square_mask(visible, size).astype(np.uint8)
        partner_row = self.row_of(record.structure_partner) if self.partners and record.structure_partner else None
        return {
            "photo": square(photo, size, fill="edge"),
            "flat": square(flat, size, fill="white"),
            "mask": mask.astype(np.uint8),
            "photo_mask": in_photo,
            "has_photo_mask": np.bool_(record.photo_mask is not None),
            "photo_attributes": attribute_ids(record.photo_attributes, f"record {record.id}"),
            "flat_attributes": attribute_ids(record.flat_attributes, f"record {record.id}"),
            "text_ids": self.tokenizer.encode([record.caption])[0],
            "row": np.int32(row),
            "partner_row": np.int32(row if partner_row is None else partner_row),
            "has_partner": np.bool_(partner_row is not None and partner_row != row),
        }

    def arrays(self) -> Batch:
        """Every field of `batch` but the partner's, of all rows."""
        items = [self[row] for row in range(len(self))]
        return {name: np.stack([item[name] for item in items]) for name in items[0]}

    def batch(self, rows: np.ndarray) -> Batch:
        """The batch of these rows."""
        items = [self[int(row)] for row in rows]
        batch = {name: np.stack([item[name] for item in items]) for name in items[0]}
        partners = [self[int(item["partner_row"])] if item["has_partner"] else item for item in items]
        batch["partner_flat"] = np.stack([item["flat"] for item in partners])
        batch["partner_mask"] = np.stack([item["mask"] for item in partners])
        batch["partner_flat_attributes"] = np.stack([item["flat_attributes"] for item in partners])
        return batch


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

    def abstract_batch(self, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
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
        return {name: jax.ShapeDtypeStruct((rows, *shape), dtype) for name, (shape, dtype) in fields.items()}


def with_partners(arrays: Mapping[str, Any], rows: Any) -> dict[str, Any]:
    """The batch of these rows of `arrays()`, partner's fields included: of NumPy arrays, or of JAX's in a step."""
    batch = {name: array[rows] for name, array in arrays.items()}
    for name in ("flat", "mask", "flat_attributes"):
        batch[f"partner_{name}"] = arrays[name][batch["partner_row"]]
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
) -> Iterator[Batch]:
    """Endless training batches from `start_step` on: this process' part of each global batch of `batch_size`.

    `places`: which rows of the global batch, in this order (None: all); what the global batch of a step is doesn't
    depend on them. Every epoch shows each record once, in its own order. Batches are prepared ahead by `num_threads`
    threads (0: none; None: one a core of this process, 2 to 16), fewer where these batches would take more than
    `AHEAD` bytes; close the iterator, or drop it, to stop them.
    `order`: the rows of an epoch, where some come more than once. `rows_only`: batches hold `row` alone.
    """
    if batch_size < 1:
        raise UserError(f"batch size {batch_size}: must be at least 1")
    arrays = _arrays(source, image_size, tokenizer, cache)
    order = np.arange(len(arrays), dtype=np.int32) if order is None else order
    global_batch = global_rows(len(order), batch_size, seed)

    def load(step: int) -> Batch:
        rows = order[global_batch(step, places)]
        return {"row": rows} if rows_only else arrays.batch(rows)

    size = 0
    if num_threads != 0 and not rows_only:
        row = sum(x.nbytes for x in arrays.batch(order[:1]).values())
        size = row * (batch_size if places is None else len(places))
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
