"""The picture that explains a result: photo, neighbours with cosine and weight, landmark, flat-lay; alternatives."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

from ragdiff_jax.data.images import decode_image
from ragdiff_jax.pipelines.retrieved import Retrieved
from ragdiff_jax.retrieval.memory import Memory

INK, FAINT, ACCENT, PAPER = (40, 40, 44), (140, 140, 146), (200, 70, 40), (255, 255, 255)
GAP = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One picture of a panel: RGB or a bool mask of any size, the text above and below, a frame if chosen."""

    picture: UInt8[np.ndarray, "h w 3"] | Bool[np.ndarray, "h w"]
    title: str
    lines: tuple[str, ...] = ()
    chosen: bool = False


def neighbour_cell(
    picture: UInt8[np.ndarray, "h w 3"] | Bool[np.ndarray, "h w"],
    *,
    rank: int,
    id: str,
    cosine: float,
    weight: float,
    chosen: bool,
) -> Cell:
    """The cell of a retrieved garment; `rank` counts from 0, as `--landmark` does."""
    lines = (f"cosine {cosine:.3f}", f"weight {weight:+.2f}", str(id))
    return Cell(picture=picture, title=f"neighbour {rank}", lines=lines, chosen=chosen)


def draw_panel(rows: Sequence[Sequence[Cell]], *, cell: int = 192) -> UInt8[np.ndarray, "h w 3"]:
    """Rows of cells on white paper, pictures fitted into `cell` pixels. Raises ValueError without a cell."""
    if not rows or not any(rows):
        raise ValueError("a panel needs at least one cell")
    title_font, font = (
        ImageFont.load_default(size=max(11, cell // 14)),
        ImageFont.load_default(size=max(10, cell // 16)),
    )
    line_height = max(10, cell // 16) + 4
    heights = [cell + (1 + max((len(item.lines) for item in row), default=0)) * line_height + GAP for row in rows]
    width = GAP + max(len(row) for row in rows) * (cell + GAP)
    page = Image.new("RGB", (width, GAP + sum(heights)), PAPER)
    draw = ImageDraw.Draw(page)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, item in enumerate(row):
            left = GAP + column * (cell + GAP)
            draw.text(
                (left, top - 3),
                _fit(item.title, title_font, cell),
                fill=ACCENT if item.chosen else INK,
                font=title_font,
            )
            _paste(page, draw, item, left, top + line_height, cell)
            for number, line in enumerate(item.lines):
                place = (left, top + line_height + cell + 3 + number * line_height)
                draw.text(place, _fit(line, font, cell), fill=FAINT, font=font)
        top += height
    return np.asarray(page)


def _paste(page: Image.Image, draw: ImageDraw.ImageDraw, item: Cell, left: int, top: int, cell: int) -> None:
    picture = item.picture
    if picture.dtype == np.bool_:  # a silhouette: ink on paper
        picture = np.where(picture[..., None], np.uint8(INK), np.uint8(PAPER))
    image = Image.fromarray(picture)
    scale = cell / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    page.paste(image, (left + (cell - size[0]) // 2, top + (cell - size[1]) // 2))
    outline, line = (ACCENT, 3) if item.chosen else ((225, 225, 228), 1)
    draw.rectangle((left - 1, top - 1, left + cell, top + cell), outline=outline, width=line)


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Cut to the cell's width; the end of an id tells more than its beginning."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength("…" + text) > width:
        text = text[1:]
    return "…" + text


def result_cells(
    photo: UInt8[np.ndarray, "h w 3"],
    retrieved: Retrieved,
    image: UInt8[np.ndarray, "h2 w2 3"] | None,
    memory: Memory,
) -> list[Cell]:
    """The row that explains one photo: itself, its neighbours, the landmark used and the flat-lay, if any."""
    cells = [Cell(picture=photo, title="photo")]
    for rank, row in enumerate(retrieved.rows):
        cells.append(
            neighbour_cell(
                neighbour_picture(memory, row),
                rank=rank,
                id=retrieved.ids[rank],
                cosine=float(retrieved.cosines[rank]),
                weight=float(retrieved.weights[rank]),
                chosen=rank == retrieved.choice,
            )
        )
    beyond = retrieved.choice is None or retrieved.choice >= len(retrieved.rows)
    cells.append(
        Cell(
            picture=retrieved.landmark,
            title="landmark",
            lines=(retrieved.landmark_source, *([retrieved.landmark_id] if beyond and retrieved.landmark_id else [])),
            chosen=beyond,
        )
    )
    if image is not None:
        cells.append(Cell(picture=image, title="flat-lay"))
    return cells


def panel_rows(
    photo: UInt8[np.ndarray, "h w 3"],
    retrieved: Retrieved,
    image: UInt8[np.ndarray, "h2 w2 3"] | None,
    memory: Memory,
) -> list[list[Cell]]:
    """What there is to see of one photo: `result_cells` and `offered_cells`."""
    return [row for row in (result_cells(photo, retrieved, image, memory), offered_cells(retrieved, memory)) if row]


def offered_cells(retrieved: Retrieved, memory: Memory) -> list[Cell]:
    """The row of silhouettes that the photo's garment may have, as `--alternative` counts them; empty without any."""
    return [
        Cell(
            picture=memory.landmarks[one.row],
            title=f"alternative {place}",
            lines=(*(() if one.chance is None else (f"chance {one.chance:.0%}",)), one.id),
            chosen=one.rank == retrieved.choice,
        )
        for place, one in enumerate(retrieved.alternatives)
    ]


def neighbour_picture(memory: Memory, row: int) -> UInt8[np.ndarray, "h w 3"] | Bool[np.ndarray, "h w"]:
    """The garment's thumbnail, or its silhouette where the memory holds none."""
    thumbnail = memory.thumbnail(row)
    if thumbnail is None:
        return memory.landmarks[row]
    return decode_image(thumbnail, f"thumbnail of {memory.items[row].id}", max_side=512)
