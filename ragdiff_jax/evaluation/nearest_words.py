"""What F_theta's tokens of a garment say: their nearest words in CLIP's text space (F's third experiment).

A token is compared by cosine with the rows of the text encoder's table, where words live before positions are added.
Rows are centred first: all of a table's words share a direction, which would otherwise decide.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from ragdiff_jax.data.person_garments import garment_square
from ragdiff_jax.data.pixels import to_float
from ragdiff_jax.data.tokenizer import Tokenizer
from ragdiff_jax.errors import UserError
from ragdiff_jax.pipelines.panel import Cell
from ragdiff_jax.systems.fashion_rag import FashionRAG


@dataclasses.dataclass(frozen=True)
class TokenWords:
    """One token of a garment: its nearest words, nearest first, with their cosines."""

    words: tuple[str, ...]
    cosines: tuple[float, ...]


def whole_words(tokenizer: Tokenizer) -> tuple[list[int], list[str]]:
    """(ids, words) of the vocabulary's whole words: pieces that end a word and are more than one letter."""
    vocabulary = {piece: id for piece, id in tokenizer.vocabulary().items() if piece.endswith("</w>")}
    pairs = sorted((id, piece.removesuffix("</w>")) for piece, id in vocabulary.items())
    pairs = [(id, word) for id, word in pairs if len(word) > 1 and word.isalpha()]
    return [id for id, _ in pairs], [word for _, word in pairs]


def _centred(vectors: Float[Array, "n d"], mean: Float[Array, "d"]) -> Float[Array, "n d"]:
    vectors = vectors - mean
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _nearest(model: FashionRAG, params, squares: UInt8[Array, "b s s 3"], ids: Int[Array, "w"], k: int):
    tokens = model.words(params, to_float(squares)[:, None])[:, 0]
    table = params["text_encoder"]["text_model"]["embeddings"]["token_embedding"]["embedding"]
    mean = table.mean(axis=0)
    b, t, d = tokens.shape
    cosines = _centred(tokens.reshape(b * t, d), mean) @ _centred(table[ids], mean).T
    best, places = jax.lax.top_k(cosines, k)
    return best.reshape(b, t, k), places.reshape(b, t, k)


def nearest_words(
    model: FashionRAG,
    params: Mapping[str, Any],
    tokenizer: Tokenizer,
    garments: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    k: int = 3,
) -> list[list[TokenWords]]:
    """The k nearest words of each token of each garment.

    Raises `UserError` for a k that the vocabulary hasn't, and for a model whose garments aren't words.
    """
    if model.inversion is None:
        raise UserError("this model has no inversion (F_theta): its garments are an image prompt, not words")
    ids, words = whole_words(tokenizer)
    if not 1 <= k <= len(words):
        raise UserError(f"{k} nearest words: the vocabulary has {len(words)} whole words; ask for 1 to {len(words)}")
    squares = np.stack([garment_square(image, model.image_encoder.image_size, model.garment_fit) for image in garments])
    run = jax.jit(partial(_nearest, model), static_argnums=3)
    cosines, places = (np.asarray(x) for x in run(params, jnp.asarray(squares), jnp.asarray(ids), k))
    return [
        [
            TokenWords(tuple(words[place] for place in row), tuple(round(float(c), 4) for c in cosine))
            for row, cosine in zip(rows, scores, strict=True)
        ]
        for rows, scores in zip(places, cosines, strict=True)
    ]


def word_cells(image: UInt8[np.ndarray, "h w 3"], name: str, tokens: Sequence[TokenWords]) -> list[Cell]:
    """A garment and a line a token: its nearest words."""
    lines = tuple(
        f"{number}: " + ", ".join(f"{w} {c:.2f}" for w, c in zip(token.words, token.cosines, strict=True))
        for number, token in enumerate(tokens, start=1)
    )
    return [Cell(picture=image, title=name, lines=lines)]
