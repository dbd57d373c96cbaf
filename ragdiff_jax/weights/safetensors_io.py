"""safetensors files: slices out of them, single or sharded, and whole files written in one piece.

Reading is lazy: only the asked-for slices are copied. Whatever is wrong with a file is a `UserError`.
"""

import contextlib
import json
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ragdiff_jax.errors import UserError

STEMS = ("diffusion_pytorch_model", "model")
# The dtypes of parameters. safetensors' numpy reader knows bfloat16 once JAX has registered it.
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
CODES = {name: code for code, name in DTYPES.items()}


_reused = threading.local()


class Scratch:
    """Memory that is handed out piece by piece, taken back all at once, and used again."""

    def __init__(self):
        self._memory, self._asked = np.empty(0, np.uint8), 0

    def take(self, size: int) -> np.ndarray:
        """Bytes to fill; fresh ones where the memory doesn't reach."""
        start, self._asked = self._asked, self._asked + -(-size // 64) * 64
        return self._memory[start : start + size] if self._asked <= len(self._memory) else np.empty(size, np.uint8)

    def give_back(self) -> None:
        """Whatever was taken is needed no more."""
        if self._asked > len(self._memory):
            self._memory = np.empty(0, np.uint8)  # both at once would be too much
            self._memory = np.empty(self._asked, np.uint8)
        self._asked = 0


@contextlib.contextmanager
def reusing_memory() -> Iterator[Scratch]:
    """Within it, what this thread reads lies in memory that is used again: a fresh page costs more than reading it."""
    scratch = _reused.scratch = Scratch()
    try:
        yield scratch
    finally:
        _reused.scratch = None


def _bytes_to_fill(size: int) -> np.ndarray:
    scratch = getattr(_reused, "scratch", None)
    return np.empty(size, np.uint8) if scratch is None else scratch.take(size)


class Tensors:
    """The tensors of one or several files as one namespace, a `Source`; `metadata` is what the headers say."""

    def __init__(self, files: Mapping[Path, list[str] | None]):
        """Opens `files`; a list of names restricts a file to these (the index of a sharded checkpoint)."""
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        self.metadata: dict[str, str] = {}
        self._at: dict[str, tuple[Path, int]] = {}  # the file and the byte where the tensor begins
        for path, names in files.items():
            self._open(path, names)

    def _open(self, path: Path, names: list[str] | None) -> None:
        try:
            file = safe_open(str(path), framework="numpy")
            held = dict.fromkeys(file.keys())
            starts = _starts(path)
            self.metadata |= file.metadata() or {}
            for name in held if names is None else names:
                if name not in held:
                    raise UserError(f"{path}: tensor {name} of the index is missing; get the file again")
                view = file.get_slice(name)
                self.dtypes[name] = DTYPES.get(view.get_dtype(), view.get_dtype())
                self.shapes[name] = tuple(view.get_shape())
                self._at[name] = (path, starts[name])
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file") from error
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: not a whole safetensors file ({_one_line(error)}); get it again") from error

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """The part `index` (one slice an axis, without steps) of tensor `name`.

        Read, not mapped: pages of a mapped file count as the process's memory, and the model would be there twice.
        """
        path, start = self._at[name]
        shape, dtype = self.shapes[name], np.dtype(self.dtypes[name])
        try:
            rows = range(*index[0].indices(shape[0])) if shape else range(1)
            row = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
            raw = _bytes_to_fill(len(rows) * row)
            with path.open("rb", buffering=0) as file:
                file.seek(start + rows.start * row)
                _fill(file, raw)
            array = raw.view(dtype).reshape(len(rows), *shape[1:]) if shape else raw.view(dtype).reshape(())
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: tensor {name} cannot be read ({_one_line(error)})") from error
        rest = index[1:]
        if all(part.indices(size) == (0, size, 1) for part, size in zip(rest, shape[1:], strict=True)):
            return array
        return array[(slice(None), *rest)].copy()


def _fill(file: Any, raw: np.ndarray) -> None:
    """Reads until `raw` is full. Raises OSError for a file that ends before."""
    view, done = memoryview(raw), 0
    while done < len(raw):  # one call reads at most 2 GiB
        got = file.readinto(view[done:])
        if not got:
            raise OSError("the file is shorter than its header says")
        done += got


def _starts(path: Path) -> dict[str, int]:
    """Where each tensor of a file that `safe_open` accepted begins: its header says so, counted from its own end."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {name: 8 + length + entry["data_offsets"][0] for name, entry in header.items() if name != "__metadata__"}


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def open_folder(folder: Path) -> Tensors:
    """The weights in `folder`: `diffusion_pytorch_model` or `model`, `.safetensors` or sharded with an index.

    Raises `UserError` when there are none, or when they are broken.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    for stem in STEMS:
        index = folder / f"{stem}.safetensors.index.json"
        if index.is_file():
            return Tensors(read_index(index))
        file = folder / f"{stem}.safetensors"
        if file.is_file():
            return Tensors({file: None})
    others = sorted(folder.glob("*.safetensors"))
    if len(others) == 1:  # "diffusion_pytorch_model.fp16.safetensors"
        return Tensors({others[0]: None})
    held = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
    raise UserError(f"{folder}: needs {STEMS[0]}.safetensors or {STEMS[1]}.safetensors, holds {held}")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `UserError` when the file is missing or holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable JSON ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: must hold a JSON object")
    return value


def read_index(path: Path) -> dict[Path, list[str]]:
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        files: dict[Path, list[str]] = {}
        for name, file in weight_map.items():
            if Path(file).name != file or file in ("", ".", ".."):
                raise UserError(f"{path}: shard {file!r} must be a file name in the same folder")
            files.setdefault(path.parent / file, []).append(name)
        return files
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: not an index of safetensors shards ({_one_line(error)})") from error


def write_file(
    path: Path,
    entries: Mapping[str, tuple[str, tuple[int, ...]]],
    tensors: Iterable[np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes `path` atomically: `entries` {name: (dtype, shape)}, the arrays in that order, one at a time.

    Only one array needs to be in memory. The header says `format: pt`, which transformers asks for, and `metadata`.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"} | dict(metadata or {})}
    offset = 0
    for name, (dtype, shape) in entries.items():
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        header[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # aligned, as the format asks
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for (name, (dtype, shape)), array in zip(entries.items(), tensors, strict=True):
                if array.shape != tuple(shape) or array.dtype != np.dtype(dtype):
                    raise ValueError(f"{name} is {array.dtype}{array.shape}, announced as {dtype}{shape}")
                file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            _to_disk(file)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _to_disk(file: IO) -> None:
    """Before a rename: a power cut leaves the new name with nothing in it otherwise."""
    file.flush()
    os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Writes a small text file atomically."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            _to_disk(file)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
