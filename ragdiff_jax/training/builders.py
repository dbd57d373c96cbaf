"""Config sections -> objectives, one function a stage."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ragdiff_jax.data.person_folder import open_persons
from ragdiff_jax.data.person_garments import Garments, PersonShapes, PersonsWithGarments
from ragdiff_jax.data.person_pipeline import PersonArrays
from ragdiff_jax.data.tokenizer import Tokenizer
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.clip_vision import CLIPVisionConfig
from ragdiff_jax.models.structure_net import StructureNetConfig
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.models.vae import VAEConfig
from ragdiff_jax.systems.dropout import Dropout
from ragdiff_jax.systems.fashion_presets import with_image_prompt, without_pose
from ragdiff_jax.systems.fashion_rag import FashionRAG
from ragdiff_jax.systems.parts import TRAINED_PARTS
from ragdiff_jax.systems.prompts import Prompts
from ragdiff_jax.systems.ragdiffusion import RAGDiffusion
from ragdiff_jax.systems.text_retrieval import tower_params
from ragdiff_jax.systems.variants import with_conditions
from ragdiff_jax.training.objectives.autoencoder import AutoencoderObjective
from ragdiff_jax.training.objectives.clip import CLIPObjective
from ragdiff_jax.training.objectives.dino import DINOObjective
from ragdiff_jax.training.objectives.fashion_rag import EditDropout, FashionRAGObjective
from ragdiff_jax.training.objectives.flat_tower import FlatTowerObjective
from ragdiff_jax.training.objectives.pgea_conv_in import PGEAConvIn, PGEAConvInSGD
from ragdiff_jax.training.objectives.pgea_conv_out import PGEAConvOut
from ragdiff_jax.training.objectives.photo_tower import PhotoTowerObjective
from ragdiff_jax.training.objectives.ragdiffusion import RAGDiffusionObjective
from ragdiff_jax.training.objectives.structure_net import StructureNetObjective
from ragdiff_jax.training.objectives.text_to_image import TextToImageObjective
from ragdiff_jax.training.objectives.zero_shot import ZeroShotObjective
from ragdiff_jax.training.retrieved import retrieved_rows
from ragdiff_jax.weights.fashion_folder import load_fashion
from ragdiff_jax.weights.folder import read_config


def _rest(model: Any, *taken: str) -> dict[str, Any]:
    return {name: value for name, value in model.items() if name not in taken}


def autoencoder(model: Any, **data) -> AutoencoderObjective:
    start = model.get("init_from", "")
    config = VAEConfig.from_dict(read_config(f"{start}/vae") if start else model["vae"].to_dict())
    return AutoencoderObjective(config=config, **_rest(model, "vae"), **data)


def clip(model: Any, **data) -> CLIPObjective:
    return _clip(CLIPObjective, model, data)


def zero_shot(model: Any, **data) -> ZeroShotObjective:
    return _clip(ZeroShotObjective, model, data)


def _clip(objective: type[CLIPObjective], model: Any, data: Mapping[str, Any]) -> Any:
    preset = RAGDiffusion.from_config(model["preset"])
    own, asked = Tokenizer.from_folder(model["tokenizer"]).eos_id, preset.text_encoders[-1].eos_token_id
    if own != asked:  # the text would be read at its first token, and nothing would say so
        raise UserError(f"{model['tokenizer']}: its end token is {own}, the text encoder's is {asked}; make it anew")
    vision = dataclasses.replace(preset.structure_net.vision, **model.get("vision", {}))
    return objective(
        text=preset.text_encoders[-1],
        vision=vision,
        parts=_given(model.get("parts", {})),
        **_rest(model, "preset", "vision", "parts"),
        **data,
    )


def structure_net(model: Any, **data) -> StructureNetObjective:
    preset = RAGDiffusion.from_config(model["preset"])
    return StructureNetObjective(config=preset.structure_net, **_rest(model, "preset"), **data)


def dino(model: Any, **data) -> DINOObjective:
    preset = RAGDiffusion.from_config(model["preset"])
    return DINOObjective(vision=preset.structure_net.vision, **_rest(model, "preset"), **data)


def photo_tower(model: Any, **data) -> PhotoTowerObjective:
    preset = RAGDiffusion.from_config(model["preset"])
    return PhotoTowerObjective(config=preset.structure_net, **_rest(model, "preset"), **data)


def flat_tower(model: Any, **data) -> FlatTowerObjective:
    preset = RAGDiffusion.from_config(model["preset"])
    return FlatTowerObjective(config=preset.structure_net, **_rest(model, "preset"), **data)


def _system(model: Any) -> RAGDiffusion:
    """The preset, with the architecture of the parts that come from folders and the fields that the config changes."""
    system = RAGDiffusion.from_config(model["preset"], **model.get("changes", {}))
    parts = _given(model["parts"])
    own: dict[str, Any] = {}
    if "vae" in parts:  # the scaling factor is measured when the autoencoder is trained
        own["vae"] = VAEConfig.from_dict(read_config(parts["vae"]))
        latents = own["vae"].latent_channels
        own["unet"] = dataclasses.replace(system.unet, in_channels=latents, out_channels=latents)
    if "unet" in parts:  # PGEA changes its channels
        own["unet"] = UNetConfig.from_dict(read_config(parts["unet"]))
    if "structure_net" in parts:  # frozen here; its photo tower may be of another kind than the preset's
        own["structure_net"] = StructureNetConfig.from_dict(read_config(parts["structure_net"]))
    if "image_encoder" in parts:  # predicts attributes in serving; frozen here
        own["image_encoder"] = CLIPVisionConfig.from_dict(read_config(parts["image_encoder"]))
    system = dataclasses.replace(system, **own)
    if "conditions" in model:
        system = with_conditions(system, model["conditions"])
    if "dropout" in model:
        system = dataclasses.replace(system, dropout=Dropout(**model["dropout"]))
    return _reading(system, model)


def _given(parts: Mapping[str, str]) -> dict[str, str]:
    """The parts that have a folder; an empty name stands for none."""
    return {part: folder for part, folder in parts.items() if folder}


def _empty_ids(tokenizer: str) -> tuple[int, ...]:
    return tuple(int(i) for i in Tokenizer.from_folder(tokenizer).encode([""])[0])


def _reading(system: RAGDiffusion, model: Any) -> RAGDiffusion:
    """The system that knows how each text encoder's tokenizer pads: `tokenizers`, or `tokenizer` and `tokenizer_2`."""
    folders = model.get("tokenizers") or [model["tokenizer"], *filter(None, [model.get("tokenizer_2", "")])]
    if len(folders) != len(system.text_encoders):
        raise UserError(
            f"model has {len(system.text_encoders)} text encoders and {len(folders)} tokenizers "
            f"({', '.join(folders)}); name one for each, since they may pad differently: model.tokenizers, or "
            "model.tokenizer and model.tokenizer_2"
        )
    pads = tuple(Tokenizer.from_folder(folder).pad_id for folder in folders)
    return dataclasses.replace(system, text_pads=pads) if len(set(pads)) > 1 else system


def text_to_image(model: Any, **data) -> TextToImageObjective:
    return TextToImageObjective(
        model=_system(model),
        parts=_given(model["parts"]),
        empty_ids=_empty_ids(model["tokenizer"]),
        **_rest(model, "preset", "changes", "parts", "tokenizer", "tokenizer_2"),
        **data,
    )


def ragdiffusion(model: Any, **data) -> RAGDiffusionObjective:
    system = _system(model)
    there = system.modules()
    trained = "|".join(part for part in TRAINED_PARTS if part in there)
    return RAGDiffusionObjective(
        model=system,
        trainable=model.get("trainable") or f"^({trained})/",
        parts={part: folder for part, folder in _given(model["parts"]).items() if part in there},
        tokenizers=tuple(model["tokenizers"]),
        empty_ids=_empty_ids(model["tokenizers"][0]),
        **_rest(model, "preset", "changes", "conditions", "trainable", "parts", "tokenizers", "dropout"),
        **data,
    )


def _latent_change(kind: type, model: Any, data: Any) -> Any:
    """PGEA's stage I: the preset with the new autoencoder, and the U-Net of the folder with its channels."""
    parts = _given(model["parts"])
    for part in ("unet", "vae", "old_vae"):
        if part not in parts:
            raise UserError(f"model.parts.{part}: name its folder; PGEA moves a trained U-Net from old_vae to vae")
    old = UNetConfig.from_dict(read_config(parts["unet"]))
    vae, old_vae = (VAEConfig.from_dict(read_config(parts[part])) for part in ("vae", "old_vae"))
    if (old.in_channels, old.out_channels) != (old_vae.latent_channels,) * 2:
        raise UserError(
            f"{parts['unet']}: {old.in_channels} channels in and {old.out_channels} out, while {parts['old_vae']} has "
            f"{old_vae.latent_channels}; name the autoencoder that this U-Net was trained with"
        )
    unet = dataclasses.replace(old, in_channels=vae.latent_channels, out_channels=vae.latent_channels)
    return kind(
        model=_reading(
            RAGDiffusion.from_config(model["preset"], **model.get("changes", {}), unet=unet, vae=vae), model
        ),
        old_vae=old_vae,
        parts=parts,
        empty_ids=_empty_ids(model["tokenizer"]),
        **_rest(model, "preset", "changes", "parts", "tokenizer", "tokenizer_2"),
        **data,
    )


def pgea_conv_in(model: Any, **data) -> PGEAConvIn:
    return _latent_change(PGEAConvIn, model, data)


def pgea_conv_in_sgd(model: Any, **data) -> PGEAConvInSGD:
    return _latent_change(PGEAConvInSGD, model, data)


def pgea_conv_out(model: Any, **data) -> PGEAConvOut:
    return PGEAConvOut(
        model=_system(model),
        parts=_given(model["parts"]),
        empty_ids=_empty_ids(model["tokenizer"]),
        **_rest(model, "preset", "changes", "parts", "tokenizer", "tokenizer_2"),
        **data,
    )


# Networks that are as the system asks, whatever the folder's: a U-Net may still lack the pose.
_AS_ASKED = ("unet", "reference_net")


def _editing_system(model: Mapping[str, Any]) -> FashionRAG:
    """The system of the preset with the parts' own architectures."""
    parts = _given(model["parts"])
    system = FashionRAG.from_config(model["preset"], **model.get("changes", {}))
    system = dataclasses.replace(system, reference_net=model.get("reference_net", False))
    if model.get("image_prompt", False):
        system = with_image_prompt(system)
    for field in ("reference_net", "image_prompt"):
        if model.get(field, False) and not model["most"]:
            raise UserError(f"model.{field}: is made of the garments that are shown, and model.most is 0")
    kinds = {part: type(config) for part, config in system.configs().items()}
    if unknown := sorted(set(parts) - set(kinds)):
        raise UserError(f"model.parts.{unknown[0]}: no such part; there are {', '.join(kinds)}")
    own = {part: kinds[part].from_dict(read_config(folder)) for part, folder in parts.items() if part not in _AS_ASKED}
    system = dataclasses.replace(system, **own)
    return system if model["pose"] else without_pose(system)


def _prompts(system: FashionRAG, model: Mapping[str, Any]) -> Prompts:
    tokenizer = Tokenizer.from_folder(model["tokenizer"])
    return Prompts(kind=system.prompt, tokenizer=tokenizer, tokens=system.tokens)


def _editing_objective(model: Mapping[str, Any], system: FashionRAG, people: Any, held_out: Any) -> FashionRAGObjective:
    return FashionRAGObjective(
        model=system,
        parts=_given(model["parts"]),
        people=people,
        held_out=held_out,
        tokenizer=model["tokenizer"],
        empty_ids=_empty_ids(model["tokenizer"]),
        placeholder=_prompts(system, model).placeholder,
        dropout=EditDropout(**model.get("dropout", {})),
        **_rest(
            model, "preset", "changes", "parts", "pose", "reference_net", "image_prompt", "tokenizer", "dropout"
        ),
    )


def fashion_rag(model: Mapping[str, Any], data: Mapping[str, Any]) -> FashionRAGObjective:
    """The system and its people with what is retrieved for them."""
    parts, system = _given(model["parts"]), _editing_system(model)
    prompts, most = _prompts(system, model), model["most"]
    splits = [open_persons(data["folder"], split) for split in ("train", data.get("held_out", "validation"))]
    pictures = tuple(system.image_size) if system.reference_net else None
    database = Garments(splits[0], system.image_encoder.image_size, system.garment_fit, pictures)
    towers = {}
    if most:
        names = tower_params({part: None for part in system.configs()})
        if missing := [part for part in names if part not in parts]:
            raise UserError(f"model.parts.{missing[0]}: name its folder; garments are retrieved with it")
        towers = load_fashion(system, {part: parts[part] for part in names})
    ready = []
    for source in splits:
        people = PersonArrays(
            source,
            shape=system.image_size,
            tokenizer=prompts.tokenizer,
            mask_mode=data.get("mask_mode", "mask"),
            rules=data.get("mask_rules", "") or getattr(source, "mask_rules", "dresscode"),
            cache=data.get("cache", False),
        )
        rows = np.zeros((len(source), 0), np.int32)
        if most:
            rows = retrieved_rows(
                system, towers, prompts.tokenizer, source, database, most, keep=data.get("retrieved", "")
            )
        ready.append(PersonsWithGarments(people, database, rows, prompts, most=most))
    return _editing_objective(model, system, *ready)


def fashion_rag_shapes(model: Mapping[str, Any], text_length: int) -> FashionRAGObjective:
    """The same over people who needn't be here: to plan a run with."""
    system = _editing_system(model)
    people = PersonShapes(
        tuple(system.image_size), system.image_encoder.image_size, model["most"], text_length, system.reference_net
    )
    return _editing_objective(model, system, people, people)


# Stages that read people in place of pairs; they open their data themselves.
PERSON_BUILDERS = {"fashion_rag": fashion_rag}
SHAPE_BUILDERS = {"fashion_rag": fashion_rag_shapes}

# Stages of a whole RAGDiffusion, which draws pictures of its own size alone.
OF_ONE_SIZE = ("text_to_image", "ragdiffusion", "pgea_conv_in", "pgea_conv_in_sgd", "pgea_conv_out")
BUILDERS = {
    "autoencoder": autoencoder,
    "clip": clip,
    "zero_shot": zero_shot,
    "dino": dino,
    "text_to_image": text_to_image,
    "structure_net": structure_net,
    "flat_tower": flat_tower,
    "photo_tower": photo_tower,
    "ragdiffusion": ragdiffusion,
    "pgea_conv_in": pgea_conv_in,
    "pgea_conv_in_sgd": pgea_conv_in_sgd,
    "pgea_conv_out": pgea_conv_out,
}
