"""Two ways to render the same garments: how well a model carries over to another data set can be tested with them."""

import dataclasses

import numpy as np

from ragdiff_jax.data.synth.colours import RGB, as_rgb
from ragdiff_jax.data.synth.shape import Look
from ragdiff_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
    """How light, edges and dyes come out; the silhouette is the same in every style."""

    rim: float  # how much darker the cloth gets towards its edge
    relief: float  # light from the upper left on the cloth's thickness
    creases: float  # sharp folds
    ridges: float  # the crumpled surface of unironed cloth, lit from the upper left
    grain: float
    seams: float  # contrast of stitches, 1 as sewn
    saturation: float
    lift: float  # how far black is from black


STYLES = {
    "drawn": Style(rim=0.2, relief=0.0, creases=1.0, ridges=0.0, grain=1.0, seams=1.0, saturation=1.0, lift=0.0),
    "studio": Style(rim=0.07, relief=0.26, creases=0.25, ridges=1.3, grain=0.6, seams=0.5, saturation=0.78, lift=0.14),
}


def get_style(name: str) -> Style:
    """Raises `UserError` for a style there isn't."""
    if name not in STYLES:
        raise UserError(f"style {name!r} isn't known; use one of {', '.join(STYLES)}")
    return STYLES[name]


def dyed(look: Look, style: Style) -> Look:
    """`look` with its colours as `style` shows them."""
    if style.saturation == 1 and not style.lift:
        return look

    def fade(colour: RGB) -> RGB:
        rgb = np.array(colour, float)
        grey = rgb @ np.array([0.3, 0.59, 0.11])
        rgb = grey + style.saturation * (rgb - grey)
        return as_rgb(rgb + style.lift * (128 - rgb) * (rgb < 128))

    changed = {name: fade(getattr(look, name)) for name in ("trim", "lining", "inner", "hardware")}
    return dataclasses.replace(look, colours=tuple(fade(c) for c in look.colours), **changed)
