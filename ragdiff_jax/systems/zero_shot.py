"""Attributes of a photo without a language model: CLIP's picture tower against prompts, a prompt a value.

R 9.2 asks Qwen2-VL for the attributes. Here CLIP says which prompt is nearest (zero-shot, arXiv 2103.00020 3.1), in the
captions' wording and in three colours, averaged (`data/wording.py`). First the category; the other prompts name it.
The cosines become probabilities by a scale of each attribute's own (temperature scaling, arXiv 1706.04599), and a value
whose probability is below the attribute's threshold stays unknown: a wrong one leads retrieval astray.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, UInt8

from ragdiff_jax.data.attributes import ATTRIBUTES, STRUCTURAL
from ragdiff_jax.data.pixels import to_float
from ragdiff_jax.data.tokenizer import Tokenizer
from ragdiff_jax.data.wording import UNSAID, applies, prompts
from ragdiff_jax.models.clip_text import CLIPTextConfig, CLIPTextModel
from ragdiff_jax.models.clip_vision import CLIPVisionConfig, CLIPVisionModel, preprocess
from ragdiff_jax.models.unit_length import unit

Rows = Float[np.ndarray, "n v"]

PRECISION = 0.8  # of what is said on the photos that calibrate
FEWEST = 20  # predictions that a threshold must rest on
CHUNK = 32  # prompts encoded at a time
_SCALES = np.geomspace(3.0, 300.0, 47)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """Of one attribute: softmax(scale * cosines), said where it reaches `threshold`; None: never said.

    The defaults are for a CLIP that nobody has calibrated: CLIP's usual scale, and little left for all other values.
    """

    scale: float = 100.0
    threshold: float | None = 0.9


def clip_photos(config: CLIPVisionConfig, params: Any, photos: UInt8[Array, "b h w 3"]) -> Float[Array, "b p"]:
    """Square photos in CLIP's joint space, unit rows."""
    pixels = preprocess(to_float(photos), config.image_size)
    return unit(CLIPVisionModel(config).apply({"params": params}, pixels).image_embeds)


def clip_prompts(config: CLIPTextConfig, params: Any, ids: Int32[Array, "b l"]) -> Float[Array, "b p"]:
    """Prompts in CLIP's joint space, unit rows."""
    return unit(CLIPTextModel(config).apply({"params": params}, ids).text_embeds)


class PromptTables:
    """The values of an attribute as rows of CLIP's joint space, encoded once and kept."""

    def __init__(self, embed_prompts: Callable[[np.ndarray], Array], tokenizer: Tokenizer):
        """`embed_prompts`: int32 [b,l] -> unit rows [b,p]."""
        self._embed_prompts, self._tokenizer = embed_prompts, tokenizer
        self._known: dict[tuple[str, str], np.ndarray] = {}

    def __call__(self, category: str, name: str) -> Float[np.ndarray, "v p"]:
        """Unit rows, one a value of the attribute `name`: the mean of its prompts, which name `category`."""
        if (category, name) not in self._known:
            texts = [prompts(category, name, value) for value in ATTRIBUTES[name]]
            ids = self._tokenizer.encode([text for some in texts for text in some])
            # CLIP's text is causal and read at its end token: the padding behind it changes nothing but the time.
            ends = (ids == self._tokenizer.eos_id).argmax(axis=1)
            ids = ids[:, : min(ids.shape[1], 16 * -(-int(ends.max() + 1) // 16))]
            short = -len(ids) % CHUNK
            ids = np.concatenate([ids, ids[:1].repeat(short, axis=0)])
            rows = [np.asarray(self._embed_prompts(ids[at : at + CHUNK])) for at in range(0, len(ids), CHUNK)]
            rows = np.concatenate(rows)[: len(ids) - short].reshape(len(texts), len(texts[0]), -1).mean(axis=1)
            self._known[category, name] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return self._known[category, name]


class ZeroShotAttributes:
    """Predicts the ten attributes that have ids. `scales`: those that `calibrate` tries of its scores."""

    scales = _SCALES

    def __init__(
        self,
        embed_photos: Callable[[np.ndarray], Array],
        embed_prompts: Callable[[np.ndarray], Array],
        tokenizer: Tokenizer,
        calibration: Mapping[str, Calibration],
    ):
        """`embed_photos`: uint8 [b,s,s,3] -> unit rows [b,p]; `embed_prompts`: int32 [b,l] -> unit rows [b,p].

        An attribute that `calibration` leaves out has `Calibration()`.
        """
        self._embed_photos, self._table = embed_photos, PromptTables(embed_prompts, tokenizer)
        self.calibration = {name: calibration.get(name, Calibration()) for name in STRUCTURAL}

    @classmethod
    def from_towers(
        cls,
        text: CLIPTextConfig,
        vision: CLIPVisionConfig,
        text_params: Any,
        vision_params: Any,
        tokenizer: Tokenizer,
        calibration: Mapping[str, Calibration],
    ) -> "ZeroShotAttributes":
        """With the towers of one CLIP, each jitted alone."""
        photos, prompts = jax.jit(partial(clip_photos, vision)), jax.jit(partial(clip_prompts, text))
        return cls(partial(photos, vision_params), partial(prompts, text_params), tokenizer, calibration)

    def predict(self, photos: UInt8[np.ndarray, "b s s 3"], given: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
        """What is not given of each photo and can be said with confidence, names and values.

        `given`: valid names and values of each photo; a given category is named in its prompts.
        """
        names = [name for name, own in self.calibration.items() if own.threshold is not None]
        if not names:
            return [{} for _ in given]
        scores, nouns = self.scores(photos, [values.get("Category") for values in given], names)
        return sure_answers(scores, nouns, self.calibration, given)

    def scores(
        self,
        photos: UInt8[np.ndarray, "b s s 3"],
        categories: Sequence[str | None],
        names: Sequence[str] = STRUCTURAL,
    ) -> tuple[dict[str, Rows], list[str]]:
        """({attribute: cosines [b, values]} of `names`, the category that each photo's prompts name).

        That is the one in `categories`, or the nearest where it is None. A value that no sentence says has -1.
        """
        images = np.asarray(self._embed_photos(photos), np.float32)
        first = images @ self._table("", "Category").T
        best = [ATTRIBUTES["Category"][row] for row in first.argmax(axis=1)]
        nouns = [given or found for given, found in zip(categories, best, strict=True)]
        cosines = {"Category": first}
        for name in names:
            if name == "Category":
                continue
            tables = np.stack([self._table(noun, name) for noun in nouns])
            cosines[name] = np.einsum("bp,bvp->bv", images, tables)
        for name, value in UNSAID:
            if name in cosines:
                cosines[name][:, ATTRIBUTES[name].index(value)] = -1.0
        return cosines, nouns


def softmax(cosines: Rows, scale: float) -> Rows:
    """Probabilities of the values."""
    scores = np.exp(scale * (cosines - cosines.max(axis=1, keepdims=True)))
    return scores / scores.sum(axis=1, keepdims=True)


def sure_answers(
    scores: Mapping[str, Rows],
    nouns: Sequence[str],
    calibration: Mapping[str, Calibration],
    given: Sequence[Mapping[str, str]],
) -> list[dict[str, str]]:
    """Of each photo the values that reach their attribute's threshold, of attributes that its category (`nouns`) has
    and that are not `given`.
    """
    answers: list[dict[str, str]] = [{} for _ in given]
    for name, own in calibration.items():
        if own.threshold is None:
            continue
        likely = softmax(scores[name], own.scale)
        for answer, values, row, noun in zip(answers, given, likely, nouns, strict=True):
            if name not in values and applies(noun, name) and row.max() >= own.threshold:
                answer[name] = ATTRIBUTES[name][int(row.argmax())]
    return answers


def known_rows(ids: Int32[np.ndarray, "n a"], name: str) -> Bool[np.ndarray, " n"]:
    """Where the attribute `name` is known and the category, if that is known, has it; `ids` as of `attribute_ids`."""
    has = np.array([True, *(applies(category, name) for category in ATTRIBUTES["Category"])])
    return (ids[:, STRUCTURAL.index(name)] > 0) & has[ids[:, STRUCTURAL.index("Category")]]


def calibrate(
    cosines: Mapping[str, Rows],
    ids: Int32[np.ndarray, "n a"],
    start: Mapping[str, Calibration] | None = None,
    *,
    precision: float = PRECISION,
    fewest: int = FEWEST,
    scales: Float[np.ndarray, " s"] = _SCALES,
) -> dict[str, Calibration]:
    """Scale and threshold of each attribute from photos whose attributes are known.

    The scale is the one of least negative log-likelihood; the threshold the lowest at which `precision` of what is said
    is right, no less than always saying the commonest value would be, and that rests on at least `fewest` photos. None
    (never said) where there is no such threshold, and where the photos have one value only, which proves nothing.
    `ids` as `attribute_ids` gives them, 0 where not known; an attribute of fewer than `fewest` known photos keeps what
    `start` says. Photos of a category that hasn't the attribute don't count: `sure_answers` never says it of them.
    `scales`: those tried.
    """
    found = {}
    for column, name in enumerate(STRUCTURAL):
        known = known_rows(ids, name)
        if known.sum() < fewest:
            found[name] = (start or {}).get(name, Calibration())
            continue
        rows, truth = cosines[name][known], ids[known, column] - 1
        picked = np.arange(len(truth))
        losses = [-np.log(softmax(rows, scale)[picked, truth] + 1e-9).mean() for scale in scales]
        scale = float(scales[int(np.argmin(losses))])
        likely = softmax(rows, scale)
        order = np.argsort(-likely.max(axis=1), kind="stable")
        right = np.cumsum(likely.argmax(axis=1)[order] == truth[order])
        counts = np.arange(1, len(order) + 1)
        commonest = np.bincount(truth).max() / len(truth)
        good = np.flatnonzero((right >= max(precision, commonest) * counts) & (counts >= fewest))
        threshold = None
        if len(good) and commonest < 1:
            threshold = float(likely.max(axis=1)[order[good[-1]]])
        found[name] = Calibration(scale=scale, threshold=threshold)
    return found
