"""A CLIP that measures edits: unit vectors of pictures and of texts."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from ragdiff_jax.data.images import square
from ragdiff_jax.data.person_garments import garment_square
from ragdiff_jax.data.tokenizer import Tokenizer
from ragdiff_jax.evaluation.batches import Batched
from ragdiff_jax.evaluation.networks import load_networks
from ragdiff_jax.systems.fashion_rag import FashionRAG
from ragdiff_jax.systems.text_retrieval import embed_garments, embed_texts
from ragdiff_jax.systems.zero_shot import clip_photos, clip_prompts

BATCH = 32


@dataclasses.dataclass(frozen=True)
class Tower:
    """`images`: pictures of any size -> [n, d]; `texts`: words -> [n, d]; unit rows."""

    images: Callable[[Sequence[UInt8[np.ndarray, "_ _ 3"]]], Float32[np.ndarray, "n d"]]
    texts: Callable[[Sequence[str]], Float32[np.ndarray, "n d"]]

    @classmethod
    def open(cls, folder: Path) -> "Tower":
        """From the model folder of a `clip` stage. Raises `UserError` for one that has no such towers."""
        found = load_networks([folder / "image_encoder", folder / "text_encoder"])
        vision, text = found.vision, found.text
        see = Batched(lambda params, x: clip_photos(vision.config, params, x), vision.params, batch=BATCH)
        read = Batched(lambda params, ids: clip_prompts(text.config, params, ids), text.params, batch=BATCH)
        side = vision.config.image_size
        return cls(
            lambda pictures: see(np.stack([square(picture, side) for picture in pictures])),
            lambda texts: read(text.tokenizer.encode(list(texts))),
        )

    @classmethod
    def of_editor(cls, model: FashionRAG, params: Mapping[str, Any], tokenizer: Tokenizer) -> "Tower":
        """The towers that an editing model retrieves with: they take part in what they measure."""
        side = model.image_encoder.image_size

        def images(pictures):
            return embed_garments(model, params, (garment_square(x, side, model.garment_fit) for x in pictures))

        return cls(images, lambda texts: embed_texts(model, params, tokenizer, texts))
