"""The row that explains an edit: person, what is drawn anew, garments with their similarity, result."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8

from ragdiff_jax.pipelines.edit import Edited
from ragdiff_jax.pipelines.panel import Cell

VEIL = np.array((200, 70, 40), np.float32)


def veiled(image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """The person with a veil over what the mask marks."""
    return np.where(mask[..., None], 0.35 * image + 0.65 * VEIL, image).astype(np.uint8)


def edit_cells(image: UInt8[np.ndarray, "h w 3"], result: Edited) -> list[Cell]:
    """The cells of one edit; a rejected garment says so, and the one that is seen in detail."""
    cells = [Cell(picture=image, title="person"), Cell(picture=veiled(image, result.mask), title="drawn anew")]
    for rank, garment in enumerate(result.garments):
        likeness = "" if garment.similarity is None else f"similarity {garment.similarity:.3f}"
        weight = f"weight {garment.weight:.2f}" if garment.weight else "rejected"
        title = f"retrieved {rank + 1}" if garment.retrieved else "garment"
        detail = "seen in detail" if garment.name == result.detail else ""
        lines = tuple(line for line in (likeness, weight, detail, garment.name) if line)
        cells.append(Cell(picture=garment.picture, title=title, lines=lines))
    cells.append(Cell(picture=result.image, title="edited", lines=_wrapped(result.prompt), chosen=True))
    return cells


def _wrapped(text: str, width: int = 30, most: int = 3) -> Sequence[str]:
    """The prompt in short lines."""
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return tuple([*lines, line][:most])
