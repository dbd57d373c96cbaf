"""The parts of a model folder, or of a folder that is one part: what each is, and the tree that it must hold."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ragdiff_jax.errors import UserError
from ragdiff_jax.models.structure_net import StructureNetConfig
from ragdiff_jax.weights.fashion_folder import FASHION, abstract_fashion, read_fashion
from ragdiff_jax.weights.folder import part_folder, read_config, read_model_json
from ragdiff_jax.weights.kinds import kind_of
from ragdiff_jax.weights.model_folder import SYSTEM, abstract_params, abstract_structure_net, read_model

MODEL_FILE = "model.json"


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A part: its name in the model (empty for a folder of its own), folder, config.json, class."""

    name: str
    folder: Path
    config: Mapping[str, Any]
    called: str


def is_model(folder: Path) -> bool:
    """Whether it is a model folder, not one part."""
    return (folder / MODEL_FILE).is_file()


def parts_of(folder: str | Path, only: tuple[str, ...] = ()) -> list[Part]:
    """The parts of a model folder (all, or those named in `only`), or the one that `folder` itself is.

    Raises `UserError` for a folder that is neither, and for a part that is not there.
    """
    folder = Path(folder)
    if not is_model(folder):
        if only:
            raise UserError(f"{folder}: has no {MODEL_FILE}; parts are named in a model folder")
        config = read_config(folder)
        return [Part("", folder, config, _called(config))]
    file = read_model_json(folder)
    held = file.parts
    if unknown := sorted(set(only) - set(held)):
        raise UserError(f"{folder}: has no part {unknown[0]!r}; it has {', '.join(held)}")
    return [
        Part(name, where, read_config(where), str(called))
        for name, called in held.items()
        if not only or name in only
        for where in [part_folder(folder, file, name)]
    ]


def _called(config: Mapping[str, Any]) -> str:
    architectures = config.get("architectures") or [None]
    return str(config.get("_class_name") or architectures[0] or config.get("model_type") or "unknown")


def abstract_part(part: Part, model: Path) -> Mapping[str, Any]:
    """The boxed abstract parameters of a part of the model folder `model` (or of the part that `model` itself is).

    Raises `UserError` when nothing here knows such a network, or when its config cannot be used.
    """
    system = read_model_json(model).system if is_model(model) else None
    if system == SYSTEM:
        return abstract_params(read_model(model))[part.name]  # ReferenceNet is a U-Net without its end
    if system == FASHION:
        return abstract_fashion(read_fashion(model))[part.name]
    where = str(part.folder / "config.json")
    if part.config.get("_class_name") == "StructureNet":
        return abstract_structure_net(StructureNetConfig.from_dict(part.config))
    kind = kind_of(part.config)
    if kind is None:
        raise UserError(f"{where}: no network here is a {part.called}")
    return kind.abstract(kind.read_config(part.config, where))
