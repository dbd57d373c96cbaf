"""Which of a person's garments a flat-lay replaces: Dress Code's three categories from a garment's attributes."""

from collections.abc import Mapping
from typing import Any

from ragdiff_jax.data.inpainting_masks import CATEGORIES
from ragdiff_jax.data.synth.stage import LABELS, garment_label

_OF_LABEL = {
    LABELS["upper"]: "upper_body",
    LABELS["skirt"]: "lower_body",
    LABELS["pants"]: "lower_body",
    LABELS["dress"]: "dresses",
}


def category_of_garment(name: str) -> str:
    """upper_body, lower_body or dresses for a value of Table 6's Category."""
    return _OF_LABEL[garment_label(name)]


def category_of_item(metadata: Mapping[str, Any]) -> str | None:
    """The category of a memory's item: its own, or what its attributes say; None where neither does."""
    if metadata.get("category") in CATEGORIES:
        return metadata["category"]
    attributes = metadata.get("attributes")
    name = attributes.get("Category") if isinstance(attributes, Mapping) else None
    return category_of_garment(name) if isinstance(name, str) else None
