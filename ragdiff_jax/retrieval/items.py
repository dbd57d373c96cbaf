"""Items of the memory: as users give them, as segments store them, and the checks in between."""

import dataclasses
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from ragdiff_jax.errors import UserError
from ragdiff_jax.retrieval import storage
from ragdiff_jax.retrieval.manifest import Manifest

_ID_LENGTH = 512


@dataclasses.dataclass(frozen=True, eq=False)
class MemoryItem:
    """One garment to store: `embedding` [D] (made unit length), `landmark` bool or uint8 mask [h, w]
    (non-zero is the garment) or what `encode_landmark` made of it beforehand, `metadata` of JSON values, `thumbnail`
    an AVIF or a JPEG of it, or None.
    """

    id: str
    embedding: Any
    landmark: Any
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    thumbnail: bytes | None = None


@dataclasses.dataclass(frozen=True)
class EncodedLandmark:
    """A silhouette that was checked and encoded ahead of `Memory.add`, where many are added at once."""

    png: bytes
    size: tuple[int, int]


def encode_landmark(mask: Bool[np.ndarray, "h w"]) -> EncodedLandmark:
    """A silhouette ready to be stored. Raises `UserError` for an empty one."""
    if not mask.any():
        raise UserError("the landmark is empty; leave the item out or give its silhouette")
    return EncodedLandmark(encode_mask(mask), mask.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One item as it is stored: a unit float32 [D] embedding, its silhouette as a 1-bit PNG, and the rest."""

    id: str
    embedding: np.ndarray
    landmark_png: bytes
    metadata: Mapping[str, Any]
    thumbnail: bytes | None


@dataclasses.dataclass(frozen=True)
class StoredItem:
    """What `items.jsonl` says of one row. `segment` and `row` tell where it lies."""

    id: str
    metadata: Mapping[str, Any]
    segment: str
    row: int
    thumbnail_row: int | None


def encode_mask(mask: Bool[np.ndarray, "h w"]) -> bytes:
    """A mask as a 1-bit PNG."""
    buffer = io.BytesIO()
    Image.fromarray(mask).convert("1").save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def decode_bits(content: bytes, size: tuple[int, int], where: str) -> UInt8[np.ndarray, "h bytes"]:
    """The mask of a PNG that must be 1-bit and of this (height, width), eight pixels a byte as `np.packbits` makes them
    of its rows; raises `UserError` naming `where`.
    """
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            # The header is checked before any pixel is unpacked.
            if image.mode == "1" and image.size == (size[1], size[0]):
                return np.frombuffer(image.tobytes(), np.uint8).reshape(size[0], -1)
            found = f"{image.mode} {image.size[1]} x {image.size[0]}"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{where}: landmark is not a PNG; build the memory again") from error
    raise UserError(f"{where}: landmark is {found}, not 1-bit {size[0]} x {size[1]}; build the memory again")


def check_id(name: object) -> None:
    """Raises `UserError` naming the item for an id that no memory takes."""
    if not isinstance(name, str) or not 0 < len(name) <= _ID_LENGTH or not name.isprintable():
        raise UserError(f"memory item {name!r:.80}: an id must be 1 to {_ID_LENGTH} printable characters; rename it")
    if name.startswith("/") or "\\" in name or {".", ".."} & set(name.split("/")):
        raise UserError(
            f"memory item {name!r:.80}: an id must not read like a path out of a folder (/, \\, . and ..); rename it"
        )


def checked_row(item: MemoryItem, taken: set[str], manifest: Manifest) -> Row:
    """The item as it will be stored. Raises `UserError` naming the item and what is wrong with it."""
    name = item.id
    check_id(name)
    if name in taken:
        raise UserError(
            f"memory item {name!r}: the id is taken; remove the old item first or choose another id"
        )
    embedding = np.asarray(item.embedding, np.float32)
    norm = np.linalg.norm(embedding.astype(np.float64))  # in float32 tiny numbers' squares are nothing
    if embedding.shape != (manifest.dim,) or not np.isfinite(norm) or norm == 0:
        raise UserError(
            f"memory item {name!r}: embedding {embedding.shape} must be ({manifest.dim},), finite, not zero"
        )
    unit = (embedding / norm).astype(np.float32)
    if isinstance(item.landmark, EncodedLandmark):
        if item.landmark.size != manifest.landmark_size:
            raise UserError(f"memory item {name!r}: landmark {item.landmark.size} must be {manifest.landmark_size}")
        return Row(name, unit, item.landmark.png, _metadata(item), _thumbnail(item))
    landmark = np.asarray(item.landmark)
    if landmark.shape != manifest.landmark_size or landmark.dtype not in (np.bool_, np.uint8):
        raise UserError(
            f"memory item {name!r}: landmark {landmark.dtype} {landmark.shape} must be a bool or uint8 mask "
            f"{manifest.landmark_size}"
        )
    if not landmark.any():
        raise UserError(
            f"memory item {name!r}: the landmark is empty; leave the item out or give its silhouette"
        )
    return Row(name, unit, encode_mask(landmark != 0), _metadata(item), _thumbnail(item))


def _thumbnail(item: MemoryItem) -> bytes | None:
    if item.thumbnail is not None and thumbnail_ending(item.thumbnail) is None:
        raise UserError(f"memory item {item.id!r}: the thumbnail must be an AVIF or a JPEG")
    return item.thumbnail


def thumbnail_ending(thumbnail: bytes) -> str | None:
    """`.avif` or `.jpg` by the first bytes; None for anything else."""
    if thumbnail[4:12] in (b"ftypavif", b"ftypavis"):
        return ".avif"
    return ".jpg" if thumbnail.startswith(b"\xff\xd8") else None


def _metadata(item: MemoryItem) -> dict[str, Any]:
    try:
        if not isinstance(item.metadata, Mapping):
            raise TypeError("not a mapping")
        storage.to_json(dict(item.metadata))
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"memory item {item.id!r}: metadata can't be written as JSON ({error})") from error
    return dict(item.metadata)
