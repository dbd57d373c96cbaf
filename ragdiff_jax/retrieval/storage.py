"""Files that are never seen half: hashes, atomic and exclusive creation, checked JSON and record files."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ragdiff_jax.array_records import record_writer
from ragdiff_jax.errors import UserError

TEMPORARY_PREFIX = ".writing-"


def temporary_name() -> str:
    """A name that no reader looks at and no other writer takes."""
    return f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(6)}"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the file system refuses (read-only, full disk) into a `UserError` that names the folder."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"{path}: can't write the memory ({reason}); check permissions and free space"
        ) from error


def sha256(path: Path) -> str:
    """Hex digest of a file. Raises `FileNotFoundError` if it is missing."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Makes a file's content, or a folder's entries, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, content: bytes) -> None:
    """Writes a new file through to the disk; it must not be there yet."""
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def create_exclusively(path: Path, content: bytes) -> None:
    """Creates `path` with its whole content at once. Raises `FileExistsError` if it is there already."""
    temporary = path.parent / temporary_name()
    try:
        write_synced(temporary, content)
        # A link appears with all its content or fails: what a rename would do, but it never replaces.
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            write_synced(path, content)  # no hard links here; a reader passes over JSON that is cut off
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def to_json(value: Any) -> bytes:
    """Canonical JSON, one line. Raises `ValueError` or `TypeError` for what JSON can't hold (NaN too)."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True).encode() + b"\n"


def from_json(content: bytes, path: Path) -> Any:
    """Parses JSON from an untrusted file; raises `UserError` naming it."""
    try:
        return json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON; restore the file or build the memory again") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def write_records(path: Path, records: Sequence[bytes]) -> None:
    """Writes an ArrayRecord file, one record a group, so that any of them is read alone. Raises `OSError`."""
    with record_writer(path) as writer:
        for record in records:
            writer.write(record)
    if not path.exists():
        raise OSError(f"{path}: no file was written")
    sync(path)


def read_records(path: Path, count: int) -> list[bytes]:
    """All records of an ArrayRecord file that must hold `count`.

    Raises `UserError` for a damaged file or another count, `FileNotFoundError` for a missing one.
    """
    return Records(path, count).read()


class Records:
    """An ArrayRecord file that must hold `count` records. It stays open: what it costs to open grows with the file, but
    not what it costs to read a record of it.

    Raises `UserError` for a damaged file or another count, `FileNotFoundError` for a missing one.
    """

    def __init__(self, path: Path, count: int):
        from array_record.python.array_record_module import ArrayRecordReader

        if not path.is_file():
            raise FileNotFoundError(path)
        self._path, self._count, self._lock = path, count, threading.Lock()
        with self._named():
            self._reader = ArrayRecordReader(str(path))
            found = self._reader.num_records() if self._reader.ok() else -1
        if found != count:
            raise UserError(f"{path}: damaged, or not {count} records; restore the file or build the memory again")

    def read(self, indices: Sequence[int] | None = None) -> list[bytes]:
        """The records at `indices`, or all."""
        if self._count == 0:
            return []
        with self._named(), self._lock:
            records = self._reader.read_all() if indices is None else self._reader.read(list(indices))
        if len(records) != (self._count if indices is None else len(indices)):
            raise UserError(f"{self._path}: damaged; restore the file or build the memory again")
        return records

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, IndexError) as error:
            raise UserError(f"{self._path}: damaged; restore the file or build the memory again") from error
