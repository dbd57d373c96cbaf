"""R 11.1: a generated flat-lay is laid into the true one's bounding box before SSIM and its kin are measured.

R gives no algorithm. Ours: both garments' boxes are found as where the picture differs from its plain background;
the generated box is resized (bicubic, antialiased) to the true box's size and put at its place on white.
"""

import numpy as np
from jaxtyping import Bool, UInt8

from ragdiff_jax.data.images import resize

PROTOCOL = "bbox/3"
"""Names this algorithm; numbers of another one aren't comparable."""

Box = tuple[int, int, int, int]


def bounding_box(mask: Bool[np.ndarray, "h w"]) -> Box | None:
    """(top, left, bottom, right) of the True pixels, bottom and right exclusive; None if there are none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def align(
    fake: UInt8[np.ndarray, "h w 3"], fake_mask: Bool[np.ndarray, "h w"], real_mask: Bool[np.ndarray, "h w"]
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """`fake` and its mask with the garment in `real_mask`'s box, white elsewhere; unchanged where either is empty."""
    source, target = bounding_box(fake_mask), bounding_box(real_mask)
    if source is None or target is None:
        return fake, fake_mask
    top, left, bottom, right = source
    to_top, to_left, to_bottom, to_right = target
    shape, place = (to_bottom - to_top, to_right - to_left), np.s_[to_top:to_bottom, to_left:to_right]
    picture = np.full_like(fake, 255)
    picture[place] = resize(fake[top:bottom, left:right], shape)
    grey = np.repeat(fake_mask[top:bottom, left:right, None].astype(np.uint8) * 255, 3, axis=2)
    mask = np.zeros_like(fake_mask)
    mask[place] = resize(grey, shape)[..., 0] > 127
    return picture, mask
