"""What made the pictures: hashes of a model's folder and of a memory, for results.json."""

import hashlib
import json
from pathlib import Path

from ragdiff_jax.errors import UserError
from ragdiff_jax.retrieval import Memory
from ragdiff_jax.retrieval.storage import sha256, to_json


def folder_fingerprint(folder: Path) -> str:
    """SHA-256 over the names and contents of a folder's files. Raises `UserError` for an empty or unreadable one."""
    digest, files = hashlib.sha256(), sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise UserError(f"{folder}: holds no files; name the folder of a model")
    for path in files:
        try:
            own = bytes.fromhex(sha256(path))
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); mend its rights") from error
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + own)
    return digest.hexdigest()


def memory_fingerprint(folder: Path) -> str:
    """SHA-256 over what a memory shows a reader but for its thumbnails: its encoder, and each garment's id, vector,
    silhouette and metadata, in order of ids.
    """
    memory = Memory.open(folder)
    digest = hashlib.sha256(json.dumps([memory.manifest.fingerprint, len(memory)]).encode())
    for row in sorted(range(len(memory)), key=lambda row: memory.items[row].id):
        item = memory.items[row]
        digest.update(item.id.encode() + b"\0" + memory.embeddings[row].tobytes())
        digest.update(memory.landmarks.packed([row]).tobytes() + to_json(dict(item.metadata)))
    return digest.hexdigest()
