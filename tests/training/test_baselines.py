"""The configs of configs/baselines/: each is the conditions that it is called by, and its folder says so again."""

import dataclasses
import json
import os
from pathlib import Path

import jax.numpy as jnp
import pytest

import ragdiff_jax as rd
from ragdiff_jax.cli.train import apply_settings, read_config
from ragdiff_jax.systems.variants import conditions_of
from ragdiff_jax.training.plan import abstract_objective
from ragdiff_jax.weights import model_folder

ROOT = Path(__file__).parents[2]
TINY = ROOT / "ragdiff_jax" / "assets" / "tiny"
CONDITIONS = {
    "full": ("reference", "structure", "landmark"),
    "vanilla": ("reference",),
    "embedding_only": ("reference", "structure"),
    "silhouette_only": ("reference", "landmark"),
    "latent_concat": ("latent_concat",),
    "encoder_tokens": ("image_tokens",),
    "paint_by_example": ("class_token",),
    "ip_adapter": ("image_prompt",),
    "mask_unet": ("reference", "predicted_landmark"),
    "controlnet": ("control",),
}
FROZEN = {"vae", "text_encoder", "structure_net"}
PARTS = {
    "reference": {"reference_net"},
    "structure": {"ep_adapter"},
    "landmark": {"landmark_guider"},
    "predicted_landmark": {"landmark_guider", "mask_unet"},
    "latent_concat": set(),
    "image_tokens": {"token_adapter"},
    "class_token": {"class_adapter"},
    "image_prompt": {"image_adapter"},
    "control": {"control_net", "photo_guider"},
}


def config_only(folder, config, params, dtype=None):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))


def test_every_baseline_has_its_config():
    assert {path.stem for path in (ROOT / "configs" / "baselines").glob("*.py")} == set(CONDITIONS)


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_baseline_starts_from_the_stem_and_its_folder_says_what_it_is(name, tmp_path, monkeypatch):
    config = read_config(f"{ROOT / 'configs' / 'baselines' / name}.py:{TINY}")
    objective = abstract_objective(config)
    model, names = objective.model, CONDITIONS[name]
    assert conditions_of(model) == names
    added = set().union(*(PARTS[condition] for condition in names))
    frozen = FROZEN | ({"image_encoder"} if {"image_tokens", "class_token", "image_prompt"} & set(names) else set())
    assert set(model.modules()) == frozen | added | {"unet"}
    # Only what is added starts anew; it trains, with the U-Net.
    assert set(objective.parts) == frozen | {"unet"} and all(map(os.path.isdir, objective.parts.values()))
    assert set(objective.trainable[2:-2].split("|")) == added | {"unet"}

    monkeypatch.setattr(model_folder, "save_part", config_only)
    nothing = dict.fromkeys(model.modules())
    model_folder.save_model(tmp_path / "model", model, nothing, [TINY / "tokenizer"], calibration=None)
    same = dataclasses.replace(model, dropout=rd.Dropout(), dtype=jnp.float32)  # how it trains isn't in the folder
    assert rd.read_model(tmp_path / "model") == same


def test_a_whole_model_trains_on_with_other_conditions_and_what_it_has_of_them():
    config = read_config(f"{ROOT / 'configs' / 'ragdiffusion' / 'tiny.py'}:{TINY}")
    apply_settings(config, ["model.conditions=('reference', 'predicted_landmark')", "model.trainable=^mask_unet/"])
    objective = abstract_objective(config)
    assert conditions_of(objective.model) == ("reference", "predicted_landmark")
    assert set(objective.parts) == FROZEN | {"unet", "reference_net", "landmark_guider"}
    assert objective.trainable == "^mask_unet/"
