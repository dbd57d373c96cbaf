"""The stages of single towers: the flat one by silhouettes' codes, the photo one by a memory, CLIP's by its prompts."""

import dataclasses
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective_runs import MODEL, small_world, still, train

import ragdiff_jax as rd
from ragdiff_jax.data.attributes import ATTRIBUTES, STRUCTURAL
from ragdiff_jax.data.pipeline import PairArrays
from ragdiff_jax.data.synth_dataset import synth_record
from ragdiff_jax.data.tokenizer import Tokenizer
from ragdiff_jax.retrieval import stored_landmarks
from ragdiff_jax.training import TrainSettings
from ragdiff_jax.training import train as train_run
from ragdiff_jax.training.loop import make_plan
from ragdiff_jax.training.objectives.contrastive import overlaps
from ragdiff_jax.training.objectives.flat_tower import FlatTowerObjective, shape_basis, shape_codes
from ragdiff_jax.training.objectives.photo_tower import PhotoTowerObjective, coarse, coarse_landmarks
from ragdiff_jax.training.objectives.zero_shot import ZeroShotObjective
from ragdiff_jax.training.resident import ResidentObjective

SETTINGS = TrainSettings(steps=1, batch_size=8, checkpoint_seconds=0.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return small_world(tmp_path_factory.mktemp("towers"))


def photo_tower(world, **changes):
    start = str(Path(world.memory).parent)
    fields = {"init_from": start, "memory": world.memory, "shape_temperature": 0.05, "twins": True, "paste_share": 0.5}
    return PhotoTowerObjective(pairs=world.pairs, config=MODEL.structure_net, **fields | changes)


def test_the_photo_tower_trains_alone_from_a_copy_of_the_flat_one(world, one):
    run = train(photo_tower(world, paste_from_easy=True, attribute_weight=0.5), one, 3)
    start = run.before["structure_net"]
    assert start["photo"].keys() == {"conv", "resampler"}
    jax.tree.map(np.testing.assert_array_equal, start["photo"]["resampler"], start["flat"]["resampler"])
    for part in ("flat", "attributes"):
        locked = world.params["structure_net"][part]
        jax.tree.map(np.testing.assert_array_equal, run.after["structure_net"][part], locked)
    assert not still(run, "structure_net/photo/") and not still(run, "structure_net/attribute_head/")
    assert run.losses[-1] < run.losses[0]


def test_the_photo_tower_is_scored_on_the_memory_it_will_search(world, one):
    tokenizer = Tokenizer.from_folder(world.tokenizer)
    held_out = PairArrays([world.pairs.source[0]] * 32, image_size=32, tokenizer=tokenizer)
    objective = photo_tower(world, held_out=held_out)
    params = jax.tree.map(jnp.asarray, {"structure_net": world.params["structure_net"]})
    scores = objective.validation(params, objective.constants(one), None)
    assert scores["iou_oracle"] >= max(scores["iou_unknown"], scores["iou_exact"], scores["iou_random"]) > 0
    assert scores["iou_random"] < scores["iou_oracle"]


def test_the_photo_tower_refuses_a_memory_that_another_tower_built(world, tmp_path):
    rd.Memory.create(tmp_path / "other", "0" * 64, 32, MODEL.structure_net.embed_dim)
    params = {"structure_net": jax.tree.map(jnp.asarray, world.params["structure_net"])}
    with pytest.raises(rd.UserError, match="built by encoder 000000000000"):
        photo_tower(world, memory=str(tmp_path / "other")).restore_parts(params)
    with pytest.raises(rd.UserError, match="shape_temperature"):
        photo_tower(world, shape_temperature=0.0)


def rebuilt(folder, fingerprint, like):
    """A memory with the rows of `like`, of another encoder."""
    old = rd.Memory.open(like)
    memory = rd.Memory.create(folder, fingerprint, 32, old.embeddings.shape[1])
    rows = zip(old.items, old.embeddings, old.landmarks, strict=True)
    memory.add([rd.MemoryItem(id=item.id, embedding=e, landmark=mark, metadata={}) for item, e, mark in rows])
    return str(folder)


def test_a_memory_built_anew_between_stop_and_resume_is_refused(world, tmp_path, one):
    shutil.copytree(world.memory, tmp_path / "memory")
    objective, run = photo_tower(world, memory=str(tmp_path / "memory")), tmp_path / "run"
    train_run(objective, run, SETTINGS, one)
    shutil.rmtree(tmp_path / "memory")
    rebuilt(tmp_path / "memory", "0" * 64, world.memory)
    with pytest.raises(rd.UserError, match="built by encoder 000000000000"):
        train_run(objective, run, dataclasses.replace(SETTINGS, steps=2), one)


def test_a_memory_is_checked_through_every_wrapper_but_not_where_any_tower_will_do(world, tmp_path, one):
    other = rebuilt(tmp_path / "other", "0" * 64, world.memory)
    params = {"structure_net": jax.tree.map(jnp.asarray, world.params["structure_net"])}
    photo = photo_tower(world, memory=other)
    for objective, constants in ((photo, {}), (ResidentObjective(base=photo), {"base": {}})):
        with pytest.raises(rd.UserError, match="built by encoder 000000000000"):
            objective.prepared(params, constants, one)
    fields = {"pairs": world.pairs, "config": MODEL.structure_net, "shape_temperature": 0.05}
    flat = FlatTowerObjective(init_from=photo.init_from, memory=other, **fields)
    assert flat.prepared(params, {}, one) == {}
    assert dataclasses.replace(photo, trainable="^structure_net/").prepared(params, {}, one) == {}


def test_the_tower_of_a_memory_is_never_rounded(world, one):
    settings = TrainSettings(steps=1, batch_size=8, frozen_dtype="bfloat16")
    frozen = make_plan(photo_tower(world), settings, one).frozen
    assert {x.dtype for x in jax.tree.leaves(frozen["structure_net"])} == {jnp.dtype(jnp.float32)}
    own = world.params["structure_net"]
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(np.float32), own)
    objective = dataclasses.replace(photo_tower(world), export_dtype="bfloat16")
    assert objective.file_dtype(own) is None and objective.file_dtype(half) == "bfloat16"  # which loses nothing


def test_the_nearest_code_is_nearly_the_silhouette_of_largest_overlap(world):
    records = [synth_record(row, size=32) for row in range(96)]
    pairs = PairArrays(records, image_size=32, tokenizer=Tokenizer.from_folder(world.tokenizer))
    masks = np.asarray(coarse(pairs.batch(np.arange(96), ("mask",))["mask"]))
    mean, basis = shape_basis(masks, 64)
    codes = np.asarray(shape_codes(masks, mean, basis))
    np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1.0, rtol=1e-5)
    shared = np.array(overlaps(*[jnp.asarray(masks)] * 2))
    same = shared > 0.999
    best = np.where(same, -1, shared).max(axis=1)
    found = np.take_along_axis(shared, np.where(same, -9, codes @ codes.T).argmax(axis=1)[:, None], axis=1)[:, 0]
    assert found.mean() > best.mean() - 0.02 > shared.mean()
    # More axes than silhouettes: the rest is nothing.
    _, wide = shape_basis(masks[:5], 64)
    assert not wide[:, 4:].any() and wide[:, :4].any(axis=0).all()


def test_a_memorys_silhouettes_are_made_small_some_at_a_time(world, monkeypatch):
    landmarks = rd.Memory.open(world.memory).landmarks
    whole = np.asarray(coarse(landmarks[:]))
    monkeypatch.setattr(stored_landmarks, "_PIXELS", 2 * 32**2)
    assert len(landmarks) == 6 and len(list(landmarks.chunks())) == 3
    np.testing.assert_array_equal(coarse_landmarks(landmarks), whole)


def test_the_flat_tower_learns_codes_and_nothing_else_moves(world, one):
    start = str(Path(world.memory).parent)
    fields = {"init_from": start, "shape_temperature": 0.05}
    objective = FlatTowerObjective(pairs=world.pairs, config=MODEL.structure_net, **fields)
    run = train(objective, one, 3)
    for part in ("photo", "attributes"):
        locked = world.params["structure_net"][part]
        jax.tree.map(np.testing.assert_array_equal, run.after["structure_net"][part], locked)
    assert not still(run, "structure_net/flat/")
    assert run.losses[-1] < run.losses[0]
    assert objective.constants(one)["masks"].shape[0] == 8
    assert dataclasses.replace(objective, memory=world.memory).constants(one)["masks"].shape[0] == 6
    some = dataclasses.replace(objective, order=np.array([5, 2, 5], np.int32)).constants(one)["masks"]
    np.testing.assert_array_equal(some, coarse(world.pairs.batch(np.array([2, 5]))["mask"]))


def test_clip_learns_the_prompts_that_serving_asks(world, one):
    """From StructureNet's flat tower, for the photo tower has no ViT; nothing is learned about what isn't known."""
    objective = ZeroShotObjective(
        pairs=world.pairs,
        text=dataclasses.replace(MODEL.text_encoders[-1], eos_token_id=world.eos_id),
        vision=MODEL.structure_net.vision,
        tokenizer=world.tokenizer,
        parts={"text_encoder": world.parts["text_encoder"], "photo_tower": world.parts["structure_net"]},
    )
    run = train(objective, one, 6)
    flat = world.params["structure_net"]["flat"]["vision"]
    jax.tree.map(np.testing.assert_array_equal, run.before["image_encoder"], flat)
    # Attention is the same whatever is added to all of its keys.
    assert all(name.endswith("k_proj/bias") for name in still(run, "image_encoder/")) and not still(run, "scales")
    assert run.losses[-1] < run.losses[0]
    tables = objective.constants(one)
    assert {name: tables[name].shape[-2] for name in STRUCTURAL} == {n: len(ATTRIBUTES[n]) for n in STRUCTURAL}
    scores = objective.validation(run.after, tables, None)
    assert scores == {} or 0 <= scores["all"] <= 1
    unknown = world.pairs.batch(np.arange(8), objective.reads)
    unknown["photo_attributes"] = np.zeros_like(unknown["photo_attributes"])
    assert float(run.go_on(unknown)["loss"]) == 0.0


def test_a_locked_text_tower_must_be_given(world):
    with pytest.raises(rd.UserError, match="set model.parts.text_encoder"):
        towers = {"text": MODEL.text_encoders[-1], "vision": MODEL.structure_net.vision}
        ZeroShotObjective(pairs=world.pairs, **towers, tokenizer=world.tokenizer)


def test_how_hard_a_paste_is_says_nothing_of_its_size(world):
    """A tower that never sees a large garment in a photo's own surroundings doesn't find one."""
    objective = photo_tower(world, paste_from_easy=True)
    batch = world.pairs.batch(np.arange(256) % len(world.pairs))
    keys = jax.random.split(jax.random.key(0))
    placed = objective.photo_rows(batch, *keys)["placement"]
    size = (placed.scale - 1.0) / placed.surroundings + 1.0  # as drawn, before it was made easier
    assert abs(np.corrcoef(size, placed.surroundings)[0, 1]) < 0.3
