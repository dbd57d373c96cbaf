"""How wide a photo shows a garment, for its height: bodies, hangers and the camera's angle make it narrower or wider.

Nothing else in a photo tells by how much, so that whoever sees it can't know the flat-lay's width better than this.
"""

import numpy as np

# The cloth on what it lies, hangs or is worn on, over its width when laid flat.
NARROW = {"laid": (0.88, 1.03), "hung": (0.78, 0.99), "held": (0.78, 0.99), "worn": (0.76, 0.9)}
_LAID = ((0.95, 1.05), (0.92, 1.05))
# The camera: across, along.
SCALES = {"laid": _LAID, "hung": _LAID, "held": _LAID, "worn": ((0.96, 1.04), (0.96, 1.04))}


def draw_widths(rng: np.random.Generator, view: str, count: int) -> np.ndarray:
    """Widths [count] that photos of one of `wild.VIEWS` show, over the flat-lay's, both for the same height."""
    across, along = (rng.uniform(*scale, count) for scale in SCALES[view])
    return rng.uniform(*NARROW[view], count) * across / along
