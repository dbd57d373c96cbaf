"""`manifest-N.json`: the one file that says what a memory holds at its N-th generation."""

import dataclasses
import hashlib
import json
import logging
import re
from pathlib import Path
from typing import Any

from ragdiff_jax.errors import UserError
from ragdiff_jax.retrieval import storage

SCHEMA = 1
EMBEDDINGS, LANDMARKS, ITEMS, THUMBNAILS = (
    "embeddings.npy",
    "landmarks.array_record",
    "items.jsonl",
    "thumbnails.array_record",
)
_MANIFEST = re.compile(r"manifest-([1-9][0-9]{0,17})\.json")
_SEGMENT = re.compile(r"segment-[1-9][0-9]{0,17}")
_TOMBSTONES = re.compile(r"tombstones-[1-9][0-9]{0,17}-[0-9a-f]{8}\.json")
_HASH = re.compile(r"[0-9a-f]{64}")
_LIMIT = 2**31 - 1  # rows are int32
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentEntry:
    """A segment's folder name, its number of rows, and the SHA-256 of each of its files."""

    name: str
    count: int
    files: dict[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """One generation of a memory. `count` is the number of rows that are not removed."""

    generation: int
    fingerprint: str
    dim: int
    landmark_size: tuple[int, int]
    count: int
    segments: tuple[SegmentEntry, ...] = ()
    tombstones: str | None = None
    tombstones_hash: str | None = None

    @property
    def sha256(self) -> str:
        """Of the file's content: it names this generation of this memory."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """The file's content."""
        tombstones = None
        if self.tombstones is not None:
            tombstones = {"name": self.tombstones, "sha256": self.tombstones_hash}
        return storage.to_json(
            {
                "schema": SCHEMA,
                "generation": self.generation,
                "fingerprint": self.fingerprint,
                "dim": self.dim,
                "landmark_size": self.landmark_size,
                "count": self.count,
                "segments": [dataclasses.asdict(segment) for segment in self.segments],
                "tombstones": tombstones,
            }
        )


def manifest_path(folder: Path, generation: int) -> Path:
    """Where the manifest of a generation stands."""
    return folder / f"manifest-{generation}.json"


def generations(folder: Path) -> list[int]:
    """All generations that have a manifest file, complete or not, highest first."""
    matches = (_MANIFEST.fullmatch(path.name) for path in folder.iterdir())
    return sorted((int(match.group(1)) for match in matches if match), reverse=True)


def read_latest(folder: Path) -> Manifest:
    """The highest complete manifest; one that is cut off (a file system that lost its end) is passed over.

    Raises `UserError` if the folder is missing or is no memory, or the manifest doesn't keep to the format.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such memory folder; build one with `ragdiff memory build`")
    for generation in generations(folder):
        path = manifest_path(folder, generation)
        try:
            value = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            _log.warning("%s is incomplete; reading the one before it", path)
            continue
        return _parse(value, path, generation)
    raise UserError(
        f"{folder}: not a memory (no complete manifest-N.json); build one with `ragdiff memory build`"
    )


def _parse(value: Any, path: Path, generation: int) -> Manifest:
    def check(good: bool, what: str) -> None:
        if not good:
            raise UserError(f"{path}: {what}; restore the file or build the memory again")

    check(isinstance(value, dict), "not a JSON object")
    schema = value.get("schema")
    check(schema == SCHEMA, f"schema {schema!r} is not {SCHEMA}, which this version reads")
    check(
        value.get("generation") == generation,
        f"generation {value.get('generation')!r} is not the file name's",
    )
    check(isinstance(value.get("fingerprint"), str), "fingerprint must be a string")
    check(_whole(value.get("dim"), 1, 65_536), f"dim {value.get('dim')!r} must be in 1 .. 65536")
    size = value.get("landmark_size")
    good = isinstance(size, list) and len(size) == 2 and all(_whole(side, 1, 8192) for side in size)
    check(good, f"landmark_size {size!r} must be two sides in 1 .. 8192")
    check(isinstance(value.get("segments"), list), "segments must be a list")
    segments = []
    for entry in value["segments"]:
        check(isinstance(entry, dict), "a segment must be an object")
        name, count, files = entry.get("name"), entry.get("count"), entry.get("files")
        # Full match of a fixed pattern: no name can lead out of the folder.
        check(
            isinstance(name, str) and bool(_SEGMENT.fullmatch(name)),
            f"segment name {name!r} is not segment-N",
        )
        check(_whole(count, 1, _LIMIT), f"{name}: count {count!r} must be a positive number")
        known = isinstance(files, dict) and {EMBEDDINGS, LANDMARKS, ITEMS} <= set(files)
        known = known and set(files) <= {EMBEDDINGS, LANDMARKS, ITEMS, THUMBNAILS}
        check(known, f"{name}: files are not those of a segment")
        check(all(_is_hash(digest) for digest in files.values()), f"{name}: a hash is not SHA-256")
        segments.append(SegmentEntry(name=name, count=count, files=files))
    check(len({segment.name for segment in segments}) == len(segments), "a segment is listed twice")
    rows = sum(segment.count for segment in segments)
    check(
        _whole(value.get("count"), 0, min(rows, _LIMIT)), f"count {value.get('count')!r} is not 0 .. {rows}"
    )
    tombstones, digest = value.get("tombstones"), None
    if tombstones is not None:
        check(isinstance(tombstones, dict), "tombstones must be an object or null")
        tombstones, digest = tombstones.get("name"), tombstones.get("sha256")
        good = isinstance(tombstones, str) and bool(_TOMBSTONES.fullmatch(tombstones)) and _is_hash(digest)
        check(good, f"tombstones {tombstones!r} are not tombstones-N-xxxxxxxx.json with a SHA-256")
    return Manifest(
        generation=generation,
        fingerprint=value["fingerprint"],
        dim=value["dim"],
        landmark_size=tuple(size),
        count=value["count"],
        segments=tuple(segments),
        tombstones=tombstones,
        tombstones_hash=digest,
    )


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and bool(_HASH.fullmatch(value))
