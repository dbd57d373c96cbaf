"""Fashion-RAG's model folder (docs/contracts.md): written by training, read by `ragdiff edit`.

Parts that a sibling folder has already may be named instead of copied: `"shared": {"vae": "../tiny/vae"}` in
`model.json`.
"""

import dataclasses
import functools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike

from ragdiff_jax.diffusion.schedule import NoiseSchedule
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.clip_text import CLIPTextConfig
from ragdiff_jax.models.clip_vision import CLIPVisionConfig
from ragdiff_jax.models.ep_adapter import EPAdapterConfig
from ragdiff_jax.models.f_theta import FThetaConfig
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.models.vae import VAEConfig
from ragdiff_jax.parallel import shardings_for
from ragdiff_jax.systems.fashion_parts import reference_config
from ragdiff_jax.systems.fashion_rag import FashionRAG
from ragdiff_jax.systems.text_retrieval import tower_params
from ragdiff_jax.weights.folder import (
    ModelFile,
    compute_dtype,
    fingerprint,
    load_part,
    part_folder,
    read_config,
    read_model_json,
    save_part,
    survives,
    write_model_json,
)
from ragdiff_jax.weights.safetensors_io import write_text

FASHION = "fashion_rag"
TOKENIZER = "tokenizer"
SETTINGS = (
    "image_size",
    "guidance_scale",
    "sampler",
    "retrieved",
    "prompt",
    "visual_levels",
    "garment_fit",
    "normalisation",
    "retrieval_normalisation",
    "window",
    "dtype",
)
_KINDS = {
    "unet": (UNetConfig, "UNet2DConditionModel"),
    "vae": (VAEConfig, "AutoencoderKL"),
    "text_encoder": (CLIPTextConfig, "CLIPTextModel"),
    "image_encoder": (CLIPVisionConfig, "CLIPVisionModelWithProjection"),
    "inversion": (FThetaConfig, "InversionAdapter"),
    "image_adapter": (EPAdapterConfig, "EPAdapter"),
    "reference_net": (UNetConfig, "UNet2DConditionModel"),
    "retrieval_text_encoder": (CLIPTextConfig, "CLIPTextModelWithProjection"),
    "retrieval_image_encoder": (CLIPVisionConfig, "CLIPVisionModelWithProjection"),
}
_NEEDED = ("unet", "vae", "text_encoder", "image_encoder")


def read_fashion(folder: str | Path) -> FashionRAG:
    """The static description of a model folder; no weights are read.

    Raises `UserError`, naming the file, for a folder that is no Fashion-RAG model, and for configs that are missing,
    damaged, or don't fit together.
    """
    folder = Path(folder)
    file = read_model_json(folder)
    if file.system != FASHION:
        raise UserError(f"{folder}: is a model of {file.system!r}; name a model folder of {FASHION!r}")
    unknown = sorted(set(file.settings) - set(SETTINGS))
    if unknown or "image_size" not in file.settings:
        problem = f"unknown setting {unknown[0]!r}" if unknown else "the setting 'image_size' is missing"
        raise UserError(f"{folder / 'model.json'}: {problem}; it has {', '.join(SETTINGS)}")
    if missing := [part for part in _NEEDED if part not in file.parts]:
        raise UserError(f"{folder / 'model.json'}: has no part {missing[0]!r}; it needs {', '.join(_NEEDED)}")
    if len({"inversion", "image_adapter"} & set(file.parts)) != 1:
        raise UserError(f"{folder / 'model.json'}: has no part 'inversion'; it needs that or 'image_adapter', and one")
    settings = {name: tuple(v) if isinstance(v, list) else v for name, v in file.settings.items()}
    settings["dtype"] = compute_dtype(folder, file)
    configs = {}
    for part in file.parts:
        if part not in _KINDS:
            raise UserError(f"{folder / 'model.json'}: unknown part {part!r}; it has {', '.join(_KINDS)}")
        where = part_folder(folder, file, part)
        try:
            configs[part] = _KINDS[part][0].from_dict(read_config(where))
        except (TypeError, ValueError, KeyError) as error:
            raise UserError(f"{where / 'config.json'}: cannot be used ({error}); copy it again") from error
    reference = configs.pop("reference_net", None)
    configs = {"inversion": None, "reference_net": reference is not None, **configs}
    path = folder / "scheduler" / "scheduler_config.json"
    try:
        schedule = NoiseSchedule.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); copy it again") from error
    try:
        model = FashionRAG(**configs, schedule=schedule, **settings)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(f"{folder / 'model.json'}: a setting cannot be used ({error}); copy it again") from error
    if reference not in (None, reference_config(model)):
        where = part_folder(folder, file, "reference_net") / "config.json"
        raise UserError(f"{where}: is not the U-Net's own kind on the latents alone; copy the model again")
    return model


@functools.lru_cache(maxsize=4)
def abstract_fashion(model: FashionRAG) -> dict[str, Any]:
    """Shapes and logical axes of all parameters, no arrays; boxed."""
    return jax.eval_shape(model.init, jax.random.key(0))


def load_fashion(
    model: FashionRAG,
    folder: str | Path | Mapping[str, str | Path],
    *,
    mesh: Mesh | None = None,
    dtype: DTypeLike | None = None,
) -> dict[str, Any]:
    """The parameters of `model`, {part: tree}, placed as the mesh's rules say (None: default device).

    `folder`: a model folder, or a folder for each part; one that the mapping leaves out is missing in the result.
    `dtype`: None keeps fp32; the towers that retrieve keep it in any case, for a memory knows them by their bits.
    Raises `UserError` as `load_part`.
    """
    abstract = abstract_fashion(model)
    kept = tower_params(dict.fromkeys(abstract))
    if not isinstance(folder, Mapping):
        file = read_model_json(folder)
        folder = {part: part_folder(Path(folder), file, part) for part in abstract}
    if unknown := sorted(set(folder) - set(abstract)):
        raise UserError(f"part {unknown[0]!r} is not in this model; it has {', '.join(abstract)}")
    return {
        part: load_part(
            path,
            abstract[part],
            shardings=None if mesh is None else shardings_for(abstract[part], mesh),
            dtype=None if part in kept else dtype,
        )
        for part, path in folder.items()
    }


def tokenizer_folder(folder: str | Path) -> Path:
    """Where the tokenizer of a model folder lies."""
    return part_folder(Path(folder), read_model_json(folder), TOKENIZER)


def save_fashion(
    folder: str | Path,
    model: FashionRAG,
    params: Mapping[str, Any],
    tokenizer: str | Path,
    *,
    dtype: DTypeLike | None = None,
) -> None:
    """Writes a model folder; `model.json` last. With several processes all must call it; the first writes.

    `dtype` as in `save_part`; towers that retrieve keep their own where rounding would change a number, for a memory
    knows them by their bits. Raises `UserError` if the folder cannot be written.
    """
    folder = Path(folder)
    configs = model.configs()
    kept = tower_params(dict.fromkeys(configs))
    for part, config in configs.items():
        exact = dtype is not None and part in kept and not survives(params[part], dtype)
        save_part(folder / part, config.to_dict(), params[part], None if exact else dtype)
    if jax.process_index() != 0:
        return
    try:
        shutil.copytree(tokenizer, folder / TOKENIZER, dirs_exist_ok=True)
        schedule = folder / "scheduler" / "scheduler_config.json"
        schedule.parent.mkdir(parents=True, exist_ok=True)
        write_text(schedule, json.dumps(model.schedule.to_dict(), indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error}); choose another") from error
    parts = {part: _KINDS[part][1] for part in configs}
    settings = {name: getattr(model, name) for name in SETTINGS} | {"dtype": np.dtype(model.dtype).name}
    write_model_json(folder, ModelFile(system=FASHION, parts=parts, settings=settings))


def share_parts(folder: str | Path, sibling: str | Path) -> tuple[str, ...]:
    """Replaces parts of a model folder that `sibling`, beside it, has bit for bit by a reference to them; which.

    Raises `UserError` for a folder that isn't beside it.
    """
    folder, sibling = Path(folder), Path(sibling)
    if folder.resolve().parent != sibling.resolve().parent:
        raise UserError(f"{sibling}: is not beside {folder}; parts are shared between neighbours only")
    file, shared = read_model_json(folder), {}
    for name in (*file.parts, TOKENIZER):
        ours, theirs = folder / name, sibling / name
        if ours.is_dir() and theirs.is_dir() and _same_files(ours, theirs):
            shared[name] = f"../{sibling.resolve().name}/{name}"
    write_model_json(folder, dataclasses.replace(file, shared={**file.shared, **shared}))
    for name in shared:
        shutil.rmtree(folder / name)
    return tuple(shared)


def _same_files(one: Path, other: Path) -> bool:
    names = sorted(path.name for path in one.iterdir() if path.name != "config.json")
    return bool(names) and all(
        (other / name).is_file() and (other / name).read_bytes() == (one / name).read_bytes() for name in names
    )


def retrieval_fingerprint(model: FashionRAG, params: Mapping[str, Any]) -> str:
    """Names the encoder of a memory of garments that is searched by text: both towers, and how pictures reach them."""
    text, image = model.retrieval_towers()
    config = {"text": text.to_dict(), "image": image.to_dict(), "fit": model.garment_fit}
    if model.garment_fit == "crop":
        config["of"] = "whole pictures"  # memories were once built of padded ones, of which nothing is cut
    own = model.retrieval_text_encoder is not None
    config["normalisation"] = model.retrieval_normalisation if own else model.normalisation
    return fingerprint(tower_params(params), config)

