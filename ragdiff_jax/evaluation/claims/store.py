"""What was measured, kept on the disk under a fingerprint of what went into it; written whole or not at all."""

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from ragdiff_jax.data.images import write_atomic

_SHEET, _GROUPS, _RECORD, _COLUMN = "sheet", "groups", "record", "column "


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """Columns of one number a sample, all of the same samples.

    `groups`: what belongs together in the bootstrap, a name a sample. `facts`: numbers and words for the report;
    `sheet`: pictures to look at, or None.
    """

    columns: Mapping[str, Float[np.ndarray, " n"]]
    groups: Shaped[np.ndarray, " n"]
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sheet: UInt8[np.ndarray, "h w 3"] | None = None

    def column(self, side: str) -> Float[np.ndarray, " n"]:
        """Of `MEASURE:COLUMN`. Raises KeyError for a column that wasn't measured."""
        return self.columns[side.partition(":")[2]]


def key_of(what: Mapping[str, Any]) -> str:
    """A short name for all that decides a measurement's numbers."""
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]


class Store:
    """A folder of measurements."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, name: str, what: Mapping[str, Any]) -> Path:
        return self.folder / f"{name.replace('/', '-')}-{key_of(what)}.npz"

    def read(self, name: str, what: Mapping[str, Any]) -> Measured | None:
        """What is kept, or None; a damaged file counts as none."""
        try:
            with open(self.path(name, what), "rb") as file, np.load(file, allow_pickle=False) as stored:
                parts = {key: stored[key] for key in stored.files}
            record = json.loads(str(parts[_RECORD]))
            columns = {key.removeprefix(_COLUMN): parts[key] for key in parts if key.startswith(_COLUMN)}
            return Measured(
                columns=columns, groups=parts[_GROUPS], facts=record["facts"], sheet=parts.get(_SHEET)
            )
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            return None

    def write(self, name: str, what: Mapping[str, Any], measured: Measured) -> None:
        parts = {_COLUMN + key: np.asarray(values, np.float64) for key, values in measured.columns.items()}
        for key, values in parts.items():
            if not np.isfinite(values).all():
                raise ValueError(f"{name}: {key} has {int((~np.isfinite(values)).sum())} values that aren't finite")
        parts[_GROUPS] = np.asarray(measured.groups, np.str_)
        parts[_RECORD] = np.array(json.dumps({"of": what, "facts": measured.facts}, default=str))
        if measured.sheet is not None:
            parts[_SHEET] = measured.sheet
        stream = io.BytesIO()
        np.savez_compressed(stream, **parts)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path(name, what), stream.getvalue())
