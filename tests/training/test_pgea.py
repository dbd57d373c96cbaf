"""PGEA's stages in the real loop, on eight drawn pairs of 32 pixels: an 8-channel U-Net moved to 12 channels."""

import dataclasses
import json
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_jit
from small_model import random_params, small_system
from toy import losses

from ragdiff_jax.cli.train import read_config as read_train_config
from ragdiff_jax.data.pipeline import PairArrays
from ragdiff_jax.data.synth_dataset import synth_record
from ragdiff_jax.data.tokenizer import train_tokenizer
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.unet import UNet
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.parallel import make_mesh
from ragdiff_jax.systems.ragdiffusion import RAGDiffusion
from ragdiff_jax.training import TrainSettings, builders, make_step, train
from ragdiff_jax.training.loop import make_plan
from ragdiff_jax.training.objectives.pgea_conv_in import PGEAConvIn, PGEAConvInSGD
from ragdiff_jax.training.objectives.pgea_conv_out import PGEAConvOut
from ragdiff_jax.training.objectives.text_to_image import TextToImageObjective
from ragdiff_jax.weights import load_part, read_config, save_part
from ragdiff_jax.weights.model_folder import part_configs

CONFIGS = Path(__file__).parents[2] / "configs" / "pgea"
OLD = small_system()
NEW = dataclasses.replace(
    OLD,
    vae=dataclasses.replace(OLD.vae, latent_channels=12),
    unet=dataclasses.replace(OLD.unet, in_channels=12, out_channels=12),
)
SUMS = TrainSettings(
    steps=4, batch_size=8, optimizer="none", learning_rate=0.0, weight_decay=0.0, checkpoint_seconds=0.0
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    base = tmp_path_factory.mktemp("pgea")
    records = [synth_record(row, size=32) for row in range(8)]
    tokenizer = train_tokenizer([record.caption for record in records], 700, base / "tokenizer")
    old, new = random_params(OLD), random_params(NEW, seed=1)
    for name, part, model, params in (
        ("unet", "unet", OLD, old),
        ("old_vae", "vae", OLD, old),
        ("text_encoder", "text_encoder", OLD, old),
        ("vae", "vae", NEW, new),
        ("new_unet", "unet", NEW, new),
    ):
        save_part(base / name, part_configs(model)[part], params[part])
    return types.SimpleNamespace(
        base=base,
        pairs=PairArrays(records, image_size=32, tokenizer=tokenizer, cache=True),
        parts={name: str(base / name) for name in ("unet", "old_vae", "text_encoder", "vae")},
        empty_ids=tuple(int(i) for i in tokenizer.encode([""])[0]),
        old=old,
        new=new,
    )


def objective(world, kind=PGEAConvIn, model=NEW, **changes):
    fields = {"pairs": world.pairs, "model": model, "parts": world.parts, "empty_ids": world.empty_ids}
    return kind(**(fields | {"old_vae": OLD.vae} | changes))


def load_unet(folder, config):
    assert UNetConfig.from_dict(read_config(folder)) == config
    like = random_params(NEW if config == NEW.unet else OLD)["unet"]
    return load_part(folder, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), like))


@pytest.fixture(scope="module")
def first_stage(world, tmp_path_factory):
    """The folder of four steps on one device."""
    workdir = tmp_path_factory.mktemp("stage1")
    train(objective(world), workdir, SUMS, make_mesh(devices=jax.devices()[:1]))
    return workdir


def test_eight_devices_and_a_resume_sum_what_one_device_sums(world, first_stage, tmp_path):
    mesh = make_mesh(data=2, fsdp=4)
    train(objective(world), tmp_path, dataclasses.replace(SUMS, steps=2), mesh)
    assert train(objective(world), tmp_path, SUMS, mesh).finished
    one, eight = losses(first_stage), losses(tmp_path)
    assert list(one) == list(eight) == [1, 2, 3, 4]
    np.testing.assert_allclose(list(one.values()), list(eight.values()), rtol=1e-2)
    a, b = (load_unet(folder / "model/unet", NEW.unet) for folder in (first_stage, tmp_path))
    scale = float(jnp.abs(a["conv_in"]["kernel"]).max())
    np.testing.assert_allclose(a["conv_in"]["kernel"], b["conv_in"]["kernel"], atol=1e-3 * scale)
    assert one[2] < 0.9 * one[1]  # of one batch, and of none
    for name in a:
        if name not in ("conv_in", "conv_out"):
            jax.tree.map(np.testing.assert_array_equal, a[name], world.old["unet"][name])


def test_the_closed_form_beats_gradient_steps_on_the_same_batches(world, first_stage, tmp_path):
    sgd = objective(world, PGEAConvInSGD, map_pairs=8)
    settings = TrainSettings(
        steps=30, batch_size=8, learning_rate=3e-2, weight_decay=0.0, checkpoint_seconds=0.0, frozen_dtype="float32"
    )
    train(sgd, tmp_path, settings, make_mesh(devices=jax.devices()[:1]))
    step = losses(tmp_path)
    assert step[30] < 0.5 * step[1]
    params = sgd.restore_parts(jax.device_put(random_parts(world)))
    batch = world.pairs.batch(np.arange(8))
    loss = quick_jit(lambda params, key: sgd.loss(params, {}, batch, key)[0].mean())

    def error(unet):
        return np.mean([loss(params | {"conv_in": unet["conv_in"]}, jax.random.key(i)) for i in range(8)])

    closed, learned = (load_unet(folder / "model/unet", NEW.unet) for folder in (first_stage, tmp_path))
    assert error(closed) < error(learned)


def random_parts(world):
    old = world.old
    return {
        "unet": old["unet"],
        "old_vae": old["vae"],
        "vae": world.new["vae"],
        "text_encoder": old["text_encoder"],
        "isometry": np.zeros((12, 8), np.float32),
    }


def test_the_same_autoencoder_changes_nothing(world, tmp_path):
    same = objective(world, model=OLD, parts=world.parts | {"vae": world.parts["old_vae"]})
    train(same, tmp_path, SUMS, make_mesh(devices=jax.devices()[:1]))
    unet, old = load_unet(tmp_path / "model/unet", OLD.unet), world.old["unet"]
    for name in ("conv_in", "conv_out"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), unet[name], old[name])
    inputs = (
        jax.random.normal(jax.random.key(0), (1, 8, 8, 8)),
        jnp.array([500]),
        jnp.ones((1, 3, 32)),
        jnp.ones((1, 32)),
        jnp.ones((1, 6)),
    )
    apply = quick_jit(lambda params: UNet(OLD.unet).apply({"params": params}, *inputs))
    expected = apply(old)
    np.testing.assert_allclose(apply(unet), expected, atol=1e-3 * float(jnp.abs(expected).max()))


def test_conv_out_is_fitted_and_nothing_else(world, tmp_path):
    parts = {part: world.parts[part] for part in ("vae", "text_encoder")} | {"unet": str(world.base / "new_unet")}
    fields = dict(pairs=world.pairs, model=NEW, parts=parts, empty_ids=world.empty_ids)
    fit = PGEAConvOut(**fields)
    settings = dataclasses.replace(SUMS, steps=6, validate_every=6)
    train(fit, tmp_path, settings, make_mesh(devices=jax.devices()[:1]))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    fitted = next(line["validation/loss"] for line in lines if "validation/loss" in line)
    params = {"unet": world.new["unet"], "vae": world.new["vae"], "text_encoder": world.old["text_encoder"]}
    before = TextToImageObjective(**fields).validation(params, {}, jax.random.key(0))["loss"]
    assert fitted < 0.9 * before
    assert losses(tmp_path)[6] < losses(tmp_path)[1]
    unet = load_unet(tmp_path / "model/unet", NEW.unet)
    assert not np.array_equal(unet["conv_out"]["kernel"], world.new["unet"]["conv_out"]["kernel"])
    for name in unet:
        if name != "conv_out":
            jax.tree.map(np.testing.assert_array_equal, unet[name], world.new["unet"][name])


@pytest.mark.parametrize("preset", ["tiny", "sdxl_flux"])
def test_the_configs_of_all_stages_build(world, preset, tmp_path):
    old = RAGDiffusion.from_config("tiny" if preset == "tiny" else "sdxl")
    new = dataclasses.replace(
        old,
        vae=dataclasses.replace(old.vae, latent_channels=16),
        unet=dataclasses.replace(old.unet, in_channels=16, out_channels=16),
    )
    for stage in ("stage1", "stage1_sgd", "stage1_out", "stage2", "stage3"):
        config = read_train_config(f"{CONFIGS / preset}.py:{stage}")
        first = stage in ("stage1", "stage1_sgd")
        for part in config.model.parts:
            source = part_configs(old if part == "old_vae" or (part == "unet" and first) else new)
            folder = tmp_path / stage / part
            folder.mkdir(parents=True)
            (folder / "config.json").write_text(json.dumps(source["vae" if part == "old_vae" else part]))
            config.model.parts[part] = str(folder)
        config.model.tokenizer = str(world.base / "tokenizer")
        built = builders.BUILDERS[config.objective](config.model, pairs=world.pairs, held_out=world.pairs)
        assert built.model.unet == new.unet and built.model.vae == new.vae
        settings, mesh = TrainSettings(**config.train), make_mesh(**config.mesh)
        make_step(built, settings, mesh)  # refuses settings that don't go with the objective
        if preset == "tiny" and stage == "stage2":
            assert set(make_plan(built, settings, mesh).state.params["unet"]) == {"conv_in", "conv_out"}
    if preset == "sdxl_flux":
        steps = [read_train_config(f"{CONFIGS / preset}.py:{stage}").train.steps for stage in ("stage2", "stage3")]
        assert steps == [20_000, 200_000]


def test_what_cannot_be_moved_is_refused_in_one_line(world, tmp_path):
    other = dataclasses.replace(OLD.vae, block_out_channels=(8, 8))
    with pytest.raises(UserError, match="1/2 of the picture's side.*1/4"):
        objective(world, old_vae=other)
    with pytest.raises(UserError, match="old_vae missing"):
        objective(world, parts={part: world.parts[part] for part in ("unet", "vae", "text_encoder")})
    with pytest.raises(UserError, match="noise='white'"):
        objective(world, noise="white")
    with pytest.raises(UserError, match="unet missing"):
        PGEAConvOut(pairs=world.pairs, model=NEW, parts={}, empty_ids=world.empty_ids)
    one = make_mesh(devices=jax.devices()[:1])
    with pytest.raises(UserError, match="takes no gradient"):
        train(objective(world), tmp_path, dataclasses.replace(SUMS, optimizer="adamw"), one)
    with pytest.raises(UserError, match="trained by gradients"):
        train(objective(world, PGEAConvInSGD), tmp_path, SUMS, one)
    config = read_train_config(f"{CONFIGS / 'tiny.py'}:stage1")
    config.model.parts = {"unet": world.parts["unet"], "vae": world.parts["vae"], "old_vae": world.parts["vae"]}
    with pytest.raises(UserError, match="8 channels in and 8 out.*has 12"):
        builders.pgea_conv_in(config.model, pairs=world.pairs)
