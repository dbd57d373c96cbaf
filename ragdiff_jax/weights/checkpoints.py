"""Finding what a user means by a SOURCE: its tensors and its config, in a folder, a file or a snapshot of the hub."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ragdiff_jax.errors import UserError
from ragdiff_jax.weights.kinds import Kind
from ragdiff_jax.weights.open_clip import open_clip_config
from ragdiff_jax.weights.safetensors_io import STEMS, Tensors, open_folder, read_index, read_json
from ragdiff_jax.weights.sources import Source
from ragdiff_jax.weights.torch_file import TorchFile

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
TOWERS = {"clip-text": "text", "clip-vision": "vision"}
# The only architecture of kinds whose published files have no config.
IMPLIED = {"ip-adapter": "plus-sdxl", "f-theta": "vit-h"}
_OPEN_CLIP_STEMS = ("open_clip_model", "open_clip_pytorch_model")
_TORCH_STEMS = (STEMS[0], "pytorch_model", "open_clip_pytorch_model")
_REVISION = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def open_tensors(path: Path, variant: str | None = None) -> Source:
    """The tensors of a file, or of a folder in the layout of diffusers, transformers, OpenCLIP or torch.

    `variant`: the `fp16` of `model.fp16.safetensors`. Raises `UserError` when there are none or they are damaged.
    """
    if path.is_file():
        if path.suffix == ".safetensors":
            return Tensors({path: None})
        if path.name.endswith(".safetensors.index.json"):
            return Tensors(read_index(path))
        if path.suffix in TORCH_SUFFIXES:
            return TorchFile(path)
        raise UserError(
            f"{path}: is no checkpoint; name a folder, a .safetensors or one of {', '.join(TORCH_SUFFIXES)}"
        )
    if variant is not None:
        return _variant(path, variant)
    if path.is_dir() and not any((path / f"{stem}.safetensors").is_file() for stem in STEMS):
        for stem in _OPEN_CLIP_STEMS:
            if (path / f"{stem}.safetensors").is_file():
                return Tensors({path / f"{stem}.safetensors": None})
        if not list(path.glob("*.safetensors*")):
            for stem in _TORCH_STEMS:
                if (path / f"{stem}.bin").is_file():
                    return TorchFile(path / f"{stem}.bin")
    return open_folder(path)


def _variant(folder: Path, variant: str) -> Source:
    for stem in STEMS:
        for index in (f"{stem}.safetensors.index.{variant}.json", f"{stem}.{variant}.safetensors.index.json"):
            if (folder / index).is_file():
                return Tensors(read_index(folder / index))
        if (folder / f"{stem}.{variant}.safetensors").is_file():
            return Tensors({folder / f"{stem}.{variant}.safetensors": None})
    held = ", ".join(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else "nothing"
    raise UserError(f"{folder}: has no weights of --variant {variant}, holds {held}")


def find_config(path: Path, kind: Kind, given: str | None) -> tuple[Any, str]:
    """(config object, where it is from): `given` (a file or a published architecture), or what is beside the weights.

    Raises `UserError` when there is none, or when it is another kind's.
    """
    if given is not None:
        if Path(given).is_file():
            return kind.read_config(_plain(Path(given), kind), given), given
        return kind.named(given), f"--config {given}"
    folder = path if path.is_dir() else path.parent
    if kind.name in IMPLIED and not _is_own(folder / "config.json", kind):
        return kind.named(IMPLIED[kind.name]), f"the published {IMPLIED[kind.name]}"
    for name in ("config.json", "open_clip_config.json"):
        file = folder / name
        if file.is_file():
            return kind.read_config(_plain(file, kind), str(file)), str(file)
    if (folder / "model_index.json").is_file():
        parts = ", ".join(_subfolders(read_json(folder / "model_index.json"), kind)) or "none of this kind"
        raise UserError(f"{folder}: is a whole pipeline; name its part with --subfolder ({parts})")
    raise UserError(
        f"{folder}: has no config.json; say what it is with --config FILE or --config NAME "
        f"({', '.join(_architectures(kind))})"
    )


def _is_own(file: Path, kind: Kind) -> bool:
    return file.is_file() and read_json(file).get("_class_name") in kind.classes


def _plain(file: Path, kind: Kind) -> dict[str, Any]:
    config = read_json(file)
    if "model_cfg" in config:
        if kind.name not in TOWERS:
            raise UserError(
                f"{file}: is an OpenCLIP model, not of kind {kind.name}; use --kind clip-text or clip-vision"
            )
        return open_clip_config(config, TOWERS[kind.name], str(file))
    return config


def _architectures(kind: Kind) -> list[str]:
    from ragdiff_jax.weights.architectures import ARCHITECTURES

    return list(ARCHITECTURES[kind.name])


def _subfolders(index: Mapping[str, Any], kind: Kind) -> list[str]:
    return [
        name
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and value[1] in kind.classes
    ]


def fetch(
    source: str,
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    file: str | None = None,
    variant: str | None = None,
) -> Path:
    """The folder or file that SOURCE means: a path, or a hub id `OWNER/NAME` fetched at a pinned `revision`.

    Of a hub id only the config and the safetensors of `subfolder` are taken, or its one `file`; what is in the hub's
    cache already is not fetched again. Raises `UserError` for a path that is not there, a revision that is no full
    commit id, and whatever the hub answers.
    """
    path = Path(source)
    if path.exists():
        if revision is not None:
            raise UserError(f"--revision goes with an id of the hub; {source} is a path")
        return _within(path, subfolder, file)
    if not _HUB_ID.fullmatch(source):
        raise UserError(f"{source}: no such file or folder, and no id of the hub (OWNER/NAME)")
    if revision is None or not _REVISION.fullmatch(revision):
        raise UserError(
            f"{source}: no such folder here; to take the hub's, pin it: --revision and a commit's 40 hex digits"
        )
    return _within(_snapshot(source, revision, _patterns(subfolder, file, variant)), subfolder, file)


def _within(folder: Path, subfolder: str | None, file: str | None) -> Path:
    path = folder / (subfolder or "") / (file or "")
    if not path.exists():
        raise UserError(f"{path}: there is no such {'file' if file else 'folder'}")
    return path


def _patterns(subfolder: str | None, file: str | None, variant: str | None) -> list[str]:
    prefix = f"{subfolder}/" if subfolder else ""
    if file is not None:
        return [prefix + file, prefix + "config.json"]
    weights = [f"{stem}{shard}.safetensors" for stem in STEMS for shard in ("", "-?????-of-?????")]
    if variant is not None:
        weights = [f"{stem}.{variant}{shard}.safetensors" for stem in STEMS for shard in ("", "-?????-of-?????")]
        # Shards of a variant are named both ways.
        weights += [f"{stem}-?????-of-?????.{variant}.safetensors" for stem in STEMS]
    weights += [f"{stem}.safetensors" for stem in _OPEN_CLIP_STEMS]
    names = ["config.json", "open_clip_config.json", "*.index.json", "*.index.*.json", *weights]
    return [prefix + name for name in names]


def _snapshot(source: str, revision: str, patterns: list[str]) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise UserError(f"{source}: to fetch it, install the hub's client: pip install 'ragdiff_jax[hub]'") from error
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{source}@{revision[:12]}: cannot be fetched ({reason})") from error
