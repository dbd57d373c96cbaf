"""Folders of weights: a part (`config.json` + safetensors), a model's `model.json`, fingerprints."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.typing import DTypeLike

from ragdiff_jax.errors import UserError
from ragdiff_jax.weights.names import LeafPlan, flatten, plan, resolve
from ragdiff_jax.weights.safetensors_io import CODES, STEMS, Tensors, open_folder, write_file, write_text

SCHEMA = 1
MAX_SHARD_BYTES = 5 * 10**9
# diffusers looks for its own file name, transformers (and we) for the plain one.
DIFFUSERS_CLASSES = frozenset({"AutoencoderKL", "UNet2DConditionModel"})


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable JSON ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: must hold a JSON object")
    return value


def read_config(folder: str | Path) -> dict[str, Any]:
    """The `config.json` of a part. Raises `UserError` when it is missing or not a JSON object."""
    return _read_json(Path(folder) / "config.json")


def load_part(
    folder: str | Path,
    abstract_params: Mapping[str, Any],
    *,
    shardings: Any = None,
    dtype: DTypeLike | None = None,
    allow_surplus: bool = False,
) -> dict[str, Any]:
    """Reads a part's safetensors into the tree of `abstract_params`, leaf by leaf, each device's slice only.

    Args:
      folder: holds `diffusion_pytorch_model` or `model`, `.safetensors`, or shards with their index.
      abstract_params: shapes and dtypes (`jax.eval_shape` of init); boxes of logical axes are taken off.
      shardings: a tree like the unboxed parameters, or one for all; None is the default device.
      dtype: of the result; None keeps the abstract leaves' own.
      allow_surplus: pass over tensors without a place in the tree (a ReferenceNet started from a U-Net).

    Raises `UserError` for files that are missing, broken or hostile; one lists all missing, surplus and
    mis-shaped tensors.
    """
    folder = Path(folder)
    abstract = nn.meta.unbox(abstract_params)
    leaves = flatten(abstract)
    plans = plan({path: tuple(leaf.shape) for path, leaf in leaves.items()})
    tensors = open_folder(folder)
    names = resolve(
        {name: p.disk_shape for p in plans for name in p.names}, tensors.shapes, str(folder), allow_surplus
    )
    treedef = jax.tree.structure(abstract)
    if shardings is None or isinstance(shardings, jax.sharding.Sharding):
        places = [shardings or jax.sharding.SingleDeviceSharding(_default_device())] * len(plans)
    else:
        places = treedef.flatten_up_to(shardings)
    arrays = [
        _load_leaf(tensors, p, names, place, np.dtype(dtype or leaf.dtype))
        for p, leaf, place in zip(plans, leaves.values(), places, strict=True)
    ]
    return jax.tree.unflatten(treedef, arrays)


def _default_device() -> jax.Device:
    device = jax.config.jax_default_device
    return device if isinstance(device, jax.Device) else jax.local_devices()[0]


def _load_leaf(
    tensors: Tensors, p: LeafPlan, names: Mapping[str, str], sharding, dtype: np.dtype
) -> jax.Array:
    def read(name: str, index: tuple[slice, ...]) -> np.ndarray:
        disk: list[slice] = [slice(None)] * len(index)
        for part, axis in zip(index, p.axes, strict=True):
            disk[axis] = part
        return tensors.read(names[name], tuple(disk)).transpose(p.axes).astype(dtype)

    def shard(index: tuple[slice, ...]) -> np.ndarray:
        index = tuple(slice(*part.indices(size)) for part, size in zip(index, p.shape, strict=True))
        if not p.stacked:
            return read(p.names[0], index)
        layers, index = range(p.shape[0])[index[0]], index[1:]
        out = np.empty((len(layers), *(part.stop - part.start for part in index)), dtype)
        for row, layer in enumerate(layers):  # into place: no second copy of the stack
            out[row] = read(p.names[layer], index)
        return out

    return jax.make_array_from_callback(p.shape, sharding, shard)


def _on_host(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)


def _disk_tensors(leaf: Any, p: LeafPlan, dtype: np.dtype) -> Iterator[np.ndarray]:
    array = _on_host(leaf)
    for part in array if p.stacked else (array,):
        yield part.transpose(np.argsort(p.axes)).astype(dtype)


def save_part(
    folder: str | Path,
    config: Mapping[str, Any],
    params: Mapping[str, Any],
    dtype: DTypeLike | None = None,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes `config.json` and safetensors under torch's names and layouts; the inverse of `load_part`.

    `dtype` (None: each leaf's own) is that of the file. Above `max_shard_bytes` it is split, with an index.
    Each file appears whole or not at all, `config.json` last. Every process must call it, the first writes.
    Raises `UserError` when `folder` can't be written.
    """
    folder = Path(folder)
    leaves = flatten(nn.meta.unbox(params))
    plans = plan({path: tuple(leaf.shape) for path, leaf in leaves.items()})
    dtypes = [np.dtype(dtype or leaf.dtype) for leaf in leaves.values()]
    for p, kind in zip(plans, dtypes, strict=True):
        if kind.name not in CODES:
            raise ValueError(f"{'/'.join(p.path)} is {kind.name}; parameters are one of {', '.join(CODES)}")
    files = _split(plans, dtypes, max_shard_bytes)
    stem = STEMS[0] if config.get("_class_name") in DIFFUSERS_CLASSES else STEMS[1]
    count = len(files)
    writer = jax.process_index() == 0
    tensors = (
        array
        for leaf, p, kind in zip(leaves.values(), plans, dtypes, strict=True)
        for array in _disk_tensors(leaf, p, kind)
    )
    weight_map: dict[str, str] = {}
    try:
        if writer:
            folder.mkdir(parents=True, exist_ok=True)
        for number, entries in enumerate(files, 1):
            name = f"{stem}.safetensors" if count == 1 else f"{stem}-{number:05d}-of-{count:05d}.safetensors"
            weight_map |= dict.fromkeys(entries, name)
            chunk = (next(tensors) for _ in entries)
            if writer:
                write_file(folder / name, entries, chunk)
            else:
                for _ in chunk:  # takes part in gathering the shards
                    pass
        if writer:
            _finish(folder, stem, dict(config), weight_map)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error}); choose another") from error


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


def _split(plans, dtypes, limit: int) -> list[dict[str, tuple[str, tuple[int, ...]]]]:
    files: list[dict[str, tuple[str, tuple[int, ...]]]] = [{}]
    used = 0
    for p, kind in zip(plans, dtypes, strict=True):
        size = int(np.prod(p.disk_shape, dtype=np.int64)) * kind.itemsize
        for name in p.names:
            if files[-1] and used + size > limit:
                files.append({})
                used = 0
            files[-1][name] = (kind.name, p.disk_shape)
            used += size
    return files


def fingerprint(params: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over the tensors (path, dtype, shape, bytes; in path order) and `config` as JSON.

    Floating tensors are hashed as float32: an encoder kept in bfloat16 is one, loaded in either dtype.
    """
    digest = hashlib.sha256(json.dumps(dict(config), sort_keys=True, separators=(",", ":")).encode())
    for path, leaf in sorted(flatten(nn.meta.unbox(params)).items()):
        array = _on_host(leaf)
        if jnp.issubdtype(array.dtype, jnp.floating):
            array = array.astype("<f4")
        digest.update(f"\n{'/'.join(path)} {array.dtype.name} {list(array.shape)}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A model folder's `model.json`: the system, each part's class by folder name, settings for inference."""

    system: str
    parts: Mapping[str, str]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def read_model_json(folder: str | Path) -> ModelFile:
    """Reads `model.json`. Raises `UserError` when it is missing, malformed, or of another schema."""
    path = Path(folder) / "model.json"
    value = _read_json(path)
    if value.get("schema") != SCHEMA:
        raise UserError(f"{path}: schema is {value.get('schema')}, this version reads {SCHEMA}")
    for name, kind in (("system", str), ("parts", dict), ("settings", dict)):
        if not isinstance(value.get(name), kind):
            raise UserError(f"{path}: {name} must be a {'string' if kind is str else 'JSON object'}")
    return ModelFile(system=value["system"], parts=value["parts"], settings=value["settings"])


def write_model_json(folder: str | Path, model: ModelFile) -> None:
    """Writes `model.json` atomically; last, for a folder with one is whole. Raises `UserError`."""
    path = Path(folder) / "model.json"
    value = {
        "schema": SCHEMA,
        "system": model.system,
        "parts": dict(model.parts),
        "settings": dict(model.settings),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(value, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); choose another") from error
