"""A pen that draws lines and shapes, given in the pattern's units, onto one sheet."""

import numpy as np
from PIL import Image, ImageDraw

from ragdiff_jax.data.synth.colours import RGB, scaled
from ragdiff_jax.data.synth.cutting import lay
from ragdiff_jax.data.synth.shape import GarmentSpec
from ragdiff_jax.data.synth.styles import Style


class Needle:
    """Draws lines and shapes given in the pattern's units onto one sheet."""

    def __init__(
        self,
        draw: ImageDraw.ImageDraw,
        spec: GarmentSpec,
        style: Style,
        r: int,
        scale: float,
        offset: np.ndarray,
        sleeve: bool,
    ):
        self.draw, self.s, self.look, self.scale, self.offset = draw, spec.shape, spec.look, scale, offset
        self.sleeve = sleeve
        self.thin = max(1, round(r / 200))
        base = self.look.colours[0]
        self.base = base
        bright = sum(base) > 150
        self.stitch = _mixed(base, scaled(base, 0.7 if bright else 1.9), style.seams)
        self.dark = _mixed(base, scaled(base, 0.62 if bright else 2.2), style.seams)
        self.denim = spec.shape.fabric == "Denim"
        self.thread = (200, 150, 80) if self.denim and self.look.variant % 4 else self.stitch

    def at(self, points) -> list[tuple[float, float]]:
        return [tuple(p) for p in (lay(self.s, points, sleeve=self.sleeve) * self.scale + self.offset).tolist()]

    def line(self, points, colour: RGB | None = None, width: int | float = 1.0) -> None:
        """`width` in thin strokes."""
        wide = max(1, round(width * self.thin))
        self.draw.line(self.at(points), fill=colour or self.stitch, width=wide, joint="curve" if wide > 2 else None)

    def lines(self, strokes, colour: RGB | None = None, width: int | float = 1.0) -> None:
        """Many straight strokes at once, each of two points."""
        wide, flat = max(1, round(width * self.thin)), self.at([point for stroke in strokes for point in stroke])
        for start, end in zip(flat[::2], flat[1::2], strict=True):
            self.draw.line((start, end), fill=colour or self.stitch, width=wide)

    def ribbon(self, points, colour: RGB, width: float) -> None:
        """`width` in chest widths."""
        self.line(points, colour, max(1.0, width * self.scale / self.thin))

    def fill(self, points, colour: RGB, edge: RGB | None = None) -> None:
        self.draw.polygon(self.at(points), fill=colour, outline=edge)

    def dot(self, x: int | float, y: int | float, radius: float, colour: RGB) -> None:
        a, b = self.at([(x, y)])[0]
        r = max(1.2, radius * self.scale)
        self.draw.ellipse((a - r, b - r, a + r, b + r), fill=colour, outline=scaled(colour, 0.6))

    def inner_print(self, image: Image.Image, points) -> None:
        """Stripes or a blot on the inner wear, kept inside its polygon."""
        xs, ys = zip(*points, strict=True)
        box = (int(min(xs)), int(min(ys)), int(max(xs)) + 1, int(max(ys)) + 1)
        stencil = Image.new("L", (box[2] - box[0], box[3] - box[1]), 0)
        pen = ImageDraw.Draw(stencil)
        step = max(4, round(0.11 * self.scale))
        if self.look.inner_print == 1:
            for y in range(step, stencil.size[1], step):
                pen.rectangle((0, y, stencil.size[0], y + step // 3), fill=255)
        else:
            y = 2.6 * step
            wide = stencil.size[0] * 0.3
            pen.ellipse((stencil.size[0] / 2 - wide, y, stencil.size[0] / 2 + wide, y + 2 * step), fill=255)
        inside = Image.new("L", stencil.size, 0)
        ImageDraw.Draw(inside).polygon([(x - box[0], y - box[1]) for x, y in points], fill=255)
        stencil.paste(0, (0, 0), inside.point(_INVERSE))
        image.paste(self.look.colours[3], box[:2], stencil)


_INVERSE = [255 - v for v in range(256)]


def _mixed(base: RGB, other: RGB, share: float) -> RGB:
    r, g, b = (round(x + share * (y - x)) for x, y in zip(base, other, strict=True))
    return r, g, b
