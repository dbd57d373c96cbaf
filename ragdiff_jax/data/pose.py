"""Where a person's joints are: reading them from OpenPose's and Dress Code's JSON, and their heat maps.

Keypoints are 18 rows (x, y, confidence) in COCO's order as OpenPose writes it (`JOINTS`), in pixels of a picture
whose size is given beside them. A joint that wasn't found is (0, 0, 0).
"""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ragdiff_jax.data.images import one_line
from ragdiff_jax.errors import UserError

JOINTS = (
    "nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist",
    "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle",
    "right eye", "left eye", "right ear", "left ear",
)  # fmt: skip

# Row of BODY-25 for each of ours: BODY-25 has the middle of the hips as 8, and six points of the feet at its end.
BODY_25 = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)

SIGMA = 9.0 / 512  # the released code's 9 pixels of a 512 pixel high picture

_SIZES = {54: (18, 3), 75: (25, 3)}  # of "pose_keypoints_2d"
_MAX_BYTES = 4_000_000


def read_keypoints(
    path: str | os.PathLike, image: tuple[int, int], *, frame: tuple[int, int] | None = None, person: int = 0
) -> Float[np.ndarray, "18 3"]:
    """`parse_keypoints` of a file."""
    name = one_line(path)
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror}); check the path") from error
    return parse_keypoints(data, image, frame=frame, person=person, name=name)


def parse_keypoints(
    data: bytes,
    image: tuple[int, int],
    *,
    frame: tuple[int, int] | None = None,
    person: int = 0,
    name: str = "keypoints",
) -> Float[np.ndarray, "18 3"]:
    """Keypoints in pixels of a picture of size `image` (height, width) from the bytes of a JSON file.

    Two layouts are known by their keys: OpenPose's `people[i].pose_keypoints_2d`, flat triples of COCO-18 or
    BODY-25, of which `person` is taken (0: the first, as the released code does); and Dress Code's `keypoints`, 18
    rows (x, y, confidence, index).

    Args:
      frame: size (height, width) of the picture that the file's numbers are pixels of; `image` if None.
    Raises:
      UserError: no JSON, no person, a wrong count, a value that is no finite number, a joint outside the frame,
        shares of the picture where pixels should be.
    """
    try:
        if len(data) > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES:,} bytes")
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{name}: is not JSON ({' '.join(str(error).split())[:80]}); write it again with OpenPose"
        ) from None
    rows = _triples(found, person, name)
    missing = (rows[:, 2] <= 0) | (rows[:, :2] <= 0).all(1)
    height, width = frame or image
    # One pixel of grace: some writers count pixels from 1.
    outside = ~missing & ((rows[:, :2] < -1) | (rows[:, :2] > np.array([width, height]) + 1)).any(1)
    if outside.any():
        joint = int(np.argmax(outside))
        x, y = rows[joint, :2]
        raise UserError(
            f"{name}: the {JOINTS[joint]} at ({x:g}, {y:g}) lies outside the {width}x{height} picture; "
            "give the keypoints of this very picture"
        )
    seen = rows[~missing, :2]
    if len(seen) >= 2 and abs(seen).max() <= 1 and min(width, height) > 16:  # nobody fits into the first pixel
        raise UserError(
            f"{name}: the numbers are shares of the picture, not pixels; run OpenPose with --keypoint_scale 0"
        )
    scale = np.array([image[1] / width, image[0] / height])
    rows[:, :2] = np.clip(rows[:, :2], 0, [width, height]) * scale
    rows[:, 2] = np.minimum(rows[:, 2], 1)
    return np.where(missing[:, None], 0, rows).astype(np.float32)


def _triples(found, person, name) -> np.ndarray:
    """The 18 rows (x, y, confidence) as they stand in the file, float64."""
    advice = "give OpenPose's JSON (COCO-18 or BODY-25) or Dress Code's"
    if not isinstance(found, dict) or not {"people", "keypoints"} & found.keys():
        raise UserError(f"{name}: has neither 'people' nor 'keypoints'; {advice}")
    try:
        if "people" in found:
            people = found["people"]
            if not isinstance(people, list) or not 0 <= person < len(people):
                count = len(people) if isinstance(people, list) else 0
                raise UserError(
                    f"{name}: has {count} people, so no person {person}; use a picture in which OpenPose finds one"
                )
            values = people[person]["pose_keypoints_2d"]
            if not isinstance(values, list) or len(values) not in _SIZES:
                count = len(values) if isinstance(values, list) else "no"
                raise UserError(f"{name}: has {count} numbers in pose_keypoints_2d, not 54 or 75; {advice}")
            rows = _numbers(values).reshape(_SIZES[len(values)])
            return rows[list(BODY_25)] if len(rows) == 25 else rows
        values = found["keypoints"]
        if not isinstance(values, list) or [len(row) for row in values] not in ([4] * 18, [3] * 18):
            raise UserError(f"{name}: has no 18 rows of 3 or 4 numbers in keypoints; {advice}")
        return np.stack([_numbers(row) for row in values])[:, :3]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{name}: is incomplete ({' '.join(str(error).split())[:80]}); {advice}") from None


def _numbers(values) -> np.ndarray:
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        raise ValueError("a value is no number")
    numbers = np.array(values, np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError("a value is not finite")
    return numbers


def pose_maps(
    keypoints: Float[Array, "*b 18 3"] | Float[np.ndarray, "*b 18 3"],
    image: tuple[int, int],
    shape: tuple[int, int] | None = None,
    *,
    sigma: float | None = None,
) -> Float[Array, "*b h w 18"]:
    """A Gaussian heat map in [0, 1] for each joint, zero for one that is missing or outside the picture.

    What the released code of Fashion-RAG gives its U-Net: exp(-d^2 / sigma^2), without a factor 2, over the pixels of
    the picture, divided by its largest pixel, then resized bilinearly (corners not aligned, no antialiasing) to the
    latents. (The squares that the code draws too are only for display.) All of it separates into x and y, so no map of
    the picture's size is made. Differentiable, fit for jit and vmap.

    Args:
      keypoints: (x, y, confidence) in pixels of the picture.
      image: height and width of the picture, static.
      shape: height and width of the maps, static; the picture's own if None.
      sigma: in pixels of the picture; 9 at a height of 512 if None, and in proportion at others.
    """
    keypoints = jnp.asarray(keypoints, jnp.float32)
    (height, width), sigma = image, SIGMA * image[0] if sigma is None else sigma
    rows, columns = shape or image
    x, y, confidence = keypoints[..., 0], keypoints[..., 1], keypoints[..., 2]
    seen = (confidence > 0) & (x >= 0) & (y >= 0) & (x <= width) & (y <= height)
    # A missing joint's coordinates may be anything; they must not reach exp, nor its gradient.
    down = _profile(jnp.where(seen, y, 0.0), height, rows, sigma)
    across = _profile(jnp.where(seen, x, 0.0), width, columns, sigma)
    maps = jnp.einsum("...kh,...kw->...hwk", down, across, precision=jax.lax.Precision.HIGHEST)
    return maps * seen[..., None, None, :]


def _profile(at, size, samples, sigma):
    """One axis of the maps [..., samples]: the Gaussian around `at` [...] on `size` pixels, resized."""
    places = jnp.clip((jnp.arange(samples) + 0.5) * (size / samples) - 0.5, 0, size - 1)
    low = jnp.floor(places)
    share, high = places - low, jnp.minimum(low + 1, size - 1)
    nearest = jnp.clip(jnp.round(at), 0, size - 1)[..., None]  # the largest pixel, 1 after the division

    def pixel(place):
        return jnp.exp(((nearest - at[..., None]) ** 2 - (place - at[..., None]) ** 2) / sigma**2)

    return pixel(low) * (1 - share) + pixel(high) * share
