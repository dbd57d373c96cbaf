"""What is doubtful about a photo or a mask: each rule is a number that the memory itself gives.

- Blank: the photo has one colour.
- Nearest too far: the highest cosine is below what 98 of 100 of the memory's own flat-lays reach when the photo tower
  sees them, attributes unknown, each against all the others. There may be no garment, or none like it in the memory.
- Neighbours disagree: the mean IoU among the K neighbours' silhouettes is below what 95 of 100 random sets of K reach.
  There may be several garments, or a view that says little of the shape.

A memory of fewer than `FEWEST` garments gives no such numbers.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, UInt8

from ragdiff_jax.data.images import decode_image, square, square_mask
from ragdiff_jax.errors import UserError
from ragdiff_jax.retrieval import Memory

FEWEST = 50
FLATS = 128  # flat-lays that stand for the memory
SETS = 200  # random sets of neighbours
COSINE_SHARE, AGREEMENT_SHARE = 0.02, 0.05
BLANK = 2.0  # standard deviation of a blank photo's brightness, of 255

# Photos uint8 [n, s, s, 3] and the memory's row of each, which doesn't count -> the highest cosine of each.
Nearest = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Limits:
    """Below these a photo is doubtful; None: the memory is too small to say."""

    cosine: float | None
    agreement: float | None


def memory_limits(memory: Memory, k: int, size: int, nearest: Nearest) -> Limits:
    """The limits of a memory for K neighbours and pictures of `size` pixels; no cosine limit without thumbnails."""
    count = len(memory)
    if count < FEWEST:
        return Limits(None, None)
    rows = np.unique(np.linspace(0, count - 1, min(FLATS, count)).round().astype(np.int64))
    thumbnails = [memory.thumbnail(int(row)) for row in rows]
    cosine = None
    if all(thumbnails):
        names = [f"{memory.path}: thumbnail of {memory.items[row].id}" for row in rows]
        flats = [square(decode_image(*pair), size) for pair in zip(thumbnails, names, strict=True)]
        cosine = float(np.quantile(nearest(np.stack(flats), rows), COSINE_SHARE))
    rng = np.random.default_rng(0)
    sets = [agreement(memory.landmarks[rng.choice(count, k, replace=False)]) for _ in range(SETS)]
    return Limits(cosine, float(np.quantile(sets, AGREEMENT_SHARE)))


def agreement(masks: Bool[np.ndarray, "k h w"]) -> float:
    """The mean IoU of all pairs of masks; 1 for a single mask."""
    flat = masks.reshape(len(masks), -1).astype(np.float32)
    both = flat @ flat.T
    areas = np.diagonal(both)
    scores = both / np.maximum(areas[:, None] + areas[None] - both, 1)
    pairs = scores[np.triu_indices(len(masks), 1)]
    return float(pairs.mean()) if len(pairs) else 1.0


def photo_doubts(
    photo: UInt8[np.ndarray, "s s 3"],
    cosines: Float[np.ndarray, " k"],
    masks: Bool[np.ndarray, "k h w"],
    limits: Limits,
) -> tuple[str, ...]:
    """What is doubtful, a sentence each, nothing if nothing is."""
    doubts = []
    if photo.mean(axis=-1).std() < BLANK:
        doubts.append("the photo is blank, no garment can be seen; what was retrieved means nothing")
    if limits.cosine is not None and cosines[0] < limits.cosine:
        doubts.append(
            f"the nearest garment has cosine {cosines[0]:.2f}, below the {limits.cosine:.2f} of this memory's own: "
            "there may be no garment in the photo, or none like it in the memory"
        )
    agreed = agreement(masks)
    if limits.agreement is not None and agreed < limits.agreement:
        doubts.append(
            f"the neighbours' silhouettes agree by IoU {agreed:.2f}, less than random ones ({limits.agreement:.2f}): "
            "there may be several garments, or one whose shape is hard to see; choose a silhouette with "
            "--alternative or --landmark"
        )
    return tuple(doubts)


def fit_landmark(
    mask: Bool[np.ndarray, "h w"], size: int, name: str = "landmark"
) -> tuple[Bool[np.ndarray, "{size} {size}"], tuple[str, ...]]:
    """(a silhouette of any size as the model takes it, what is doubtful about it).

    It is scaled by its longer side and padded with background. Raises `UserError`, beginning with `name`, if it is
    empty or full.
    """
    fitted = square_mask(mask, size)
    if not fitted.any():
        raise UserError(f"{name}: no garment in this landmark; paint the garment white on black")
    if mask.all():
        raise UserError(f"{name}: the landmark is full, it has no outline; paint the garment white on black")
    corners = mask[[0, 0, -1, -1], [0, -1, 0, -1]]
    doubts = []
    if corners.all():
        doubts.append(f"{name}: all four corners are garment; the mask may be inverted (the garment must be white)")
    elif fitted.mean() < 0.02:
        doubts.append(f"{name}: the garment is {fitted.mean():.1%} of the landmark; it may be a speck")
    return fitted, tuple(doubts)
