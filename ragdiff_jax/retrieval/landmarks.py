"""Which silhouette of the memory a photo gets: neighbours' silhouettes [B,K,H,W] -> one of them [B,H,W].

`fuse_landmarks` is RAGDiffusion's way (9.3), among the K of SLLE. `likeliest_landmark` is ours, among many more, and
`offered_landmarks` says what it may be instead.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from ragdiff_jax.errors import UserError
from ragdiff_jax.retrieval.slle import slle_weights

COMPARED_SIDE = 64  # pixels a side, at most, at which candidates' silhouettes are compared
OFFERED = 5  # silhouettes a photo, at most: the one that is used, and what it may be instead


def binarise(masks: Shaped[Array, "*shape"]) -> Bool[Array, "*shape"]:
    """bool as it is, integers by != 0, floats by >= 0.5."""
    if masks.dtype == jnp.bool_:
        return masks
    return masks >= 0.5 if jnp.issubdtype(masks.dtype, jnp.floating) else masks != 0


def iou(a: Shaped[Array, "*batch h w"], b: Shaped[Array, "*batch h w"]) -> Float[Array, "*batch"]:
    """Intersection over union of masks, float32 in [0, 1]; two empty masks have 1."""
    a, b = binarise(a), binarise(b)
    intersection = jnp.sum(a & b, axis=(-2, -1), dtype=jnp.float32)
    union = jnp.sum(a | b, axis=(-2, -1), dtype=jnp.float32)
    return jnp.where(union > 0, intersection / jnp.maximum(union, 1.0), 1.0)


def blend_landmarks(masks: Shaped[Array, "b k h w"], weights: Float[Array, "b k"]) -> Float[Array, "b h w"]:
    """The weighted sum of the masks, clipped to [0, 1]: the soft shape before a neighbour is chosen."""
    blend = jnp.einsum(
        "bk,bkhw->bhw",
        weights.astype(jnp.float32),
        binarise(masks).astype(jnp.float32),
        precision=jax.lax.Precision.HIGHEST,
    )
    return jnp.clip(blend, 0.0, 1.0)


def fuse_landmarks(
    masks: Shaped[Array, "b k h w"], weights: Float[Array, "b k"]
) -> tuple[Shaped[Array, "b h w"], Int[Array, " b"]]:
    """The neighbour mask that agrees most (IoU) with the weighted blend, thresholded at 0.5, of all K.

    Returns the mask in its own dtype and which of the K it is, int32. An empty mask is never chosen while
    there is another; on a tie the nearer neighbour (lower index) wins.
    """
    blend = blend_landmarks(masks, weights) >= 0.5
    binary = binarise(masks)
    # The broadcast is spelled out: jaxtyping binds the batch axes of both arguments of iou to one shape.
    scores = iou(binary, jnp.broadcast_to(blend[:, None], binary.shape))
    scores = jnp.where(jnp.any(binary, axis=(-2, -1)), scores, -1.0)
    choice = jnp.argmax(scores, axis=1).astype(jnp.int32)
    return jnp.take_along_axis(masks, choice[:, None, None, None], axis=1)[:, 0], choice


def likeliest_landmark(
    masks: Shaped[Array, "b m h w"], cosines: Float[Array, "b m"], temperature: float | Float[Array, ""]
) -> tuple[Shaped[Array, "b h w"], Int[Array, " b"]]:
    """The candidate mask of highest expected IoU with the true silhouette, and which of the m it is, int32.

    softmax(cosine / temperature) is taken for the chance of each candidate to be the true one; an encoder that was
    trained on such a softmax (`objectives/photo_tower.py`) means just that by its cosines. The nearest is only the
    likeliest single answer: where an encoder hesitates between two kinds of garment it is as often wrong as right,
    while a silhouette that overlaps with many likely ones is seldom far off. An empty mask is never chosen while there
    is another; on a tie the nearer wins.
    """
    choice = offered_landmarks(masks, cosines, temperature, 1)[0][:, 0]
    return jnp.take_along_axis(masks, choice[:, None, None, None], axis=1)[:, 0], choice


def offered_landmarks(
    masks: Shaped[Array, "b m h w"], cosines: Float[Array, "b m"], temperature: float | Float[Array, ""], count: int
) -> tuple[Int[Array, "b n"], Float[Array, "b n"]]:
    """Which of the m candidates to offer, n = min(count, m) of them, and the chance of each.

    The first is `likeliest_landmark`'s. Each next one is that which, beside those before, makes the expected IoU of the
    best of them highest: the nearest garments of one kind are alike, and to offer five of them says no more than one.
    The chance, in [0, 1], is that the true silhouette, if it is a candidate's, overlaps more with this one than with
    the others offered (a tie counts for the earlier). Chances sum to 1 and need not fall from first to last.
    """
    b, m, h, w = masks.shape
    binary = binarise(masks)
    there = jnp.any(binary, axis=(-2, -1))
    if max(h, w) > COMPARED_SIDE:
        side = (min(h, COMPARED_SIDE), min(w, COMPARED_SIDE))
        small = jax.image.resize(binary.astype(jnp.float32), (b, m, *side), "linear", antialias=True)
        binary = binarise(small)
    rows = binary.reshape(b, m, -1).astype(jnp.float32)
    both = jnp.einsum("bip,bjp->bij", rows, rows)  # counts below 2^24: exact in float32 on every device
    sizes = rows.sum(axis=-1)
    shared = both / jnp.maximum(sizes[:, :, None] + sizes[:, None] - both, 1.0)
    chances = jax.nn.softmax(cosines.astype(jnp.float32) / temperature, axis=1)
    chosen = covering(shared, chances, there, count)
    closest = jnp.argmax(jnp.take_along_axis(shared, chosen[..., None], axis=1), axis=1)
    mine = closest[:, None] == jnp.arange(chosen.shape[1])[None, :, None]
    return chosen, jnp.where(mine, chances[:, None], 0.0).sum(axis=-1)


def covering(
    shared: Float[Array, "b i j"], chances: Float[Array, "b j"], usable: Bool[Array, "b i"], count: int
) -> Int[Array, "b n"]:
    """min(count, i) of the i, one after another that which adds most to the expected best IoU, int32.

    `shared`: IoU of each of the i with each of the j that may be the true one, with these chances. What isn't `usable`
    comes last; on a tie the first wins.
    """
    best, free, chosen = jnp.zeros_like(chances), jnp.ones_like(usable), []
    for _ in range(min(count, shared.shape[1])):
        more = jnp.maximum(shared - best[:, None], 0.0)
        gain = jnp.einsum("bij,bj->bi", more, chances, precision=jax.lax.Precision.HIGHEST)
        one = jnp.argmax(jnp.where(free, jnp.where(usable, gain, -1.0), -2.0), axis=1)
        best = best + jnp.take_along_axis(more, one[:, None, None], axis=1)[:, 0]
        free &= jnp.arange(shared.shape[1]) != one[:, None]
        chosen.append(one.astype(jnp.int32))
    return jnp.stack(chosen, axis=1)


class Ruling(NamedTuple):
    """What a `LandmarkRule` makes of a photo's neighbours.

    weights: SLLE's, of the k nearest. ranks: which of the neighbours have the silhouettes that are offered, the one to
    use first. chances: of these, in [0, 1], as `offered_landmarks` says; NaN where the rule knows of none.
    """

    weights: Float[Array, "b k"]
    ranks: Int[Array, "b n"]
    chances: Float[Array, "b n"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LandmarkRule:
    """How a photo's neighbours become SLLE's weights and one silhouette.

    k, reg: SLLE's neighbours and ridge.
    candidates: 0: the silhouette is `fuse_landmarks` of the k (R 9.3), and what is offered beside it are the others of
      the k, nearest first; else `offered_landmarks` of so many nearest, of which the first is the likeliest.
    temperature: of the likeliest.
    """

    k: int = 4
    reg: float = 1e-3
    candidates: int = 0
    temperature: float = 0.05

    def __post_init__(self):
        if self.candidates < 0 or not self.temperature > 0:
            raise UserError(
                f"landmark_candidates {self.candidates}, landmark_temperature {self.temperature}: must be at least 0, "
                "and above 0"
            )

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "LandmarkRule":
        """What the `settings` of a model.json say; a structure_net stage says nothing: the defaults."""
        names = {"neighbours": "k", "reg": "reg"}
        names |= {"landmark_candidates": "candidates", "landmark_temperature": "temperature"}
        return cls(**{field: settings[name] for name, field in names.items() if name in settings})

    def considered(self, rows: int) -> int:
        """How many neighbours to look for in a memory of so many rows."""
        return min(max(self.k, self.candidates), max(rows, self.k))

    def offers(self, rows: int) -> int:
        """How many silhouettes are offered of a memory of so many rows."""
        return min(OFFERED, rows, self.candidates or self.k)

    def __call__(
        self,
        embedding: Float[Array, "b d"],
        near: Float[Array, "b k d"],
        cosines: Float[Array, "b m"],
        masks: Shaped[Array, "b m h w"],
    ) -> Ruling:
        """Of the k nearest `near`, and the silhouettes of the m nearest, nearest first."""
        weights = slle_weights(embedding, near, self.reg)
        if self.candidates:
            some = slice(self.candidates)  # fewer than k where so many are asked for
            return Ruling(weights, *offered_landmarks(masks[:, some], cosines[:, some], self.temperature, OFFERED))
        _, choice = fuse_landmarks(masks[:, : self.k], weights)
        places = jnp.arange(min(self.k, masks.shape[1]))
        order = jnp.argsort(jnp.where(places == choice[:, None], -1, places), axis=1)[:, :OFFERED].astype(jnp.int32)
        return Ruling(weights, order, jnp.full(order.shape, jnp.nan))
