"""What weights are read from: names, shapes, dtypes, and slices on demand; and views that rename and rearrange them.

A source is anything with `shapes`, `dtypes` and `read`: safetensors files (`safetensors_io.Tensors`), torch files
(`torch_file.TorchFile`), and a `View` of another source.
"""

import dataclasses
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np

Index = tuple[slice, ...]


@runtime_checkable
class Source(Protocol):
    """Tensors of one checkpoint by name. `dtypes` are numpy's names; what is no float is named as the file has it."""

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]

    def read(self, name: str, index: Index) -> np.ndarray:
        """The part `index` (one slice an axis, without steps) of tensor `name`, in memory of its own."""
        ...


def whole(shape: tuple[int, ...]) -> Index:
    """The index of all of a tensor."""
    return tuple(slice(0, size) for size in shape)


@dataclasses.dataclass(frozen=True)
class Piece:
    """A tensor of another source: all of it, or `rows` (start, stop) of its first axis; then perhaps transposed."""

    name: str
    rows: tuple[int, int] | None = None
    transposed: bool = False


class View:
    """Other names for another source's tensors: {new name: Piece, or several that are stacked on a new first axis}."""

    def __init__(self, source: Source, pieces: Mapping[str, Piece | tuple[Piece, ...]]):
        self._source = source
        self._pieces = dict(pieces)
        self.shapes = {name: self._shape(piece) for name, piece in self._pieces.items()}
        self.dtypes = {
            name: source.dtypes[(piece if isinstance(piece, Piece) else piece[0]).name]
            for name, piece in self._pieces.items()
        }

    def _shape(self, piece: Piece | tuple[Piece, ...]) -> tuple[int, ...]:
        if not isinstance(piece, Piece):
            # A stack of unlike shapes has the first one's; the others are found out by `resolve_pieces`.
            return (len(piece), *self._shape(piece[0]))
        shape = tuple(self._source.shapes[piece.name])
        if piece.rows is not None and shape:
            shape = (piece.rows[1] - piece.rows[0], *shape[1:])
        return shape[::-1] if piece.transposed else shape

    def read(self, name: str, index: Index) -> np.ndarray:
        piece = self._pieces[name]
        if isinstance(piece, Piece):
            return self._read(piece, index)
        chosen = piece[index[0]]
        return np.stack([self._read(one, index[1:]) for one in chosen])

    def _read(self, piece: Piece, index: Index) -> np.ndarray:
        if piece.transposed:
            index = index[::-1]
        if piece.rows is not None and index:
            start = piece.rows[0]
            index = (slice(index[0].start + start, index[0].stop + start), *index[1:])
        out = self._source.read(piece.name, index)
        return out.T if piece.transposed else out


def renamed(source: Source, names: Mapping[str, str]) -> View:
    """A view of the tensors that `names` {new: old} lists."""
    return View(source, {new: Piece(old) for new, old in names.items()})
