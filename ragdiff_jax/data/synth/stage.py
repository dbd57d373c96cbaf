"""The stage of a drawn photo: its pixels and, in step with them, a label map that says what every pixel shows."""

import dataclasses

import numpy as np
from PIL import Image, ImageDraw

from ragdiff_jax.data.synth.colours import RGB, scaled

# 0 to 17 are the labels of Dress Code (ATR's), left and right as the person has them; 18 is ours.
LABELS: dict[str, int] = {
    "background": 0,
    "hat": 1,
    "hair": 2,
    "sunglasses": 3,
    "upper": 4,
    "skirt": 5,
    "pants": 6,
    "dress": 7,
    "belt": 8,
    "left shoe": 9,
    "right shoe": 10,
    "head": 11,  # face, neck and the skin of the trunk
    "left leg": 12,
    "right leg": 13,
    "left arm": 14,
    "right arm": 15,
    "bag": 16,
    "scarf": 17,
    "layer": 18,  # a second garment over or under the shown one
}

_WAIST_DOWN = {"Skirt": "skirt", "Trousers": "pants", "Shorts": "pants"}


def garment_label(category: str) -> int:
    """The label of a garment's pixels: skirt, pants, dress or upper."""
    if "Dress" in category or category == "Robe":
        return LABELS["dress"]
    return LABELS[_WAIST_DOWN.get(category, "upper")]


@dataclasses.dataclass(frozen=True)
class Cloth:
    """A piece of cloth as it lies on the stage: pixels uint8 [h, w, 3], alpha and (or None) zones uint8 [h, w]."""

    left: int
    top: int
    pixels: np.ndarray
    alpha: np.ndarray
    zones: np.ndarray | None


class Stage:
    """A picture and its label map, painted together from back to front.

    `zones` holds for each pixel of the shown garment which of its parts it is (see `warp`); what is painted
    over it later takes its label and so its place.
    """

    def __init__(self, image: Image.Image):
        self.image = image
        self.labels = Image.new("L", image.size, 0)
        self.zones = Image.new("L", image.size, 0)

    def paint(self, strokes) -> None:
        """Fill polygons (points [n, 2] in pixels, colour, label or None to keep what is there), antialiased.

        A pixel takes a label when its middle lies in the polygon.
        """
        width, height = self.image.size
        everything = np.concatenate([points for points, _, _ in strokes])
        low, high = np.floor(everything.min(0)) - 1, np.ceil(everything.max(0)) + 2
        left, top = (int(v) for v in np.clip(low, 0, (width, height)))
        right, bottom = (int(v) for v in np.clip(high, 0, (width, height)))
        if right <= left or bottom <= top:
            return
        box, double = (left, top, right, bottom), (2 * (right - left), 2 * (bottom - top))
        image = self.image.crop(box).resize(double, Image.Resampling.NEAREST)
        labels = self.labels.crop(box).resize(double, Image.Resampling.NEAREST)
        draw, mark = ImageDraw.Draw(image), ImageDraw.Draw(labels)
        for points, colour, label in strokes:
            corners = ((points - (left, top)) * 2).ravel().tolist()
            draw.polygon(corners, fill=colour)
            if label is not None:
                mark.polygon(corners, fill=label)
        self.image.paste(image.reduce(2), box)
        self.labels.paste(labels.resize((right - left, bottom - top), Image.Resampling.NEAREST), box)

    def lay(self, cloth: Cloth | None, label: int) -> None:
        """Put cloth on the stage; a pixel takes its label where the cloth covers at least half of it."""
        if cloth is None:
            return
        at = (cloth.left, cloth.top)
        self.image.paste(Image.fromarray(cloth.pixels), at, Image.fromarray(cloth.alpha))
        covers = Image.fromarray((cloth.alpha >= 128).view(np.uint8) * np.uint8(255))
        box = (*at, at[0] + covers.width, at[1] + covers.height)
        self.labels.paste(label, box, covers)
        if cloth.zones is not None:
            self.zones.paste(Image.fromarray(cloth.zones), box, covers)


class Painter:
    """Collects shapes given in the units of `to_target` and paints them in one go (`flush`)."""

    def __init__(self, stage: Stage, to_target):
        self.stage = stage
        self.to_target = to_target
        self._strokes: list = []

    def polygon(self, points, colour: RGB, label: int | None = None) -> None:
        self._strokes.append((np.asarray(points, float), colour, label))

    def limb(self, points, widths, colour: RGB, label: int | None = None) -> None:
        """A tube along points [n, 2] with half-widths [n]: dark edge, base, light core."""
        points = np.asarray(points, float)
        steps = points[1:] - points[:-1]
        ways = np.concatenate([steps[:1], steps[1:] + steps[:-1], steps[-1:]])
        ways *= (np.asarray(widths, float) / np.maximum(np.sqrt((ways**2).sum(1)), 1e-6))[:, None]
        across = ways[:, ::-1] * (-1, 1)
        for share, tone in ((1.0, 0.84), (0.74, 1.0), (0.3, 1.06)):
            edge = across * share
            tube = np.concatenate([points + edge, (points - edge)[::-1]])
            self.polygon(tube, scaled(colour, tone), label if share == 1.0 else None)

    def ellipse(self, centre, radii, colour: RGB, label: int | None = None) -> None:
        self.polygon(np.asarray(centre) + _CIRCLE * radii, colour, label)

    def flush(self) -> None:
        if not self._strokes:
            return
        corners = self.to_target(np.concatenate([points for points, _, _ in self._strokes]))
        strokes, at = [], 0
        for points, colour, label in self._strokes:
            strokes.append((corners[at : at + len(points)], colour, label))
            at += len(points)
        self._strokes = []
        self.stage.paint(strokes)


_TURNS = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURNS), np.sin(_TURNS)], -1)
