"""Neighbours of a training set in a memory, found once: a table that says which memory and which encoder it is of.

A photo's own flat-lay is never among its neighbours. The file is a plain .npz without objects; nothing is unpickled.
"""

import dataclasses
import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32

from ragdiff_jax.errors import UserError
from ragdiff_jax.retrieval import storage
from ragdiff_jax.retrieval.index import Searcher
from ragdiff_jax.retrieval.memory import Memory

_CHUNK = 1024  # queries searched at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeighbourTable:
    """`rows` and `cosines` [n,k], nearest first, of the records `ids`; rows are those of the memory's `generation`.

    `manifest`: SHA-256 of that generation's manifest: of which memory it is.
    """

    ids: tuple[str, ...]
    rows: Int32[np.ndarray, "n k"]
    cosines: Float32[np.ndarray, "n k"]
    fingerprint: str
    generation: int
    manifest: str

    def save(self, path: str | Path) -> None:
        """Writes the file, whole or not at all. Raises `UserError` where it can't be written."""
        path = Path(path)
        head = {"fingerprint": self.fingerprint, "generation": self.generation, "manifest": self.manifest}
        head["ids"] = list(self.ids)
        buffer = io.BytesIO()
        np.savez(buffer, rows=self.rows, cosines=self.cosines, head=np.frombuffer(json.dumps(head).encode(), np.uint8))
        temporary = path.with_name(storage.temporary_name())
        with storage.writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                storage.write_synced(temporary, buffer.getvalue())
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)

    @classmethod
    def open(cls, path: str | Path, memory: Memory) -> "NeighbourTable":
        """Reads a table of this memory as it is now.

        Raises `UserError` for a file that is none, or that is of another memory: its rows would be other garments.
        """
        path = Path(path)
        try:
            with np.load(path, allow_pickle=False) as stored:
                rows, cosines, head = stored["rows"], stored["cosines"], json.loads(stored["head"].tobytes())
            table = cls(ids=tuple(head["ids"]), rows=rows, cosines=cosines,
                        **{name: head[name] for name in ("fingerprint", "generation", "manifest")})  # fmt: skip
            whole = rows.dtype == np.int32 and rows.ndim == 2 and cosines.shape == rows.shape
            if not whole or len(rows) != len(table.ids) or rows.min(initial=0) < 0:
                raise ValueError("arrays that are no table")
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file; make it: ragdiff memory neighbours") from error
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: no table of neighbours; make it again: ragdiff memory neighbours") from error
        if table.manifest != memory.manifest.sha256 or rows.max(initial=-1) >= len(memory):
            raise UserError(
                f"{path}: is of another memory than {memory.path}, or of its content before a change (generation "
                f"{table.generation} of encoder {table.fingerprint[:12]}, this is generation {memory.generation} of "
                f"{memory.fingerprint[:12]}); make it again: ragdiff memory neighbours"
            )
        return table


def find_neighbours(
    searcher: Searcher,
    embeddings: Float32[np.ndarray, "n d"],
    ids: Sequence[str],
    row_of: Mapping[str, int],
    k: int,
    step: Callable[[int], None] = lambda count: None,
) -> tuple[Int32[np.ndarray, "n k"], Float32[np.ndarray, "n k"]]:
    """(rows, cosines) of the k nearest to each embedding, its own flat-lay left out.

    `row_of`: the row of each id that the memory has. `step` is told how many are done. Raises `UserError` as the
    searcher does.
    """
    own = np.array([row_of.get(id, -1) for id in ids], np.int32)
    found = []
    for start in range(0, len(embeddings), _CHUNK):
        part = slice(start, start + _CHUNK)
        found.append([np.asarray(x) for x in searcher.search(embeddings[part], k, own[part])])
        step(len(found[-1][0]))
    rows, cosines = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return rows.astype(np.int32), cosines.astype(np.float32)
