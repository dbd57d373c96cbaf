"""The layout that torch wrote before 1.6, and still writes when asked: LPIPS' and DISTS' public files have it.

Four pickles one after the other (a magic number, the format's version, the machine's sizes, the object), a pickled list
of the storages' keys, and then of each storage its count as int64 and its bytes. The pickles are read by `torch_file`'s
own machine, never by Python's.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
_START = b"\x80\x02\x8a\x0a" + MAGIC.to_bytes(10, "little")
MAX_HEAD_BYTES = 64 * 2**20  # all pickles together

Run = Callable[[Any, dict[str, Any]], Any]  # (a stream, storages to note) -> the value


def is_old(path: Path) -> bool:
    """Whether a file begins as this layout does. Raises OSError."""
    with open(path, "rb") as file:
        return file.read(len(_START)) == _START


def read_old(path: Path, run: Run) -> tuple[Any, Mapping[str, int]]:
    """(the object, where the bytes of each storage begin). `run`: reads one pickle and notes its storages.

    Raises ValueError saying what is wrong.
    """
    size, storages = path.stat().st_size, {}
    with open(path, "rb") as file:
        head = _Limited(file)
        run(head, {})  # the magic number, seen by `is_old`
        if run(head, {}) != VERSION:
            raise ValueError("it has another version of torch's old format; save it again with torch 1.6 or newer")
        machine = run(head, {})
        if not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise ValueError("its numbers are not little endian; save it again on a usual machine")
        value, keys = run(head, storages), run(head, {})
        if not isinstance(keys, list) or set(keys) != set(storages) or len(keys) != len(storages):
            raise ValueError("its list of storages is not that of its tensors; get the file again")
        starts, at = {}, file.tell()
        for key in keys:
            storage = storages[key]
            file.seek(at)
            count = int.from_bytes(file.read(8), "little")
            if count != storage.count:
                raise ValueError(f"storage {key!r} has {count} numbers, not {storage.count}; get the file again")
            starts[key] = at + 8
            at += 8 + count * np.dtype(storage.dtype).itemsize
            if at > size:
                raise ValueError(f"storage {key!r} ends behind the file; get the file again")
    return value, starts


class _Limited:
    """A file of which only so much is read: a hostile pickle could ask for any length."""

    def __init__(self, file: Any):
        self._file = file

    def read(self, count: int) -> bytes:
        if self._file.tell() + count > MAX_HEAD_BYTES:
            raise ValueError(f"its pickles have more than {MAX_HEAD_BYTES} bytes, more than any dictionary of tensors")
        return self._file.read(count)

    def readline(self) -> bytes:
        return self._file.readline(10_000)

    def tell(self) -> int:
        return self._file.tell()
