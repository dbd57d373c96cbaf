"""What a synthetic garment is called: its attributes of Table 6 and the names of its colours."""

from ragdiff_jax.data.synth.colours import colour_name
from ragdiff_jax.data.synth.shape import GarmentSpec, Look, Shape
from ragdiff_jax.data.wording import applies


def spec_attributes(spec: GarmentSpec) -> dict[str, str]:
    """The attributes of Table 6 that the flat-lay shows; all 14, except those that a bottom doesn't have."""
    shape, look = spec.shape, spec.look
    attributes = {
        "Category": shape.category,
        "Fit": shape.fit,
        "Collar": shape.collar,
        "Sleeve Length": shape.sleeve,
        "Fabric": shape.fabric,
        "Print": look.print,
        "Surface Texture": _craft(shape, look),
        "Age": "Adult",
        "Gender": shape.gender,
        "Length": shape.length,
        "With Inner Wear": "Yes" if shape.inner and shape.is_open else "No",
        "Sleeves Rolled Up": "Yes" if shape.rolled else "No",
        "Top Open": "Yes" if shape.is_open else "No",
        "Top Tuck In": "No",
    }
    return {name: value for name, value in attributes.items() if value and applies(shape.category, name)}


def _craft(s: Shape, look: Look) -> str:
    """The one value of Surface Texture that strikes most."""
    sewn = {"peplum": "Ruffle", "ruffle": "Ruffle", "fringe": "Edge Decoration", "scalloped": "Edge Decoration"}
    found = (
        (s.cutouts > 0, "Cutout"),
        (s.quilt > 0, "Quilted"),
        (s.tiers > 0, "Layered"),
        (s.pleats > 0, "Pleated"),
        (s.hem_kind in sewn, sewn.get(s.hem_kind, "")),
        (s.collar in ("Ruffled", "Off-shoulder"), "Ruffle"),
        (s.hem_kind == "tie" or (s.belt and s.category == "Robe"), "Tied"),
        (s.slit > 0, "Slit"),
        (s.rib > 0 or s.fabric == "Knitting", "Knit Rib"),
        (s.fabric == "Denim" and look.variant % 2 == 1, "Washed"),
        (s.fabric == "Denim", "Contrast Stitching"),
        (s.sleeve_shape in ("puff", "bishop") and s.sleeve_length > 0, "Gathered"),
        (look.print == "Color Block" and s.panels != "none", "Spliced"),
        (look.print == "Tie-dye", "Dyed"),
        (look.print not in ("Solid Color", "Color Block"), "Printed"),
    )
    return next((value for seen, value in found if seen), "No Craft")


def colour_names(look: Look) -> tuple[str, ...]:
    """The names of the colours that are seen, the base first, none twice."""
    shown = {"Solid Color": 1, "Mixed": 3}.get(look.print, 2)
    return tuple(dict.fromkeys(colour_name(rgb) for rgb in look.colours[:shown]))
