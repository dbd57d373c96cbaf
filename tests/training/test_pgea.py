"""PGEA's stages in the real train step, on eight drawn pairs of 16 pixels: an 8-channel U-Net moved to 12 channels."""

import dataclasses
import json
import shutil
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import OPTIONS, quick_jit
from small_model import random_params, small_system
from toy import Toy, exported, losses

from ragdiff_jax.cli.train import read_config as read_train_config
from ragdiff_jax.data.pipeline import PairArrays
from ragdiff_jax.data.synth_dataset import synth_record
from ragdiff_jax.data.tokenizer import Tokenizer, train_tokenizer
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.unet import UNet
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.parallel import make_mesh, merge, mesh_context, partition, shard_batch
from ragdiff_jax.systems.ragdiffusion import RAGDiffusion
from ragdiff_jax.training import Summing, TrainSettings, builders, make_step, train
from ragdiff_jax.training.least_squares import add_rows, total, zero_sums
from ragdiff_jax.training.loop import make_plan
from ragdiff_jax.training.objectives.pgea_conv_in import PGEAConvIn, PGEAConvInSGD
from ragdiff_jax.training.objectives.pgea_conv_out import PGEAConvOut
from ragdiff_jax.training.objectives.text_to_image import TextToImageObjective
from ragdiff_jax.training.state import fresh_state
from ragdiff_jax.training.step import jit_step
from ragdiff_jax.weights import load_part, read_config
from ragdiff_jax.weights.model_folder import part_configs

CONFIGS = Path(__file__).parents[2] / "configs" / "pgea"


def _system(channels):
    small = small_system()
    vae = dataclasses.replace(
        small.vae, block_out_channels=(8, 8), latent_channels=channels, mid_block_add_attention=False
    )
    guider = dataclasses.replace(small.landmark_guider, strides=(1, 1, 1, 2))
    unet = dataclasses.replace(small.unet, in_channels=channels, out_channels=channels)
    return dataclasses.replace(small, image_size=16, vae=vae, unet=unet, landmark_guider=guider)


OLD, NEW = _system(8), _system(12)
SUMS = TrainSettings(
    steps=4, batch_size=8, optimizer="none", learning_rate=0.0, weight_decay=0.0, checkpoint_seconds=0.0
)
SGD = TrainSettings(steps=40, batch_size=8, learning_rate=3e-2, weight_decay=0.0)
PARTS = ("unet", "old_vae", "vae", "text_encoder")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    base = tmp_path_factory.mktemp("pgea")
    records = [synth_record(row, size=16) for row in range(8)]
    tokenizer = train_tokenizer([record.caption for record in records], 700, base / "tokenizer")
    old, new = random_params(OLD, seed=2), random_params(NEW, seed=3)
    return types.SimpleNamespace(
        base=base,
        pairs=PairArrays(records, image_size=16, tokenizer=tokenizer, cache=True),
        empty_ids=tuple(int(i) for i in tokenizer.encode([""])[0]),
        old=old,
        new=new,
        params={"unet": old["unet"], "old_vae": old["vae"], "vae": new["vae"], "text_encoder": old["text_encoder"]},
    )


def objective(world, kind=PGEAConvIn, model=NEW, **changes):
    fields = {"pairs": world.pairs, "model": model, "parts": dict.fromkeys(PARTS, "given"), "old_vae": OLD.vae}
    return kind(**(fields | {"empty_ids": world.empty_ids} | changes))


def take_steps(objective, settings, mesh, steps, params):
    """(the whole tree after, the losses), from `params`."""
    plan = make_plan(objective, settings, mesh)
    params = jax.device_put(params, jax.tree.map(lambda x: x.sharding, plan.params))
    trainable, frozen = partition(params, objective.trainable)
    state, found, compiled = fresh_state(settings, trainable, plan.state), [], None
    batches = objective.batches(batch_size=8, seed=0, start_step=0)
    with mesh_context(mesh):
        for _ in range(steps):
            batch = shard_batch(mesh, next(batches))
            if compiled is None:
                step = jit_step(objective, settings, mesh, plan.state)
                compiled = step.lower(state, frozen, {}, batch).compile(compiler_options=OPTIONS)
            state, metrics = compiled(state, frozen, {}, batch)
            found.append(float(metrics["loss"]))
    batches.close()
    return merge(state.params, frozen), found


def with_sums(world, objective):
    return world.params | {"sums": jax.tree.map(np.asarray, zero_sums(objective.width))}


@pytest.fixture(scope="module")
def one_device():
    return make_mesh(devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def closed_form(world, one_device):
    """(parameters, losses) of four steps of the closed form on one device."""
    fit = objective(world)
    return take_steps(fit, SUMS, one_device, 4, with_sums(world, fit))


def test_eight_devices_sum_what_one_device_sums(world, closed_form):
    fit = objective(world)
    params, found = take_steps(fit, SUMS, make_mesh(data=2, fsdp=4), 4, with_sums(world, fit))
    np.testing.assert_allclose(found, closed_form[1], rtol=1e-3)
    assert found[1] < 0.9 * found[0]  # of one batch, and of none
    gram = total(closed_form[0]["sums"])
    np.testing.assert_allclose(total(params["sums"]), gram, atol=1e-6 * np.abs(gram).max())
    conv_in = fit.conv_in(params)
    np.testing.assert_allclose(conv_in, fit.conv_in(closed_form[0]), atol=1e-3 * np.abs(conv_in).max())


def test_stage_one_exports_a_unet_with_new_channels_only(world, closed_form, tmp_path):
    fit = objective(world)
    fit.export(closed_form[0], tmp_path)
    assert UNetConfig.from_dict(read_config(tmp_path / "unet")) == NEW.unet
    unet = load_unet(tmp_path / "unet")
    np.testing.assert_allclose(
        unet["conv_in"]["kernel"].reshape(9 * 12, -1), fit.conv_in(closed_form[0])[:-1], rtol=1e-6
    )
    for name in unet:
        if name not in ("conv_in", "conv_out"):
            jax.tree.map(np.testing.assert_array_equal, unet[name], world.old["unet"][name])


def load_unet(folder):
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), random_params(NEW)["unet"])
    return load_part(folder, like)


def test_the_closed_form_beats_gradient_steps_on_the_same_batches(world, closed_form, one_device):
    sgd, fit = objective(world, PGEAConvInSGD), objective(world)
    fresh = {"kernel": np.random.default_rng(0).normal(size=(3, 3, 12, 16)) / 10, "bias": np.zeros(16)}
    params = world.params | {"conv_in": fresh, "isometry": fit.isometry(closed_form[0])}
    params = jax.tree.map(lambda x: np.asarray(x, np.float32), params)
    after, found = take_steps(sgd, SGD, one_device, 40, params)
    assert found[-1] < 0.5 * found[0]
    assert not np.array_equal(after["conv_in"]["kernel"], params["conv_in"]["kernel"])
    for part in (*PARTS, "isometry"):
        jax.tree.map(np.testing.assert_array_equal, after[part], params[part])

    batch = world.pairs.batch(np.arange(8))
    loss = quick_jit(lambda conv_in, key: sgd.loss({**params, "conv_in": conv_in}, {}, batch, key)[0].mean())

    def error(conv_in):
        return np.mean([loss(conv_in, jax.random.key(i)) for i in range(8)])

    assert error(fit.adapted(closed_form[0])["unet"]["conv_in"]) < error(after["conv_in"])


def test_gradient_steps_measure_the_isometry_of_the_noise(world, closed_form, monkeypatch):
    """It is the closed form's, of the same pictures."""
    sgd = objective(world, PGEAConvInSGD, map_pairs=8)
    monkeypatch.setattr(TextToImageObjective, "restore_parts", lambda self, params: params)
    params = jax.device_put(world.params | {"isometry": np.zeros((12, 8), np.float32)})
    found = sgd.restore_parts(params)["isometry"]
    np.testing.assert_allclose(found, objective(world).isometry(closed_form[0]), atol=1e-3)


@pytest.mark.parametrize("noise", ["matched", "none"])
def test_the_same_autoencoder_changes_nothing(world, noise):
    same = objective(world, model=OLD, noise=noise)
    batch = {name: world.pairs.batch(np.arange(8))[name] for name in ("flat", "photo")}
    params = world.params | {"vae": world.old["vae"]}
    columns = quick_jit(lambda params, batch: same.columns(params, batch))(params, batch)
    params = params | {"sums": add_rows(zero_sums(same.width), columns)}
    unet, old = same.adapted(params)["unet"], world.old["unet"]
    for name in ("conv_in", "conv_out"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), unet[name], old[name])
    if noise == "matched":
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


def test_conv_out_is_fitted_and_nothing_else(world, one_device):
    parts = dict.fromkeys(("unet", "vae", "text_encoder"), "given")
    fields = dict(pairs=world.pairs, model=NEW, parts=parts, empty_ids=world.empty_ids)
    fit = PGEAConvOut(**fields)
    before = {"unet": world.new["unet"], "vae": world.new["vae"], "text_encoder": world.old["text_encoder"]}
    sums = jax.tree.map(np.asarray, zero_sums(fit.inputs + 12))
    params, found = take_steps(fit, SUMS, one_device, 6, before | {"sums": sums})
    assert found[-1] < 0.9 * found[0]
    after = fit.adapted(params)
    batch = {name: world.pairs.batch(np.arange(8))[name] for name in ("flat", "text_ids")}
    loss = quick_jit(lambda params, key: fit.denoising_loss(params, batch, key).mean())
    mean = [np.mean([loss(tree, jax.random.key(i)) for i in range(4)]) for tree in (after, before)]
    assert mean[0] < 0.9 * mean[1]
    # The step's figure of the unfitted conv_out is text_to_image's loss: the features are what conv_out sees.
    assert found[0] == pytest.approx(mean[1], rel=0.3)
    for name in after["unet"]:
        if name != "conv_out":
            jax.tree.map(np.testing.assert_array_equal, after["unet"][name], world.new["unet"][name])


def test_each_stage_starts(world, closed_form, one_device):
    """What a run checks of a stage before its first step."""
    fit = objective(world)
    fresh = {"conv_in": world.new["unet"]["conv_in"], "isometry": np.zeros((12, 8), np.float32)}
    parts = dict.fromkeys(("unet", "vae", "text_encoder"), "given")
    out = PGEAConvOut(pairs=world.pairs, model=NEW, parts=parts, empty_ids=world.empty_ids)
    sums = {"sums": zero_sums(4)}
    for stage, params in (
        (fit, world.params | sums),
        (objective(world, PGEAConvInSGD), world.params | fresh),
        (out, world.new | sums),
    ):
        stage.prepared(params, {}, one_device)
        with pytest.raises(UserError, match="trainable=unet/conv_in: finds unet/conv_in/"):
            dataclasses.replace(stage, trainable="unet/conv_in").prepared(params, {}, one_device)


class Sums(Toy, Summing):
    """Sums of the toy's pixels."""

    def init(self, key):
        return {"head": zero_sums(4), **{"unused": jnp.ones(3)}}

    def add(self, params, constants, batch, key):
        x = batch["x"]
        columns = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)
        return {"head": add_rows(params["head"], columns)}, jnp.square(x).mean((1, 2, 3)), {}

    def validation(self, params, constants, key):
        return {}


def test_a_summing_stage_resumes_and_ends_with_all_its_sums(tmp_path, one_device):
    train(Sums(), tmp_path / "whole", SUMS, one_device)
    mesh = make_mesh(data=2, fsdp=4)
    assert not train(Sums(), tmp_path / "cut", dataclasses.replace(SUMS, steps=2), mesh).step == 4
    assert train(Sums(), tmp_path / "cut", SUMS, mesh).finished
    whole, cut = exported(tmp_path / "whole"), exported(tmp_path / "cut")
    assert whole["head.gram"][-1, -1] == 4 * 8 * 64  # each pixel once
    np.testing.assert_allclose(whole["head.gram"], cut["head.gram"], rtol=1e-4, atol=1e-2)
    assert list(losses(tmp_path / "cut")) == [1, 2, 3, 4]


def other_padding(tokenizer, base):
    """A copy that pads with "!", id 0, as SDXL's second does."""
    shutil.copytree(tokenizer, base / "tokenizer_2")
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        content = json.loads((base / "tokenizer_2" / file).read_text())
        (base / "tokenizer_2" / file).write_text(json.dumps(content | {"pad_token": "!"}))
    return str(base / "tokenizer_2")


@pytest.mark.parametrize("preset", ["tiny", "sdxl_flux"])
def test_the_configs_of_all_stages_build(world, preset, tmp_path):
    if preset == "tiny":
        old = RAGDiffusion.from_config("tiny")
        vae = dataclasses.replace(old.vae, latent_channels=16)
        unet = dataclasses.replace(old.unet, in_channels=16, out_channels=16)
        new = dataclasses.replace(old, vae=vae, unet=unet)
    else:
        old, new = RAGDiffusion.from_config("sdxl"), RAGDiffusion.from_config("sdxl_flux")
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
        if preset == "sdxl_flux":
            given = config.model.to_dict() | {"tokenizer_2": ""}
            with pytest.raises(UserError, match="2 text encoders and 1 tokenizers"):
                builders.BUILDERS[config.objective](given, pairs=world.pairs, held_out=world.pairs)
            config.model.tokenizer_2 = other_padding(world.base / "tokenizer", tmp_path / stage)
        built = builders.BUILDERS[config.objective](config.model.to_dict(), pairs=world.pairs, held_out=world.pairs)
        own = Tokenizer.from_folder(world.base / "tokenizer").pad_id
        assert built.model.text_pads == ((own, 0) if preset == "sdxl_flux" else ())
        assert built.model.unet.to_dict() == new.unet.to_dict() and built.model.vae == new.vae
        settings, mesh = TrainSettings(**config.train), make_mesh(**config.mesh)
        make_step(built, settings, mesh)  # refuses settings that don't go with the objective
        if preset == "tiny" and stage == "stage2":
            assert set(make_plan(built, settings, mesh).state.params["unet"]) == {"conv_in", "conv_out"}
    if preset == "sdxl_flux":
        steps = [read_train_config(f"{CONFIGS / preset}.py:{stage}").train.steps for stage in ("stage2", "stage3")]
        assert steps == [20_000, 200_000]


def test_what_cannot_be_moved_is_refused_in_one_line(world, one_device, tmp_path):
    with pytest.raises(UserError, match="1/4 of the picture's side.*1/2"):
        objective(world, old_vae=dataclasses.replace(OLD.vae, block_out_channels=(8, 8, 8)))
    with pytest.raises(UserError, match="old_vae missing"):
        objective(world, parts=dict.fromkeys(("unet", "vae", "text_encoder"), "given"))
    with pytest.raises(UserError, match="noise='white'"):
        objective(world, noise="white")
    with pytest.raises(UserError, match="unet missing"):
        PGEAConvOut(pairs=world.pairs, model=NEW, parts={}, empty_ids=world.empty_ids)
    for changes in ({"optimizer": "adamw"}, {"accumulate": 2}, {"ema_decay": 0.9}):
        with pytest.raises(UserError, match=f"{next(iter(changes))}=.*takes no gradient"):
            make_step(objective(world), dataclasses.replace(SUMS, **changes), one_device)
    with pytest.raises(UserError, match="trained by gradients"):
        make_step(objective(world, PGEAConvInSGD), SUMS, one_device)
    config = read_train_config(f"{CONFIGS / 'tiny.py'}:stage1")
    for part, model in (("unet", OLD), ("vae", NEW), ("old_vae", NEW)):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(
            json.dumps(part_configs(model)["unet" if part == "unet" else "vae"])
        )
        config.model.parts[part] = str(tmp_path / part)
    with pytest.raises(UserError, match="8 channels in and 8 out.*has 12"):
        builders.pgea_conv_in(config.model.to_dict(), pairs=world.pairs)
