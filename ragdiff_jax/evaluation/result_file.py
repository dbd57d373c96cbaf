"""results.json and pairs.jsonl: every number with what it needs to be compared, sealed against edits by hand."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ragdiff_jax.data.images import write_atomic
from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation.bootstrap import LEVEL, RESAMPLES, mean_interval
from ragdiff_jax.evaluation.fid import jackknife_error
from ragdiff_jax.evaluation.pair_scores import UPWARDS

SCHEMA = 1
Z = 1.959963984540054  # of the normal distribution's middle 95 %
Sets = Mapping[str, tuple[float, Float[np.ndarray, " g"]]]
FILE, ROWS = "results.json", "pairs.jsonl"
_GROUP = "group"


@dataclasses.dataclass(frozen=True)
class Results:
    """An evaluation: `record` as in results.json, `names` and each metric's values in one order (NaN: none).

    `groups`: a name that structure twins share, one a pair; None: each pair stands alone, as far as is known.
    """

    record: dict[str, Any]
    names: tuple[str, ...]
    columns: dict[str, Float[np.ndarray, " n"]]
    groups: tuple[str, ...] | None = None


def summarise(
    columns: dict[str, Float[np.ndarray, " n"]],
    protocols: Mapping[str, str],
    seed: int,
    sets: Sets,
    pairs: int,
    groups: tuple[str, ...] | None = None,
) -> dict[str, dict[str, Any]]:
    """{metric: value, interval, n, protocol, better}; pairs without a value (no logo) don't count.

    Of a metric of all pairs the interval is a delete-a-group jackknife's, and `without` its values without each group.
    """
    found = {}
    for name, protocol in protocols.items():
        if name in sets:
            value, without = sets[name]
            error = Z * jackknife_error(without)
            found[name] = {
                "value": value,
                "low": value - error,
                "high": value + error,
                "n": pairs,
                "protocol": protocol,
                "better": "higher" if UPWARDS[name] else "lower",
                "without": without.tolist(),
            }
            continue
        if name not in columns:
            continue
        there = ~np.isnan(columns[name])
        values = columns[name][there]
        if not len(values):
            continue
        interval = mean_interval(values, seed=seed, groups=None if groups is None else np.array(groups)[there])
        found[name] = {
            "value": interval.estimate,
            "low": interval.low,
            "high": interval.high,
            "n": len(values),
            "protocol": protocol,
            "better": "higher" if UPWARDS[name] else "lower",
        }
    return found


def write_results(
    out: Path,
    record: dict[str, Any],
    names: tuple[str, ...],
    columns: dict[str, np.ndarray],
    protocols: Mapping[str, str],
    sets: Sets | None = None,
    groups: tuple[str, ...] | None = None,
) -> Results:
    """Writes both files, the rows first; `record` gets metrics, schema and seals. Raises UserError."""
    rows = []
    for row, name in enumerate(names):
        values = {metric: None if np.isnan(column[row]) else float(column[row]) for metric, column in columns.items()}
        group = {} if groups is None else {_GROUP: groups[row]}
        rows.append(json.dumps({"name": name, **group, **values}))
    data = ("\n".join(rows) + "\n").encode()
    metrics = summarise(columns, protocols, record["seeds"]["bootstrap"], sets or {}, len(names), groups)
    record = {"schema": SCHEMA, **record, "metrics": metrics}
    over = "pairs" if groups is None else "groups of structure twins"
    record["bootstrap"] = {"resamples": RESAMPLES, "level": LEVEL, "method": f"percentile, over {over}"}
    record["pairs_sha256"] = hashlib.sha256(data).hexdigest()
    record["seal"] = _seal(record)
    write_atomic(out / ROWS, data)
    write_atomic(out / FILE, json.dumps(record, indent=1).encode())
    return Results(record=record, names=names, columns=dict(columns), groups=groups)


def read_results(path: Path) -> Results:
    """Of a folder or its results.json. Raises `UserError` if a file is missing, broken or was changed by hand."""
    file = path / FILE if path.is_dir() else path
    rows = file.parent / ROWS
    try:
        record, data = json.loads(file.read_bytes()), rows.read_bytes()
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); name an evaluation's folder") from error
    except ValueError as error:
        raise UserError(f"{file}: is no JSON ({error}); evaluate again") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise UserError(f"{file}: not a result file of schema {SCHEMA}; evaluate again with this version")
    if record.get("seal") != _seal(record):
        raise UserError(f"{file}: was changed after it was written; evaluate again")
    if hashlib.sha256(data).hexdigest() != record["pairs_sha256"]:
        raise UserError(f"{rows}: was changed after it was written; evaluate again")
    lines = [json.loads(line) for line in data.decode().split("\n") if line]
    columns = {
        name: np.array([np.nan if line[name] is None else line[name] for line in lines], np.float64)
        for name in lines[0]
        if name not in ("name", _GROUP)
    }
    groups = tuple(line[_GROUP] for line in lines) if _GROUP in lines[0] else None
    return Results(record=record, names=tuple(line["name"] for line in lines), columns=columns, groups=groups)


def _seal(record: dict[str, Any]) -> str:
    """Not a signature: it catches a number changed by hand, not one who recomputes it."""
    rest = {name: value for name, value in record.items() if name != "seal"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
