"""The clothing attributes of RAGDiffusion's Table 6: names, values, ids and their JSONL file."""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ragdiff_jax.errors import UserError

# Table 6 has no bottoms; Trousers and Shorts are ours. It lists "Floral" twice under Print; here once.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "Category": (
        "T-shirt", "Hoodie", "Shirt", "Polo", "Tank", "Vest", "Swimsuit", "Sweater", "Innerwear",
        "Windbreaker", "Down Jacket", "Jacket", "Suit", "Waistcoat", "Shawl", "Dress", "Skirt",
        "Knitted Coat", "Leather Short Coat", "Leather Long Coat", "Denim Jacket", "Robe", "Loungewear Top",
        "Loungewear Dress", "Sports Jacket", "Knitted Cardigan", "Leather Jacket", "Trousers", "Shorts",
    ),
    "Fit": ("Loose", "Regular", "Slim"),
    "Collar": (
        "Suit", "Shirt", "Notched", "Rounded", "Ruffled", "Naval", "Hooded", "Polo", "V-neck", "Square",
        "Round", "Strapless", "One-shoulder", "Off-shoulder", "Neckline", "Stand-up", "Baseball",
    ),
    "Sleeve Length": ("Sleeveless", "Short", "Mid", "Long", "Extra Long"),
    "Fabric": (
        "Gauze", "Tweed", "Fur", "Chiffon", "Denim", "PVC", "Micro-Suede", "Fleece", "Corduroy", "Knit",
        "Lace", "Synthetic", "Stretch", "Linen", "Wool", "Silk", "Knitting", "Leather", "Velvet",
        "Fur Blend", "Coated", "Mixed", "Special Fabric",
    ),
    "Print": (
        "Floral", "Animal", "Skull", "Character", "Paisley", "Baroque", "Traditional", "Cartoon",
        "Artistic", "Tech", "Hand-painted", "Striped", "Plaid", "Heart", "Polka Dot", "Star", "Tie-dye",
        "Camouflage", "Linear", "Text", "Logo", "Geometric", "Color Block", "Mixed", "3D Floral",
        "Solid Color", "Nature Scene", "Objects",
    ),
    "Surface Texture": (
        "Layered", "Tied", "Slit", "Cutout", "Ruched", "Pleated", "Spliced", "Ruffle", "Contrast Stitching",
        "Quilted", "Gathered", "Applique", "Overlay", "Hand Decorated", "Beaded", "Washed", "Dyed",
        "Distressed", "Frayed", "Printed", "Splatter", "Foil", "Rhinestone", "Flocked", "Embroidered",
        "Edge Decoration", "Embossed", "Punched", "Knit Rib", "No Craft",
    ),
    "Age": ("Adult", "Child"),
    "Gender": ("Female", "Male"),
    "Length": ("Extra Short", "Short", "Medium", "Long", "Extra Long", "Uncertain"),
    "With Inner Wear": ("Yes", "No"),
    "Sleeves Rolled Up": ("Yes", "No"),
    "Top Open": ("Yes", "No"),
    "Top Tuck In": ("Yes", "No"),
}

# The ten that Table 6 marks with *: they enter the structure embedding, in this order.
STRUCTURAL: tuple[str, ...] = (
    "Category", "Fit", "Collar", "Sleeve Length", "Fabric", "Length", "With Inner Wear",
    "Sleeves Rolled Up", "Top Open", "Top Tuck In",
)

# One more than the values: id 0 is "unknown".
ATTRIBUTE_SIZES: tuple[int, ...] = tuple(len(ATTRIBUTES[name]) + 1 for name in STRUCTURAL)


def check_attributes(attributes: object, where: str = "") -> dict[str, str]:
    """Return `attributes` without its empty entries, after holding it against Table 6.

    Args:
      attributes: a mapping name -> value, as it came from a file; a value of None or "" counts as missing.
      where: file and line for the message, e.g. "attributes.jsonl line 3".
    Raises:
      UserError: a name or value that Table 6 doesn't have; the message names it and the nearest valid ones.
    """
    prefix = f"{where}: " if where else ""
    if not isinstance(attributes, Mapping):
        raise UserError(f"{prefix}attributes must be an object of names and values, not {attributes!r}")
    checked = {}
    for name, value in attributes.items():
        if name not in ATTRIBUTES:
            raise UserError(f"{prefix}unknown attribute {name!r}; {_nearest(name, tuple(ATTRIBUTES))}")
        if value is None or value == "":
            continue
        if value not in ATTRIBUTES[name]:
            raise UserError(
                f"{prefix}attribute {name!r} can't be {value!r}; {_nearest(value, ATTRIBUTES[name])}"
            )
        checked[name] = value
    return checked


def attribute_ids(attributes: Mapping[str, str | None], where: str = "") -> np.ndarray:
    """Ids of the ten structural attributes, int32 [10], in Table 6's order; 0 is unknown or missing.

    The other four attributes of Table 6 may be present and are checked, but have no id.
    Raises UserError as `check_attributes` does.
    """
    checked = check_attributes(attributes, where)
    ids = [ATTRIBUTES[name].index(checked[name]) + 1 if name in checked else 0 for name in STRUCTURAL]
    return np.asarray(ids, np.int32)


def read_attributes(path: str | Path) -> dict[str, dict]:
    """Read an attributes file (JSONL): image name -> its whole record, `attributes` checked.

    Each line is `{"image": name, "attributes": {...}, "caption": ..., "annotator": ...}`; the last two may be
    absent. Empty lines are skipped.
    Raises UserError naming file and line: not readable, not JSON, no image name, an image twice, a bad value.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UserError(f"{path}: can't read the attributes file ({reason}); give a JSONL file") from error
    records: dict[str, dict] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"{where}: not JSON ({error}); write one object a line") from error
        if not isinstance(record, dict):
            raise UserError(f"{where}: expected an object with 'image' and 'attributes'")
        name = record.get("image")
        if not isinstance(name, str) or not name:
            raise UserError(f"{where}: 'image' must be the image's file name, got {name!r}")
        if name in records:
            raise UserError(f"{where}: image {name!r} was already described; keep one line an image")
        caption = record.get("caption")
        if caption is not None and not isinstance(caption, str):
            raise UserError(f"{where}: 'caption' must be text, got {caption!r}")
        records[name] = record | {"attributes": check_attributes(record.get("attributes", {}), where)}
    return records


def _nearest(value: object, valid: tuple[str, ...]) -> str:
    text = str(value)
    lower = {choice.lower(): choice for choice in valid}
    close = [lower[match] for match in difflib.get_close_matches(text.lower(), lower, n=3, cutoff=0.5)]
    if close:
        return "did you mean " + " or ".join(repr(choice) for choice in close) + "?"
    return "valid: " + ", ".join(valid)
