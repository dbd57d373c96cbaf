"""Ours out: a model folder, or one part, in the layout that diffusers and transformers read; adapters merged in.

Tensors go from file to file one at a time, in the names and layouts that they have on disk: without another dtype and
without adapters every bit stays.
"""

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ragdiff_jax.errors import UserError
from ragdiff_jax.systems.text_retrieval import tower_params
from ragdiff_jax.weights.fashion_folder import FASHION
from ragdiff_jax.weights.folder import ModelFile, part_folder, read_model_json, write_model_json
from ragdiff_jax.weights.importing import appearing
from ragdiff_jax.weights.lora_file import LoRAFile, Merged, open_lora, require_parts
from ragdiff_jax.weights.model_folder import CALIBRATION, TOKENIZERS
from ragdiff_jax.weights.names import FLOATS
from ragdiff_jax.weights.parts import Part, abstract_part, is_model, parts_of
from ragdiff_jax.weights.safetensors_io import open_folder
from ragdiff_jax.weights.sources import Source, renamed, whole
from ragdiff_jax.weights.streaming import (
    MAX_SHARD_BYTES,
    Entries,
    cast,
    disk_shapes,
    match,
    require_space,
    size_of,
    write_part,
)


@dataclasses.dataclass(frozen=True)
class Exported:
    """One part that was written: name (empty if it stands alone), folder, parameters, bytes, adapted modules."""

    part: str
    folder: Path
    parameters: int
    bytes: int
    adapted: int


def export_model(
    folder: str | Path,
    to: str | Path,
    *,
    parts: Sequence[str] = (),
    dtype: str | None = None,
    lora: str | Path | None = None,
    lora_scale: float = 1.0,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Callable[[int], Any] = lambda count: contextlib.nullcontext(lambda: None),
) -> list[Exported]:
    """Writes the model folder (or part) `folder` to `to`, which must not be there yet.

    Args:
      folder: a model folder, or a part's.
      to: complete or, after an error, absent.
      parts: of a model folder; none are all, with its tokenizers and scheduler. With some, `to` is no model folder.
      dtype: of the written tensors; None keeps each one's. A part that memories belong to keeps its own where rounding
        would change a number.
      lora: file or folder of adapters to merge; of PEFT's layout those of the one part that is written, or of `unet`.
      lora_scale: what the adapters' product is multiplied by besides; 0 leaves the base.
      max_shard_bytes: above it a part is split over files.
      progress: given the number of tensors, a context manager of a function to call after each.

    Raises `UserError` for a folder that is no model or part, tensors that don't fit its config, adapters that don't fit
    it, and a place that cannot be written.
    """
    folder = Path(folder)
    if dtype is not None and dtype not in FLOATS:
        raise UserError(f"--dtype {dtype}: choose one of {', '.join(sorted(FLOATS))}")
    chosen = parts_of(folder, tuple(parts))
    alone = chosen[0].name if len(chosen) == 1 else ""
    file = open_lora(lora, alone or "unet") if lora is not None else None
    targets = {part: part.name or "unet" for part in chosen}
    if file is not None:
        if chosen[0].name == "" and len(file.parts) == 1:  # a part that stands alone has no name to go by
            targets = dict.fromkeys(chosen, next(iter(file.parts)))
        require_parts(file, targets.values())
    encoders = _encoders(folder, chosen)
    ready = [
        _prepare(part, folder, dtype, file, targets[part], lora_scale, exact=part.name in encoders) for part in chosen
    ]
    done = []
    with progress(sum(len(entries) for _, entries in ready)) as step, appearing(Path(to)) as partial:
        require_space(partial, sum(size_of(entries) for _, entries in ready))
        for part, (source, entries) in zip(chosen, ready, strict=True):
            write_part(
                partial / part.name,
                part.config,
                entries,
                _arrays(source, entries, step),
                max_shard_bytes=max_shard_bytes,
            )
            _copy_calibration(part.folder, partial / part.name)
            parameters = sum(int(np.prod(shape, dtype=np.int64)) for _, shape in entries.values())
            adapted = len(file.parts.get(targets[part], {})) if file is not None else 0
            done.append(Exported(part.name, Path(to) / part.name, parameters, size_of(entries), adapted))
        if is_model(folder):
            _copy_rest(folder, partial, chosen, whole_model=not parts)
    return done


def _prepare(
    part: Part, model: Path, dtype: str | None, file: LoRAFile | None, target: str, scale: float, exact: bool
) -> tuple[Source, Entries]:
    wanted = disk_shapes(abstract_part(part, model))
    tensors = open_folder(part.folder)
    source: Source = renamed(tensors, match(tensors, wanted, str(part.folder)))
    if file is not None:
        source = Merged(source, file, target, scale)
    if dtype is not None and exact and not _survives(source, wanted, dtype):
        dtype = None
    return source, {name: (dtype or source.dtypes[name], shape) for name, shape in wanted.items()}


def _encoders(folder: Path, parts: Sequence[Part]) -> Collection[str]:
    """The names of those that memories belong to, as they are on disk, to the bit."""
    if is_model(folder) and read_model_json(folder).system == FASHION:
        return tower_params(dict.fromkeys(part.name for part in parts_of(folder)))
    return [part.name for part in parts if part.config.get("_class_name") == "StructureNet"]


def _survives(source: Source, wanted: Mapping[str, tuple[int, ...]], dtype: str) -> bool:
    for name, shape in wanted.items():
        array = source.read(name, whole(shape))
        rounded = cast(array, dtype, name)
        if not np.array_equal(cast(rounded, source.dtypes[name], name), array):
            return False
    return True


def _copy_calibration(part: Path, to: Path) -> None:
    """How sure of an attribute is sure enough, of a part that predicts them."""
    if (part / CALIBRATION).is_file():
        try:
            shutil.copyfile(part / CALIBRATION, to / CALIBRATION)
        except OSError as error:
            raise UserError(f"{to}: cannot be written ({error.strerror or error}); choose another") from error


def _arrays(source: Source, entries: Entries, step: Callable[[], None]) -> Iterator[np.ndarray]:
    for name, (kept, shape) in entries.items():
        yield cast(source.read(name, whole(shape)), kept, name)
        step()


def _copy_rest(model: Path, to: Path, chosen: Sequence[Part], whole_model: bool) -> None:
    """Tokenizers and scheduler; of a whole model `model.json` too, last."""
    try:
        held = read_model_json(model)
        for name in (*TOKENIZERS, "scheduler"):
            if whole_model and (place := part_folder(model, held, name)).is_dir():
                shutil.copytree(place, to / name)
    except OSError as error:
        raise UserError(f"{to}: cannot be written ({error.strerror or error}); choose another") from error
    if whole_model:  # what it shared with a neighbour it now has itself
        write_model_json(to, ModelFile(system=held.system, parts=held.parts, settings=held.settings))
