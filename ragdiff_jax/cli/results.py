"""Results of a retrieval as the JSON lines and files of the contract."""

from pathlib import Path
from typing import Any

from ragdiff_jax.cli.errors import Report
from ragdiff_jax.data.images import encode_mask, write_atomic
from ragdiff_jax.pipelines.retrieved import Retrieved


def retrieval_record(retrieved: Retrieved) -> dict[str, Any]:
    """What `generate` and `retrieve` say of a retrieval, beside the files; neighbours nearest first."""
    rows = zip(retrieved.ids, retrieved.cosines, retrieved.weights, strict=True)
    sources = set(retrieved.attribute_sources.values())
    return {
        "neighbours": [{"id": id, "cosine": round(float(c), 6), "weight": round(float(w), 6)} for id, c, w in rows],
        "landmark_source": retrieved.landmark_source,
        "landmark_id": retrieved.landmark_id,
        "alternatives": [
            {"id": one.id, "chance": None if one.chance is None else round(one.chance, 4)}
            for one in retrieved.alternatives
        ],
        "attributes": dict(retrieved.attributes),
        "attributes_source": sources.pop() if len(sources) == 1 else dict(retrieved.attribute_sources),
        "warnings": list(retrieved.warnings),
    }


def say_doubts(report: Report, input: Path, retrieved: Retrieved) -> None:
    """One line on stderr for an input with warnings."""
    if retrieved.warnings:
        report.note(f"ragdiff: {input}: doubtful: {'; '.join(retrieved.warnings)}")


def save_landmark(path: Path, retrieved: Retrieved) -> None:
    """The silhouette used, as a 1-bit PNG. Raises UserError if it cannot be written."""
    write_atomic(path, encode_mask(retrieved.landmark))
