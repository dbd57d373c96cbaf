"""Garments that text finds: the same memory and searchers, embedded by CLIP's picture tower (F 3.1).

A database is a memory whose encoder is the model's retrieval towers. One of flat-lays for `ragdiff generate` serves as
well: its thumbnails are embedded once, and the result is kept in the cache folder.
"""

import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from ragdiff_jax.data.garment_categories import category_of_item
from ragdiff_jax.data.images import decode_image, resize, square_mask
from ragdiff_jax.data.inpainting_masks import CATEGORIES
from ragdiff_jax.data.person_garments import garment_square
from ragdiff_jax.data.person_records import PersonSource
from ragdiff_jax.errors import UserError
from ragdiff_jax.pipelines.memory_builder import BATCH, FlatLay, MemoryBuilder, OnError, left_out
from ragdiff_jax.retrieval import Memory
from ragdiff_jax.retrieval.categories import CategorySearcher
from ragdiff_jax.retrieval.index import SearcherKind
from ragdiff_jax.systems.fashion_rag import FashionRAG
from ragdiff_jax.systems.text_retrieval import embed_garments, tower_params
from ragdiff_jax.weights.fashion_folder import retrieval_fingerprint

UNSTATED = "unstated"


class GarmentMemoryBuilder(MemoryBuilder):
    """Writes memories whose vectors are those of a model's picture tower; pictures as F_theta needs them."""

    def __init__(self, model: FashionRAG, params: Mapping[str, Any], *, batch_size: int = BATCH):
        self.model, self.params, self.batch_size = model, tower_params(params), batch_size
        self.dim = model.retrieval_towers()[1].projection_dim
        self.size = model.image_encoder.image_size
        # ReferenceNet looks closer than F_theta's tower.
        self.thumbnail = max(self.size, *model.image_size) if model.reference_net else self.size
        self.fingerprint = retrieval_fingerprint(model, params)

    def _silhouette(self, flat):
        # A flat-lays' memory has checked its own; here they are kept, and nothing looks at them.
        return super()._silhouette(flat) if flat.mask is None else square_mask(flat.mask, self.size)

    def _seen(self, image):
        return garment_square(image, self.size, self.model.garment_fit)

    def _shown(self, image):
        if self.model.garment_fit == "pad":
            return super()._shown(image)
        # What is cut to a square is cut when it is used: in a padded one nothing would be left to cut.
        (height, width), side = image.shape[:2], self.thumbnail
        scale = min(1.0, side / min(height, width), 2 * side / max(height, width))
        return resize(image, (max(1, round(height * scale)), max(1, round(width * scale))))

    def _embeddings(self, images, attributes):
        del attributes  # the text says them
        return embed_garments(self.model, self.params, images)


def garments_of_people(source: PersonSource, split: str, on_error: OnError | None = None) -> Iterator[FlatLay]:
    """The garments of person records, each once, with category, caption and split beside them.

    Without `on_error` the first bad record raises.
    """
    seen = set()
    for row in range(len(source)):
        with left_out(f"record {row}", on_error):
            record = source[row]
            if record.garment_id in seen:
                continue
            image = decode_image(record.garment, f"garment of record {record.id}")
            seen.add(record.garment_id)  # of two copies one may be damaged
            metadata = {"category": record.category, "caption": record.caption, "split": split}
            yield FlatLay(id=record.garment_id, image=image, metadata=metadata)


def garments_of_memory(memory: Memory) -> Iterator[FlatLay]:
    """The garments of a memory of flat-lays by their thumbnails; those of no known category are left out.

    Raises `UserError` for a memory without thumbnails or categories.
    """
    if len(memory) and not any(category_of_item(item.metadata) for item in memory.items):
        raise UserError(
            f"{memory.path}: none of its garments has a category, which editing goes by; "
            "build it again with --attributes FILE, or from a --dataset"
        )
    for row, item in enumerate(memory.items):
        category = category_of_item(item.metadata)
        if category is None:
            continue
        thumbnail = memory.thumbnail(row)
        if thumbnail is None:
            raise UserError(f"{memory.path}: keeps no pictures of its garments; build it again: ragdiff memory build")
        metadata = {"split": UNSTATED, **item.metadata, "category": category}
        image = decode_image(thumbnail, f"thumbnail of {item.id}", max_side=512)
        mask = square_mask(np.asarray(memory.landmarks[row]), max(image.shape))[: image.shape[0], : image.shape[1]]
        yield FlatLay(id=item.id, image=image, mask=mask, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """Garments that a text found, nearest first: rows of the memory, their ids and cosines, the splits they are of."""

    rows: tuple[int, ...]
    ids: tuple[str, ...]
    similarities: Float32[np.ndarray, " k"]
    splits: tuple[str, ...]


class GarmentDatabase:
    """Searches a memory of garments by text vectors, within a category."""

    def __init__(self, memory: Memory, *, searcher: SearcherKind = "auto"):
        self.memory = memory
        categories = [category_of_item(item.metadata) or UNSTATED for item in memory.items]
        self._searcher = CategorySearcher(memory.embeddings, categories, searcher)
        self._rows = {item.id: row for row, item in enumerate(memory.items)}

    @classmethod
    def open(
        cls,
        folder: str | Path,
        model: FashionRAG,
        params: Mapping[str, Any],
        *,
        searcher: SearcherKind = "auto",
        on_build: Callable[[int], Any] = lambda count: None,
    ) -> "GarmentDatabase":
        """A memory of this model's towers, or one of flat-lays, whose pictures are embedded once and kept.

        `on_build` is told how many garments are embedded now. Raises `UserError` for a folder that is no memory, or one
        of another encoder that keeps no pictures.
        """
        memory = Memory.open(folder)
        builder = GarmentMemoryBuilder(model, params)
        if memory.fingerprint == builder.fingerprint:
            return cls(memory, searcher=searcher)
        kept = (builder.fingerprint, memory.manifest.to_bytes(), SCHEMA)
        kept = kept if builder.thumbnail == builder.size else (*kept, builder.thumbnail)
        key = hashlib.sha256(repr(kept).encode()).hexdigest()
        place = _cache() / "garments" / key[:16]
        if not place.is_dir():
            _check_writable(place.parent)
            on_build(len(memory))
            try:
                return cls(builder.build(place, garments_of_memory(memory)), searcher=searcher)
            except UserError:
                if not place.is_dir():  # else another process has just built the same
                    raise
        return cls(Memory.open(place), searcher=searcher)

    def __len__(self) -> int:
        return len(self.memory)

    def available(self, category: str) -> int:
        """How many garments a category has."""
        return self._searcher.available(category)

    def search(
        self, query: Float32[np.ndarray, " d"], category: str, k: int, *, exclude: Sequence[str] = ()
    ) -> Found:
        """The k garments of `category` nearest to a text's vector; those named in `exclude` are never among them.

        Raises `UserError` for an unknown category, an unknown id, and a category with too few garments.
        """
        if category not in CATEGORIES:
            raise UserError(f"category {category!r} is unknown; use one of {', '.join(CATEGORIES)}")
        out = {self._row(id) for id in exclude}
        # A few more than asked for stand in for those that are left out.
        more = min(k + len(out), self.available(category))
        rows, cosines = self._searcher.search(query[None], [category], max(more, 1))
        kept = [(int(row), cosine) for row, cosine in zip(rows[0], cosines[0], strict=True) if int(row) not in out][:k]
        if len(kept) < k:
            raise UserError(
                f"{self.memory.path}: has {len(kept)} garments of {category} to retrieve from, {k} are asked for; "
                "add garments or retrieve fewer"
            )
        items = [self.memory.items[row] for row, _ in kept]
        return Found(
            rows=tuple(row for row, _ in kept),
            ids=tuple(item.id for item in items),
            similarities=np.array([cosine for _, cosine in kept], np.float32),
            splits=tuple(sorted({str(item.metadata.get("split", UNSTATED)) for item in items})),
        )

    def picture(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        """The garment's picture. Raises `UserError` where the memory keeps none."""
        thumbnail = self.memory.thumbnail(row)
        if thumbnail is None:
            raise UserError(f"{self.memory.path}: keeps no pictures of its garments; build it again")
        return decode_image(thumbnail, f"picture of {self.memory.items[row].id}", max_side=2048)

    def square(self, row: int, model: FashionRAG) -> UInt8[np.ndarray, "s s 3"]:
        """The garment as F_theta's tower takes it."""
        return garment_square(self.picture(row), model.image_encoder.image_size, model.garment_fit)

    def _row(self, id: str) -> int:
        if id not in self._rows:
            raise UserError(f"{self.memory.path}: has no garment {id!r} to leave out; check the id")
        return self._rows[id]


SCHEMA = 1  # of what is kept in the cache


def _cache() -> Path:
    return Path(os.environ.get("RAGDIFF_CACHE") or Path("~/.cache/ragdiff_jax")).expanduser()


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{folder}: the memory's garments are embedded once and kept there, but it can't be written "
            f"({error.strerror}); set RAGDIFF_CACHE to a folder that can"
        ) from error
