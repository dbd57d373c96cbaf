"""From a config (ml_collections, see configs/) to an objective, its data and its run: the door of `ragdiff train`.

A config has `objective` (the stage's name), `data`, `model`, `train` (TrainSettings' fields) and `mesh` (data, fsdp,
tensor), and may have `lora` (LoRAObjective's fields; rank 0 is none). Below this file there are only explicit fields.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ragdiff_jax.data.pipeline import PairArrays
from ragdiff_jax.data.tokenizer import Tokenizer
from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import make_mesh
from ragdiff_jax.training.loop import TrainResult, train
from ragdiff_jax.training.lora import LoRAObjective
from ragdiff_jax.training.objective import Objective
from ragdiff_jax.training.settings import TrainSettings


class _NoText:
    """Stands in for a tokenizer where a stage reads no text."""

    def encode(self, texts):
        return np.zeros((len(texts), 1), np.int32)


def open_pairs(data: Mapping[str, Any], split: str) -> PairArrays:
    """The pairs of `data.folder` (drawn garments or a folder data set) as arrays of `data.image_size`."""
    from ragdiff_jax.data.folder import open_pairs as open_source

    tokenizer = Tokenizer.from_folder(data["tokenizer"]) if data.get("tokenizer") else _NoText()
    return PairArrays(
        open_source(data["folder"], split),
        image_size=data["image_size"],
        tokenizer=tokenizer,
        cache=data.get("cache", False),
    )


def make_objective(config: Mapping[str, Any]) -> Objective:
    """The objective that `config.objective` names. Raises UserError for a name that isn't one."""
    from ragdiff_jax.training import builders

    build = builders.BUILDERS.get(config["objective"])
    if build is None:
        raise UserError(f"objective {config['objective']!r}: choose one of {', '.join(builders.BUILDERS)}")
    held_out = open_pairs(config["data"], config["data"].get("held_out", "validation"))
    objective = build(config["model"], pairs=open_pairs(config["data"], "train"), held_out=held_out)
    lora = dict(config.get("lora", {}))
    return LoRAObjective(base=objective, **lora) if lora.get("rank") else objective


def run(config: Mapping[str, Any], workdir: str | Path) -> TrainResult:
    """Train what `config` says into `workdir`, or go on with what is there."""
    mesh = make_mesh(**config["mesh"])
    settings = TrainSettings(**config["train"])
    return train(make_objective(config), workdir, settings, mesh=mesh)
