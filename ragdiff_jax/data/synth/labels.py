"""What a synthetic garment is called: its attributes of Table 6 and the names of its colours."""

from ragdiff_jax.data.synth.colours import colour_name
from ragdiff_jax.data.synth.garment import GarmentSpec, Look, Shape


def spec_attributes(spec: GarmentSpec) -> dict[str, str]:
    """The attributes of Table 6 that the flat-lay shows; all 14, except those that a bottom doesn't have."""
    shape, look = spec.shape, spec.look
    craft = "No Craft"
    if shape.pleats:
        craft = "Pleated"
    elif shape.quilt:
        craft = "Quilted"
    elif shape.rib or shape.fabric == "Knitting":
        craft = "Knit Rib"
    elif shape.fabric == "Denim":
        craft = "Contrast Stitching"
    elif look.print != "Solid Color":
        craft = "Printed"
    attributes = {
        "Category": _table_category(shape),
        "Fit": shape.fit,
        "Collar": shape.collar,
        "Sleeve Length": shape.sleeve,
        "Fabric": shape.fabric,
        "Print": look.print,
        "Surface Texture": craft,
        "Age": "Adult",
        "Gender": shape.gender,
        "Length": shape.length,
        "With Inner Wear": "No",
        "Sleeves Rolled Up": "Yes" if shape.rolled else "No",
        "Top Open": "Yes" if shape.is_open else "No",
        "Top Tuck In": "No",
    }
    return {name: value for name, value in attributes.items() if value}


def _table_category(shape: Shape) -> str:
    """Table 6 is finer than our patterns: it tells jackets and sweaters apart by cloth and cut."""
    if shape.category == "Sweater" and shape.opening == "buttons":
        return "Knitted Cardigan"
    if shape.category != "Jacket":
        return shape.category
    if shape.sleeve == "Sleeveless":
        return "Waistcoat" if shape.collar == "Suit" else "Vest"
    if shape.quilt:
        return "Down Jacket"
    if shape.fabric in ("Denim", "Leather"):
        return f"{shape.fabric} Jacket"
    return "Suit" if shape.collar == "Suit" else "Jacket"


def colour_names(look: Look) -> tuple[str, ...]:
    """The names of the colours that are seen, the base first, none twice."""
    shown = 1 if look.print == "Solid Color" else 2
    return tuple(dict.fromkeys(colour_name(rgb) for rgb in look.colours[:shown]))
