"""Items for small memories."""

import numpy as np

from ragdiff_jax.retrieval import MemoryItem

DIM, SIZE, FINGERPRINT = 16, (12, 10), "f" * 64


def make_item(i: int, **changes) -> MemoryItem:
    """Item i: its own direction, silhouette and metadata; every third has a thumbnail."""
    rng = np.random.default_rng(i)
    fields = {
        "id": f"garment-{i}",
        "embedding": rng.normal(size=DIM),
        "landmark": (rng.random(SIZE) < 0.5).astype(np.uint8) * 255,
        "metadata": {"number": i, "name": "Größe \u2028"},
        "thumbnail": b"\xff\xd8" + bytes([i % 256]) if i % 3 == 0 else None,
    }
    return MemoryItem(**{**fields, **changes})
