"""From a config (ml_collections, see configs/) to an objective, its data and its run: the door of `ragdiff train`.

A config has `objective` (the stage's name), `data`, `model`, `train` (TrainSettings' fields) and `mesh` (data, fsdp,
tensor), and may have `lora` (LoRAObjective's fields; rank 0 is none). Below this file there are only explicit fields.
"""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ragdiff_jax.data.decoded import DecodedPairs, decoded_pairs
from ragdiff_jax.data.folder import FolderPairs
from ragdiff_jax.data.pipeline import PairArrays
from ragdiff_jax.data.sources import SomePairs, flat_attribute_ids, open_sources, repeated_rows, rows_of_categories
from ragdiff_jax.data.tokenizer import Tokenizer
from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import barrier, ending_as_one, make_mesh, same_everywhere
from ragdiff_jax.systems.ragdiffusion import RAGDiffusion
from ragdiff_jax.training.encoded import EncodedObjective
from ragdiff_jax.training.loop import TrainResult, train
from ragdiff_jax.training.lora import LoRAObjective
from ragdiff_jax.training.objective import Objective
from ragdiff_jax.training.resident import ResidentObjective
from ragdiff_jax.training.settings import TrainSettings
from ragdiff_jax.version import __version__
from ragdiff_jax.weights.names import FLOATS

_DAY = 24 * 60  # minutes: a large data set is decoded for hours


class _NoText:
    """Stands in for a tokenizer where a stage reads no text."""

    def encode(self, texts):
        return np.zeros((len(texts), 1), np.int32)


def open_pairs(data: Any, split: str) -> PairArrays | DecodedPairs:
    """The pairs of `data.folder` (drawn garments or a folder data set) as arrays of `data.image_size`.

    `data.also`: a folder of pictures whose pairs are trained on as well. `data.partners`: a file of structure partners
    (`ragdiff data partners`), in the place of the records' own. `data.decoded`: a folder that keeps the pairs
    decoded, for the next stage too.
    """
    tokenizer = Tokenizer.from_folder(data["tokenizer"]) if data.get("tokenizer") else _NoText()
    also, partners = (data.get(name, "") if split == "train" else "" for name in ("also", "partners"))
    opener = functools.partial(open_sources, data["folder"], split, also, partners)
    if not data.get("decoded"):
        return PairArrays(
            opener(), image_size=data["image_size"], tokenizer=tokenizer, cache=data.get("cache", False)
        )
    decoded = functools.partial(
        decoded_pairs,
        opener,
        [data["folder"], *filter(None, (also, partners))],
        data["decoded"],
        name=split,
        image_size=data["image_size"],
        tokenizer=tokenizer,
    )
    return _first_then_others(decoded)


def _first_then_others(decoded: Callable[[], DecodedPairs]) -> DecodedPairs:
    """`decoded()` in the first process, and then in the others, which find its folder where the hosts share the disk.

    Where they don't, each host decodes for itself, all at a time. Nobody goes on before all have theirs: collectives
    don't wait for hours.
    """
    pairs = decoded() if jax.process_index() == 0 else None
    barrier("decoded_first", _DAY)
    pairs = decoded() if pairs is None else pairs
    barrier("decoded_all", _DAY)
    return pairs


def builder_of(config: Any) -> Callable[..., Objective]:
    """The builder of `config.objective`, for pairs. Raises UserError for a name that isn't one."""
    from ragdiff_jax.training import builders

    build = builders.BUILDERS.get(config["objective"])
    if build is None:
        names = ", ".join([*builders.BUILDERS, *builders.PERSON_BUILDERS])
        raise UserError(f"objective {config['objective']!r}: choose one of {names}")
    return build


def wrapped(objective: Objective, config: Any) -> Objective:
    """The objective with kept encodings and trained through adapters, as far as the config asks for these."""
    data = config["data"]
    if objective.wants_average and (data.get("encodings", "") or dict(config.get("lora", {})).get("rank")):
        raise UserError(f"objective {config['objective']!r}: trains a whole network on pixels; no encodings, no lora")
    if data.get("encodings", ""):
        folder, variants, seed = data["encodings"], data.get("encoding_variants", 4), config["train"]["seed"]
        sources = tuple(data[name] for name in ("folder", "also", "partners", "tokenizer") if data.get(name, ""))
        objective = EncodedObjective(base=objective, folder=folder, variants=variants, seed=seed, sources=sources)
    lora = dict(config.get("lora", {}))
    if not lora.get("rank"):
        return objective
    adapted = LoRAObjective(base=objective, **lora)
    return dataclasses.replace(adapted, base=objective.training_only(adapted.trainable))


def make_objective(config: Any) -> Objective:
    """The objective of a config, with its data opened. Raises UserError for what isn't there."""
    from ragdiff_jax.training import builders

    data, dtype = config["data"], config["model"].get("export_dtype", "float32")
    if dtype not in FLOATS:
        raise UserError(f"model.export_dtype={dtype}: choose one of {', '.join(sorted(FLOATS))}")
    if config["objective"] in builders.PERSON_BUILDERS:
        return wrapped(builders.PERSON_BUILDERS[config["objective"]](config["model"], data), config)
    build = builder_of(config)
    check_image_size(config)
    check_places(data)
    held_out = open_pairs(data, data.get("held_out", "validation"))
    if categories := tuple(data.get("categories", ())):  # what is measured is what is learned
        held_out = SomePairs(held_out, rows_of_categories(flat_attribute_ids(held_out), categories))
    pairs = open_pairs(data, "train")
    objective = build(config["model"], pairs=pairs, held_out=held_out, order=epoch_rows(data, pairs))
    if data.get("resident", False) and not data.get("encodings", ""):
        objective = ResidentObjective(base=objective)
    return wrapped(objective, config)


def check_places(data: Any) -> None:
    """Raises UserError for a cache that lies in the data, whose files' names and times are what it is known by."""
    for cache in ("decoded", "encodings"):
        for source in ("folder", "also"):
            place, inside = data.get(cache, ""), data.get(source, "")
            if place and inside and Path(place).resolve().is_relative_to(Path(inside).resolve()):
                raise UserError(f"data.{cache}={place}: lies in data.{source}={inside}; keep it elsewhere")


def check_image_size(config: Any) -> None:
    """Raises UserError, before any data are read, where the pictures would have another size than the model's."""
    from ragdiff_jax.training.builders import OF_ONE_SIZE

    model, size = config["model"], config["data"]["image_size"]
    if config["objective"] in OF_ONE_SIZE:
        asked = RAGDiffusion.from_config(model["preset"], **model.get("changes", {})).image_size
        if size != asked:
            raise UserError(
                f"data.image_size={size}: pictures of model.preset={model['preset']} have {asked} pixels a side; "
                f"set data.image_size={asked}, or take another preset"
            )
    if model.get("crop", 0) > size:
        raise UserError(f"model.crop={model['crop']}: larger than the pictures, data.image_size={size}; 0 takes all")


def epoch_rows(data: Any, pairs: PairArrays | DecodedPairs) -> np.ndarray | None:
    """The rows of an epoch: the pairs of `data.also` as often as `also_repeat` says, of `data.categories` alone if any.

    None: each once. Raises UserError where none is left.
    """
    also, categories, order = data.get("also", ""), tuple(data.get("categories", ())), None
    if also:
        count = len(FolderPairs(also))
        order = repeated_rows([len(pairs) - count, count], data.get("also_repeat", 1))
    if categories:
        found = rows_of_categories(flat_attribute_ids(pairs), categories)
        order = found if order is None else order[np.isin(order, found)]
    if order is not None and not len(order):
        asked = " or ".join(sorted(categories)) or "pairs"
        raise UserError(
            f"data.also_repeat={data.get('also_repeat', 1)} leaves nothing to train on: {data['folder']} has no "
            f"{asked}, only data.also ({also}) has; set data.also_repeat to at least 1, or choose other data.categories"
        )
    return order


def run(config: Any, workdir: str | Path, *, profile: int = 0) -> TrainResult:
    """Train what `config` says into `workdir`, or go on with what is there; `profile` steps are traced."""
    with ending_as_one():
        # Before anything waits for another process: what it waits for may be in the config.
        same_everywhere({"config": plain(config), "version": __version__})
        mesh = make_mesh(**config["mesh"])
        settings = TrainSettings(**config["train"])
        objective = make_objective(config)
    return train(objective, workdir, settings, mesh=mesh, profile=profile, same=plain(config))


def plain(config: Any) -> dict[str, Any]:
    """A ConfigDict as JSON has it."""
    return json.loads(json.dumps(config.to_dict() if hasattr(config, "to_dict") else dict(config), default=str))
