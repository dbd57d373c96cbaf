"""The trainings behind the claims: variants of one stem, each by `ragdiff train` on a config, equally long."""

import dataclasses
import json
import os
import re
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation.claims.store import key_of
from ragdiff_jax.evaluation.claims.world import TRAINING, NotRun, World


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A training.

    Attributes:
      config: below `--configs`, as `ragdiff train --config` takes it; {stem} is the stem's folder.
      settings: what --set changes. In values {stem}, {memory}, {data} are places, {tokenizer} the stem's, and {NAME}
        the model folder that the variant NAME ends in.
      says: what it is, for the report.
      from_nothing: gets the budget's `scratch_steps`.
    """

    config: str
    says: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    from_nothing: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        """Other variants that come first."""
        text = " ".join(str(value) for value in self.settings.values())
        return tuple(name for name in dict.fromkeys(re.findall(r"{(\w+)}", text)) if name in VARIANTS)


_SYSTEM = {"data.folder": "{data}", "model.memory": "{memory}"}
_TEXT = {"data.folder": "{data}", "data.tokenizer": "{tokenizer}", "model.tokenizer": "{tokenizer}"}
_TEXT |= {"model.parts.text_encoder": "{stem}/text_encoder"}
_PGEA = _TEXT | {"model.parts.vae": "{autoencoder16}/vae"}


def _of_stem(name: str, says: str) -> Variant:
    return Variant(config=f"baselines/{name}.py:{{stem}}", says=says, settings=_SYSTEM)


VARIANTS: dict[str, Variant] = {
    "full": _of_stem("full", "RAGDiffusion, every condition made anew on the stem as the baselines make theirs"),
    "vanilla": _of_stem("vanilla", "R's Vanilla Model: ReferenceNet alone"),
    "embedding_only": _of_stem("embedding_only", "ReferenceNet and the structure embedding"),
    "silhouette_only": _of_stem("silhouette_only", "ReferenceNet and the silhouette"),
    "latent_concat": _of_stem("latent_concat", "the photo's latents beside the noise, as TryOffAnyone"),
    "encoder_tokens": _of_stem("encoder_tokens", "an encoder's tokens for the text, as TryOffDiff"),
    "paint_by_example": _of_stem("paint_by_example", "one image token for the text, as Paint-by-Example"),
    "ip_adapter": _of_stem("ip_adapter", "image tokens in attentions of their own, as IP-Adapter"),
    "controlnet": _of_stem("controlnet", "a trained copy of the encoder sees the photo, as ControlNet"),
    "mask_unet": _of_stem("mask_unet", "a U-Net draws the silhouette in the place of retrieval"),
    "no_augment": Variant(
        config="baselines/full.py:{stem}",
        says="the same without R 9.5's augmentations, contrast among them",
        settings=_SYSTEM | {"model.augment": False},
    ),
    "fresh_reference": Variant(
        config="ragdiffusion/tiny.py:{stem}",
        says="RAGDiffusion whose ReferenceNet and adapter start as copies of the U-Net: what PGEA is held against",
        settings=_SYSTEM | {"model.parts.reference_net": "", "model.parts.ep_adapter": ""},
    ),
    "autoencoder4": Variant(
        config="autoencoder/tiny.py",
        says="an autoencoder of 4 channels",
        settings={"data.folder": "{data}", "model.vae.latent_channels": 4},
        from_nothing=True,
    ),
    "autoencoder16": Variant(
        config="autoencoder/tiny.py",
        says="an autoencoder of 16 channels",
        settings={"data.folder": "{data}", "model.vae.latent_channels": 16},
        from_nothing=True,
    ),
    "pgea_in": Variant(
        config="pgea/tiny.py:stage1",
        says="PGEA's stage I in closed form: the stem's U-Net for 16 channels",
        settings=_PGEA | {"model.parts.old_vae": "{stem}/vae", "model.parts.unet": "{stem}/unet"},
    ),
    "pgea_out": Variant(
        config="pgea/tiny.py:stage1_out",
        says="its conv_out, in closed form",
        settings=_PGEA | {"model.parts.unet": "{pgea_in}/unet"},
    ),
    "pgea_convs": Variant(
        config="pgea/tiny.py:stage2",
        says="PGEA's stage II: its convolutions by the U-Net's own loss",
        settings=_PGEA | {"model.parts.unet": "{pgea_out}/unet"},
    ),
    "pgea_unet": Variant(
        config="pgea/tiny.py:stage3",
        says="PGEA's stage III: the whole U-Net",
        settings=_PGEA | {"model.parts.unet": "{pgea_convs}/unet"},
    ),
    "pgea": Variant(
        config="ragdiffusion/tiny.py:{stem}",
        says="RAGDiffusion on the autoencoder of 16 channels, from PGEA's U-Net",
        settings=_SYSTEM
        | {
            "model.parts.vae": "{autoencoder16}/vae",
            "model.parts.unet": "{pgea_unet}/unet",
            "model.parts.reference_net": "",
            "model.parts.ep_adapter": "",
        },
    ),
}


def recipe(world: World, name: str, seed: int) -> dict[str, Any]:
    """All that decides what a variant's weights will be. Raises `NotRun` where its config isn't there."""
    variant = VARIANTS[name]
    return {
        "variant": name,
        "config": key_of({"config": config_of(world.configs, name)}),
        "settings": dict(variant.settings),
        "needs": {other: recipe(world, other, seed) for other in variant.needs},
        "stem": world.fingerprint("stem"),
        "memory": world.fingerprint("memory"),
        "data": [world.drawn, TRAINING, world.budget.train_pairs, world.image_size],
        "steps": steps_of(world, name),
        "batch": world.budget.train_batch,
        "seed": seed,
    }


def config_of(configs: Path, name: str) -> dict[str, Any]:
    """What the config of a variant says, wherever it takes it from; places are left in braces.

    Raises `NotRun` where it isn't there.
    """
    file, _, argument = VARIANTS[name].config.partition(":")
    if not (configs / file).is_file():
        raise NotRun(f"no config: {configs / file}")
    get_config = runpy.run_path(str(configs / file)).get("get_config")
    if get_config is None:
        raise NotRun(f"no config: {configs / file} has no get_config()")
    return json.loads((get_config(argument) if argument else get_config()).to_json())


def steps_of(world: World, name: str) -> int:
    return world.budget.scratch_steps if VARIANTS[name].from_nothing else world.budget.train_steps


def model_of(world: World, name: str, seed: int) -> Path:
    """The model folder of a variant, trained now if it isn't there yet; an interrupted training goes on.

    Raises `NotRun` where nothing is to be trained, or where its config isn't there or can't be trained.
    """
    variant = VARIANTS[name]
    workdir = world.out / "variants" / f"{name}-{key_of(recipe(world, name, seed))}"
    if (workdir / "model" / "model.json").is_file():
        return workdir / "model"
    if world.trainer is None:
        raise NotRun("needs training, which --no-training leaves out")
    places = {other: model_of(world, other, seed) for other in variant.needs}
    places |= {"stem": world.stem, "memory": world.memory_path, "tokenizer": world.stem / "tokenizer"}
    places["data"] = world.training_pairs()
    words = {key: str(value).replace(os.sep, "/") for key, value in places.items()}

    def filled(value: Any) -> Any:
        return re.sub(r"{(\w+)}", lambda found: words[found[1]], value) if isinstance(value, str) else value

    settings = {key: filled(value) for key, value in variant.settings.items()}
    settings |= {
        "train.steps": steps_of(world, name),
        "train.batch_size": world.budget.train_batch,
        "train.warmup": min(20, steps_of(world, name) // 5),
        "train.sample_every": 0,
        "train.validate_every": 0,
        "train.seed": seed,
    }
    try:
        world.trainer(str(world.configs / filled(variant.config)), workdir, settings)
    except UserError as error:
        raise NotRun(f"training {name}: {error}") from error
    if not (workdir / "model" / "model.json").is_file():
        raise NotRun(f"training {name} ended without a model; the same command goes on with it")
    return workdir / "model"
