"""RAGDiffusion's model folder (docs/contracts.md): written by training, read by `--model`."""

import dataclasses
import functools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike

from ragdiff_jax.data.attributes import STRUCTURAL
from ragdiff_jax.data.tokenizer import Tokenizer
from ragdiff_jax.diffusion.schedule import NoiseSchedule
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.clip_text import CLIPTextConfig, CLIPTextModel
from ragdiff_jax.models.clip_vision import CLIPVisionConfig, CLIPVisionModel
from ragdiff_jax.models.ep_adapter import EPAdapterConfig
from ragdiff_jax.models.f_theta import FThetaConfig
from ragdiff_jax.models.landmark_guider import LandmarkGuiderConfig
from ragdiff_jax.models.structure_net import StructureNet, StructureNetConfig
from ragdiff_jax.models.token_adapter import TokenAdapterConfig
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.models.vae import VAEConfig
from ragdiff_jax.parallel import shardings_for
from ragdiff_jax.systems.attribute_head import HeadAttributes
from ragdiff_jax.systems.ragdiffusion import TEXT_PARTS, RAGDiffusion
from ragdiff_jax.systems.zero_shot import Calibration, ZeroShotAttributes
from ragdiff_jax.weights.folder import (
    ModelFile,
    compute_dtype,
    fingerprint,
    load_part,
    read_config,
    read_model_json,
    save_part,
    survives,
    write_model_json,
)
from ragdiff_jax.weights.safetensors_io import write_text

SYSTEM = "ragdiffusion"
TOKENIZERS = ("tokenizer", "tokenizer_2")
SETTINGS = (
    "image_size",
    "guidance_scale",
    "sampler",
    "neighbours",
    "alpha",
    "reg",
    "landmark_candidates",
    "landmark_temperature",
    "null",
    "latent_concat",
    "dtype",
)
# A memory belongs to the encoder as it is on disk, to the bit.
_KEPT = ("structure_net",)
_CLASSES = {
    "unet": "UNet2DConditionModel",
    "reference_net": "UNet2DConditionModel",
    "control_net": "ControlNetModel",
    "ep_adapter": "EPAdapter",
    "landmark_guider": "LandmarkGuider",
    "image_adapter": "EPAdapter",
    "class_adapter": "InversionAdapter",
    "token_adapter": "TokenAdapter",
    "photo_guider": "LandmarkGuider",
    "mask_unet": "UNet2DConditionModel",
    "structure_net": "StructureNet",
    "vae": "AutoencoderKL",
    "image_encoder": "CLIPVisionModelWithProjection",
}
IMAGE_ENCODER = "image_encoder"
CALIBRATION = "attributes.json"
# The parts that a model may lack and that have a config of their own.
_OPTIONAL = {
    "ep_adapter": EPAdapterConfig,
    "landmark_guider": LandmarkGuiderConfig,
    "image_adapter": EPAdapterConfig,
    "class_adapter": FThetaConfig,
    "token_adapter": TokenAdapterConfig,
    "photo_guider": LandmarkGuiderConfig,
    "mask_unet": UNetConfig,
    IMAGE_ENCODER: CLIPVisionConfig,
}


def part_configs(model: RAGDiffusion) -> dict[str, dict[str, Any]]:
    """The `config.json` of each part."""
    configs = dict.fromkeys(("reference_net", "control_net"), model.unet)
    configs |= dict(zip(TEXT_PARTS, model.text_encoders, strict=False))
    return {
        part: (configs[part] if part in configs else getattr(model, part)).to_dict() for part in model.modules()
    }


def read_model(folder: str | Path) -> RAGDiffusion:
    """The static description of a model folder; no weights are read.

    Raises `UserError`, naming the file, for a folder that is no RAGDiffusion model, and for configs that are
    missing, damaged, or don't fit together.
    """
    folder = Path(folder)
    file = read_model_json(folder)
    if file.system != SYSTEM:
        raise UserError(f"{folder}: is a model of {file.system!r}; name a model folder of {SYSTEM!r}")
    unknown = sorted(set(file.settings) - set(SETTINGS))
    if unknown or "image_size" not in file.settings:
        problem = f"unknown setting {unknown[0]!r}" if unknown else "the setting 'image_size' is missing"
        raise UserError(f"{folder / 'model.json'}: {problem}; it has {', '.join(SETTINGS)}")
    dtype = compute_dtype(folder, file)

    def config(kind, part):
        try:
            return kind.from_dict(read_config(folder / part))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{folder / part / 'config.json'}: cannot be used ({error}); copy it again") from error

    parts: dict[str, Any] = dict(
        unet=config(UNetConfig, "unet"),
        vae=config(VAEConfig, "vae"),
        text_encoders=tuple(config(CLIPTextConfig, part) for part in TEXT_PARTS if part in file.parts),
        structure_net=config(StructureNetConfig, "structure_net"),
        reference_net="reference_net" in file.parts,
        **{part: config(kind, part) if part in file.parts else None for part, kind in _OPTIONAL.items()},
        schedule=_read_schedule(folder / "scheduler" / "scheduler_config.json"),
    )
    try:
        return RAGDiffusion(**parts, **dict(file.settings) | {"dtype": dtype})
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / 'model.json'}: a setting cannot be used ({error}); copy it again") from error


def _read_schedule(path: Path) -> NoiseSchedule:
    try:
        return NoiseSchedule.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); copy it again") from error


@functools.lru_cache(maxsize=4)
def abstract_params(model: RAGDiffusion) -> dict[str, Any]:
    """Shapes and logical axes of all parameters, no arrays; boxed. Tracing takes seconds, so it is kept."""
    return jax.eval_shape(model.init, jax.random.key(0))


def load(
    model: RAGDiffusion,
    folder: str | Path | Mapping[str, str | Path],
    *,
    mesh: Mesh | None = None,
    dtype: DTypeLike | None = None,
) -> dict[str, Any]:
    """The parameters of `model`, {part: tree}, placed as the mesh's rules say (None: default device).

    `folder`: a model folder, or a folder for each part, e.g. {"unet": SDXL, "vae": FLUX}; a part that the
    mapping leaves out is missing in the result. `dtype`: None keeps fp32; StructureNet keeps it in any case, for a
    memory is searched with the very encoder that built it. Raises `UserError` as `load_part`.
    """
    abstract = abstract_params(model)
    if not isinstance(folder, Mapping):
        folder = {part: Path(folder) / part for part in abstract}
    if unknown := sorted(set(folder) - set(abstract)):
        raise UserError(f"part {unknown[0]!r} is not in this model; it has {', '.join(abstract)}")
    return {
        part: load_part(
            path,
            abstract[part],
            shardings=None if mesh is None else shardings_for(abstract[part], mesh),
            dtype=None if part in _KEPT else dtype,
        )
        for part, path in folder.items()
    }


def save_model(
    folder: str | Path,
    model: RAGDiffusion,
    params: Mapping[str, Any],
    tokenizers: Sequence[str | Path],
    *,
    dtype: DTypeLike | None = None,
    calibration: Mapping[str, Calibration] | None = None,
) -> None:
    """Writes a model folder; `model.json` last, so that a folder that has one is whole.

    `tokenizers`: a folder for each text encoder. `calibration`: of the attributes that the model predicts. `dtype` of
    the files (None: each leaf's own); StructureNet keeps its own where rounding would change it, since a memory belongs
    to it to the bit. With several processes all must call it; the first writes. Raises `UserError` if the folder cannot
    be written.
    """
    folder = Path(folder)
    configs = part_configs(model)
    for part, config in configs.items():
        exact = dtype is not None and part in _KEPT and not survives(params[part], dtype)
        save_part(folder / part, config, params[part], None if exact else dtype)
    if jax.process_index() != 0:
        return
    try:
        for name, source in zip(TOKENIZERS[: len(model.text_encoders)], tokenizers, strict=True):
            shutil.copytree(source, folder / name, dirs_exist_ok=True)
        schedule = folder / "scheduler" / "scheduler_config.json"
        schedule.parent.mkdir(parents=True, exist_ok=True)
        write_text(schedule, json.dumps(model.schedule.to_dict(), indent=2) + "\n")
        if calibration is not None:
            write_calibration(folder / predictor_part(model), calibration)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error}); choose another") from error
    fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    parts = {part: _CLASSES.get(part, "CLIPTextModelWithProjection") for part in configs}
    settings = {name: fields[name] for name in SETTINGS} | {"dtype": np.dtype(model.dtype).name}
    write_model_json(folder, ModelFile(system=SYSTEM, parts=parts, settings=settings))


def predictor_part(model: RAGDiffusion) -> str:
    """The part whose folder says how sure of an attribute is sure enough: CLIP's picture tower, or StructureNet."""
    return "structure_net" if model.image_encoder is None else IMAGE_ENCODER


def write_calibration(folder: str | Path, calibration: Mapping[str, Calibration]) -> None:
    """Writes `attributes.json` of the part's folder that predicts: {attribute: {scale, threshold}}."""
    values = {name: dataclasses.asdict(own) for name, own in calibration.items()}
    write_text(Path(folder) / CALIBRATION, json.dumps(values, indent=2) + "\n")


def read_calibration(folder: str | Path) -> dict[str, Calibration]:
    """What `write_calibration` wrote; empty where nothing was calibrated. Raises `UserError`."""
    path = Path(folder) / CALIBRATION
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        calibration = {name: Calibration(**own) for name, own in values.items()}
        numbers = [number for own in calibration.values() for number in (own.scale, own.threshold or 0)]
        if unknown := sorted(set(calibration) - set(STRUCTURAL)):
            raise ValueError(f"there is no attribute {unknown[0]!r}")
        if not all(isinstance(number, int | float) and 0 <= number < float("inf") for number in numbers):
            raise ValueError("a number is negative or not finite")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: cannot be used ({error}); copy it again, or delete it") from error
    return calibration


def load_zero_shot(folder: str | Path) -> ZeroShotAttributes:
    """The predictor of a model folder with `image_encoder`: a whole system's, or that of the `clip` stage.

    Raises `UserError` for a folder without one and as `load_part` does.
    """
    folder = Path(folder)
    file = read_model_json(folder)
    check_predicts(IMAGE_ENCODER in file.parts, folder)
    text_part, name = [pair for pair in zip(TEXT_PARTS, TOKENIZERS, strict=True) if pair[0] in file.parts][-1]
    text = CLIPTextConfig.from_dict(read_config(folder / text_part))
    vision = CLIPVisionConfig.from_dict(read_config(folder / IMAGE_ENCODER))
    modules = CLIPTextModel(text), CLIPVisionModel(vision)
    inputs = jnp.zeros((1, 8), jnp.int32), jnp.zeros((1, vision.image_size, vision.image_size, 3))
    text_tree, vision_tree = (
        jax.eval_shape(module.init, jax.random.key(0), given)["params"]
        for module, given in zip(modules, inputs, strict=True)
    )
    return ZeroShotAttributes.from_towers(
        text,
        vision,
        load_part(folder / text_part, text_tree),
        load_part(folder / IMAGE_ENCODER, vision_tree),
        Tokenizer.from_folder(folder / name),
        read_calibration(folder / IMAGE_ENCODER),
    )


def load_predictor(folder: str | Path) -> ZeroShotAttributes | HeadAttributes:
    """What predicts attributes in a model folder: its CLIP (`load_zero_shot`), or StructureNet's own head.

    Raises `UserError` for a folder with neither and as `load_part` does.
    """
    folder = Path(folder)
    check_predicts(can_predict(folder), folder)
    if IMAGE_ENCODER in read_model_json(folder).parts:
        return load_zero_shot(folder)
    return load_head(folder)


def load_head(folder: str | Path) -> HeadAttributes:
    """StructureNet's head of a model folder, calibrated or not. Raises `UserError` for a folder without one."""
    config, params = load_structure_net(folder)
    check_predicts(config.reads_attributes, folder)
    return HeadAttributes.from_params(config, params, read_calibration(Path(folder) / "structure_net"))


def can_predict(folder: str | Path) -> bool:
    """Whether a model folder has a CLIP, or a StructureNet whose head was calibrated."""
    parts, own = read_model_json(folder).parts, Path(folder) / "structure_net"
    return IMAGE_ENCODER in parts or ("structure_net" in parts and bool(read_calibration(own)))


def check_predicts(able: bool, folder: str | Path) -> None:
    """Raises `UserError` for a model that is asked to predict attributes and can't."""
    if not able:
        raise UserError(
            f"{folder}: predicts no attributes, for it has neither an {IMAGE_ENCODER} nor a calibrated head of "
            "StructureNet's; use --attributes unknown, or another model"
        )


def encoder_fingerprint(model: RAGDiffusion, params: Mapping[str, Any]) -> str:
    """`structure_fingerprint` of a whole system."""
    return structure_fingerprint(model.structure_net, params["structure_net"])


def structure_fingerprint(config: StructureNetConfig, params: Mapping[str, Any]) -> str:
    """Names the encoder of a memory: StructureNet's standard tower and attribute table, and their config."""
    photo_alone = ("photo_stages", "photo_size", "photo_mirrored", "reads_attributes")
    own = {name: value for name, value in config.to_dict().items() if name not in photo_alone}
    return fingerprint({name: params[name] for name in ("flat", "attributes")}, own)


def load_structure_net(folder: str | Path) -> tuple[StructureNetConfig, dict[str, Any]]:
    """(config, parameters) of StructureNet in a model folder of a whole system or of its own training stage.

    Raises `UserError` for a folder without one and as `load_part` does.
    """
    folder = Path(folder)
    file = read_model_json(folder)
    if "structure_net" not in file.parts:
        raise UserError(f"{folder}: a model of {file.system!r} has no structure_net; name one that has")
    config = StructureNetConfig.from_dict(read_config(folder / "structure_net"))
    return config, load_part(folder / "structure_net", abstract_structure_net(config))


def abstract_structure_net(config: StructureNetConfig) -> dict[str, Any]:
    """Shapes and logical axes of StructureNet's parameters, no arrays; boxed."""
    image = jnp.zeros((1, config.vision.image_size, config.vision.image_size, 3))
    ids = jnp.zeros((1, len(config.attribute_sizes)), jnp.int32)
    return jax.eval_shape(StructureNet(config).init, jax.random.key(0), image, image, ids)["params"]
