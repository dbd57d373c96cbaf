"""A memory as plain files that any tool reads: `embeddings.npy`, `items.jsonl`, and pictures by id.

    embeddings.npy        float32 [n, D], unit rows
    items.jsonl           {"id", "row", "landmark", "thumbnail", "metadata"} of each row, files relative to the folder
    landmarks/ID.png      1-bit silhouettes
    thumbnails/ID.avif    where a garment has one; .jpg where a JPEG is stored
    memory.json           encoder's fingerprint, generation, landmark size, count

Ids are percent-encoded in file names, so that none leads out of the folder and two never meet.
"""

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import numpy as np

from ragdiff_jax.errors import UserError
from ragdiff_jax.retrieval import storage
from ragdiff_jax.retrieval.items import thumbnail_ending
from ragdiff_jax.retrieval.memory import Memory


def file_name(id: str) -> str:
    """A file name for an id: percent-encoded, and shortened with a hash where the file system would refuse it."""
    name = quote(id, safe=" ()+,=@").replace(".", "%2E")
    return name if len(name) <= 200 else f"{name[:150]}-{hashlib.sha256(id.encode()).hexdigest()[:16]}"


def export_memory(memory: Memory, out: str | Path, step: Callable[[], None] = lambda: None) -> None:
    """Writes all garments into a new folder, whole or not at all; `step` is called after each.

    Raises `UserError` for a folder that is there already or can't be written.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f"{out}: is there already; choose another --out")
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(6)}.tmp")
    try:
        with storage.writing(out.parent):
            for name in ("landmarks", "thumbnails"):
                (temporary / name).mkdir(parents=True)
            np.save(temporary / "embeddings.npy", memory.embeddings, allow_pickle=False)
            lines = []
            for row, item in enumerate(memory.items):
                landmark, thumbnail = f"landmarks/{file_name(item.id)}.png", None
                (temporary / landmark).write_bytes(memory.landmark_png(row))
                picture = memory.thumbnail(row)
                if picture is not None:
                    thumbnail = f"thumbnails/{file_name(item.id)}{thumbnail_ending(picture)}"
                    (temporary / thumbnail).write_bytes(picture)
                line = {"id": item.id, "row": row, "landmark": landmark, "thumbnail": thumbnail}
                lines.append(storage.to_json(line | {"metadata": dict(item.metadata)}))
                step()
            (temporary / "items.jsonl").write_bytes(b"".join(lines))
            info = memory.info()
            about = {name: info[name] for name in ("fingerprint", "generation", "dim", "landmark_size", "count")}
            (temporary / "memory.json").write_bytes(storage.to_json(about))
            os.rename(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
