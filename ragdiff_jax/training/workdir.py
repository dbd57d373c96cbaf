"""The folder of a run: its config, the lock that keeps a second run out, the model it ends in."""

import contextlib
import dataclasses
import json
import logging
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import barrier
from ragdiff_jax.training.settings import MAY_CHANGE, TrainSettings

logger = logging.getLogger(__name__)

# What a resumed run may have otherwise of its config's `data` and `model`: where caches lie, how a step is computed,
# what is drawn, measured and exported. All else decides what is learned.
CONFIG_MAY_CHANGE = frozenset(
    (
        "data.cache data.decoded data.encodings data.held_out data.resident data.retrieved "
        "model.examples model.export_dtype model.method model.micro_batches model.remat model.sample_steps model.tile "
        "model.changes.attention model.changes.guidance_scale model.changes.remat model.changes.sampler"
    ).split()
)
_RECORDED = ("objective", "data", "model")


def _plain(value: Any) -> Any:
    """JSON for any field of an objective; what JSON has no word for becomes its type's name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value] if len(value) <= 64 else f"{len(value)} items"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # A Flax module's parent and name are wiring, not configuration.
        fields = [f.name for f in dataclasses.fields(value) if f.repr and f.name not in ("parent", "name")]
        return {"class": type(value).__name__, **{name: _plain(getattr(value, name)) for name in fields}}
    return type(value).__name__


def _described(objective: Any) -> dict[str, Any]:
    plain = _plain(objective)
    if not isinstance(plain, dict):  # not a dataclass
        plain = {"class": type(objective).__name__}
    return {**plain, "trainable": objective.trainable}


def describe(objective: Any, settings: TrainSettings, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What `config.json` of a workdir holds; `config`: the plain one that the objective was made of, if there is."""
    record = {"schema": 1, "objective": _described(objective), "settings": settings.as_dict()}
    record["epoch_rows"] = objective.epoch_rows
    if not config:
        return record
    return record | {"config": {name: config[name] for name in _RECORDED if name in config}}


def check_config(workdir: Path, config: dict[str, Any]) -> list[str]:
    """Compare `config` with the workdir's own, which may be absent.

    Returns:
        Settings that differ and may (`learning_rate 0.0001 -> 5e-05`).

    Raises:
        UserError: a setting differs that decides what the checkpoints hold or which rows come next.
    """
    path = workdir / "config.json"
    if not path.exists():
        return []
    try:
        old = json.loads(path.read_text())
        old_settings, old_class, recorded = old["settings"], _class(old["objective"]), dict(old.get("config", {}))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); restore it, or start in a new workdir") from error
    changed, refused, learned = [], [], _learned(workdir)
    if old_class != _class(config["objective"]):
        raise UserError(
            f"{workdir} belongs to a run of {old_class}, not {_class(config['objective'])}; "
            "use a new workdir"
        )
    for name in ("trainable", "rank", "alpha", "targets"):  # the last three: of adapters, where it trains these
        before, now = old["objective"].get(name), config["objective"].get(name)
        if before != now and learned:
            refused.append(f"{name}={before!r} (now {now!r})")
    for name, value in config["settings"].items():
        if name in old_settings and old_settings[name] != value:
            if name in MAY_CHANGE or not learned:
                changed.append(f"{name} {old_settings[name]} -> {value}")
            else:
                refused.append(f"{name}={old_settings[name]} (now {value})")
    rows, now = old.get("epoch_rows", 0), config.get("epoch_rows", 0)
    if learned and rows and now and now != rows:
        changed.append(f"an epoch has {now} rows, had {rows}: they are drawn in another order from here on")
    same = []
    if "config" in config and recorded:
        free, bound = _differences(recorded, config["config"])
        changed += [f"{name} {before!r} -> {now!r}" for name, before, now in free]
        if learned:
            refused += [f"{name}: was {_told(before)}, is {_told(now)}" for name, before, now in bound]
            same = [_setting(name, before) for name, before, now in bound if None not in (before, now)]
    elif "config" in config:
        changed.append("its data and model settings weren't recorded then and aren't compared")
    if refused:
        use = f" ({' '.join(same)})" if same else ""
        raise UserError(f"{workdir} was started with {'; '.join(refused)}: use the same{use}, or a new workdir")
    return changed


def _class(objective: Mapping[str, Any]) -> str:
    """Which stage; where its data lie (`data.resident`) is no part of it."""
    return _class(objective["base"]) if objective["class"] == "ResidentObjective" else objective["class"]


def _learned(workdir: Path) -> bool:
    """Whether there is a step to go on from: what a failed start wrote down binds nobody."""
    folder = workdir / "checkpoints"
    return folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir())


_Difference = tuple[str, Any, Any]


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[list[_Difference], list[_Difference]]:
    """(name, before, now) of the fields that may differ, and of those that may not; None for one that isn't there."""
    before, now = dict(_flat(old)), dict(_flat(new))
    free, bound = [], []
    for name in sorted(before.keys() | now.keys()):
        a, b = before.get(name), now.get(name)
        if a == b or not (a or b) and None in (a, b) or _same_place(a, b):  # not there is as good as empty
            continue
        may = name in CONFIG_MAY_CHANGE and (name != "data.encodings" or bool(a) == bool(b))  # with and without: no
        (free if may else bound).append((name, a, b))
    return free, bound


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _same_place(a: Any, b: Any) -> bool:
    """Whether both name one file or folder: data may move if a link stays behind."""
    return all(isinstance(x, str) and x for x in (a, b)) and os.path.realpath(a) == os.path.realpath(b)


def _told(value: Any) -> str:
    return "not set" if value is None else repr(value)


def _setting(name: str, value: Any) -> str:
    text = value if isinstance(value, str) else repr(tuple(value) if isinstance(value, list) else value)
    return f"--set {shlex.quote(f'{name}={text}')}"


def write_config(workdir: Path, config: dict[str, Any]) -> None:
    """Replace `config.json` in one go; a run that is called without a plain config keeps the one that is there."""
    path = workdir / "config.json"
    if "config" not in config and path.exists():
        old = json.loads(path.read_text())
        config = config | {name: old[name] for name in ("config",) if name in old}
    temporary = workdir / "config.json.partial"
    temporary.write_text(json.dumps(config, indent=2) + "\n")
    os.replace(temporary, path)


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Make `workdir` and hold it for this run; the lock goes with the process, however it ends.

    Raises:
        UserError: the folder can't be written, or another run holds it.
    """
    if jax.process_index() != 0:
        yield
        return
    import fcntl

    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = open(workdir / ".lock", "w")
    except OSError as error:
        raise UserError(f"can't write to {workdir} ({error.strerror}); choose another workdir") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another run is training in {workdir}; wait for it or choose another workdir"
            ) from error
        except OSError as error:  # Lustre and NFS may be mounted without locks
            logger.warning("%s can't be locked (%s): see to it that no second run trains there", workdir, error)
        yield


def export_model(workdir: Path, export: Callable[[Path], None]) -> Path:
    """Run `export` on a folder beside `model/`, then put it in its place; a failure leaves the old model."""
    partial, model, old = workdir / ".model.partial", workdir / "model", workdir / ".model.old"
    if jax.process_index() == 0:
        for path in (partial, old):
            if path.exists():
                shutil.rmtree(path)
        partial.mkdir()
    barrier("export_begins")
    export(partial)
    barrier("export_done")
    if jax.process_index() == 0:
        if model.exists():
            os.replace(model, old)
        os.replace(partial, model)
        if old.exists():
            shutil.rmtree(old)
    return model
