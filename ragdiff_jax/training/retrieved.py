"""Which garments training retrieves for each person, worked out once before it begins and kept beside the data."""

import hashlib
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int32

from ragdiff_jax.data.images import write_atomic
from ragdiff_jax.data.person_garments import Garments
from ragdiff_jax.data.person_records import PersonSource, retrieval_query
from ragdiff_jax.data.tokenizer import Tokenizer
from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import agree, barrier
from ragdiff_jax.retrieval.categories import CategorySearcher
from ragdiff_jax.systems.fashion_rag import FashionRAG
from ragdiff_jax.systems.text_retrieval import embed_garments, embed_texts
from ragdiff_jax.weights.fashion_folder import retrieval_fingerprint

_log = logging.getLogger(__name__)


def retrieved_rows(
    model: FashionRAG,
    params: Mapping[str, Any],
    tokenizer: Tokenizer,
    people: PersonSource,
    database: Garments,
    k: int,
    *,
    exclude_target: bool = True,
    keep: str | Path = "",
) -> Int32[np.ndarray, "n k"]:
    """The k garments of `database` nearest to each person's text, within its category, by rank.

    `exclude_target`: a person's own garment is never among them (by `garment_id`). `keep`: a folder for the table, so
    that a resumed run and the next stage need no encoder for it; its name holds what it depends on. Raises `UserError`
    where a category has too few garments.
    """
    records = _told(people)
    garments = records if people is database.source else _told(database.source)
    queries = [record.query for record in records]
    # A garment that several people wear stands there once: left out is it, not one of its rows.
    first: dict[str, int] = {}
    for row, record in enumerate(garments):
        first.setdefault(record.garment_id, row)
    digest = hashlib.sha256(repr((retrieval_fingerprint(model, params), k, exclude_target)).encode())
    if len(first) < len(garments):
        digest.update(b"first of each")
    digest.update(np.asarray(tokenizer.encode(queries)).tobytes())
    for record in (*records, *garments):
        digest.update(repr((record.garment_id, record.category, record.picture)).encode())
    digest = digest.hexdigest()[:16]
    path = Path(keep) / f"retrieved-{digest}.npy" if keep else None
    there = path is not None and path.is_file()
    barrier("retrieving")  # reading the records may take one longer than a collective waits for it
    if not agree(not there)[0]:  # all read, or all work: who looks late finds what the first has written
        return _read(path, (len(people), k))
    _log.info("retrieving %d garments for each of %d people from %d", k, len(people), len(garments))
    vectors = embed_garments(model, params, (database.decode(row) for row in range(len(database))))
    texts = embed_texts(model, params, tokenizer, queries)
    rows, places = list(first.values()), {id: place for place, id in enumerate(first)}
    own = np.array([places.get(record.garment_id, -1) if exclude_target else -1 for record in records], np.int32)
    searcher = CategorySearcher(vectors[rows], [garments[row].category for row in rows], "exact")
    found, _ = searcher.search(texts, [record.category for record in records], k, own)
    found = np.asarray(rows, np.int32)[found]
    if path is not None and jax.process_index() == 0:
        _write(path, found)
    barrier("retrieved")
    if path is not None and not path.is_file():  # this host has a disk of its own
        _write(path, found)
    return found


class _Told(NamedTuple):
    garment_id: str
    category: str
    query: str
    picture: str  # hash of the garment's


def _told(source: PersonSource) -> list[_Told]:
    """What a search needs of each record. The pictures aren't kept: those of 48,000 people take 12 GB."""
    records = (source[row] for row in range(len(source)))
    return [
        _Told(
            record.garment_id,
            record.category,
            retrieval_query(record.chunks) or record.caption,
            hashlib.sha256(record.garment).hexdigest(),
        )
        for record in records
    ]


def _write(path: Path, found: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, found)
    write_atomic(path, buffer.getvalue())


def _read(path: Path, shape: tuple[int, int]) -> np.ndarray:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is damaged ({error}); remove it, it is made anew") from error
    if found.shape != shape or found.dtype != np.int32:
        raise UserError(f"{path}: holds {found.dtype} {found.shape}, not int32 {shape}; remove it, it is made anew")
    return found
