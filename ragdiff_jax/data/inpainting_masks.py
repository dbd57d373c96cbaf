"""Which pixels of a person to draw anew for a garment of a category: Fashion-RAG's rules, a box, or the user's file.

    inpaint = dilate(region) and not kept

`region` are the garment's labels, the arms between the joints (a thick line) and the skin below the neck line; `kept`
are hair, face, hands, shoes, accessories and the other garment. The rules and numbers are those of the released code
of LaDI-VTON and Fashion-RAG; lengths are fractions of the picture's height, equal to its pixels at 512x384.

The released code has mistakes that are mended here and come back with `compatible=True`:
  - `lower_body` forgets skirts, so that a skirt itself is never drawn anew;
  - the arms' line runs to the picture's corner when a joint on its way is missing;
  - without shoulders, or with a neck line above the picture, the neck's rows are nonsense;
  - the neck line stands a fixed length over the shoulders, which cuts the face of a small person.
With all joints found and a person of usual size both give the same mask, but for skirts.
"""

import dataclasses
import os

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw

from ragdiff_jax.data.images import decode_mask, image_size, one_line
from ragdiff_jax.data.label_maps import CLASSES, resize_labels
from ragdiff_jax.errors import UserError

CATEGORIES = ("upper_body", "lower_body", "dresses")
MODES = ("mask", "bounding_box")

_KEPT = ("hat", "hair", "sunglasses", "left shoe", "right shoe", "bag", "scarf")
_HANDS = ("left arm", "right arm", "gloves", "skin")
_LEGS = ("left leg", "right leg")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskRule:
    """The rule of one category: labels by name, lengths as fractions of the height.

    `hands`: their part off the arms' line is kept (all of it without keypoints). `bounding_box_dilates`: whether the
    region is dilated before its box is taken.
    """

    region: tuple[str, ...]
    kept: tuple[str, ...] = _KEPT
    head: tuple[str, ...] = ("hat", "hair", "sunglasses", "head")
    hands: tuple[str, ...] = _HANDS
    arms: bool = True
    arm_width: float = 45 / 512
    neck_line: bool = True
    bounding_box_dilates: bool = True


_NECK_OVER_SHOULDERS = 20 / 512
_DILATION = 10 / 512  # 5x5 five times
_CHIN = 0.4  # of the way from nose to neck: nothing above is ever taken for neck

RULES: dict[str, dict[str, MaskRule]] = {
    "dresscode": {
        "upper_body": MaskRule(region=("upper", "neck"), kept=(*_KEPT, "skirt", "pants")),
        "lower_body": MaskRule(
            region=("pants", "skirt", *_LEGS),
            kept=(*_KEPT, "upper", "neck", *_HANDS),
            arms=False,
            neck_line=False,
        ),
        "dresses": MaskRule(region=("dress", "neck", *_LEGS)),
    },
    "vitonhd": {
        "upper_body": MaskRule(
            region=("upper", "dress"),
            kept=("hat", "hair", "left shoe", "right shoe", "pants", "skirt"),
            hands=("left arm", "right arm"),
            arm_width=90 / 512,
            neck_line=False,
            bounding_box_dilates=False,
        ),
    },
}


def mask_rule(category: str, rules: str = "dresscode") -> MaskRule:
    """The rule of a category. Raises `UserError` for rules or a category that don't exist."""
    if rules not in RULES:
        raise UserError(f"mask rules {rules!r} are unknown; use one of {', '.join(RULES)}")
    if category not in RULES[rules]:
        raise UserError(f"category {category!r} has no {rules} mask rule; use one of {', '.join(RULES[rules])}")
    return RULES[rules][category]


def inpainting_mask(
    labels: UInt8[np.ndarray, "h w"],
    category: str,
    keypoints: Float[np.ndarray, "18 3"] | None = None,
    *,
    mode: str = "mask",
    rules: str = "dresscode",
    compatible: bool = False,
) -> Bool[np.ndarray, "h w"]:
    """True where the person is drawn anew.

    Args:
      labels: ids of `label_maps.CLASSES`.
      category: one of CATEGORIES.
      keypoints: (x, y, confidence) in pixels of `labels`. Without them arms, hands and neck stay as they are.
      mode: "mask" follows the shape; "bounding_box" fills its box, but for what is kept (what Fashion-RAG's command
        does whatever it is told).
      rules: "dresscode" for every category, or "vitonhd": wider arms, and the whole head kept.
      compatible: the released code's mistakes too (see the module).
    Raises:
      UserError: an unknown category, mode or rules, or a map that shows nothing of the category.
    """
    if mode not in MODES:
        raise UserError(f"mask mode {mode!r} is unknown; use mask or bounding_box")
    rule = mask_rule(category, rules)
    region, kept = _region_and_kept(labels, rule, keypoints, compatible)
    if mode == "mask" or rule.bounding_box_dilates:
        region = _dilate(region, round(_DILATION * labels.shape[0]))
    mask = region & ~kept
    if not mask.any():
        raise UserError(
            f"the label map shows nothing to change for {category} (no {', '.join(rule.region)}); "
            "choose another category or give a mask"
        )
    if mode == "mask":
        return mask
    top, bottom, left, right = _bounds(mask)
    return _rectangle(labels.shape, top, bottom, left, right) & ~kept


def kept_parts(
    labels: UInt8[np.ndarray, "h w"],
    category: str,
    keypoints: Float[np.ndarray, "18 3"] | None = None,
    *,
    rules: str = "dresscode",
) -> Bool[np.ndarray, "h w"]:
    """True where the person stays as it is whatever the mask's shape: face, hair, hands, shoes, the other garment.
    Arguments and errors as of `inpainting_mask`.
    """
    return _region_and_kept(labels, mask_rule(category, rules), keypoints, False)[1]


def _region_and_kept(labels, rule, keypoints, compatible):
    region, kept, head = _where(labels, rule.region), _where(labels, rule.kept), _where(labels, rule.head)
    if compatible:
        region &= labels != CLASSES["skirt"]
    if keypoints is None:
        return region, kept | head | _where(labels, rule.hands)
    if rule.arms:
        arms = _arms(keypoints, labels.shape, rule.arm_width, compatible)
        region |= arms
        kept |= _where(labels, rule.hands) & ~arms
    if rule.neck_line:
        neck = head & _below_neck_line(keypoints, labels.shape, compatible)
        region |= neck
        head &= ~neck
    return region, kept | head


def _where(labels, names):
    return np.isin(labels, [CLASSES[name] for name in names])


def _arms(keypoints, shape, width, compatible):
    """A thick line along wrist, elbow, shoulder, shoulder, elbow, wrist, as far as they were found."""
    side = {name: [2 + offset, 3 + offset, 4 + offset] for name, offset in (("right", 0), ("left", 3))}
    if compatible:
        # Only wrists are looked at, the left one only if the right one is there, and an elbow only with its wrist.
        lost = (keypoints[:, :2] <= 1).all(1)
        for name, other in (("right", "left"), ("left", "right")):
            if lost[side[name][2]] and len(side[other]) == 3:
                side[name] = side[name][:1] if lost[side[name][1]] else side[name][:2]
    else:
        side = {name: [joint for joint in joints if keypoints[joint, 2] > 0] for name, joints in side.items()}
    line = [*reversed(side["left"]), *side["right"]]
    canvas = Image.new("L", (shape[1], shape[0]))
    points = keypoints[line, :2].astype(np.uint16).ravel().tolist()
    if len(line) > 1:
        ImageDraw.Draw(canvas).line(points, fill=255, width=max(1, int(width * shape[0])), joint="curve")
    return np.array(canvas) > 0


def _below_neck_line(keypoints, shape, compatible):
    """Rows from a little above the line through the shoulders on."""
    (height, width), (nose, neck, right, left) = shape, keypoints[[0, 1, 2, 5]].astype(np.float64)
    if not compatible and min(right[2], left[2]) <= 0:
        return np.zeros(shape, bool)
    ends = np.array([[right[0], 1.0], [left[0], 1.0]])
    slope, start = np.linalg.lstsq(ends, np.array([right[1], left[1]]), rcond=None)[0]
    rows = np.trunc(slope * np.arange(width) + start - _NECK_OVER_SHOULDERS * height)
    if compatible:
        rows = np.where(rows < 0, np.maximum(rows + height, 0), rows)  # a negative index counts from the end
    elif nose[2] > 0 and neck[2] > 0:
        rows = np.maximum(rows, nose[1] + _CHIN * (neck[1] - nose[1]))
    return np.arange(height)[:, None] >= rows


def _dilate(mask, radius):
    from scipy import ndimage

    size = 2 * radius + 1
    return ndimage.maximum_filter(mask.view(np.uint8), size=size, mode="constant").view(bool)


def _bounds(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return rows[0], rows[-1] + 1, columns[0], columns[-1] + 1


def _rectangle(shape, top, bottom, left, right):
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def box_mask(
    box: tuple[int, int, int, int],
    shape: tuple[int, int],
    *,
    keep: Bool[np.ndarray, "h w"] | None = None,
) -> Bool[np.ndarray, "h w"]:
    """The mask of a user's box (left, top, width, height) in pixels of a picture of `shape` (height, width), but for
    `keep` (`kept_parts`). Raises `UserError` for a box that doesn't lie in the picture, and for an empty or full mask.
    """
    left, top, width, height = box
    name = f"box {','.join(map(str, box))}"
    if width < 1 or height < 1 or left < 0 or top < 0 or left + width > shape[1] or top + height > shape[0]:
        raise UserError(
            f"{name}: does not lie in the {shape[1]}x{shape[0]} picture; give X,Y,W,H in its pixels, X,Y the upper left"
        )
    mask = _rectangle(shape, top, top + height, left, left + width)
    return check_mask(mask if keep is None else mask & ~keep, shape, name)


def read_mask(
    path: str | os.PathLike, shape: tuple[int, int], frame: tuple[int, int] | None = None
) -> Bool[np.ndarray, "h w"]:
    """A mask file, white where to draw anew, for a picture of `shape` (height, width). Raises `UserError` for a file
    that is no picture or has another size, and for an empty or full mask.

    `frame`: the size of the picture's file, which the mask's must have, where the picture was read at fewer pixels.
    """
    name = one_line(path)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror}); check the path") from error
    mask = decode_mask(data, name)
    if frame is not None and image_size(data, name) == tuple(frame):
        mask = resize_labels(mask.astype(np.uint8), shape) > 0
    return check_mask(mask, shape, name)


def check_mask(mask: Bool[np.ndarray, "h w"], shape: tuple[int, int], name: str) -> Bool[np.ndarray, "h w"]:
    """The mask itself. Raises `UserError` if it has another size than the picture, or marks nothing or everything."""
    if mask.shape != tuple(shape):
        raise UserError(
            f"{name}: the mask is {mask.shape[1]}x{mask.shape[0]}, the person {shape[1]}x{shape[0]}; "
            "they must have one size"
        )
    if not mask.any():
        raise UserError(f"{name}: marks nothing; make the part to change white")
    if mask.all():
        raise UserError(f"{name}: marks the whole picture; make what must stay black")
    return mask
