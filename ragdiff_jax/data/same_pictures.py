"""People whose picture comes twice, in one split (duplicates) or in training and test (leaks).

VITON-HD has about a hundred of the one kind and 36 of the other. Pictures are compared as 16x16 thumbnails in
colour, so that another encoding or size is seen through, and another garment is not.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import tqdm
from jaxtyping import Bool, Float
from PIL import Image

from ragdiff_jax.data.images import decode_image
from ragdiff_jax.data.person_layout import PersonRow
from ragdiff_jax.errors import UserError

TOLERANCE = 2.0  # root mean square over the thumbnails' values, of 255; JPEG at quality 75 stays below 1
_SIDE = 16
_BLOCK = 2048


def drop_same_pictures(
    rows: Mapping[str, Sequence[PersonRow]], *, tolerance: float = TOLERANCE
) -> tuple[dict[str, list[PersonRow]], Counter[str]]:
    """The rows without the second of two same pictures of a split, and without those of a test split whose picture is
    in "train"; and how many of both kinds went ("same picture", "leaked").

    Pictures are compared within a category. Unreadable ones stay (writing names them). Shows a progress bar.
    """
    kept: dict[str, list[PersonRow]] = {}
    left_out: Counter[str] = Counter()
    small = {split: _thumbnails(split, own) for split, own in rows.items()}
    for split, own in rows.items():
        category = np.array([row.category for row in own])
        drop = np.zeros(len(own), bool)
        for name in np.unique(category):
            here = np.flatnonzero(category == name)
            leaked = np.zeros(len(here), bool)
            if split != "train" and "train" in rows:
                train = [place for place, row in enumerate(rows["train"]) if row.category == name]
                leaked = has_same(small[split][here], small["train"][train], tolerance)
            same = has_same(small[split][here], small[split][here], tolerance, earlier=True) & ~leaked
            left_out.update({"leaked": int(leaked.sum()), "same picture": int(same.sum())})
            drop[here] = leaked | same
        kept[split] = [row for row, gone in zip(own, drop, strict=True) if not gone]
    return kept, left_out


def has_same(
    pictures: Float[np.ndarray, "n d"], others: Float[np.ndarray, "m d"], tolerance: float, *, earlier: bool = False
) -> Bool[np.ndarray, " n"]:
    """Which thumbnails have one among `others` within `tolerance`; with `earlier` only those at lower places count.
    A row of NaN is like none.
    """
    found = np.zeros(len(pictures), bool)
    limit = tolerance**2 * pictures.shape[1]
    for start in range(0, len(pictures), _BLOCK):
        block = pictures[start : start + _BLOCK]
        for at in range(0, len(others), _BLOCK):
            other = others[at : at + _BLOCK]
            distance = (block**2).sum(1)[:, None] + (other**2).sum(1) - 2 * block @ other.T
            same = distance <= limit
            if earlier:
                same &= (at + np.arange(len(other))) < (start + np.arange(len(block)))[:, None]
            found[start : start + _BLOCK] |= same.any(1)
    return found


def _thumbnails(split, rows) -> Float[np.ndarray, "n d"]:
    """Values around 0, float32; NaN for a picture that can't be read."""
    small = np.full((len(rows), 3 * _SIDE**2), np.nan, np.float32)
    for place, row in enumerate(tqdm.tqdm(rows, desc=f"comparing {split}", unit=" people", disable=None)):
        try:
            image = Image.fromarray(decode_image(row.person.read_bytes(), max_side=8 * _SIDE))
        except (OSError, UserError):
            continue
        image = image.resize((_SIDE, _SIDE), Image.Resampling.BOX)
        small[place] = np.asarray(image, np.float32).ravel() - 128
    return small
