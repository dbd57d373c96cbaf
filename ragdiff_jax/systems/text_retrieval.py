"""Garments by text (F 3.1): both encoded by CLIP's towers, nearest by cosine within the category.

The query is the caption's noun chunks in alphabetic order (`data.person_records.retrieval_query`).
"""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8

from ragdiff_jax.data.pixels import to_float
from ragdiff_jax.data.tokenizer import Tokenizer
from ragdiff_jax.systems.fashion_rag import FashionRAG

BATCH = 64
Params = Mapping[str, Any]


def _batches(items: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, int]]:
    """(a batch, how many of it count): the last is filled up with its first, a single one to a power of two."""
    ready: list[np.ndarray] = []
    size = 0
    for item in items:
        ready.append(item)
        if len(ready) == BATCH:
            size = BATCH
            yield np.stack(ready), BATCH
            ready = []
    if ready:
        size = size or 1 << (len(ready) - 1).bit_length()
        yield np.stack([*ready, *ready[:1] * (size - len(ready))]), len(ready)


@functools.lru_cache(maxsize=8)
def _program(model: FashionRAG, what: str):
    if what == "text":
        return jax.jit(model.embed_text)
    return jax.jit(lambda params, garments: model.embed_garments(params, to_float(garments)))


def tower_params(params: Params) -> dict[str, Any]:
    """The parts that retrieve, of all: programs then don't depend on the rest."""
    own = {part: tree for part, tree in params.items() if part.startswith("retrieval_")}
    return own or {part: params[part] for part in ("text_encoder", "image_encoder")}


def embed_garments(
    model: FashionRAG, params: Params, garments: Iterable[UInt8[np.ndarray, "s s 3"]]
) -> Float32[np.ndarray, "n d"]:
    """Unit vectors of garments, squares of one size (`data.person_garments.garment_square`), by the batch."""
    towers, run = tower_params(params), _program(model, "garments")
    found = [np.asarray(run(towers, batch))[:count] for batch, count in _batches(garments)]
    return np.concatenate(found) if found else np.zeros((0, model.retrieval_towers()[1].projection_dim), np.float32)


def embed_texts(
    model: FashionRAG, params: Params, tokenizer: Tokenizer, texts: Sequence[str]
) -> Float32[np.ndarray, "n d"]:
    """Unit vectors of queries. A text longer than the tokenizer's length loses its end."""
    towers, run = tower_params(params), _program(model, "text")
    return np.concatenate(
        [np.asarray(run(towers, batch))[:count] for batch, count in _batches(tokenizer.encode(list(texts)))]
    )


def retrieval_metrics(
    ranked: Int32[np.ndarray, "q k"], relevant: Bool[np.ndarray, "q n"], ks: Sequence[int]
) -> dict[str, float]:
    """precision@k (share of the first k that are relevant) and recall@k (of all relevant ones, the share among the
    first k), means over the queries that have any; k beyond the ranking is left out.
    """
    some = relevant.any(axis=1)
    if not some.any():
        return {}
    hits = np.take_along_axis(relevant, ranked, axis=1)[some]
    total = relevant[some].sum(axis=1)
    found = {}
    for k in ks:
        if k <= ranked.shape[1]:
            right = hits[:, :k].sum(axis=1)
            found[f"precision@{k}"] = float((right / k).mean())
            found[f"recall@{k}"] = float((right / total).mean())
    return found
