"""ArrayRecord files, written so that a full disk is an `OSError` like any other."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from array_record.python.array_record_module import ArrayRecordWriter


@contextlib.contextmanager
def record_writer(path: str | Path) -> "Iterator[ArrayRecordWriter]":
    """A writer of one file, each record of which can be read alone. Raises `OSError` where it can't be written."""
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1")
    try:
        yield writer
    finally:
        try:
            writer.close()
        except RuntimeError as error:  # it buffers, so that what is wrong with the disk is told here
            raise OSError(None, str(error).partition(";")[0]) from error
