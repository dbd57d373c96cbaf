"""CLIP-T and CLIP-I as F's program measures them (arXiv 2504.14011, 4.1), over our own CLIP towers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from ragdiff_jax.data.images import load_image, square
from ragdiff_jax.evaluation.batches import Batched
from ragdiff_jax.evaluation.edits import Edit
from ragdiff_jax.systems.zero_shot import clip_photos, clip_prompts


class ClipScores:
    """`clip_t`: 100 x cosine of the drawn region and its caption. `clip_i`: mean cosine of a patch and each garment."""

    def __init__(
        self, metrics: Sequence[str], vision: Any, text: Any, mesh: Mesh | None = None, batch: int = 16, most: int = 0
    ):
        """`vision`, `text`: `networks.Tower`s, the second for clip_t only; `most`: garments of one edit."""
        self._words, self._most, self._side = "clip_t" in metrics, most, vision.config.image_size
        self._garments = "clip_i" in metrics and most > 0
        self._vision, self._text = vision.config, text and text.config
        self._tokenizer = text and text.tokenizer
        params = {"vision": vision.params} | ({"text": text.params} if self._words else {})
        self._run = Batched(self._program, params, mesh, batch)
        self._metrics = [name for name in ("clip_t", "clip_i") if name in metrics]

    def __call__(self, fakes: Sequence[Path], edits: Sequence[Edit | None]) -> dict[str, Float[np.ndarray, " b"]]:
        """Of generated pictures' files; NaN where there is no edit, no caption, or no garment."""
        found = {name: np.full(len(fakes), np.nan) for name in self._metrics}
        rows = [row for row, edit in enumerate(edits) if edit is not None]
        if not rows:
            return found
        crops, patches = zip(*(edits[row].read(fakes[row], self._side) for row in rows), strict=True)
        arrays: dict[str, np.ndarray] = {}
        if self._words:
            arrays["crops"] = np.stack(crops)
            arrays["ids"] = self._tokenizer.encode([edits[row].caption or "" for row in rows])
        if self._garments:
            arrays["patches"] = np.stack(patches)
            arrays["garments"] = np.stack([self._pictures(edits[row].retrieved) for row in rows])
        if not arrays:
            return found
        values = self._run(*(arrays[name] for name in self._order()))
        for place, row in enumerate(rows):
            if self._words and edits[row].caption is not None:
                found["clip_t"][row] = 100 * values["clip_t"][place]
            count = len(edits[row].retrieved)
            if self._garments and count:
                found["clip_i"][row] = values["clip_i"][place, :count].mean()
        return found

    def _order(self) -> list[str]:
        return ["crops", "ids"] * self._words + ["patches", "garments"] * self._garments

    def _pictures(self, files: Sequence[Path]) -> UInt8[np.ndarray, "g s s 3"]:
        found = np.full((self._most, self._side, self._side, 3), 255, np.uint8)
        for place, file in enumerate(files):
            found[place] = square(load_image(file), self._side)
        return found

    def _program(self, params: Any, *arrays: Array) -> dict[str, Float[Array, "b ..."]]:
        given, found = dict(zip(self._order(), arrays, strict=True)), {}
        if self._words:
            pictures = clip_photos(self._vision, params["vision"], given["crops"])
            words = clip_prompts(self._text, params["text"], given["ids"])
            found["clip_t"] = jnp.sum(pictures * words, axis=-1)
        if self._garments:
            patches = clip_photos(self._vision, params["vision"], given["patches"])
            garments = given["garments"]
            flat = garments.reshape(-1, *garments.shape[2:])
            shown = clip_photos(self._vision, params["vision"], flat).reshape(*garments.shape[:2], -1)
            found["clip_i"] = jnp.einsum("bp,bgp->bg", patches, shown, precision="highest")
        return found
