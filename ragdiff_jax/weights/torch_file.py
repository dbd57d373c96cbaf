"""Tensors of a torch file (`torch.save`) without torch and without executing anything.

The layout before torch 1.6 is `old_torch_file`'s. Since then such a file is an uncompressed zip: `NAME/data.pkl`, a
pickle of nested dictionaries, and `NAME/data/KEY`, the bytes of each storage. A pickle is a program. This reader is an
interpreter of its own for the few instructions that a dictionary of tensors needs; it can build dictionaries, lists,
tuples, strings, numbers and descriptions of tensors, and nothing else. A name outside of `_CALLABLE` and `_STORAGES` is
refused before anything is made of it, and those are never imported either: what they stand for is done here.
"""

import dataclasses
import io
import pickletools
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from ragdiff_jax.errors import UserError
from ragdiff_jax.weights.old_torch_file import is_old, read_old
from ragdiff_jax.weights.sources import Index

MAX_PICKLE_BYTES = 64 * 2**20  # the pickle of SDXL's U-Net is 300 kB
MAX_ENTRIES = 100_000
_STORAGES = {
    "FloatStorage": np.dtype("float32"),
    "HalfStorage": np.dtype("float16"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "DoubleStorage": np.dtype("float64"),
    "LongStorage": np.dtype("int64"),
    "IntStorage": np.dtype("int32"),
    "ShortStorage": np.dtype("int16"),
    "CharStorage": np.dtype("int8"),
    "ByteStorage": np.dtype("uint8"),
    "BoolStorage": np.dtype("bool"),
}
_CALLABLE = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor",  # before 0.4
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        "torch Size",
    }
)


class _Global(NamedTuple):
    name: str  # "module attribute", one of the lists above


class _Storage(NamedTuple):
    dtype: np.dtype
    key: str
    count: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Mark:
    """The unpickler's mark on the stack."""


class _Refused(Exception):
    """Why a pickle is not a dictionary of tensors."""


class TorchFile:
    """The tensors of a torch file, a `Source`; names of nested dictionaries are joined by a dot."""

    def __init__(self, path: str | Path):
        """Reads the description of the tensors. Raises `UserError` for another format, damage, and code."""
        self.path = Path(path)
        try:
            if is_old(self.path):
                self._read_old()
            else:
                self._read_archive()
            for name, tensor in self._tensors.items():
                _check_bounds(name, tensor)
        except FileNotFoundError as error:
            raise UserError(f"{self.path}: no such file") from error
        except zipfile.BadZipFile as error:
            raise UserError(
                f"{self.path}: not a whole torch file ({error}); get it again, or save it with torch 1.6 or newer"
            ) from error
        except (_Refused, OSError) as error:
            raise UserError(f"{self.path}: cannot be read: {error}") from error
        except (NotImplementedError, EOFError, RuntimeError, TypeError, zlib.error) as error:  # of a damaged archive
            raise UserError(f"{self.path}: damaged ({error}); get it again") from error
        self.shapes: dict[str, tuple[int, ...]] = {name: tensor.shape for name, tensor in self._tensors.items()}
        self.dtypes: dict[str, str] = {name: tensor.storage.dtype.name for name, tensor in self._tensors.items()}

    def _read_old(self) -> None:
        try:
            value, self._starts = read_old(self.path, _run)
        except ValueError as error:
            raise _Refused(str(error)) from error
        self._tensors = dict(_flatten(value))

    def _read_archive(self) -> None:
        with zipfile.ZipFile(self.path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            root = self._root(members)
            if root is None:
                raise _Refused("it has no data.pkl; save it again with torch.save of torch 1.6 or newer")
            self._check(archive, members, root)
            info = members[f"{root}/data.pkl"]
            if info.file_size > MAX_PICKLE_BYTES:
                raise _Refused(f"its data.pkl has {info.file_size} bytes, more than any dictionary of tensors")
            value = _run(io.BytesIO(archive.read(info)), {})
            self._tensors = dict(_flatten(value))
            self._starts = {
                tensor.storage.key: self._start(archive, members, root, tensor.storage)
                for tensor in self._tensors.values()
            }

    def _root(self, members: Mapping[str, zipfile.ZipInfo]) -> str | None:
        found = [name.removesuffix("/data.pkl") for name in members if name.count("/") == 1]
        return next((root for root in found if f"{root}/data.pkl" in members), None)

    def _check(self, archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], root: str) -> None:
        if any(name.startswith(f"{root}/code/") for name in members):
            raise _Refused("it is a TorchScript program; save its state_dict() instead")
        if any(info.flag_bits & 1 for info in members.values()):
            raise _Refused("it is encrypted")
        order = members.get(f"{root}/byteorder")
        if order is not None and (order.file_size > 16 or archive.read(order) != b"little"):
            raise _Refused("its numbers are not little endian; save it again on a usual machine")

    def _start(self, archive: zipfile.ZipFile, members, root: str, storage: _Storage) -> int:
        """Where the bytes of a storage begin in the file."""
        info = members.get(f"{root}/data/{storage.key}")
        if info is None:
            raise _Refused(f"the data of storage {storage.key!r} is missing; get the file again")
        if info.compress_type != zipfile.ZIP_STORED:
            raise _Refused("its data is compressed, which torch.save never does")
        if info.file_size < storage.count * storage.dtype.itemsize:
            raise _Refused(f"storage {storage.key!r} has {info.file_size} bytes, too few; get the file again")
        file = archive.fp
        file.seek(info.header_offset)
        header = file.read(30)  # the local header: its name and extra field may differ from the directory's
        if len(header) != 30 or header[:4] != b"PK\x03\x04":
            raise _Refused(f"storage {storage.key!r} has no header; get the file again")
        start = info.header_offset + 30 + int.from_bytes(header[26:28], "little")
        start += int.from_bytes(header[28:30], "little")
        if start + info.file_size > self.path.stat().st_size:
            raise _Refused(f"storage {storage.key!r} ends behind the file; get the file again")
        return start

    def read(self, name: str, index: Index) -> np.ndarray:
        """See `Source`."""
        tensor = self._tensors[name]
        storage = tensor.storage
        if 0 in tensor.shape:
            return np.empty(tensor.shape, storage.dtype)[index]
        try:
            data = np.memmap(
                self.path, np.uint8, "r", self._starts[storage.key], storage.count * storage.dtype.itemsize
            )
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path}: tensor {name} cannot be read ({error})") from error
        # Bounds were checked when the file was opened.
        view = np.ndarray(
            tensor.shape,
            storage.dtype,
            buffer=data,
            offset=tensor.offset * storage.dtype.itemsize,
            strides=tuple(step * storage.dtype.itemsize for step in tensor.strides),
        )
        return np.array(view[index], order="C")


def _check_bounds(name: str, tensor: _Tensor) -> None:
    sizes = (*tensor.shape, *tensor.strides, tensor.offset)
    if any(type(size) is not int or size < 0 for size in sizes) or len(tensor.shape) != len(tensor.strides):
        raise _Refused(f"tensor {name} has a layout that cannot be: {tensor.shape}, {tensor.strides}")
    if 0 in tensor.shape:
        return
    last = tensor.offset + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.strides, strict=True))
    if last >= tensor.storage.count:
        raise _Refused(f"tensor {name} reaches behind its storage; get the file again")
    if np.prod(tensor.shape, dtype=float) > tensor.storage.count:
        raise _Refused(f"tensor {name} repeats its storage; save a contiguous copy of it")


def _flatten(value: Any) -> list[tuple[str, _Tensor]]:
    """All tensors of nested dictionaries; other things in them (a step, an epoch) are passed over."""
    if not isinstance(value, dict):
        raise _Refused("it holds no dictionary of tensors; save a state_dict()")
    out: list[tuple[str, _Tensor]] = []
    waiting, seen = [("", value)], 0
    while waiting:  # a dictionary may hold itself, or another one a thousand times
        prefix, inner = waiting.pop()
        seen += len(inner)
        if seen > MAX_ENTRIES or len(prefix) > 10_000:
            raise _Refused(f"its dictionaries have more than {MAX_ENTRIES} entries")
        for key, entry in inner.items():
            if isinstance(entry, _Tensor):
                out.append((f"{prefix}{key}", entry))
            elif isinstance(entry, dict):
                waiting.append((f"{prefix}{key}.", entry))
    return out


def _global(module: str, name: str) -> _Global:
    found = f"{module} {name}"
    if found in _CALLABLE or (module == "torch" and name in _STORAGES):
        return _Global(found)
    raise _Refused(f"it holds code or objects ({module}.{name}), only plain tensors are read; save a state_dict()")


def _storage(persistent: Any) -> _Storage:
    kind, of, key, _, count, *view = persistent
    if view not in ([], [None]):
        raise _Refused("one of its storages is a part of another; save it again with torch 1.6 or newer")
    name = of.name.removeprefix("torch ")
    if kind != "storage" or not isinstance(key, str) or type(count) is not int or count < 0:
        raise _Refused(f"its storage {key!r} is described wrongly")
    return _Storage(_STORAGES[name], key, count)


def _call(function: Any, arguments: Any) -> Any:
    if not isinstance(function, _Global) or not isinstance(arguments, tuple):
        raise _Refused("it calls something that is no function")
    match function.name:
        case "collections OrderedDict":
            if arguments and len(arguments[0]) > MAX_ENTRIES:
                raise _Refused(f"its dictionaries have more than {MAX_ENTRIES} entries")
            return dict(arguments[0]) if arguments else {}
        case "torch Size":
            return _sizes(arguments[0])
        case "torch._utils _rebuild_parameter":
            if not isinstance(arguments[0], _Tensor):
                raise _Refused("one of its parameters is no tensor")
            return arguments[0]
        case "torch._utils _rebuild_tensor" | "torch._utils _rebuild_tensor_v2":
            storage, offset, shape, strides = arguments[:4]
            if not isinstance(storage, _Storage):
                raise _Refused("one of its tensors has no storage")
            return _Tensor(storage, offset, _sizes(shape), _sizes(strides))
        case other:
            raise _Refused(f"it calls {other}")


def _sizes(numbers: Any) -> tuple:
    """A shape or strides: a pickle of six bytes may name a list again that has millions."""
    if len(numbers) > 64:
        raise _Refused("one of its shapes has more than 64 axes")
    return tuple(numbers)


def _run(data: Any, storages: dict[str, _Storage]) -> Any:
    """The value that a pickle describes, by the instructions below and no others; its storages go to `storages`."""
    try:
        return _Machine(storages).run(data)
    except _Refused:
        raise
    except Exception as error:  # whatever a malformed program trips over
        raise _Refused(f"its pickle is damaged ({type(error).__name__}: {error})") from error


class _Machine:
    """A pickle machine: a stack, a memo, and one method of a few lines for each group of instructions."""

    def __init__(self, storages: dict[str, _Storage]):
        self.storages = storages
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: Any) -> Any:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return self.stack.pop()
            self.step(opcode.name, argument)
        raise _Refused("its data.pkl has no end")

    def to_mark(self) -> list[Any]:
        items: list[Any] = []
        while not isinstance(top := self.stack.pop(), _Mark):
            items.append(top)
        return items[::-1]

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8" | "BINSTRING" | "SHORT_BINSTRING":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "MARK":
                stack.append(_Mark())
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
            case "TUPLE":
                stack.append(tuple(self.to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND":
                item = stack.pop()
                _of(list, stack[-1]).append(item)
            case "APPENDS":
                items = self.to_mark()
                _of(list, stack[-1]).extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _of(dict, stack[-1])[key] = value
            case "SETITEMS":
                items = self.to_mark()
                _of(dict, stack[-1]).update(zip(items[::2], items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                self.memo[len(self.memo) if name == "MEMOIZE" else argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL":
                stack.append(_global(*argument.split(" ")))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(_global(module, attribute))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
                self.storages[stack[-1].key] = stack[-1]
            case "REDUCE":
                arguments = stack.pop()
                stack.append(_call(stack.pop(), arguments))
            case "BUILD":
                # A state_dict's `_metadata`: attributes of the dictionary, which say nothing of the tensors.
                stack.pop()
                _of(dict, stack[-1])
            case _:
                raise _Refused(f"its data.pkl has the instruction {name}, which no dictionary of tensors needs")


def _of(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise _Refused(f"its data.pkl puts something into a {type(value).__name__}")
    return value
