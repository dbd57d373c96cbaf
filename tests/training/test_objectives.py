"""The real objectives in the real train step, on eight drawn pairs of 32 pixels."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from objective_runs import MODEL, Blank, small_world, still, train
from quick import OPTIONS
from small_model import random_params

import ragdiff_jax as rd
from ragdiff_jax.data.pipeline import PairArrays
from ragdiff_jax.data.tokenizer import Tokenizer
from ragdiff_jax.models.vae import AutoencoderKL
from ragdiff_jax.parallel import flatten, make_mesh, mesh_context, shard_batch
from ragdiff_jax.systems.zero_shot import Calibration
from ragdiff_jax.training.builders import BUILDERS
from ragdiff_jax.training.encoded import EncodedObjective
from ragdiff_jax.training.from_config import make_objective
from ragdiff_jax.training.objectives.autoencoder import AutoencoderObjective, shift_latents
from ragdiff_jax.training.objectives.clip import CLIPObjective
from ragdiff_jax.training.objectives.common import at_most
from ragdiff_jax.training.objectives.contrastive import overlaps, shape_info_nce
from ragdiff_jax.training.objectives.ragdiffusion import RAGDiffusionObjective
from ragdiff_jax.training.objectives.structure_net import StructureNetObjective
from ragdiff_jax.training.objectives.text_to_image import TextToImageObjective
from ragdiff_jax.training.plan import abstract_objective
from ragdiff_jax.training.resident import ResidentObjective
from ragdiff_jax.training.step import ROW_LOSSES
from ragdiff_jax.weights import load_part, read_config, save_part
from ragdiff_jax.weights.model_folder import (
    abstract_params,
    load_structure_net,
    read_calibration,
    write_calibration,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return small_world(tmp_path_factory.mktemp("objectives"))


def ragdiffusion(world, kind=Blank):
    return kind(
        pairs=world.pairs,
        model=MODEL,
        parts=world.parts,
        memory=world.memory,
        tokenizers=(world.tokenizer,),
        empty_ids=world.empty_ids,
    )


@pytest.fixture(scope="module")
def one_device():
    return make_mesh(devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def ragdiffusion_run(world, one_device):
    return train(ragdiffusion(world), one_device, 10)


def test_ten_steps_move_every_trained_part_and_no_frozen_one(ragdiffusion_run, world):
    run = ragdiffusion_run
    for part in ("unet", "reference_net", "ep_adapter", "landmark_guider"):
        assert not still(run, f"{part}/")
    for part in ("vae", "text_encoder", "structure_net"):
        names = [name for name, _ in flatten(run.before) if name.startswith(f"{part}/")]
        assert names and still(run, f"{part}/") == names
        jax.tree.map(np.testing.assert_array_equal, run.before[part], world.params[part])
    # What had no weights of its own began as MainNet's.
    np.testing.assert_array_equal(
        run.before["reference_net"]["conv_in"]["kernel"], world.params["unet"]["conv_in"]["kernel"]
    )


def test_ragdiffusion_exports_a_model_folder(ragdiffusion_run, world, tmp_path):
    objective = dataclasses.replace(ragdiffusion(world), export_dtype="float32")
    objective.export(ragdiffusion_run.after, tmp_path)
    model = rd.read_model(tmp_path)
    assert dataclasses.replace(model, dropout=MODEL.dropout) == MODEL
    jax.tree.map(np.testing.assert_array_equal, rd.load(model, tmp_path), ragdiffusion_run.after)
    assert Tokenizer.from_folder(tmp_path / "tokenizer").encode([""])[0].tolist() == list(world.empty_ids)


def test_a_model_exported_in_bfloat16_still_finds_in_its_memory(world, ragdiffusion_run, tmp_path):
    """The memory belongs to StructureNet to the bit: rounding would make it another's."""
    objective = dataclasses.replace(ragdiffusion(world), export_dtype="bfloat16")
    objective.export(ragdiffusion_run.after, tmp_path)
    params = rd.load(MODEL, tmp_path)
    rd.Memory.open(world.memory, rd.encoder_fingerprint(MODEL, params))
    kernel = ragdiffusion_run.after["unet"]["conv_in"]["kernel"]
    np.testing.assert_array_equal(params["unet"]["conv_in"]["kernel"], kernel.astype(jnp.bfloat16).astype(np.float32))


def test_an_image_encoder_travels_into_the_model_folder_and_is_calibrated_there(world, tmp_path):
    vision = MODEL.structure_net.vision
    model = dataclasses.replace(MODEL, image_encoder=vision)
    params = world.params | {"image_encoder": random_params(model)["image_encoder"]}
    save_part(tmp_path / "clip", vision.to_dict(), params["image_encoder"])
    write_calibration(tmp_path / "clip", {"Fit": Calibration(scale=7.0), "Category": Calibration(scale=7.0)})
    # 24 photos that show a fit, of which eight show a category: that is too few to learn from.
    records = [world.pairs.source[row] for row in range(8)]
    bare = [dataclasses.replace(one, photo_attributes={"Fit": one.photo_attributes["Fit"]}) for one in records]
    tokenizer = Tokenizer.from_folder(world.tokenizer)
    objective = dataclasses.replace(
        ragdiffusion(world),
        model=model,
        parts=world.parts | {"image_encoder": str(tmp_path / "clip")},
        held_out=PairArrays(records + 2 * bare, image_size=32, tokenizer=tokenizer),
    )
    objective.export(params, tmp_path / "model")
    assert rd.read_model(tmp_path / "model").image_encoder == vision
    found = read_calibration(tmp_path / "model" / "image_encoder")
    assert found["Category"] == Calibration(scale=7.0) and found["Fit"].scale != 7.0


def test_a_given_image_encoder_becomes_part_of_the_system(world, tmp_path):
    tiny = rd.RAGDiffusion.from_config("tiny")
    save_part(tmp_path / "clip", tiny.structure_net.vision.to_dict(), world.params["structure_net"])
    for given, expected in (("", None), (str(tmp_path / "clip"), tiny.structure_net.vision)):
        config = {
            "preset": "tiny",
            "parts": {"image_encoder": given},
            "tokenizers": [world.tokenizer],
            "memory": world.memory,
        }
        assert BUILDERS["ragdiffusion"](config, pairs=world.pairs).model.image_encoder == expected


def test_init_gives_the_whole_tree_whatever_is_loaded_into_it(world):
    """The tree of `init` is the whole model's, boxed, whatever is loaded into it afterwards."""
    shapes = jax.eval_shape(ragdiffusion(world, RAGDiffusionObjective).init, jax.random.key(0))
    assert shapes == abstract_params(MODEL)


def test_a_temperature_that_went_too_far_comes_back():
    top = math.log(100.0)
    slopes = jax.vmap(jax.grad(lambda x, sign: sign * jnp.exp(at_most(x, top))))
    values, signs = jnp.array([top - 0.1, top + 0.1, top + 0.1]), jnp.array([1.0, 1.0, -1.0])
    inside, back, further = slopes(values, signs)
    assert inside == pytest.approx(100 * math.exp(-0.1), rel=1e-4) and back == pytest.approx(100, rel=1e-4)
    assert further == 0.0 and float(jnp.exp(at_most(jnp.float32(top + 1), top))) == pytest.approx(100, rel=1e-5)


def test_what_is_measured_again_is_not_traced_again(world):
    objective, traced = ragdiffusion(world), []

    def function(x):
        traced.append(x)
        return x + 1

    for _ in range(2):
        assert int(objective.program("name", function)(jnp.ones((), jnp.int32))) == 2
    assert len(traced) == 1
    dataclasses.replace(objective, augment=False).program("name", lambda x: function(x))(jnp.ones((), jnp.int32))
    assert len(traced) == 2  # another objective's function is another


def test_a_memory_of_another_encoder_is_refused(world, tmp_path, one_device):
    rd.Memory.create(tmp_path / "other", "0" * 64, 32, MODEL.structure_net.embed_dim)
    objective = dataclasses.replace(ragdiffusion(world), memory=str(tmp_path / "other"))
    with pytest.raises(rd.UserError, match="built by encoder 000000000000"):
        objective.restore_parts(jax.tree.map(jnp.asarray, world.params))
    for stage in (objective, EncodedObjective(base=objective, folder=str(tmp_path / "kept"))):
        with pytest.raises(rd.UserError, match="built by encoder 000000000000"):  # a resumed run restores no parts
            stage.prepared(jax.tree.map(jnp.asarray, world.params), {}, one_device)
    assert ragdiffusion(world).prepared(jax.tree.map(jnp.asarray, world.params), {}, one_device) == {}


def test_pictures_of_another_size_than_the_models_are_refused(world, tmp_path, one_device):
    objective = ragdiffusion(world)
    large = {"objective": "ragdiffusion", "model": {"preset": "tiny"}, "data": {"image_size": 96, "folder": "none"}}
    for build in (make_objective, abstract_objective):
        with pytest.raises(rd.UserError, match="data.image_size=96: pictures of model.preset=tiny have 64"):
            build(large)
    with pytest.raises(rd.UserError, match="model.crop=48: larger"):
        make_objective({"objective": "autoencoder", "model": {"crop": 48}, "data": {"image_size": 32}})
    rd.Memory.create(tmp_path / "small", "0" * 64, 16, MODEL.structure_net.embed_dim)
    with pytest.raises(rd.UserError, match="landmarks are 16x16, the model's pictures 32x32"):
        dataclasses.replace(objective, memory=str(tmp_path / "small")).constants(one_device)


def test_structure_net_moves_both_towers_and_the_table(world, one_device, tmp_path):
    objective = StructureNetObjective(pairs=world.pairs, config=MODEL.structure_net, symmetric=True)
    run = train(objective, one_device, 10, {"structure_net": world.params["structure_net"]})
    # Stacked layers are one leaf; the ViT's last one is read by nobody (penultimate tokens).
    for name in ("photo/vision", "photo/resampler", "flat/vision", "flat/resampler", "attributes"):
        assert not still(run, f"structure_net/{name}")
    # A garment and its structure twin, four times over: nobody is left to be a negative.
    batch = world.pairs.batch(np.array([0, 1] * 4))
    assert not np.asarray(run.go_on(batch)[ROW_LOSSES]).any()
    assert min(map(np.min, run.rows)) > 0

    measured = objective.validation(run.after, {}, jax.random.key(0))  # of eight pairs: no whole batch of it
    assert 0 < measured["iou_top1"] <= 1 and 0 < measured["iou_random"] <= 1
    objective.export(run.after, tmp_path)
    config, params = load_structure_net(tmp_path)
    assert config == MODEL.structure_net
    jax.tree.map(np.testing.assert_array_equal, params, run.after["structure_net"])


class SumOfItsBatch(StructureNetObjective):
    """A loss that any changed number of a batch changes, and no network."""

    def loss(self, params, constants, batch, key):
        arrays = [x.reshape(8, -1).astype(jnp.float32) for _, x in sorted(batch.items())]
        rows = sum((i + 1) * x.mean(axis=1) for i, x in enumerate(arrays))
        return rows + 0 * sum(x.sum() for x in jax.tree.leaves(params)), {}


def test_a_resident_data_set_changes_no_loss(world, one_device):
    """Rows come twice in an epoch of 16: what the devices gather is what the host would have sent."""
    order = np.repeat(np.arange(8, dtype=np.int32), 2)
    base = SumOfItsBatch(pairs=world.pairs, config=MODEL.structure_net, order=order)
    params = {"structure_net": world.params["structure_net"]}
    sent = train(base, one_device, 2, params)
    assert len(set(sent.rows[0].tolist())) > 4  # the sums tell rows apart
    gathered = train(ResidentObjective(base=base), make_mesh(data=8), 2, params)
    np.testing.assert_allclose(gathered.rows, sent.rows, rtol=1e-5)


def test_autoencoder_trains_and_exports_its_measured_scale(world, one_device, tmp_path):
    small = dataclasses.replace(MODEL.vae, block_out_channels=(8, 8))
    objective = AutoencoderObjective(pairs=world.pairs, config=small, crop=16, colour_weight=1.0)
    shapes = nn.meta.unbox(jax.eval_shape(objective.init, jax.random.key(0)))
    rng = np.random.default_rng(0)
    run = train(objective, one_device, 2, jax.tree.map(lambda x: np.float32(rng.normal(size=x.shape) * 0.2), shapes))
    # A bias of all keys alike leaves softmax as it is: its gradient is rounding.
    assert {path for path in still(run, "vae/") if not path.endswith("to_k/bias")} == set()
    objective.export(run.after, tmp_path)
    config = type(small).from_dict(read_config(tmp_path / "vae"))
    assert config.scaling_factor != small.scaling_factor
    assert dataclasses.replace(config, scaling_factor=small.scaling_factor) == small
    assert_loads(tmp_path / "vae", run.after["vae"])


def test_a_longer_trained_decoder_leaves_the_latents_alone(world, one_device, tmp_path):
    start = tmp_path / "start"
    save_part(start / "vae", MODEL.vae.to_dict(), world.params["vae"])
    model = {"vae": None, "init_from": str(start), "decoder_only": True, "latent_noise": 0.05}
    objective = BUILDERS["autoencoder"](model, pairs=world.pairs)
    run = train(objective, one_device, 3)
    moved = {name for name, _ in flatten(run.before) if name not in still(run, "")}
    assert moved and all(name.startswith(("vae/decoder/", "vae/post_quant_conv/")) for name in moved)
    assert run.losses[-1] < run.losses[0]
    objective.export(run.after, tmp_path / "model")
    assert read_config(tmp_path / "model" / "vae") == read_config(start / "vae")
    with pytest.raises(rd.UserError, match="needs init_from"):
        dataclasses.replace(objective, init_from="")


def test_clip_trains_and_exports_both_towers(world, one_device, tmp_path):
    objective = CLIPObjective(
        pairs=world.pairs,
        # The text is read at its end token; the small vocabulary has another than the preset's.
        text=dataclasses.replace(MODEL.text_encoders[0], eos_token_id=world.eos_id),
        vision=MODEL.structure_net.vision,
        tokenizer=world.tokenizer,
        text_length=40,
    )
    params = {
        "text_encoder": world.params["text_encoder"],
        "image_encoder": world.params["structure_net"]["flat"]["vision"],
        "logit_scale": np.float32(math.log(10)),
    }
    # Captions that are cut stay different texts.
    long = np.full((2, 60), 5, np.int32)
    long[:, 1], long[:, 50] = (6, 7), world.eos_id
    cut = objective.embed_text(params, jnp.asarray(long))
    assert float(cut[0] @ cut[1]) < 0.9999
    run = train(objective, one_device, 2, params)
    assert not still(run, "text_encoder/") and not still(run, "image_encoder/") and not still(run, "logit_scale")
    objective.export(run.after, tmp_path)
    for part in ("text_encoder", "image_encoder"):
        assert_loads(tmp_path / part, run.after[part])
    assert Tokenizer.from_folder(tmp_path / "tokenizer").vocab_size
    assert json.loads((tmp_path / "model.json").read_text())["settings"]["logit_scale"] == pytest.approx(10, rel=1e-2)


def test_text_to_image_trains_the_unet_alone(world, one_device, tmp_path):
    parts = {part: world.parts[part] for part in ("vae", "text_encoder")}
    objective = TextToImageObjective(pairs=world.pairs, model=MODEL, parts=parts, empty_ids=world.empty_ids)
    params = {part: world.params[part] for part in ("unet", "vae", "text_encoder")}
    run = train(objective, one_device, 2, params)
    assert not still(run, "unet/")
    jax.tree.map(np.testing.assert_array_equal, run.after["vae"], params["vae"])
    objective.export(run.after, tmp_path)
    assert_loads(tmp_path / "unet", run.after["unet"])
    assert type(MODEL.unet).from_dict(read_config(tmp_path / "unet")) == MODEL.unet


def assert_loads(folder, params):
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), nn.meta.unbox(params))
    jax.tree.map(np.testing.assert_array_equal, load_part(folder, abstract), params)


def test_shape_targets_follow_the_silhouettes():
    """Twins share the target, what is more alike gets more of it, and the right embeddings have no loss left."""
    masks = np.zeros((4, 8, 8), np.float32)
    masks[:2, 2:6, 2:6] = 1
    masks[2, 2:6, 2:5] = 1
    masks[3, 0, 0] = 1
    targets = jax.nn.softmax(overlaps(jnp.asarray(masks), jnp.asarray(masks)) / 0.2, axis=1)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(targets[0, 0], targets[0, 1], rtol=1e-6)
    assert targets[0, 1] > targets[0, 2] > targets[0, 3]
    # Logits that differ from log targets by a constant of the row.
    rows, _ = shape_info_nce(jnp.log(targets), jnp.eye(4), 1.0, targets)
    np.testing.assert_allclose(rows, 0, atol=1e-6)


def test_balanced_latents_decode_to_the_same_picture():
    config = MODEL.vae
    network = AutoencoderKL(config)
    params = random_params(MODEL)["vae"]
    image = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)), jnp.float32)

    @jax.jit
    def run(params):
        mean, logvar = network.apply({"params": params}, image, method="encode")
        return mean, logvar, network.apply({"params": params}, mean, method="decode")

    mean, logvar, picture = run(params)
    centre, size = mean.mean((0, 1, 2)), mean.std((0, 1, 2))
    new_mean, new_logvar, same = run(shift_latents(params, config, centre, size))
    np.testing.assert_allclose(new_mean.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(new_mean.std((0, 1, 2)), 1, rtol=1e-3)
    np.testing.assert_allclose(new_logvar, logvar - 2 * jnp.log(size), atol=1e-3)
    np.testing.assert_allclose(same, picture, atol=1e-3 * float(jnp.abs(picture).max()))


def test_structure_net_in_micro_batches_has_the_gradient_of_the_whole_batch(world):
    """Every augmentation on, two micro-batches on two devices: nothing random depends on the cut."""
    changes = {"paste_share": 0.5, "paste_from_easy": True, "recolour": True, "learn_temperature": True}
    whole = StructureNetObjective(pairs=world.pairs, config=MODEL.structure_net, contrast="sigmoid", **changes)
    numbers = {"logit_scale": np.float32(2.0), "logit_bias": np.float32(-5.0)}
    params = {"structure_net": world.params["structure_net"]} | numbers
    batch = world.pairs.batch(np.arange(8))
    mesh, found = make_mesh(data=2, devices=jax.devices()[:2]), []
    with mesh_context(mesh):
        for parts in (1, 2):
            objective = dataclasses.replace(whole, micro_batches=parts)

            def mean(params, batch, objective=objective):
                return objective.loss(params, {}, batch, jax.random.key(3))[0].mean()

            found.append(jax.jit(jax.value_and_grad(mean), compiler_options=OPTIONS)(params, shard_batch(mesh, batch)))
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(found[0][1]))
    assert largest > 1e-3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * largest, rtol=1e-4), *found)


def test_the_towers_lose_attributes_apart_and_turn_together(world):
    """Equal labels would solve InfoNCE without pixels, and so would a mirror image that only one side is."""
    b = 256
    ones = {name: np.ones((b, 10), np.int32) for name in ("photo_attributes", "flat_attributes")}
    partners = {"partner_flat_attributes": np.full((b, 10), 2, np.int32), "has_partner": np.arange(b) % 2 == 0}
    pictures = {name: np.zeros((b, 4, 4, 3), np.uint8) for name in ("photo", "flat", "partner_flat")}
    masks = {name: np.zeros((b, 4, 4), np.uint8) for name in ("mask", "partner_mask", "photo_mask")}
    batch = {**ones, **partners, **pictures, **masks, "has_photo_mask": np.zeros(b, bool)}
    objective = StructureNetObjective(pairs=world.pairs, config=MODEL.structure_net)
    rows = objective._drawn_rows(batch, jax.random.key(0))
    np.testing.assert_array_equal(rows["flat_draws"].flip, rows["photo_draws"].flip)
    unknown = [np.asarray(rows[name]) == 0 for name in ("photo_attributes", "flat_attributes")]
    assert all(0.4 < part.mean() < 0.8 for part in unknown)
    assert abs(np.corrcoef(unknown[0].all(axis=1), unknown[1].all(axis=1))[0, 1]) < 0.25
    kept = dataclasses.replace(objective, attribute_dropout=(0.0, 0.0))._drawn_rows(batch, jax.random.key(1))
    shown = np.asarray(kept["partner"])
    assert 0.2 < shown.mean() < 0.3 and not shown[1::2].any()
    np.testing.assert_array_equal(kept["flat_attributes"][:, 0], np.where(shown, 2, 1))


def test_half_the_photos_come_without_attributes(world):
    class Told:
        text_encoders, structure_net = MODEL.text_encoders, MODEL.structure_net

        def loss(self, params, batch, key, **others):
            return batch["photo_attributes"].any(axis=1).astype(jnp.float32)

    objective = dataclasses.replace(ragdiffusion(world), augment=False, paste_share=0.0)
    object.__setattr__(objective, "model", Told())
    b = 256
    pictures = {name: np.zeros((b, 4, 4, 3), np.uint8) for name in ("photo", "flat")}
    batch = {**pictures, "mask": np.zeros((b, 4, 4), np.uint8), "photo_attributes": np.ones((b, 10), np.int32)}
    batch |= {"text_ids": np.zeros((b, 8), np.int32), "row": np.zeros(b, np.int32)}
    constants = {"own_rows": jnp.zeros(1, jnp.int32), "memory": None, "empty_ids": None}
    rows, _ = objective.loss({}, constants, batch, jax.random.key(0))
    assert 0.4 < float(rows.mean()) < 0.6
