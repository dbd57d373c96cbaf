"""Run one training stage, or go on with it: the same command resumes a workdir.

  ragdiff train --config configs/ragdiffusion/tiny.py --workdir runs/garments --set train.steps=2000

A config is a Python file with get_config(); "FILE:ARG" hands ARG to it. --set changes its fields.
"""

import argparse
import ast
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ragdiff_jax.cli.errors import Report
from ragdiff_jax.cli.inputs import add_json, remember_compilations, trace_undisturbed
from ragdiff_jax.cli.processes import add_processes, join
from ragdiff_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]", help="config file with get_config()")
    parser.add_argument("--workdir", required=True, type=Path, metavar="DIR", help="where the run writes and resumes")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a field, e.g. train.seed=3"
    )
    parser.add_argument("--profile", type=int, default=0, metavar="STEPS", help="trace that many steps for xprof")
    add_processes(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, report: Report) -> None:
    config = read_config(arguments.config)
    fill_train(config)
    apply_settings(config, arguments.set)
    if arguments.profile < 0:
        raise UserError(f"--profile {arguments.profile}: a number of steps, at least 0")
    trace_undisturbed()
    first = join(arguments)
    remember_compilations(report)
    from ragdiff_jax.training.from_config import run as train

    result = train(config, arguments.workdir, profile=arguments.profile)
    if first:
        _say(result, arguments.workdir, report)
    if result.stopped_by == "SIGINT":  # SIGTERM is a scheduler that takes the machine back: no failure
        raise KeyboardInterrupt


def _say(result: Any, workdir: Path, report: Report) -> None:
    model = None if result.model is None else str(result.model)
    record = {"workdir": str(workdir), "step": result.step, "finished": result.finished, "model": model}
    if result.finished:
        report.result(record, f"{result.step} steps; the model is in {model}")
    else:
        report.result(record, f"stopped after {result.step} steps; the same command goes on")


def read_config(name: str) -> Any:
    """The ConfigDict of `FILE` or `FILE:ARG`, locked. Raises UserError when there is none."""
    import inspect
    import runpy

    from ml_collections import ConfigDict

    file, separator, argument = name, "", ""
    if not Path(name).is_file():
        file, separator, argument = name.rpartition(":")
        file = file or name
    if not Path(file).is_file():
        raise UserError(f"{file}: no such config file; see the folder configs/")
    try:
        get_config = runpy.run_path(file).get("get_config")
    except (SyntaxError, UnicodeDecodeError, NameError) as error:
        if isinstance(error, NameError) and Path(file).suffix == ".py":
            raise
        raise UserError(f"{file}: is no Python file ({error}); name a config such as those in configs/") from error
    if get_config is None:
        raise UserError(f"{file}: has no get_config(); name a config file such as those in configs/")
    given = (argument,) if separator else ()
    try:
        inspect.signature(get_config).bind(*given)
    except TypeError as error:
        advice = f"leave :{argument} out" if separator else f"write {file}:ARGUMENT"
        raise UserError(f"--config {name}: its get_config doesn't take that ({error}); {advice}") from error
    try:
        config = get_config(*given)
    except ValueError as error:
        raise UserError(f"--config {name}: {error}; see the head of {file}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"{file}: get_config() must return an ml_collections.ConfigDict")
    return config.lock()


def fill_train(config: Any) -> None:
    """Adds the fields of `train` that a config leaves at their defaults, so that --set knows them."""
    import dataclasses

    from ragdiff_jax.training.settings import TrainSettings

    with config.unlocked():
        for field in dataclasses.fields(TrainSettings):
            if field.default is not dataclasses.MISSING and field.name not in config.train:
                config.train[field.name] = field.default


def apply_settings(config: Any, settings: Sequence[str]) -> None:
    """Changes fields of `config` by "a.b=value"; a value keeps its field's type. Raises UserError."""
    _fill_changes(config, settings)
    fields = _flatten(config)
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator:
            raise UserError(f"--set {setting}: write KEY=VALUE")
        if key not in fields:
            raise UserError(f"--set {key}: the config has no such field; {_close(key, list(fields))}")
        node = config
        *path, last = key.split(".")
        for part in path:
            node = node[part]
        value = _parse(text, fields[key], key)
        try:
            node[last] = value
        except TypeError as error:
            raise UserError(f"--set {setting}: must be {type(fields[key]).__name__}, as {fields[key]!r} is") from error


def _fill_changes(config: Any, settings: Sequence[str]) -> None:
    """Adds to `model.changes` the preset's fields that the settings change, so that they are known and have a type."""
    from ragdiff_jax.systems.fashion_rag import FashionRAG
    from ragdiff_jax.systems.ragdiffusion import RAGDiffusion

    keys, place = [setting.partition("=")[0] for setting in settings], "model.changes."
    names = {key.removeprefix(place) for key in keys if key.startswith(place)}
    if not names or not {"preset", "changes"} <= set(config.get("model", {})):
        return
    system = FashionRAG if config.objective == "fashion_rag" else RAGDiffusion
    with config.unlocked():
        for name, value in vars(system.from_config(config.model.preset)).items():
            if name in names and name not in config.model.changes and isinstance(value, bool | int | float | str):
                config.model.changes[name] = value


def _flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    fields = {}
    for key, value in config.items():
        if hasattr(value, "items"):
            fields |= _flatten(value, f"{prefix}{key}.")
        else:
            fields[prefix + key] = value
    return fields


def _parse(text: str, old: Any, key: str) -> Any:
    if isinstance(old, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    wrong = old is not None and isinstance(value, bool) != isinstance(old, bool)
    wrong |= isinstance(old, int | float) and not isinstance(value, int | float)
    wrong |= isinstance(old, int) and isinstance(value, float)
    if wrong:
        raise UserError(f"--set {key}={text}: must be {type(old).__name__}, as {old!r} is")
    return float(value) if isinstance(old, float) else value


def _close(key: str, keys: list[str]) -> str:
    close = difflib.get_close_matches(key, keys, n=3, cutoff=0.5)
    last = key.rpartition(".")[2]
    close += [other for other in keys if other.rpartition(".")[2] == last and other not in close]
    return f"did you mean {' or '.join(close[:3])}?" if close else f"it has {', '.join(keys)}"
