"""What weights are: parameters, dtypes, bytes, and how many bytes of them a device of a mesh will hold."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import AXES, resolve
from ragdiff_jax.weights.checkpoints import open_tensors
from ragdiff_jax.weights.names import FLOATS, IGNORED
from ragdiff_jax.weights.parts import abstract_part, parts_of
from ragdiff_jax.weights.streaming import disk_shapes, match, plans_of


@dataclasses.dataclass(frozen=True)
class PartInfo:
    """One part, or one file.

    Attributes:
      part: its name in the model; empty for what stands alone.
      called: its class, or `file`.
      tensors, parameters: counts; a stack of layers is as many tensors as layers.
      dtypes: parameters of each dtype.
      bytes: of all tensors, as they are on disk.
      device_bytes: of what one device of the mesh holds; None without a mesh.
    """

    part: str
    called: str
    tensors: int
    parameters: int
    dtypes: Mapping[str, int]
    bytes: int
    device_bytes: int | None


def weights_info(
    path: str | Path, *, mesh: Mapping[str, int] | None = None, dtype: str | None = None
) -> list[PartInfo]:
    """What the model folder, part folder or file `path` holds; no tensor is read.

    Args:
      path: a model folder, a part's, or a single safetensors or torch file.
      mesh: sizes of the axes `data`, `fsdp`, `tensor`; such devices need not be here.
      dtype: in which the devices would hold the parameters; None is the file's.

    Raises `UserError` for what is none of these, tensors that don't fit the config, and a mesh for a lone file.
    """
    path = Path(path)
    if path.is_file():
        if mesh is not None:
            raise UserError(f"{path}: how a lone file lies on a mesh isn't known; import it, and name the folder")
        return [_info("", "file", path, None, None)]
    parts = parts_of(path)
    out = []
    for part in parts:
        shards = None
        if mesh is not None:
            shards = _shard_sizes(abstract_part(part, path), mesh, str(part.folder), part.folder)
        out.append(_info(part.name, part.called, part.folder, shards, dtype))
    return out


def _info(name: str, called: str, path: Path, shards: Mapping[str, int] | None, dtype: str | None) -> PartInfo:
    source = open_tensors(path)
    sizes = {
        tensor: int(np.prod(shape, dtype=np.int64))
        for tensor, shape in source.shapes.items()
        if not IGNORED.search(tensor)
    }
    dtypes: Counter[str] = Counter()
    for tensor, size in sizes.items():
        dtypes[source.dtypes[tensor]] += size
    held = None
    if shards is not None:
        held = sum(count * _width(dtype or source.dtypes[tensor]) for tensor, count in shards.items())
    return PartInfo(
        part=name,
        called=called,
        tensors=len(sizes),
        parameters=sum(sizes.values()),
        dtypes=dict(dtypes),
        bytes=sum(size * _width(source.dtypes[tensor]) for tensor, size in sizes.items()),
        device_bytes=held,
    )


def _width(dtype: str) -> int:
    """Bytes of a number; safetensors' own names (I64, F8_E4M3) say it in bits."""
    if dtype in FLOATS or not dtype[:1].isupper():
        return np.dtype(dtype).itemsize
    bits = "".join(c for c in dtype.split("_")[0] if c.isdigit())
    return max(1, int(bits or 8) // 8)


def _shard_sizes(boxed: Mapping[str, Any], mesh: Mapping[str, int], where: str, folder: Path) -> dict[str, int]:
    """{tensor in the file: parameters of it that one device holds}, by the rules that `load` places them by."""
    source = open_tensors(folder)
    names = match(source, disk_shapes(boxed), where)
    sizes = {axis: 1 for axis in AXES} | dict(mesh)
    boxes = jax.tree.leaves(boxed, is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata))
    out = {}
    for p, box in zip(plans_of(boxed), boxes, strict=True):
        parts = 1
        if isinstance(box, nn.meta.AxisMetadata):
            spec = resolve(box.names, p.shape, sizes)
            parts = int(np.prod([sizes[axis] for axis in jax.tree.leaves(tuple(spec))], dtype=np.int64))
        for name in p.names:
            # Divides: `resolve` drops an axis that doesn't. A stack split over its layers counts as a share of each.
            out[names[name]] = int(np.prod(p.disk_shape, dtype=np.int64)) // parts
    return out


def parse_mesh(text: str) -> dict[str, int]:
    """`data=1,fsdp=8` as sizes by axis. Raises `UserError` for other axes and sizes."""
    sizes: dict[str, int] = {}
    for item in text.split(","):
        axis, _, size = item.partition("=")
        if axis not in AXES or axis in sizes or not size.isdecimal() or int(size) < 1:
            raise UserError(f"--mesh {text}: write sizes of {', '.join(AXES)}, such as data=1,fsdp=8")
        sizes[axis] = int(size)
    return sizes


def as_record(info: PartInfo) -> dict[str, Any]:
    """The info as JSON has it."""
    return dataclasses.asdict(info) | {"dtypes": dict(info.dtypes)}
