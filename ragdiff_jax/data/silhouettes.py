"""The garment's silhouette in a flat-lay: as its mask says, or as it stands out; refused where it can't be right."""

import functools

import numpy as np
from jaxtyping import Bool, Float, UInt8

from ragdiff_jax.data.images import decode_mask, pad_to_square, resize_to_side, square_mask
from ragdiff_jax.data.records import PairRecord
from ragdiff_jax.errors import UserError

LOOKED_AT = 768


def flat_mask(flat: UInt8[np.ndarray, "h w 3"], *, tolerance: int = 10) -> Bool[np.ndarray, "h w"]:
    """The garment's silhouette in a flat-lay on a plain light background, for data without masks.

    Pixels that differ from the border's median colour by more than `tolerance` (of 255, in any channel), holes filled,
    and of the pieces only those of at least a tenth of the largest; then the soft edge is cut where the garment's
    colour is at `EDGE`. All False when nothing stands out.
    """
    from scipy import ndimage

    border = np.concatenate([flat[0], flat[-1], flat[:, 0], flat[:, -1]]).astype(np.int16)
    difference = flat.astype(np.int16) - np.median(border, axis=0).astype(np.int16)
    solid = ndimage.binary_fill_holes(np.abs(difference).max(axis=-1) > tolerance)
    pieces, count = ndimage.label(solid)
    if not count:
        return np.zeros(flat.shape[:2], bool)
    areas = np.bincount(pieces.ravel())
    areas[0] = 0
    return _cut_edge((areas >= max(1, areas.max() // 10))[pieces], difference.astype(np.float32), tolerance)


EDGE = 0.4
"""How much of the garment's colour, between the background's (0) and that of what is around it inside (1), a pixel at
the edge needs to be garment. All that stands out is half a pixel too much on every side: at 64 pixels a drawn garment's
true picture gave its silhouette back with an IoU of 0.959, a real one's of 0.952; so cut, 0.986 and 0.992.
"""


def _cut_edge(
    mask: Bool[np.ndarray, "h w"], difference: Float[np.ndarray, "h w 3"], tolerance: int
) -> Bool[np.ndarray, "h w"]:
    """The mask without those of its outermost pixels that are mostly background; `difference` is from its colour."""
    from scipy import ndimage

    inner = ndimage.binary_erosion(mask, np.ones((3, 3)))
    near = functools.partial(ndimage.uniform_filter, size=5, mode="constant")
    share = near(inner.astype(np.float32))
    known = mask & ~inner & (share > 0.01)  # a strap of two pixels has no inside
    inside = np.stack([near(np.where(inner, difference[..., c], 0.0))[known] for c in range(3)], axis=-1)
    inside /= share[known][:, None]
    stands_out = np.abs(inside).max(axis=-1) > tolerance  # or what is inside a white garment's seam would cut it off
    cover = (difference[known] * inside).sum(axis=-1) / np.maximum((inside**2).sum(axis=-1), 1e-6)
    cut = mask.copy()
    cut[known] = (cover >= EDGE) | ~stands_out
    return cut


def flat_silhouette(
    flat: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h2 w2"] | None, name: str
) -> Bool[np.ndarray, "h3 w3"]:
    """`mask`, or without one what stands out from the flat-lay's plain background (`flat_mask`).

    Raises `UserError`, beginning with `name`: a mask of another shape than the picture (a photo that was turned, a mask
    that wasn't), one that marks nothing, everything, or all four corners (an inverted one), and a garment that doesn't
    stand out. A silhouette that isn't the garment's is learned, and retrieved, in silence.
    """
    if mask is None:
        found = flat_mask(flat)
        if not found.any():
            raise UserError(f"{name}: no garment stands out from the background; give a mask or a plain background")
        return found
    check_shape(mask, flat, f"{name}: the mask", "the flat-lay")
    if not mask.any():
        raise UserError(f"{name}: the mask marks nothing; paint the garment white on black")
    if mask.all():
        raise UserError(f"{name}: the mask marks the whole picture; paint the garment white on black")
    if mask[[0, 0, -1, -1], [0, -1, 0, -1]].all() and mask.mean() > 0.5:
        raise UserError(f"{name}: the mask marks all four corners; is it inverted? paint the garment white on black")
    return mask


def square_silhouette(
    flat: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h2 w2"] | None, name: str, size: int
) -> Bool[np.ndarray, "{size} {size}"]:
    """`flat_silhouette` in a square, as `images.square` has the picture.

    Without a mask it is looked for at `LOOKED_AT` pixels at most, or at `size`: in a photograph of 2048 pixels that
    takes a second, and one of 64 has no thin parts left. Raises `UserError` as `flat_silhouette` does.
    """
    side = max(size, LOOKED_AT)
    if mask is None and max(flat.shape[:2]) > side:
        flat = resize_to_side(flat, side)
    return square_mask(flat_silhouette(flat, mask, name), size)


def silhouette_of(
    record: PairRecord, flat: UInt8[np.ndarray, "h w 3"], size: int
) -> Bool[np.ndarray, "{size} {size}"]:
    """`square_silhouette` of a record, whose flat-lay is decoded already. Raises `UserError` naming the record."""
    mask = None if record.mask is None else decode_mask(record.mask, f"mask of record {record.id}")
    return square_silhouette(flat, mask, f"record {record.id}", size)


def square_flat(
    flat: UInt8[np.ndarray, "h w 3"], size: int
) -> tuple[UInt8[np.ndarray, "{size} {size} 3"], Bool[np.ndarray, "{size} {size}"]]:
    """`images.square` of a flat-lay, on white, and its `flat_mask`, found before the padding.

    Found after it, a light grey background would stand out from the white beside it and count as the garment.
    """
    small = resize_to_side(flat, size)
    return pad_to_square(small), square_mask(flat_mask(small), size)


def check_shape(
    mask: Bool[np.ndarray, "h w"], picture: UInt8[np.ndarray, "h2 w2 3"], what: str, whose: str
) -> None:
    """Raises `UserError` unless the two have one shape, up to scale and a pixel of rounding."""
    (height, width), (other_height, other_width) = mask.shape, picture.shape[:2]
    if abs(height * other_width - width * other_height) > max(*mask.shape, *picture.shape):
        raise UserError(
            f"{what} is {width}x{height}, {whose} {other_width}x{other_height}; they must have one shape"
        )
