"""Segments: folders of rows that never change once they have their name.

`embeddings.npy` float32 [n, D] of unit rows, `landmarks.array_record` n 1-bit PNGs, `items.jsonl` n lines
{"id", "metadata", "thumbnail": row in the thumbnail file or null}, and, if any item has one,
`thumbnails.array_record`.
"""

import errno
import functools
import itertools
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from ragdiff_jax.errors import UserError
from ragdiff_jax.retrieval import storage
from ragdiff_jax.retrieval.items import Row, StoredItem, decode_bits
from ragdiff_jax.retrieval.manifest import EMBEDDINGS, ITEMS, LANDMARKS, THUMBNAILS, Manifest, SegmentEntry
from ragdiff_jax.retrieval.stored_landmarks import KeptBits, StoredLandmarks

_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)  # what a rename says of a name that is taken


class Segment:
    """A segment that is read when it is asked for; every file is checked before its content is used."""

    def __init__(self, folder: Path, entry: SegmentEntry, manifest: Manifest):
        self._folder, self._entry = folder / entry.name, entry
        self._dim, self._size = manifest.dim, manifest.landmark_size

    def verify_hashes(self) -> None:
        """Raises `UserError` for a file that has changed since it was written."""
        for name, digest in self._entry.files.items():
            if storage.sha256(self._folder / name) != digest:
                self._fail(name, "does not have the manifest's hash")

    @functools.cached_property
    def embeddings(self) -> Float32[np.ndarray, "n d"]:
        """Unit rows. Raises `UserError` for a pickle, another shape or type, NaN, or rows that aren't of
        unit length.
        """
        path = self._folder / EMBEDDINGS
        try:
            # Mapped, so that a header which claims a huge shape allocates nothing.
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise
        except (OSError, ValueError, EOFError, SyntaxError, OverflowError) as error:
            raise UserError(f"{path}: not a plain .npy array; build the memory again") from error
        expected = (self._entry.count, self._dim)
        if not isinstance(mapped, np.ndarray) or mapped.shape != expected or mapped.dtype != np.float32:
            self._fail(EMBEDDINGS, f"is not float32 {expected}")
        embeddings = np.array(mapped, order="C")
        with np.errstate(all="ignore"):
            good = np.abs(np.linalg.norm(embeddings, axis=1) - 1) < 1e-3
        if not good.all():
            self._fail(EMBEDDINGS, f"row {int(np.argmin(good))} is not a finite vector of length 1")
        embeddings.setflags(write=False)
        return embeddings

    @functools.cached_property
    def items(self) -> tuple[StoredItem, ...]:
        """The lines of `items.jsonl`. Raises `UserError` for a wrong line or count."""
        path = self._folder / ITEMS
        lines = path.read_bytes().splitlines()
        if len(lines) != self._entry.count:
            self._fail(ITEMS, f"has {len(lines)} lines, not {self._entry.count}")
        items, thumbnails = [], itertools.count()
        for row, line in enumerate(lines):
            value = storage.from_json(line, path)
            good = isinstance(value, dict) and set(value) == {"id", "metadata", "thumbnail"}
            good = good and isinstance(value["id"], str) and isinstance(value["metadata"], dict)
            if good and value["thumbnail"] is not None:
                good = type(value["thumbnail"]) is int and value["thumbnail"] == next(thumbnails)
            if not good:
                self._fail(ITEMS, f"line {row + 1} is not an item")
            items.append(
                StoredItem(value["id"], value["metadata"], self._entry.name, row, value["thumbnail"])
            )
        if next(thumbnails) > 0 and THUMBNAILS not in self._entry.files:
            self._fail(ITEMS, f"names thumbnails, but there is no {THUMBNAILS}")
        return tuple(items)

    @functools.cached_property
    def landmark_pngs(self) -> list[bytes]:
        """The silhouettes as they are stored."""
        return storage.read_records(self._folder / LANDMARKS, self._entry.count)

    def landmark_name(self, row: int) -> str:
        """What an error calls a silhouette."""
        return f"{self._folder / LANDMARKS}, row {row}"

    def checked_landmark(self, row: int) -> bytes:
        """A silhouette as it is stored. Raises `UserError` if it is no PNG of the memory's landmark size."""
        decode_bits(self.landmark_pngs[row], self._size, self.landmark_name(row))
        return self.landmark_pngs[row]

    @functools.cached_property
    def thumbnail_count(self) -> int:
        """How many rows have one."""
        return sum(item.thumbnail_row is not None for item in self.items)

    def open_thumbnails(self) -> storage.Records:
        """The pictures, by `thumbnail_row`. Raises `FileNotFoundError` once another process has compacted them away."""
        return storage.Records(self._folder / THUMBNAILS, self.thumbnail_count)

    def thumbnails(self, chosen: Sequence[int]) -> list[bytes | None]:
        """The pictures of some rows, None for a row that was stored without; the bytes are not decoded here."""
        found: list[bytes | None] = [None] * len(chosen)
        numbers = {i: self.items[row].thumbnail_row for i, row in enumerate(chosen)}
        numbers = {i: number for i, number in numbers.items() if number is not None}
        if numbers:
            records = self.open_thumbnails().read(list(numbers.values()))
            for i, record in zip(numbers, records, strict=True):
                found[i] = record
        return found

    def rows(self, chosen: Sequence[int]) -> list[Row]:
        """Some of the rows, as they would be written again."""
        return [
            Row(
                self.items[row].id,
                self.embeddings[row],
                self.landmark_pngs[row],
                self.items[row].metadata,
                thumbnail,
            )
            for row, thumbnail in zip(chosen, self.thumbnails(chosen), strict=True)
        ]

    def _fail(self, name: str, what: str) -> None:
        raise UserError(f"{self._folder / name}: {what}; restore the file or build the memory again")


def landmarks_of(
    items: Sequence[StoredItem], segments: Mapping[str, Segment], size: tuple[int, int]
) -> StoredLandmarks:
    """The silhouettes of items, in their order."""
    pngs = [segments[item.segment].landmark_pngs[item.row] for item in items]
    return StoredLandmarks(
        KeptBits(pngs, size, lambda row: segments[items[row].segment].landmark_name(items[row].row))
    )


def write_segment(folder: Path, rows: Sequence[Row], first_number: int) -> SegmentEntry:
    """Writes a segment under the first free `segment-N`, N >= `first_number`: hidden until it is whole."""
    temporary = folder / storage.temporary_name()
    temporary.mkdir()
    try:
        with open(temporary / EMBEDDINGS, "xb") as file:
            np.save(file, np.stack([row.embedding for row in rows]).astype(np.float32), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        storage.write_records(temporary / LANDMARKS, [row.landmark_png for row in rows])
        thumbnails = [row.thumbnail for row in rows if row.thumbnail is not None]
        if thumbnails:
            storage.write_records(temporary / THUMBNAILS, thumbnails)
        numbers = itertools.count()
        lines = (
            storage.to_json(
                {
                    "id": row.id,
                    "metadata": dict(row.metadata),
                    "thumbnail": None if row.thumbnail is None else next(numbers),
                }
            )
            for row in rows
        )
        storage.write_synced(temporary / ITEMS, b"".join(lines))
        files = {path.name: storage.sha256(path) for path in sorted(temporary.iterdir())}
        storage.sync(temporary)
        for number in itertools.count(first_number):
            name = f"segment-{number}"
            # A rename never replaces a folder that has files: a number that is taken is skipped, also where whoever
            # had it has deleted it since.
            try:
                os.rename(temporary, folder / name)
            except OSError as error:
                if error.errno in _TAKEN or (folder / name).exists():
                    continue
                raise
            break
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    storage.sync(folder)
    return SegmentEntry(name=name, count=len(rows), files=files)
