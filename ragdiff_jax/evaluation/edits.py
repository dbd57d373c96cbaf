"""What an edited picture was asked for: its mask, words and garments, and how F cuts it for CLIP-T and CLIP-I.

F's program: the picture is cut to the box of what was drawn anew, white where nothing was. CLIP-T holds the whole of
it, its longer side scaled to the tower's and padded white, against the caption; CLIP-I holds a patch of 64 pixels
against each garment that was retrieved.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from ragdiff_jax.data.images import decode_image, load_image, load_mask, one_line, resize, square
from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation.alignment import bounding_box

PATCH = 64
LOWER_DOWN = 15  # rows of trousers' and skirts' boxes above the patch
PROTOCOL = "mask-crop-white/1"
_FIELDS = {"image", "caption", "mask", "category", "retrieved"}


@dataclasses.dataclass(frozen=True)
class Edit:
    """Of one picture: words (None: CLIP-T isn't measured), mask (None: the whole), garments' files, lower body."""

    caption: str | None
    mask: Path | None
    retrieved: tuple[Path, ...]
    lower: bool

    def read(self, fake: Path, side: int) -> tuple[UInt8[np.ndarray, "s s 3"], UInt8[np.ndarray, "s s 3"]]:
        """(whole crop, patch) of the generated picture at `side`. Raises `UserError` for a mask of another shape."""
        picture = load_image(fake)
        shape = picture.shape[:2]
        mask = np.ones(shape, bool) if self.mask is None else _read_mask(self.mask, shape)
        crop = masked_crop(picture, mask)
        return square(crop, side), resize(patch(crop, self.lower), (side, side))


def _read_mask(file: Path, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    mask = load_mask(file)
    if mask.shape != shape:
        sizes = " and ".join(f"{width} x {height}" for height, width in (mask.shape, shape))
        raise UserError(f"{one_line(file)}: mask and picture are {sizes} pixels; give the mask at its size")
    return mask


def masked_crop(
    picture: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The box of the mask, white outside of the mask. Raises ValueError for an empty one."""
    box = bounding_box(mask)
    if box is None:
        raise ValueError("an empty mask")
    top, left, bottom, right = box
    return np.where(mask[..., None], picture, np.uint8(255))[top:bottom, left:right]


def patch(crop: UInt8[np.ndarray, "h w 3"], lower: bool) -> UInt8[np.ndarray, "h2 w2 3"]:
    """At most 64 x 64 pixels: the middle, or of the lower body 15 rows down and in the middle across."""
    height, width = crop.shape[:2]
    top = min(LOWER_DOWN, max(0, height - PATCH)) if lower else max(0, (height - PATCH) // 2)
    left = max(0, (width - PATCH) // 2)
    return crop[top : top + PATCH, left : left + PATCH]


def read_edits(path: Path, fakes: Mapping[str, Path], wrong: list[str]) -> dict[str, Edit]:
    """{name: edit} of JSONL, a line a picture: {"image", and of "caption", "mask", "category", "retrieved": [FILE]}.

    Files are relative to the JSONL. What is wrong is added to `wrong`; raises `UserError` if it can't be read at all.
    """
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeError) as error:
        raise UserError(f"{one_line(path)}: cannot be read ({error}); --edits names a JSONL file") from error
    found: dict[str, Edit] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            name, caption, mask = Path(record["image"]).stem, record.get("caption"), record.get("mask")
            garments = tuple(path.parent / one for one in record.get("retrieved", ()))
            if set(record) - _FIELDS or not isinstance(caption, str | None):
                raise ValueError
            mask = None if mask is None else path.parent / mask
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            wrong.append(f'{one_line(path)}:{number}: not {{"image": NAME, ...}} with {", ".join(sorted(_FIELDS))}')
            continue
        if name not in fakes:
            wrong.append(f"{one_line(path)}:{number}: {name}: no such pair")
            continue
        if name in found:
            wrong.append(f"{one_line(path)}:{number}: {name}: stands twice")
            continue
        found[name] = Edit(caption, mask, garments, record.get("category") == "lower_body")
        _check(found[name], fakes[name], wrong)
    return found


def _check(edit: Edit, fake: Path, wrong: list[str]) -> None:
    try:
        for file in edit.retrieved:
            decode_image(file.read_bytes(), one_line(file))
        if edit.mask is not None:
            if not _read_mask(edit.mask, load_image(fake).shape[:2]).any():
                wrong.append(f"{one_line(edit.mask)}: an empty mask")
    except OSError as error:
        wrong.append(f"{one_line(error.filename or fake)}: cannot be read ({error.strerror})")
    except UserError as error:
        wrong.append(str(error))
