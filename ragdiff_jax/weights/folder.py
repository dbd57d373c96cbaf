"""Folders of weights: a part (`config.json` + safetensors), a model's `model.json`, fingerprints."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import on_host
from ragdiff_jax.weights.names import LeafPlan, flatten, plan
from ragdiff_jax.weights.safetensors_io import CODES, open_folder, read_json, write_text
from ragdiff_jax.weights.streaming import MAX_SHARD_BYTES, load_tree, write_part

SCHEMA = 1


def read_config(folder: str | Path) -> dict[str, Any]:
    """The `config.json` of a part. Raises `UserError` when it is missing or not a JSON object."""
    return read_json(Path(folder) / "config.json")


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
    return load_tree(
        open_folder(Path(folder)),
        abstract_params,
        str(folder),
        shardings=shardings,
        dtype=dtype,
        allow_surplus=allow_surplus,
    )


def disk_tensors(leaf: Any, p: LeafPlan, dtype: np.dtype) -> Iterator[np.ndarray]:
    """The tensors that a leaf is on disk, in torch's layout; on every process, for it gathers the leaf's shards."""
    array = on_host(leaf)
    for part in array if p.stacked else (array,):
        yield part.transpose(np.argsort(p.axes)).astype(dtype)


def survives(params: Mapping[str, Any], dtype: DTypeLike) -> bool:
    """Whether no number of the tree is another after rounding to `dtype`."""
    return all(bool((leaf.astype(dtype).astype(leaf.dtype) == leaf).all()) for leaf in jax.tree.leaves(params))


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
    leaves = flatten(nn.meta.unbox(params))
    plans = plan({path: tuple(leaf.shape) for path, leaf in leaves.items()})
    dtypes = [np.dtype(dtype or leaf.dtype) for leaf in leaves.values()]
    for p, kind in zip(plans, dtypes, strict=True):
        if kind.name not in CODES:
            raise ValueError(f"{'/'.join(p.path)} is {kind.name}; parameters are one of {', '.join(CODES)}")
    entries = {name: (kind.name, p.disk_shape) for p, kind in zip(plans, dtypes, strict=True) for name in p.names}
    tensors = (
        array
        for leaf, p, kind in zip(leaves.values(), plans, dtypes, strict=True)
        for array in disk_tensors(leaf, p, kind)
    )
    if jax.process_index() == 0:
        write_part(folder, config, entries, tensors, max_shard_bytes=max_shard_bytes)
    else:
        for _ in tensors:  # takes part in gathering the shards
            pass


def fingerprint(params: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over the tensors (path, dtype, shape, bytes; in path order) and `config` as JSON.

    Floating tensors are hashed as float32: an encoder kept in bfloat16 is one, loaded in either dtype.
    """
    digest = hashlib.sha256(json.dumps(dict(config), sort_keys=True, separators=(",", ":")).encode())
    for path, leaf in sorted(flatten(nn.meta.unbox(params)).items()):
        array = on_host(leaf)
        if jnp.issubdtype(array.dtype, jnp.floating):
            array = array.astype("<f4")
        digest.update(f"\n{'/'.join(path)} {array.dtype.name} {list(array.shape)}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A model folder's `model.json`: the system, each part's class by folder name, settings for inference.

    `shared`: parts (and tokenizers) that lie in a folder beside this one, such as {"vae": "../tiny/vae"}.
    """

    system: str
    parts: Mapping[str, str]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shared: Mapping[str, str] = dataclasses.field(default_factory=dict)


COMPUTE_DTYPES = ("float32", "bfloat16")


def compute_dtype(folder: str | Path, file: ModelFile) -> DTypeLike:
    """What the model computes in, by its `model.json`; float32 where that is silent. Raises `UserError` for another."""
    dtype = file.settings.get("dtype", COMPUTE_DTYPES[0])
    if dtype not in COMPUTE_DTYPES:
        raise UserError(f"{Path(folder) / 'model.json'}: dtype is {dtype!r}; use {' or '.join(COMPUTE_DTYPES)}")
    return getattr(jnp, dtype)


def part_folder(folder: str | Path, file: ModelFile, part: str) -> Path:
    """Where a part of the model folder lies: in it, or where `shared` says.

    Raises `UserError` for a place that isn't a part of a folder beside this one.
    """
    if part not in file.shared:
        return Path(folder) / part
    place = file.shared[part]
    pieces = place.split("/")
    if len(pieces) != 3 or pieces[0] != ".." or {"", ".", ".."} & set(pieces[1:]) or "\\" in place:
        raise UserError(f"{Path(folder) / 'model.json'}: shared {part!r} is {place!r}; write ../FOLDER/PART")
    return Path(folder).resolve().parent / pieces[1] / pieces[2]


def read_model_json(folder: str | Path) -> ModelFile:
    """Reads `model.json`. Raises `UserError` when it is missing, malformed, or of another schema."""
    path = Path(folder) / "model.json"
    value = read_json(path)
    if value.get("schema") != SCHEMA:
        raise UserError(f"{path}: schema is {value.get('schema')}, this version reads {SCHEMA}")
    for name, kind in (("system", str), ("parts", dict), ("settings", dict)):
        if not isinstance(value.get(name), kind):
            raise UserError(f"{path}: {name} must be a {'string' if kind is str else 'JSON object'}")
    shared = value.get("shared", {})
    if not isinstance(shared, dict) or not all(isinstance(place, str) for place in shared.values()):
        raise UserError(f"{path}: shared must be an object of part and ../FOLDER/PART")
    return ModelFile(system=value["system"], parts=value["parts"], settings=value["settings"], shared=shared)


def write_model_json(folder: str | Path, model: ModelFile) -> None:
    """Writes `model.json` atomically; last, for a folder with one is whole. Raises `UserError`."""
    path = Path(folder) / "model.json"
    value = {
        "schema": SCHEMA,
        "system": model.system,
        "parts": dict(model.parts),
        "settings": dict(model.settings),
    }
    if model.shared:
        value["shared"] = dict(model.shared)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(value, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); choose another") from error
