"""What every pixel of a person's picture shows: one table of classes, and the parsers' ids brought to it.

Our ids 0 to 17 are Dress Code's (ATR's 18 labels; left and right are the person's own), so that its maps are taken
as they are; from 18 on are classes that only other sources tell apart.
"""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ragdiff_jax.data.images import decode_indices
from ragdiff_jax.data.synth.stage import LABELS
from ragdiff_jax.errors import UserError

# The drawn people's labels and what only other sources tell apart. Their "left arm" has the hand; their "head" has the
# neck where the source doesn't tell them apart.
CLASSES: dict[str, int] = LABELS | {
    "neck": 19,
    "gloves": 20,
    "socks": 21,
    "skin": 22,  # bare skin of any part: face, arm or leg
}

# LIP's 20 labels in their order; 10 is its jumpsuit.
_LIP = (
    "background", "hat", "hair", "gloves", "sunglasses", "upper", "dress", "upper", "socks", "pants",
    "dress", "scarf", "skirt", "head", "left arm", "right arm", "left leg", "right leg", "left shoe", "right shoe",
)  # fmt: skip

# The 59 labels of Clothing Co-Parsing, which has no sides and one label for all skin; jewellery lies on skin.
_CCP = {
    "upper": (4, 5, 6, 8, 10, 11, 13, 22, 23, 24, 26, 38, 46, 48, 49, 51, 52, 54, 55),
    "dress": (14, 35, 50),
    "pants": (25, 27, 30, 31, 40, 45, 53),
    "skirt": (42,),
    "left shoe": (7, 12, 16, 21, 28, 32, 36, 39, 43, 58),
    "skin": (1, 9, 15, 29, 34, 41, 57),
    "bag": (2, 33, 56),
    "belt": (3,),
    "sunglasses": (17, 47),
    "gloves": (18,),
    "hair": (19,),
    "hat": (20,),
    "scarf": (37,),
    "socks": (44,),
}


def _table(names) -> np.ndarray:
    return np.array([CLASSES[name] for name in names], np.uint8)


# Id in the source's maps (the place) -> our id.
SCHEMES: dict[str, np.ndarray] = {
    "dresscode": np.arange(len(CLASSES), dtype=np.uint8),
    "lip": _table(_LIP),
    "vitonhd": _table([*_LIP[:10], "neck", *_LIP[11:]]),  # 10 is the neck and the skin of the trunk
    "ccp": _table(next((name for name, ids in _CCP.items() if label in ids), "background") for label in range(59)),
}


def convert_labels(
    labels: UInt8[np.ndarray, "h w"], scheme: str = "dresscode", name: str = "label map"
) -> UInt8[np.ndarray, "h w"]:
    """A map in the ids of `scheme` (a key of SCHEMES) as one in ours.

    Raises `UserError` for an unknown scheme and for an id that the scheme doesn't have.
    """
    if scheme not in SCHEMES:
        raise UserError(f"label scheme {scheme!r} is unknown; use one of {', '.join(SCHEMES)}")
    table = SCHEMES[scheme]
    if (top := int(labels.max(initial=0))) >= len(table):
        raise UserError(
            f"{name}: has label {top}, but {scheme} labels are 0 to {len(table) - 1}; name the scheme it was made in"
            f" ({', '.join(SCHEMES)})"
        )
    return table[labels]


def decode_labels(data: bytes, scheme: str = "dresscode", name: str = "label map") -> UInt8[np.ndarray, "h w"]:
    """The bytes of a palette or grey PNG as a map in our ids. Raises `UserError` as `convert_labels`, and for
    another kind of picture.
    """
    return convert_labels(decode_indices(data, name), scheme, name)


def resize_labels(ids: UInt8[np.ndarray, "h w"], size: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2"]:
    """Class numbers at another size (height, width): each pixel has that of its nearest, none is blended."""
    return np.array(Image.fromarray(ids).resize(size[::-1], Image.Resampling.NEAREST))
