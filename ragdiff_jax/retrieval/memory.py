"""The memory of standard garments (RAGDiffusion 3.2): embedding, silhouette and metadata of each, in files.

    manifest-N.json               what generation N holds; readers take the highest complete one
    segment-M/                    immutable rows (`segments.py`)
        embeddings.npy            float32 [n, D], unit rows
        landmarks.array_record    1-bit PNGs
        items.jsonl               id and metadata of each row
        thumbnails.array_record   AVIFs or JPEGs to show the garments; only if an item has one
    tombstones-N-xxxxxxxx.json    removed rows by segment

A change writes new files first and then creates the next manifest exclusively: a reader sees the old or the
new memory, and of two writers one wins and the other gets an error. A killed writer leaves files that no
manifest names; `compact` sweeps them. Nothing is pickled.
"""

import dataclasses
import functools
import secrets
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

from ragdiff_jax.errors import UserError
from ragdiff_jax.retrieval import manifest as manifests
from ragdiff_jax.retrieval import storage
from ragdiff_jax.retrieval.device_memory import DeviceMemory, place
from ragdiff_jax.retrieval.items import MemoryItem, Row, StoredItem, checked_row
from ragdiff_jax.retrieval.manifest import Manifest, SegmentEntry
from ragdiff_jax.retrieval.segments import Segment, landmarks_of, write_segment
from ragdiff_jax.retrieval.stored_landmarks import StoredLandmarks

_STALE_SECONDS = 24 * 3600
_OPEN_FILES = 16  # of thumbnails: a memory that is added to often has more segments than a process may open files


class Memory:
    """A memory at one generation. `embeddings`, `landmarks` and `items` have one entry for each row, in one
    order.

    The object moves on with its own changes only; after a change by another writer, its next change is
    refused.
    """

    def __init__(self, path: Path, manifest: Manifest, *, verify: bool):
        """Use `Memory.open` or `Memory.create`."""
        self.path = path
        self._segments: dict[str, Segment] = {}
        self._load(manifest, verify)

    @classmethod
    def create(
        cls, path: str | Path, fingerprint: str, landmark_size: int | tuple[int, int], dim: int
    ) -> "Memory":
        """Makes an empty memory in a new or empty folder.

        `fingerprint` names the encoder of all its embeddings; `landmark_size` is (height, width), or the side
        of a square. Raises `UserError` if the folder has files or can't be written.
        """
        path = Path(path)
        size = (landmark_size, landmark_size) if isinstance(landmark_size, int) else tuple(landmark_size)
        if dim < 1 or min(size) < 1:
            raise UserError(f"{path}: dim {dim} and landmark size {size} must be above 0")
        with storage.writing(path):
            path.mkdir(parents=True, exist_ok=True)
            if any(not entry.name.startswith(storage.TEMPORARY_PREFIX) for entry in path.iterdir()):
                raise UserError(f"{path}: folder is not empty; choose a new folder for the memory")
            first = Manifest(generation=1, fingerprint=fingerprint, dim=dim, landmark_size=size, count=0)
            try:
                storage.create_exclusively(manifests.manifest_path(path, 1), first.to_bytes())
            except FileExistsError as error:
                raise UserError(f"{path}: another process has just made a memory here; open it") from error
        return cls.open(path)

    @classmethod
    def open(
        cls, path: str | Path, expected_fingerprint: str | None = None, *, verify: bool = True
    ) -> "Memory":
        """Opens the newest generation; `verify` compares every file with its hash in the manifest.

        Raises `UserError`, naming the file and the fix, for a folder that is missing or no memory, any file
        that is missing or damaged, and embeddings of another encoder than `expected_fingerprint`.
        """
        path = Path(path)
        while True:
            try:
                manifest = manifests.read_latest(path)
            except OSError as error:
                raise _unreadable(path, error) from error
            if expected_fingerprint is not None:
                _check_encoder(path, manifest, expected_fingerprint)
            try:
                return cls(path, manifest, verify=verify)
            except FileNotFoundError as error:
                # A compaction may have swept the files away since: then there is a newer manifest.
                if manifests.read_latest(path).generation > manifest.generation:
                    continue
                raise UserError(
                    f"{error.filename or error}: missing; restore it or build the memory again"
                ) from error
            except OSError as error:
                raise _unreadable(path, error) from error

    def _load(self, manifest: Manifest, verify: bool) -> None:
        segments = {}
        for entry in manifest.segments:
            segment = self._segments.get(entry.name)
            if segment is None:
                segment = Segment(self.path, entry, manifest)
                if verify:
                    segment.verify_hashes()
                # Read now what is needed later: another process may compact the files away.
                _ = segment.items, segment.embeddings, segment.landmark_pngs
            segments[entry.name] = segment
        dead = self._read_tombstones(manifest)
        live = {
            e.name: [r for r in range(e.count) if r not in dead.get(e.name, ())] for e in manifest.segments
        }
        items = tuple(segments[name].items[row] for name, rows in live.items() for row in rows)
        rows_of = {item.id: row for row, item in enumerate(items)}
        if len(items) != manifest.count:
            raise UserError(
                f"{self.path}: has {len(items)} rows, its manifest says {manifest.count}; build it again"
            )
        if len(rows_of) != len(items):
            twice = next(item.id for row, item in enumerate(items) if rows_of[item.id] != row)
            raise UserError(f"{self.path}: id {twice!r} stands twice; build the memory again")
        embeddings = np.concatenate(
            [
                np.zeros((0, manifest.dim), np.float32),
                *(segments[name].embeddings[rows] for name, rows in live.items()),
            ]
        )
        embeddings.setflags(write=False)
        self.manifest, self._segments, self._live, self._dead = manifest, segments, live, dead
        self._items, self._rows_of, self._embeddings = items, rows_of, embeddings
        self._landmarks = landmarks_of(items, segments, manifest.landmark_size)
        # Not of self, which would keep a memory that is dropped until the next garbage collection.
        self._thumbnails = functools.lru_cache(_OPEN_FILES)(lambda name: segments[name].open_thumbnails())

    def _read_tombstones(self, manifest: Manifest) -> dict[str, set[int]]:
        if manifest.tombstones is None:
            return {}
        path = self.path / manifest.tombstones
        # Small, and a removed garment must stay removed: always compared with its hash.
        if storage.sha256(path) != manifest.tombstones_hash:
            raise UserError(
                f"{path}: does not have the manifest's hash; restore the file or build the memory again"
            )
        value, counts = (
            storage.from_json(path.read_bytes(), path),
            {e.name: e.count for e in manifest.segments},
        )
        good = isinstance(value, dict) and all(
            name in counts
            and isinstance(rows, list)
            and all(type(r) is int and 0 <= r < counts[name] for r in rows)
            for name, rows in value.items()
        )
        if not good:
            raise UserError(f"{path}: not rows by segment; restore the file or build the memory again")
        return {name: set(rows) for name, rows in value.items()}

    def check_encoder(self, fingerprint: str) -> None:
        """Raises `UserError` if the memory was built by another encoder: its cosines would be noise."""
        _check_encoder(self.path, self.manifest, fingerprint)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def fingerprint(self) -> str:
        """The encoder's fingerprint."""
        return self.manifest.fingerprint

    @property
    def generation(self) -> int:
        """The manifest's number: whoever stores rows of this memory stores it beside them."""
        return self.manifest.generation

    @property
    def embeddings(self) -> Float32[np.ndarray, "n d"]:
        """Unit rows, read-only."""
        return self._embeddings

    @property
    def landmarks(self) -> StoredLandmarks:
        """The silhouettes bool [n, h, w], decoded when asked for: `landmarks[rows]`."""
        return self._landmarks

    def landmark_png(self, row: int) -> bytes:
        """The 1-bit PNG stored with a row. Raises `UserError` if it is damaged."""
        item = self._items[row]
        return self._segments[item.segment].checked_landmark(item.row)

    @property
    def items(self) -> tuple[StoredItem, ...]:
        """`id` and `metadata` of each row."""
        return self._items

    def row(self, id: str) -> int:
        """The row of an id. Raises `UserError` if there is none."""
        if id not in self._rows_of:
            raise UserError(f"{self.path}: no item {id!r}; `ragdiff memory export` has all")
        return self._rows_of[id]

    def thumbnail(self, row: int) -> bytes | None:
        """The picture stored with a row (AVIF or JPEG), or None. The bytes come from a file: decode them as an
        untrusted picture.
        """
        item = self._items[row]
        if item.thumbnail_row is None:
            return None
        try:
            return self._thumbnails(item.segment).read([item.thumbnail_row])[0]
        except FileNotFoundError as error:
            raise UserError(f"{self.path}: compacted by another process; open the memory again") from error

    def to_device(
        self, mesh: jax.sharding.Mesh | None = None, rows_over: str | Sequence[str] | None = None
    ) -> DeviceMemory:
        """Embeddings and landmarks on the default device or on all of `mesh`, rows split over its axes
        `rows_over`.
        """
        return place(self.embeddings, self.landmarks, mesh, rows_over)

    def info(self) -> dict[str, Any]:
        """Counts, sizes and the encoder, as JSON values."""
        names = [f"{e.name}/{file}" for e in self.manifest.segments for file in e.files]
        return {
            "path": str(self.path),
            "schema": manifests.SCHEMA,
            "generation": self.generation,
            "fingerprint": self.fingerprint,
            "dim": self.manifest.dim,
            "landmark_size": list(self.manifest.landmark_size),
            "count": len(self),
            "removed": sum(map(len, self._dead.values())),
            "segments": len(self.manifest.segments),
            "bytes": sum((self.path / name).stat().st_size for name in names),
        }

    def verify(self) -> None:
        """Reads and checks every file of this generation. Raises `UserError` naming the first that is
        wrong.
        """
        fresh = Memory.open(self.path, verify=True)
        for name, rows in fresh._live.items():
            fresh._segments[name].thumbnails(rows)
            for row in range(len(fresh._segments[name].items)):
                fresh._segments[name].checked_landmark(row)

    def add(self, items: Sequence[MemoryItem]) -> None:
        """Stores garments as one new segment: all of them, or none.

        Raises `UserError` naming the item for an id that is empty or taken, an embedding that is zero, not
        finite or of another size, an empty or wrongly sized landmark, metadata that isn't JSON; and if
        another writer changed the memory meanwhile.
        """
        if not items:
            return
        rows, ids = [], set(self._rows_of)
        for item in items:
            rows.append(checked_row(item, ids, self.manifest))
            ids.add(item.id)
        self._publish(rows, list(self.manifest.segments), self._dead, self.manifest.count + len(rows))

    def update(self, items: Sequence[MemoryItem]) -> None:
        """Stores garments in the place of those with the same ids, and new ones: all of them, or none. They get new
        rows, at the end.

        Raises `UserError` as `add` does, but for ids that are taken.
        """
        if not items:
            return
        rows, ids = [], set()
        for item in items:
            rows.append(checked_row(item, ids, self.manifest))
            ids.add(item.id)
        old = [id for id in ids if id in self._rows_of]
        self._publish(
            rows, list(self.manifest.segments), self._dead_with(old), self.manifest.count + len(rows) - len(old)
        )

    def _dead_with(self, ids: Iterable[str]) -> dict[str, set[int]]:
        """The tombstones, and those of these ids too."""
        dead = {name: set(rows) for name, rows in self._dead.items()}
        for row in {self.row(id) for id in ids}:
            item = self._items[row]
            dead.setdefault(item.segment, set()).add(item.row)
        return dead

    def remove(self, ids: Sequence[str]) -> None:
        """Takes garments out of the memory; `compact` takes them off the disk. Raises `UserError` for an
        unknown id.
        """
        if ids:
            count = self.manifest.count - len(set(ids))
            self._publish([], list(self.manifest.segments), self._dead_with(ids), count)

    def compact(self) -> None:
        """Merges all into one segment and deletes what no longer belongs to the memory; ids and order stay.

        Raises `UserError` if another writer changed the memory meanwhile.
        """
        # Whoever writes one of these segments without having published it loses to our manifest: all may go.
        last = _next_segment(self.path, self.generation) - 1
        if len(self.manifest.segments) > 1 or self._dead:
            live = self._live.items()
            try:
                rows = [row for name, chosen in live for row in self._segments[name].rows(chosen)]
            except FileNotFoundError as error:  # swept away by another compaction
                raise self._conflict(self.generation + 1) from error
            self._publish(rows, [], {}, len(rows))
        else:
            self._publish([], list(self.manifest.segments), {}, self.manifest.count)
        with storage.writing(self.path):
            self._sweep(last)

    def _publish(
        self, rows: list[Row], kept: list[SegmentEntry], dead: dict[str, set[int]], count: int
    ) -> None:
        """Writes new files, then the next manifest; takes the files back if another writer was first."""
        generation = self.generation + 1
        path = manifests.manifest_path(self.path, generation)
        written: list[Path] = []
        content = b""
        with storage.writing(self.path):
            try:
                if rows:
                    entry = write_segment(self.path, rows, _next_segment(self.path, self.generation))
                    written.append(self.path / entry.name)
                    kept = [*kept, entry]
                name = digest = None
                if dead:
                    name = f"tombstones-{generation}-{secrets.token_hex(4)}.json"
                    written.append(self.path / name)
                    removed = storage.to_json({segment: sorted(gone) for segment, gone in dead.items()})
                    storage.create_exclusively(self.path / name, removed)
                    digest = storage.sha256(self.path / name)
                manifest = dataclasses.replace(
                    self.manifest,
                    generation=generation,
                    count=count,
                    segments=tuple(kept),
                    tombstones=name,
                    tombstones_hash=digest,
                )
                content = manifest.to_bytes()
                storage.create_exclusively(path, content)
            except BaseException as error:
                # Interrupted right after the manifest appeared, the files belong to the memory.
                if not (path.exists() and path.read_bytes() == content):
                    for file in written:
                        _delete(file)
                lost = isinstance(error, FileNotFoundError)  # swept by another's compaction
                if isinstance(error, FileExistsError) or (
                    lost and manifests.read_latest(self.path).generation >= generation
                ):
                    raise self._conflict(generation) from error
                raise
        try:
            self._load(manifest, verify=False)
        except FileNotFoundError:  # another process has compacted since: the change is in what it wrote
            vars(self).update(vars(Memory.open(self.path, verify=False)))

    def _conflict(self, generation: int) -> UserError:
        if manifests.read_latest(self.path).generation >= generation:
            return UserError(
                f"{self.path}: another writer changed the memory meanwhile, nothing was written; run it again"
            )
        return UserError(
            f"{manifests.manifest_path(self.path, generation)}: incomplete (its writer was killed); "
            "delete it if no other writer is at work"
        )

    def _sweep(self, last_segment: int) -> None:
        """Deletes what no manifest names any more: merged segments, old tombstones, killed writers' files.

        Manifests stay: they are small, and a number that was used must stay taken.
        """
        keep = {entry.name for entry in self.manifest.segments} | {self.manifest.tombstones}
        for entry in list(self.path.iterdir()):
            kind, _, rest = entry.name.removesuffix(".json").partition("-")
            number = rest.split("-")[0]
            if entry.name.startswith(storage.TEMPORARY_PREFIX):
                try:
                    age = time.time() - entry.stat().st_mtime
                except FileNotFoundError:  # its writer has just finished
                    continue
                old = age > _STALE_SECONDS
            elif kind == "segment" and number.isdigit():
                old = int(number) <= last_segment
            elif kind == "tombstones" and number.isdigit():
                old = int(number) <= self.generation
            else:
                old = False
            if old and entry.name not in keep:
                _delete(entry)


def _check_encoder(path: Path, manifest: Manifest, fingerprint: str) -> None:
    if manifest.fingerprint != fingerprint:
        raise UserError(
            f"{path}: built by encoder {manifest.fingerprint[:12]}, the model's is {fingerprint[:12]}; "
            "name the model that built it, or build the memory again with this model: ragdiff memory build"
        )


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: can't read the memory ({error.strerror or error}); check permissions")


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _next_segment(folder: Path, generation: int) -> int:
    """A number that no segment has or had: where none is left, each generation before this one made one at most."""
    names = (path.name.removeprefix("segment-") for path in folder.glob("segment-*"))
    return max((int(name) for name in names if name.isdigit()), default=generation - 1) + 1
