"""Which of a garment's attributes a photo shows: judged by the pixels of it that are left in the end."""

import dataclasses

import numpy as np

from ragdiff_jax.data.synth.garment import GarmentSpec
from ragdiff_jax.data.synth.labels import spec_attributes
from ragdiff_jax.data.synth.warp import BODY, COLLAR, CUFF, HEM, SLEEVE, Ready, Wear

# The states of Table 6 that belong to the photo and not to the garment: the flat-lay may differ in them.
STATES = ("Top Tuck In", "With Inner Wear", "Sleeves Rolled Up")
_ENOUGH = 0.3  # of a part's area


@dataclasses.dataclass(frozen=True)
class Worn:
    """How the garment is worn in the photo, as far as the attributes care."""

    on_person: bool = False
    tucked: bool = False
    inner: bool = False


def seen_attributes(spec: GarmentSpec, ready: Ready, wear: Wear, zones: np.ndarray, worn: Worn) -> dict[str, str]:
    """The attributes of Table 6 that can be told from the photo.

    `zones` uint8 [size, size] holds the parts of the garment that are visible, 0 elsewhere. What is cut off or
    covered is left out; a hem that isn't seen makes Length "Uncertain", the value that Table 6 has for it.
    """
    shape, attributes = spec.shape, spec_attributes(spec)
    counts = np.bincount(zones.ravel(), minlength=CUFF + 1)
    unit = wear.place.scale[0] * wear.place.scale[1]  # pixels a square unit
    parts = _areas(ready)
    body = unit * wear.narrow
    if not worn.on_person:
        attributes.pop("Gender", None)
        attributes.pop("Age", None)
    elif shape.collar:
        attributes["Top Tuck In"] = "Yes" if worn.tucked else "No"
    if worn.inner:
        attributes["With Inner Wear"] = "Yes"
    if worn.tucked or counts[HEM] < _ENOUGH * parts["hem"] * body:
        attributes["Length"] = "Uncertain"
    if counts[COLLAR] < _ENOUGH * parts["collar"] * body:
        attributes.pop("Collar", None)
    middle = counts[BODY] + counts[HEM] + counts[COLLAR]
    whole = parts["body"] * body
    if middle < 0.5 * whole:
        attributes.pop("Fit", None)
    if middle < 0.25 * whole:
        for name in ("Top Open", "With Inner Wear", "Top Tuck In", "Surface Texture"):
            attributes.pop(name, None)
    if shape.sleeve_length > 0:
        end = 0.12 * shape.cuff * unit * wear.sleeve_narrow
        if wear.roll is not None:
            attributes["Sleeves Rolled Up"] = "Yes"
        if counts[CUFF] < _ENOUGH * end:
            attributes.pop("Sleeve Length", None)
            attributes.pop("Sleeves Rolled Up", None)
    elif middle + counts[SLEEVE] < 0.4 * whole:
        attributes.pop("Sleeve Length", None)
    return attributes


def _areas(ready: Ready) -> dict[str, float]:
    """The areas of the body, its collar and its hem in the flat-lay, square units."""
    solid, shape, (x, y), unit = ready.solid, ready.shape, ready.at, ready.unit
    hem, collar = int(ready.hem * unit + y), int(max(ready.collar * unit + y, 0)) if shape.collar else 0
    half = (shape.neck_width + 0.06) * unit
    middle = slice(int(max(x - half, 0)), int(x + half) + 1)
    return {
        "body": solid.sum() / unit**2,
        "hem": solid[hem:].sum() / unit**2,
        "collar": solid[:collar, middle].sum() / unit**2,
    }
