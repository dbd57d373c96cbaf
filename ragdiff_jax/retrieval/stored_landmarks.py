"""The memory's silhouettes as a sequence [n, h, w] that decodes those asked for.

At 768 px a silhouette is a few kB as the PNG that the memory holds anyway, 74 kB in bits and 590 kB in bytes: 8,000 of
them in bytes are 4.7 GB, of which a batch of photos needs a few rows.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8

from ragdiff_jax.retrieval.items import decode_bits

KEPT_BYTES = 256 << 20  # of bits that a memory keeps: all of 4,292 rows of 64 px (2 MB), 3,600 rows of 768 px
_PIXELS = 1 << 24  # decoded at a time, where many are asked for: 256 rows of 256 px


class StoredLandmarks:
    """Masks bool [n, h, w]; `landmarks[rows]`, rows as NumPy takes them, decodes these into a new array.

    What was decoded last is kept in bits, up to a bound; `chunks` and `packed` pass over all rows and keep nothing.
    `np.asarray(landmarks)` holds them all at a byte a pixel. Asked for a PNG that is damaged, it raises a `UserError`
    naming file and row.
    """

    def __init__(self, bits: "KeptBits", index: Int[np.ndarray, " n"] | None = None):
        """`index`: the rows of `bits` that it has; all, if left out."""
        self._bits = bits
        self._index = np.arange(len(bits)) if index is None else index

    def __len__(self) -> int:
        return len(self._index)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n, h, w)."""
        return (len(self), *self._bits.size)

    def __getitem__(self, rows: Any) -> Bool[np.ndarray, "*rows h w"]:
        index = np.asarray(self._index[rows])
        some = index.reshape(-1)
        masks = np.empty((len(some), *self._bits.size), bool)
        for part in self._parts(len(some)):
            masks[part] = self._unpacked(some[part])
        return masks.reshape(*index.shape, *self._bits.size)

    def __iter__(self) -> Iterator[Bool[np.ndarray, "h w"]]:
        for part in self.chunks():
            yield from part

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if copy is False:
            raise ValueError("stored landmarks are decoded: there is no array without a copy")
        masks = self[:]
        return masks if dtype is None else masks.astype(dtype, copy=False)

    def part(self, rows: Any) -> "StoredLandmarks":
        """Some of the rows, not yet decoded."""
        return StoredLandmarks(self._bits, self._index[rows])

    def chunks(self, rows: int | None = None) -> Iterator[Bool[np.ndarray, "m h w"]]:
        """All masks in order, so many at a time; if left out, as many as take little memory."""
        for part in self._parts(len(self), rows):
            yield self._unpacked(self._index[part], keep=False)

    def packed(self, rows: Any = slice(None)) -> UInt8[np.ndarray, "m h bytes"]:
        """Masks of which a byte holds eight pixels of a row, as `np.packbits` makes them of the last axis."""
        some = self._index[rows]
        packed = np.empty((len(some), *self._bits.row_shape), np.uint8)
        for part in self._parts(len(some)):
            packed[part] = self._bits.take(some[part], keep=False)
        return packed

    def _parts(self, count: int, rows: int | None = None) -> Iterator[slice]:
        rows = rows or max(_PIXELS // (self._bits.size[0] * self._bits.size[1]), 1)
        return (slice(start, start + rows) for start in range(0, count, rows))

    def _unpacked(self, rows: Int[np.ndarray, " m"], keep: bool = True) -> Bool[np.ndarray, "m h w"]:
        packed = self._bits.take(rows, keep)
        return np.unpackbits(packed, axis=-1, count=self._bits.size[1]).view(bool)  # bytes of 0 and 1


class KeptBits:
    """Decodes 1-bit PNGs of one (height, width) and keeps the bits of those that were decoded last.

    `name` says of a row what to call it in an error.
    """

    def __init__(
        self, pngs: Sequence[bytes], size: tuple[int, int], name: Callable[[int], str], room: int = KEPT_BYTES
    ):
        self.size, self.row_shape = size, (size[0], -(-size[1] // 8))
        self._pngs, self._name, self._lock = pngs, name, threading.Lock()
        places = min(len(pngs), max(1, room // (self.row_shape[0] * self.row_shape[1])))
        # A ring: the next to be kept takes the place of the oldest. Pages that were never written cost nothing.
        self._kept, self._next = np.empty((places, *self.row_shape), np.uint8), 0
        self._row_at, self._place_of = np.full(places, -1), np.full(len(pngs), -1)

    def __len__(self) -> int:
        return len(self._pngs)

    def take(self, rows: Int[np.ndarray, " m"], keep: bool = True) -> UInt8[np.ndarray, "m h bytes"]:
        """The bits of some rows; `keep`: what had to be decoded for it is kept."""
        with self._lock:  # servers ask from several threads
            places = self._place_of[rows]
            found = self._kept[places]  # of the rows that are not there, anything
            missing = np.flatnonzero(places < 0)
            if len(missing):
                new, back = np.unique(rows[missing], return_inverse=True)
                decoded = np.stack([decode_bits(self._pngs[row], self.size, self._name(row)) for row in new.tolist()])
                found[missing] = decoded[back]
                if keep:
                    self._keep(new, decoded)
            return found

    def _keep(self, rows: Int[np.ndarray, " m"], bits: UInt8[np.ndarray, "m h bytes"]) -> None:
        count = min(len(rows), len(self._kept))
        at = (self._next + np.arange(count)) % len(self._kept)
        gone = self._row_at[at]
        self._place_of[gone[gone >= 0]] = -1
        self._kept[at], self._row_at[at], self._place_of[rows[:count]] = bits[:count], rows[:count], at
        self._next = (self._next + count) % len(self._kept)
