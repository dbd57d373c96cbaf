"""Scores of all pairs of two folders, part by part: what is done stays done, and several processes share the parts."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from ragdiff_jax.data.images import write_atomic
from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation.folder_pairs import FolderPairs
from ragdiff_jax.evaluation.pair_scores import PairScores, without_features
from ragdiff_jax.parallel import barrier

PART = 256  # pairs a part


def run_pairs(
    pairs: FolderPairs,
    scores: PairScores,
    size: int,
    out: Path,
    step: Callable[[int], None] = lambda count: None,
    twins: Sequence[str] | None = None,
) -> tuple[dict[str, Float[np.ndarray, " n"]], dict[str, tuple[float, Float[np.ndarray, " g"]]]]:
    """(every metric's value of every pair in the pairs' order, {metric of all pairs: value, and without each group}).

    Parts that `out/parts` has are not computed again. Processes take turns at the parts and all return the same. `step`
    is called with the number of pairs done; `twins` as in `fid_without_groups`.
    """
    folder = out / "parts" / _key(pairs, scores, size)
    folder.mkdir(parents=True, exist_ok=True)
    parts = [range(start, min(start + PART, len(pairs))) for start in range(0, len(pairs), PART)]
    files = [folder / f"{number:06}.npz" for number in range(len(parts))]
    for number, (rows, file) in enumerate(zip(parts, files, strict=True)):
        if number % jax.process_count() == jax.process_index() and _read(file, len(rows)) is None:
            found = []
            for start in range(rows.start, rows.stop, scores.batch):
                some = range(start, min(start + scores.batch, rows.stop))
                boxes = [pairs.box(row, size) for row in some]
                if scores.masks:
                    (real, silhouettes), (fake, generated) = pairs.read_flats(some, size)
                    found.append(scores(real, fake, boxes, (silhouettes, generated)))
                else:
                    found.append(scores(*pairs.read(some, size), boxes))
                if scores.clip is not None:
                    edits = [pairs.edits.get(pairs.names[row]) for row in some]
                    found[-1] |= scores.clip([pairs.fake[row] for row in some], edits)
                step(len(some))
            _write(file, {name: np.concatenate([part[name] for part in found]) for name in found[0]})
        else:
            step(len(rows))
    barrier(f"pairs scored: {folder.name}")
    done = [part for rows, file in zip(parts, files, strict=True) if (part := _read(file, len(rows))) is not None]
    if len(done) < len(parts):
        raise UserError(
            f"{folder}: {len(parts) - len(done)} of {len(parts)} parts aren't here, which other processes scored; "
            "--out must be one folder that all hosts see"
        )
    columns = {name: np.concatenate([part[name] for part in done]) for name in done[0]}
    columns, sets = without_features(columns, scores.metrics, twins)
    return {name: np.asarray(values, np.float64) for name, values in columns.items()}, sets


def _key(pairs: FolderPairs, scores: PairScores, size: int) -> str:
    """Names a run's parts: other pictures, sizes, boxes or protocols are other parts."""
    what = [pairs.real_hash, pairs.fake_hash, size, scores.protocols, sorted(pairs.boxes.items()), pairs.edits_hash]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def _write(file: Path, columns: dict[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **columns)
    write_atomic(file, buffer.getvalue())


def _read(file: Path, rows: int) -> dict[str, np.ndarray] | None:
    """A part that was finished, or None."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            columns = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    return columns if all(len(column) == rows for column in columns.values()) else None
