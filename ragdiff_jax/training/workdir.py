"""The folder of a run: its config, the lock that keeps a second run out, the model it ends in."""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import barrier
from ragdiff_jax.training.settings import MAY_CHANGE, TrainSettings


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


def describe(objective: Any, settings: TrainSettings) -> dict[str, Any]:
    """What `config.json` of a workdir holds."""
    return {"schema": 1, "objective": _described(objective), "settings": settings.as_dict()}


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
        old_settings, old_class = old["settings"], old["objective"]["class"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); restore it, or start in a new workdir") from error
    changed, refused = [], []
    if old_class != config["objective"]["class"]:
        raise UserError(
            f"{workdir} belongs to a run of {old_class}, not {config['objective']['class']}; "
            "use a new workdir"
        )
    for name in ("trainable", "rank", "alpha", "targets"):  # the last three: of adapters, where it trains these
        before, now = old["objective"].get(name), config["objective"].get(name)
        if before != now:
            refused.append(f"{name}={before!r} (now {now!r})")
    for name, value in config["settings"].items():
        if name in old_settings and old_settings[name] != value:
            if name in MAY_CHANGE:
                changed.append(f"{name} {old_settings[name]} -> {value}")
            else:
                refused.append(f"{name}={old_settings[name]} (now {value})")
    if refused:
        raise UserError(f"{workdir} was started with {', '.join(refused)}: use the same, or a new workdir")
    return changed


def write_config(workdir: Path, config: dict[str, Any]) -> None:
    """Replace `config.json` in one go."""
    temporary = workdir / "config.json.partial"
    temporary.write_text(json.dumps(config, indent=2) + "\n")
    os.replace(temporary, workdir / "config.json")


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
        except OSError as error:
            raise UserError(
                f"another run is training in {workdir}; wait for it or choose another workdir"
            ) from error
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
