"""What happens to a real photo before the model sees it: nothing, a turn, a warp, something in front; and GrabCut."""

import hashlib

import numpy as np
from PIL import Image

from ragdiff_jax.data.images import resize

DEGREES = 25.0
JITTER = 0.10  # of the side: how far a corner moves in the warp
COVERED = (0.15, 0.25)  # share of the photo's area
INSET = 0.08  # of the side: GrabCut's rectangle


def kinds(photo: np.ndarray, other: np.ndarray, name: str, seed: int) -> dict[str, np.ndarray]:
    """The photo in every kind; what is random depends on its name and the seed alone."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    return {
        "plain": photo,
        "rotated": rotated(photo, DEGREES * rng.choice([-1, 1])),
        "warped": warped(photo, rng),
        "covered": covered(photo, other, rng),
    }


def rotated(photo: np.ndarray, degrees: float) -> np.ndarray:
    """Turned about its middle, nothing cut off, the border's pixels repeated around it."""
    height, width, _ = photo.shape
    turn = np.radians(abs(degrees))
    new_width = round(width * np.cos(turn) + height * np.sin(turn))
    new_height = round(height * np.cos(turn) + width * np.sin(turn))
    padded, margin = _edged(photo, 1.0)
    turned = np.asarray(Image.fromarray(padded).rotate(degrees, Image.Resampling.BICUBIC))
    top, left = margin + (height - new_height) // 2, margin + (width - new_width) // 2
    return turned[top : top + new_height, left : left + new_width]


def warped(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mild perspective: each corner moved by up to `JITTER` of the side, outwards or inwards."""
    height, width, _ = photo.shape
    padded, margin = _edged(photo, 0.3)
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    sources = corners + rng.uniform(-JITTER, JITTER, (4, 2)) * [width, height] + margin
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, sources, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    numbers = np.linalg.solve(np.array(rows), np.array(values))
    image = Image.fromarray(padded).transform(
        (width, height), Image.Transform.PERSPECTIVE, tuple(numbers), Image.Resampling.BICUBIC
    )
    return np.asarray(image)


def covered(photo: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A piece of another photo over 15 to 25 % of this one, anywhere in it."""
    height, width, _ = photo.shape
    area, aspect = rng.uniform(*COVERED) * height * width, rng.uniform(0.7, 1.4)
    high = min(height, round(np.sqrt(area * aspect)))
    wide = min(width, round(area / high))
    top, left = rng.integers(0, height - high + 1), rng.integers(0, width - wide + 1)
    scale = max(1.0, high / other.shape[0], wide / other.shape[1])
    if scale > 1:
        other = resize(other, (int(np.ceil(other.shape[0] * scale)), int(np.ceil(other.shape[1] * scale))))
    y, x = rng.integers(0, other.shape[0] - high + 1), rng.integers(0, other.shape[1] - wide + 1)
    result = photo.copy()
    result[top : top + high, left : left + wide] = other[y : y + high, x : x + wide]
    return result


def _edged(photo: np.ndarray, share: float) -> tuple[np.ndarray, int]:
    margin = round(share * max(photo.shape[:2]))
    return np.pad(photo, ((margin, margin), (margin, margin), (0, 0)), mode="edge"), margin


def grabcut(photo: np.ndarray) -> np.ndarray | None:
    """OpenCV's GrabCut from a centred rectangle (Rother 2004), 5 rounds; None where OpenCV is missing."""
    try:
        import cv2
    except ImportError:
        return None
    height, width, _ = photo.shape
    top, left = round(INSET * height), round(INSET * width)
    cv2.setRNGSeed(0)
    labels = np.zeros((height, width), np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    box = (left, top, width - 2 * left, height - 2 * top)
    cv2.grabCut(np.ascontiguousarray(photo[..., ::-1]), labels, box, *models, 5, cv2.GC_INIT_WITH_RECT)
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
