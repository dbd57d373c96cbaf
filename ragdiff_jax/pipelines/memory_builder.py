"""Flat-lays in, a memory out: each encoded by StructureNet's standard tower, its silhouette beside it."""

import contextlib
import dataclasses
import itertools
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int, Int32, UInt8

from ragdiff_jax.data.attributes import attribute_ids
from ragdiff_jax.data.folder import read_bytes
from ragdiff_jax.data.images import (
    FORMATS,
    decode_image,
    decode_mask,
    encode_avif,
    load_image,
    one_line,
    picture_files,
    square,
)
from ragdiff_jax.data.pixels import to_float
from ragdiff_jax.data.records import PairSource
from ragdiff_jax.data.silhouettes import square_silhouette
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.structure_net import StructureNet, StructureNetConfig
from ragdiff_jax.retrieval.items import check_id, encode_landmark
from ragdiff_jax.retrieval.memory import Memory, MemoryItem
from ragdiff_jax.weights.folder import read_model_json
from ragdiff_jax.weights.model_folder import load_structure_net, structure_fingerprint

BATCH = 16  # flat-lays encoded at a time
SEGMENT = 4096  # items held before they are written
THUMBNAIL = 64  # pixels a side


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlatLay:
    """A garment for a memory. `mask` None: what is not near the background's colour is the garment."""

    id: str
    image: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h2 w2"] | None = None
    attributes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)


# Told of a flat-lay that cannot be used: its name and why; None in its place ends the work.
OnError = Callable[[str, UserError], None]


@contextlib.contextmanager
def left_out(name: str, on_error: OnError | None) -> Iterator[None]:
    """What can't be used inside is told to `on_error` under its name; without one it raises."""
    try:
        yield
    except UserError as error:
        if on_error is None:
            raise
        on_error(name, error)


def flat_lays_of_folder(
    folder: Path,
    attributes: Callable[[Path], Mapping[str, str]],
    on_error: OnError | None = None,
    rows: Sequence[int] | Int[np.ndarray, " rows"] | None = None,
) -> Iterator[FlatLay]:
    """The pictures of a folder by name, `id` their stem; `masks/STEM.*` in it is a picture's silhouette, and a mask of
    no picture raises `UserError`.

    `rows`: those of `pictures_in` alone. `attributes(path)` gives a picture's attributes or raises UserError. Without
    `on_error` the first bad picture raises.
    """
    pictures, masks = pictures_in(folder), folder / "masks"
    mask_files = _by_stem(picture_files(masks)) if masks.is_dir() else {}
    if stray := sorted(mask_files.keys() - {path.stem for path in pictures}):
        raise UserError(
            f"{mask_files[stray[0]]}: the mask of no picture in {folder} ({len(stray)} such masks); a mask has its "
            "picture's name"
        )
    for path in pictures if rows is None else [pictures[row] for row in rows]:
        with left_out(str(path), on_error):
            mask_file = mask_files.get(path.stem)
            mask = None if mask_file is None else decode_mask(read_bytes(mask_file, "mask"), str(mask_file))
            named = attributes(path)
            yield FlatLay(
                id=path.stem,
                image=load_image(path),
                mask=mask,
                attributes=named,
                metadata={"file": str(path.resolve()), "attributes": dict(named)},
            )


def pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder, sorted. Raises UserError for none, or two of one stem."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of flat-lays; check the path")
    paths = picture_files(folder)
    if not paths:
        raise UserError(f"{folder}: holds no pictures ({', '.join(FORMATS)}); name a folder of flat-lays")
    _by_stem(paths)
    return paths


def _by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Raises UserError for two of one stem."""
    stems: dict[str, Path] = {}
    for path in paths:
        if path.stem in stems:
            raise UserError(f"{path}: has the same id as {stems[path.stem].name}; rename one of them")
        stems[path.stem] = path
    return stems


def flat_lays_of_pairs(
    source: PairSource,
    metadata: Callable[[str], Mapping[str, Any]] = lambda id: {},
    rows: Sequence[int] | Int[np.ndarray, " rows"] | None = None,
    on_error: OnError | None = None,
) -> Iterator[FlatLay]:
    """The flat-lays of pair records, or of these `rows`, with their masks and attributes; `metadata(id)` is kept beside
    each. Without `on_error` the first bad record raises.
    """
    for row in range(len(source)) if rows is None else rows:
        with left_out(f"record {row}", on_error):
            record = source[int(row)]
            yield FlatLay(
                id=record.id,
                image=decode_image(record.flat, f"flat-lay of record {record.id}"),
                mask=None if record.mask is None else decode_mask(record.mask, f"mask of record {record.id}"),
                attributes=record.flat_attributes,
                metadata={"attributes": dict(record.flat_attributes), **metadata(record.id)},
            )


def _new_ids(flats: Iterable[FlatLay], taken: set[str]) -> Iterator[FlatLay]:
    """The memory itself refuses them only when all are encoded."""
    seen: set[str] = set()
    for flat in flats:
        if flat.id in taken:
            raise UserError(f"memory item {flat.id!r}: the id is taken; `ragdiff memory update` replaces, or rename it")
        if flat.id in seen:
            raise UserError(f"memory item {flat.id!r}: two of the new garments have this id; rename one")
        seen.add(flat.id)
        yield flat


@dataclasses.dataclass(frozen=True)
class _Prepared:
    flat: FlatLay
    image: np.ndarray
    mask: np.ndarray
    attributes: np.ndarray
    thumbnail: bytes


class MemoryBuilder:
    """Encodes flat-lays with StructureNet's standard tower and writes them to memories of that encoder."""

    def __init__(
        self,
        config: StructureNetConfig,
        params: Mapping[str, Any],
        *,
        size: int,
        batch_size: int = BATCH,
    ):
        """`params` are StructureNet's own; `size`: the side of pictures and landmarks, the model's image size."""
        self.params, self.size, self.batch_size = params, size, batch_size
        # The memory of a large model serves its editor too, whose towers look closer.
        self.dim, self.thumbnail = config.embed_dim, min(size, THUMBNAIL if size <= 2 * THUMBNAIL else 4 * THUMBNAIL)
        self.fingerprint = structure_fingerprint(config, params)
        apply = partial(StructureNet(config).apply, method="embed_flat")
        self._embed = jax.jit(lambda params, images, ids: apply({"params": params}, to_float(images), ids))

    @classmethod
    def from_folder(cls, folder: str | Path, *, size: int | None = None, **options) -> "MemoryBuilder":
        """With the StructureNet of a model folder, a whole system's or its own stage's.

        `size`: None takes the folder's image size. Raises `UserError` if it says none, or another.
        """
        config, params = load_structure_net(folder)
        own = read_model_json(folder).settings.get("image_size")
        if own is None and size is None:
            raise UserError(f"{folder}: says no image size; give it: --size")
        if own is not None and size not in (None, own):
            raise UserError(f"size {size}: the model's pictures have {own} pixels a side; leave --size out")
        return cls(config, params, size=own or size, **options)

    def items(self, flats: Iterable[FlatLay], on_error: OnError | None = None) -> Iterator[MemoryItem]:
        """Items in the order of `flats`, encoded in batches of one size; no garment is an error."""
        ready: list[_Prepared] = []
        for flat in flats:
            with left_out(one_line(str(flat.id)), on_error):
                ready.append(self._prepare(flat))
            if len(ready) == self.batch_size:
                yield from self._encode(ready)
                ready = []
        if ready:
            yield from self._encode(ready)

    def build(
        self,
        path: Path,
        flats: Iterable[FlatLay],
        on_error: OnError | None = None,
        choose: Callable[[list[MemoryItem]], list[MemoryItem]] | None = None,
    ) -> Memory:
        """A new memory at `path`, whole or not at all; `choose` says which of the encoded garments it keeps.

        Raises UserError if nothing could be used.
        """
        path = Path(path)
        if path.exists():
            raise UserError(f"{path}: is there already; use `ragdiff memory add`, or another --out")
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            memory = Memory.create(
                temporary,
                fingerprint=self.fingerprint,
                landmark_size=self.size,
                dim=self.dim,
            )
            items = self.items(flats, on_error)
            if choose is not None and (ready := list(items)):
                items = iter(choose(ready))
            if not self._write(items, memory.add):
                raise UserError(f"{path}: no flat-lay could be used; nothing was written")
            os.rename(temporary, path)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); choose another --out") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return Memory.open(path)

    def add(
        self, memory: Memory, flats: Iterable[FlatLay], on_error: OnError | None = None, *, replace: bool = False
    ) -> int:
        """Adds to a memory, all in one change, and returns how many; with `replace` in the place of those with the same
        ids.

        Raises UserError if the memory was built by another encoder, or for an id that is taken.
        """
        memory.check_encoder(self.fingerprint)
        taken = set() if replace else {item.id for item in memory.items}
        items = list(self.items(_new_ids(flats, taken), on_error))
        if items:
            (memory.update if replace else memory.add)(items)
        return len(items)

    @staticmethod
    def _write(items: Iterator[MemoryItem], store: Callable[[Sequence[MemoryItem]], None]) -> int:
        count = 0
        while pending := list(itertools.islice(items, SEGMENT)):
            store(pending)
            count += len(pending)
        return count

    def _prepare(self, flat: FlatLay) -> _Prepared:
        check_id(flat.id)  # the memory's own check comes when all are encoded, and would cost all of them
        size = self.size
        mask = self._silhouette(flat)
        if not mask.any():
            raise UserError(f"{flat.id}: the garment is less than a pixel of {size}x{size}; give a larger picture")
        thumbnail = encode_avif(self._shown(flat.image))
        return _Prepared(flat, self._seen(flat.image), mask, attribute_ids(flat.attributes, flat.id), thumbnail)

    def _silhouette(self, flat: FlatLay) -> Bool[np.ndarray, "s s"]:
        return square_silhouette(flat.image, flat.mask, str(flat.id), self.size)

    def _seen(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "s s 3"]:
        """What the encoder sees of a picture."""
        return square(image, self.size, fill="white")

    def _shown(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        """What is kept of it."""
        return square(image, self.thumbnail, fill="white")

    def _encode(self, ready: Sequence[_Prepared]) -> Iterator[MemoryItem]:
        padded = [*ready, *ready[:1] * (self.batch_size - len(ready))]  # one shape, one compilation
        images = np.stack([one.image for one in padded])
        embeddings = self._embeddings(images, np.stack([one.attributes for one in padded]))
        for one, embedding in zip(ready, np.asarray(embeddings), strict=False):
            yield MemoryItem(
                id=one.flat.id,
                embedding=embedding,
                landmark=encode_landmark(one.mask),
                metadata=dict(one.flat.metadata),
                thumbnail=one.thumbnail,
            )

    def _embeddings(self, images: UInt8[np.ndarray, "b s s 3"], attributes: Int32[np.ndarray, "b a"]):
        return self._embed(self.params, images, attributes)
