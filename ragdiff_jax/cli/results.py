"""Results of a retrieval as the JSON lines and files of the contract."""

from pathlib import Path
from typing import Any

from ragdiff_jax.data.images import encode_mask, write_atomic
from ragdiff_jax.pipelines.generate import Retrieved


def neighbour_records(retrieved: Retrieved) -> list[dict[str, Any]]:
    """`neighbours` of the JSON line, nearest first."""
    rows = zip(retrieved.ids, retrieved.cosines, retrieved.weights, strict=True)
    return [{"id": id, "cosine": round(float(c), 6), "weight": round(float(w), 6)} for id, c, w in rows]


def save_landmark(path: Path, retrieved: Retrieved) -> None:
    """The silhouette used, as a 1-bit PNG. Raises UserError if it cannot be written."""
    write_atomic(path, encode_mask(retrieved.landmark))
