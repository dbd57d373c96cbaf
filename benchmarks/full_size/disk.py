"""A folder's files out of the page cache, and how fast the disk gives them back."""

import os
import time
from pathlib import Path

CHUNK = 1 << 24


def forget(folder: Path) -> None:
    """Takes a folder's files out of the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_speed(folder: Path) -> float:
    """MB/s of reading a folder's weights in sequence, cold."""
    forget(folder)
    buffer, total, started = bytearray(CHUNK), 0, time.perf_counter()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb", buffering=0) as file:
            while got := file.readinto(buffer):
                total += got
    return total / 1e6 / (time.perf_counter() - started)
