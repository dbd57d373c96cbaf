"""Tensors one at a time: from a source into arrays on a mesh, and from an iterator into a folder.

Neither way holds more on the host than a tensor a reader beside what it is asked for: the arrays' own shards, or
nothing.
"""

import concurrent.futures
import functools
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.typing import DTypeLike

from ragdiff_jax.errors import UserError
from ragdiff_jax.weights.names import LeafPlan, flatten, plan, require_floats, resolve
from ragdiff_jax.weights.safetensors_io import STEMS, Scratch, reusing_memory, write_file, write_text
from ragdiff_jax.weights.sources import Source

MAX_SHARD_BYTES = 5 * 10**9
READERS = 2  # leaves that are loaded at once; each takes memory for the largest tensor
# diffusers looks for its own file name, transformers (and we) for the plain one.
DIFFUSERS_CLASSES = frozenset({"AutoencoderKL", "UNet2DConditionModel"})

Entries = Mapping[str, tuple[str, tuple[int, ...]]]


def plans_of(abstract_params: Mapping[str, Any]) -> list[LeafPlan]:
    """Where on disk each leaf of a tree lies; boxes of logical axes are taken off."""
    leaves = flatten(nn.meta.unbox(abstract_params))
    return plan({path: tuple(leaf.shape) for path, leaf in leaves.items()})


def disk_shapes(abstract_params: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """{name on disk: shape on disk} of every tensor that a tree is made of."""
    return {name: p.disk_shape for p in plans_of(abstract_params) for name in p.names}


def match(
    source: Source, wanted: Mapping[str, tuple[int, ...]], where: str, allow_surplus: bool = False
) -> dict[str, str]:
    """`names.resolve` of a source, whose matched tensors must be floats. Raises `UserError`."""
    names = resolve(wanted, source.shapes, where, allow_surplus)
    require_floats(source.dtypes, names.values(), where)
    return names


def load_tree(
    source: Source,
    abstract_params: Mapping[str, Any],
    where: str,
    *,
    shardings: Any = None,
    dtype: DTypeLike | None = None,
    allow_surplus: bool = False,
    beside: Mapping[tuple[str, ...], tuple[int, ...]] | None = None,
) -> dict[str, Any]:
    """`folder.load_part` of any source; `where` is what the errors call it.

    `beside`: shapes by path of leaves that are not read but tell how deep a stack is.
    """
    abstract = nn.meta.unbox(abstract_params)
    leaves = flatten(abstract)
    shapes = {path: tuple(leaf.shape) for path, leaf in leaves.items()}
    plans = plan(shapes)
    if beside:
        by_path = {p.path: p for p in plan(dict(beside) | shapes)}
        plans = [by_path[path] for path in leaves]
    names = match(source, {name: p.disk_shape for p in plans for name in p.names}, where, allow_surplus)
    treedef = jax.tree.structure(abstract)
    if shardings is None or isinstance(shardings, jax.sharding.Sharding):
        places = [shardings or jax.sharding.SingleDeviceSharding(_default_device())] * len(plans)
    else:
        places = treedef.flatten_up_to(shardings)
    items = [
        (p, place, np.dtype(dtype or leaf.dtype))
        for p, leaf, place in zip(plans, leaves.values(), places, strict=True)
    ]
    return jax.tree.unflatten(treedef, _load_leaves(source, names, items))


def _load_leaves(source: Source, names: Mapping[str, str], items: Sequence[tuple[LeafPlan, Any, np.dtype]]) -> list:
    """The leaves of `items`, in order. A few at once: one is read while another is laid out anew."""
    arrays: list[Any] = [None] * len(items)
    left = iter(range(len(items)))

    def work() -> None:
        with reusing_memory() as scratch:
            for i in left:  # next() of a range iterator is one step of the interpreter: no leaf is taken twice
                p, place, dtype = items[i]
                arrays[i] = jax.block_until_ready(_load_leaf(source, p, names, place, dtype, scratch))

    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        for done in [pool.submit(work) for _ in range(READERS)]:
            done.result()
    return arrays


def _default_device() -> jax.Device:
    device = jax.config.jax_default_device
    return device if isinstance(device, jax.Device) else jax.local_devices()[0]


def _load_leaf(
    source: Source, p: LeafPlan, names: Mapping[str, str], sharding, dtype: np.dtype, scratch: Scratch
) -> jax.Array:
    shard = functools.partial(_shard, source, p, [names[name] for name in p.names], dtype, scratch)
    return jax.make_array_from_callback(p.shape, sharding, shard)


def _shard(
    source: Source, p: LeafPlan, names: Sequence[str], dtype: np.dtype, scratch: Scratch, index: tuple[slice, ...]
) -> np.ndarray:
    """What a device holds of a leaf; `names` are its tensors, one a layer where it is stacked."""
    index = tuple(slice(*part.indices(size)) for part, size in zip(index, p.shape, strict=True))
    out = _aligned(tuple(part.stop - part.start for part in index), dtype)
    rows = zip(out, names[index[0]], strict=True) if p.stacked else [(out, names[0])]
    within = index[1:] if p.stacked else index
    back = np.argsort(p.axes)  # the axes of the disk, in order, as ours
    for row, name in rows:  # into place: no second copy of the stack
        _lay_out(row, source.read(name, tuple(within[axis] for axis in back)).transpose(p.axes))
        scratch.give_back()
    return out


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that a host's runtime takes over as it lies, without a copy: it asks for 64 bytes."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def _lay_out(out: np.ndarray, view: np.ndarray) -> None:
    """out[...] = view, a few of the last axis at a time: a transposed view is read in pieces that the cache holds."""
    if view.flags.c_contiguous:
        out[...] = view
        return
    for start in range(0, out.shape[-1], 16):
        out[..., start : start + 16] = view[..., start : start + 16]


def cast(array: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """`array` in `dtype`. Raises `UserError` when finite numbers become infinite, which only fp16 is too small for."""
    if array.dtype.name == dtype:
        return array
    with np.errstate(over="ignore"):
        out = array.astype(dtype)
    if dtype == "float16" and not np.isfinite(out).all() and np.isfinite(array).all():
        raise UserError(f"{name}: has numbers beyond float16's range (65504); use --dtype bfloat16")
    return out


def size_of(entries: Entries) -> int:
    """Bytes of the tensors."""
    return sum(_bytes(*entry) for entry in entries.values())


def _bytes(dtype: str, shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize


def write_part(
    folder: str | Path,
    config: Mapping[str, Any],
    entries: Entries,
    tensors: Iterable[np.ndarray],
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes `entries` {name: (dtype, shape)} from arrays that come in their order, then `config.json`.

    Above `max_shard_bytes` the tensors are split over files, with an index. Each file appears whole or not at all.
    Raises `UserError` when `folder` can't be written or the disk is too full.
    """
    folder = Path(folder)
    files = _split(entries, max_shard_bytes)
    stem = STEMS[0] if config.get("_class_name") in DIFFUSERS_CLASSES else STEMS[1]
    arrays = iter(tensors)
    weight_map: dict[str, str] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        require_space(folder, size_of(entries))
        for number, part in enumerate(files, 1):
            name = f"{stem}.safetensors"
            if len(files) > 1:
                name = f"{stem}-{number:05d}-of-{len(files):05d}.safetensors"
            weight_map |= dict.fromkeys(part, name)
            write_file(folder / name, part, (next(arrays) for _ in part))
        _finish(folder, stem, dict(config), weight_map)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error}); choose another") from error


def require_space(folder: Path, needed: int) -> None:
    """Raises `UserError` when the disk that holds `folder` has less than `needed` bytes left."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: needs {needed / 1e9:.2f} GB and the disk has {free / 1e9:.2f} GB left; choose another place"
        )


def _split(entries: Entries, limit: int) -> list[dict[str, tuple[str, tuple[int, ...]]]]:
    files: list[dict[str, tuple[str, tuple[int, ...]]]] = [{}]
    used = 0
    for name, entry in entries.items():
        size = _bytes(*entry)
        if files[-1] and used + size > limit:
            files.append({})
            used = 0
        files[-1][name] = entry
        used += size
    return files


def _finish(folder: Path, stem: str, config: dict[str, Any], weight_map: dict[str, str]) -> None:
    written = set(weight_map.values())
    index = folder / f"{stem}.safetensors.index.json"
    if len(written) > 1:
        size = sum((folder / name).stat().st_size for name in written)
        value = {"metadata": {"total_size": size}, "weight_map": weight_map}
        write_text(index, json.dumps(value, indent=2) + "\n")
        written.add(index.name)
    # Files of an earlier save under another split would be read in place of the new ones.
    stale = re.compile(rf"({'|'.join(STEMS)})(-\d{{5}}-of-\d{{5}})?\.safetensors(\.index\.json)?")
    for path in sorted(folder.iterdir(), reverse=True):  # the index (`model.s`) before its shards (`model-0`)
        if stale.fullmatch(path.name) and path.name not in written:
            path.unlink()
    write_text(folder / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
