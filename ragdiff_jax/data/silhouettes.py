"""The garment's silhouette in a flat-lay: as its mask says, or as it stands out; refused where it can't be right."""

import numpy as np
from jaxtyping import Bool, UInt8

from ragdiff_jax.data.images import decode_mask, flat_mask, pad_to_square, resize_to_side, square_mask
from ragdiff_jax.data.records import PairRecord
from ragdiff_jax.errors import UserError

LOOKED_AT = 768


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
    takes a second, and in one of 64 the soft edge counts as garment. Raises `UserError` as `flat_silhouette` does.
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
