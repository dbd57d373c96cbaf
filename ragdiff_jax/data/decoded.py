"""Pairs decoded once into plain arrays on the disk: every stage after the first begins at once, on all cores' work.

    DIR/<name>/  photo.npy flat.npy mask.npy photo_mask.npy has_photo_mask.npy
                 photo_attributes.npy flat_attributes.npy partner_row.npy   records.json (ids, captions)

A pair of s pixels takes 8 s^2 bytes. The folder's name has the fingerprint of what it was decoded from, so that a
changed data set is decoded anew; it is written beside its place and renamed, so that it is whole or not there.
"""

import contextlib
import functools
import glob
import hashlib
import json
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import tqdm
from jaxtyping import Int

from ragdiff_jax.data.attributes import ATTRIBUTE_SIZES
from ragdiff_jax.data.person_layout import raise_problems
from ragdiff_jax.data.pipeline import FIELDS, Batch, PairArrays, gathered
from ragdiff_jax.data.processes import map_processes, usable_cores
from ragdiff_jax.data.records import PairSource
from ragdiff_jax.errors import UserError

SCHEMA = 3  # what is in the folder, and how silhouettes are found where there are no masks
_CHUNK = 128  # pairs a process decodes at a time
_TOLD = 20  # damaged pairs after which the rest is not looked at
_OWN = ("photo", "flat", "mask", "photo_mask", "has_photo_mask", "photo_attributes", "flat_attributes")
_ARRAYS = (*_OWN, "partner_row")


class _Captions:
    """In a tokenizer's place: the arrays hold no text, so that they serve any vocabulary."""

    def encode(self, texts):
        return np.zeros((len(texts), 1), np.int32)


class DecodedPairs:
    """The pairs of a decoded folder, read by memory mapping: `PairArrays`' batches without its work."""

    def __init__(self, folder: str | os.PathLike, tokenizer):
        folder = Path(folder)
        try:
            records = json.loads((folder / "records.json").read_text())
            self._arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{folder}: decoded pairs are damaged ({error}); remove the folder") from error
        self.folder, self.ids = folder, records["ids"]
        rows = np.arange(len(self.ids), dtype=np.int32)
        self._arrays |= {
            "text_ids": np.asarray(tokenizer.encode(records["captions"]), np.int32),
            "row": rows,
            "has_partner": self._arrays["partner_row"] != rows,
        }

    def __len__(self) -> int:
        return len(self.ids)

    def arrays(self) -> Batch:
        """Every field of `PairArrays.batch` but the partner's, of all rows."""
        return dict(self._arrays)

    def batch(self, rows: Int[np.ndarray, " b"], fields: Collection[str] = FIELDS) -> Batch:
        """These fields of these rows."""
        return gathered(self._arrays, rows, fields)


def decoded_pairs(
    open_source: Callable[[], PairSource],
    folders: Sequence[str | os.PathLike],
    directory: str | os.PathLike,
    *,
    name: str,
    image_size: int,
    tokenizer,
    processes: int | None = None,
) -> DecodedPairs:
    """The pairs of `open_source()`, decoded into `directory` by several processes if that hasn't been done yet.

    `open_source` is called in each process and must pickle; `folders` are what it reads, whose files' names, sizes and
    times are the fingerprint. Shows a progress bar. Raises `UserError` as `PairArrays` does, and for a directory that
    can't be written.
    """
    mark = fingerprint(folders, SCHEMA)[:12]
    place = Path(directory) / f"{name}-{image_size}px-{mark}"
    if not place.is_dir():
        own = f".{place.name}.{socket.gethostname()}."
        temporary = place.with_name(f"{own}{secrets.token_hex(6)}.tmp")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with _one_at_a_time(place.parent) as alone:
                if not place.is_dir():  # another process may have been first
                    for left in place.parent.glob(f"{glob.escape(own)}*.tmp") if alone else ():
                        shutil.rmtree(left, ignore_errors=True)  # of one that was killed: as large as the data set
                    temporary.mkdir()
                    _decode(open_source, temporary, image_size, processes or usable_cores())
                    os.rename(temporary, place)
        except OSError as error:
            if not place.is_dir():  # or one of another host
                raise UserError(f"{place}: can't be written ({error.strerror}); choose another folder") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return DecodedPairs(place, tokenizer)


@contextlib.contextmanager
def _one_at_a_time(directory: Path) -> Iterator[bool]:
    """Of this host's processes one decodes, with all cores, while the others wait; whether that is sure.

    The lock is the folder's own, so that nothing is left behind; file systems without such locks do without.
    """
    import fcntl

    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def fingerprint(folders: Sequence[str | os.PathLike], schema: int) -> str:
    """SHA-256 over the names, sizes and times of all files in `folders`, of which some may be files, and over what is
    made of them and how (`schema`).
    """
    digest = hashlib.sha256(str(schema).encode())
    for folder in map(Path, folders):
        for path in [folder] if folder.is_file() else sorted(_files_in(folder)):
            status = path.stat()
            digest.update(os.fsencode(path.relative_to(folder)))
            digest.update(f"\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _files_in(folder: Path) -> Iterator[Path]:
    """Those of linked folders too, which data sets on clusters are made of; of a loop each once."""
    seen = set()
    for top, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(top)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        yield from (path for name in names if (path := Path(top, name)).is_file())


def _decode(open_source, folder: Path, size: int, processes: int) -> None:
    count = len(open_source())
    shapes = {
        "photo": ((count, size, size, 3), np.uint8),
        "flat": ((count, size, size, 3), np.uint8),
        "mask": ((count, size, size), np.uint8),
        "photo_mask": ((count, size, size), np.uint8),
        "has_photo_mask": ((count,), np.bool_),
        "photo_attributes": ((count, len(ATTRIBUTE_SIZES)), np.int32),
        "flat_attributes": ((count, len(ATTRIBUTE_SIZES)), np.int32),
        "partner_row": ((count,), np.int32),
    }
    for name, (shape, dtype) in shapes.items():
        _make_array(folder / f"{name}.npy", shape, dtype)
    chunks = [(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    work = functools.partial(_decode_chunk, open_source, folder, size)
    ids: list[str] = []
    captions: list[str] = []
    partners: list[str | None] = []
    problems: list[str] = []
    with tqdm.tqdm(total=count, desc="decoding", unit=" pairs", disable=None) as bar:
        for found in map_processes(work, chunks, min(processes, len(chunks))):
            for place, values in zip((ids, captions, partners, problems), found, strict=True):
                place += values
            bar.update(len(found[0]))
            if len(problems) >= _TOLD:
                break
    raise_problems("pairs that cannot be decoded", problems)
    rows = {id: row for row, id in enumerate(ids)}
    if len(rows) < count:
        raise UserError(f"{count - len(rows)} of {count} pairs have the id of another; ids must differ")
    array = np.lib.format.open_memmap(folder / "partner_row.npy", mode="r+")
    array[:] = [rows.get(partner, row) for row, partner in enumerate(partners)]
    array.flush()
    (folder / "records.json").write_text(json.dumps({"schema": SCHEMA, "ids": ids, "captions": captions}))


_opened: dict = {}  # a process opens its source once


def _decode_chunk(open_source, folder, size, chunk):
    if folder not in _opened:
        _opened.clear()
        _opened[folder] = open_source()
    source = _opened[folder]
    pairs = PairArrays(source, image_size=size, tokenizer=_Captions(), partners=False)
    arrays = {name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="r+") for name in _ARRAYS}
    ids, captions, partners, problems = [], [], [], []
    for row in range(*chunk):
        try:
            record = source[row]
            item = pairs.item(row, record)
        except UserError as error:
            problems.append(str(error))  # the rest is still read, so that more than one is told at a time
            continue
        for name in _OWN:
            arrays[name][row] = item[name]
        ids.append(record.id)
        captions.append(record.caption)
        partners.append(record.structure_partner)
    for array in arrays.values():
        array.flush()
    return ids, captions, partners, problems


def _make_array(path: Path, shape: tuple[int, ...], dtype) -> None:
    """A .npy file to be filled by memory mapping. Its place on the disk is taken now: where it is missing later, the
    process that writes is killed by the system.
    """
    np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape).flush()
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
