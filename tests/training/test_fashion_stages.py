"""Fashion-RAG's stages in the real train step, on drawn people of 32 pixels."""

import dataclasses
import types
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_jit
from small_fashion import random_fashion, small_fashion, small_tokenizer

from ragdiff_jax.data.images import encode_grey
from ragdiff_jax.data.person_garments import Garments, PersonShapes, PersonsWithGarments
from ragdiff_jax.data.person_pipeline import PersonArrays
from ragdiff_jax.data.person_records import NO_KEYPOINTS
from ragdiff_jax.data.synth_people import synth_person
from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import make_mesh, merge, partition
from ragdiff_jax.systems.fashion_presets import with_image_prompt, without_pose
from ragdiff_jax.systems.prompts import Prompts
from ragdiff_jax.training import TrainSettings, builders
from ragdiff_jax.training.from_config import make_objective
from ragdiff_jax.training.loop import train
from ragdiff_jax.training.objectives.fashion_rag import EditDropout, FashionRAGObjective
from ragdiff_jax.training.retrieved import retrieved_rows
from ragdiff_jax.weights import save_part
from ragdiff_jax.weights.fashion_folder import load_fashion, read_fashion

MODEL = small_fashion()


@pytest.fixture(autouse=True)
def uncounted(monkeypatch):
    """Runs don't count their operations, which traces every network a second time."""
    monkeypatch.setattr("ragdiff_jax.training.loop.known_flops", lambda *_: None)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Eight people, their retrieved garments, every part's folder, a U-Net of before pose came."""
    base = tmp_path_factory.mktemp("fashion")
    tokenizer = small_tokenizer(base / "tokenizer")
    records = [synth_person(row, size=32) for row in range(2, 14)]
    tops = [record for record in records if record.category == "upper_body"][:8]
    params = random_fashion(MODEL)
    for part, config in MODEL.configs().items():
        save_part(base / part, config.to_dict(), params[part])
    plain = without_pose(MODEL)
    save_part(base / "plain_unet", plain.unet.to_dict(), random_fashion(plain)["unet"])
    database = Garments(tops, MODEL.image_encoder.image_size)
    rows = retrieved_rows(MODEL, params, tokenizer, tops, database, 3, keep=base / "kept")
    people = PersonArrays(tops, shape=(32, 32), tokenizer=tokenizer, cache=True)
    prompts = Prompts(kind="bare", tokenizer=tokenizer, tokens=4)
    return types.SimpleNamespace(
        base=base,
        records=tops,
        rows=rows,
        params=params,
        people=PersonsWithGarments(people, database, rows, prompts, most=3),
        tokenizer=str(base / "tokenizer"),
        empty=tuple(int(i) for i in tokenizer.encode([""])[0]),
        placeholder=prompts.placeholder,
        prompts=prompts,
        database=database,
    )


def objective(world, model=MODEL, **fields):
    parts = {part: str(world.base / part) for part in model.configs()}
    fields = {"parts": parts} | fields
    return FashionRAGObjective(
        model=model,
        people=world.people,
        held_out=world.people,
        tokenizer=world.tokenizer,
        empty_ids=world.empty,
        placeholder=world.placeholder,
        examples=4,
        sample_steps=2,
        **fields,
    )


def run(stage, folder, look=0):
    """(model, parameters) that two steps of the real loop wrote; `look`: when they are sampled and measured."""
    settings = TrainSettings(
        steps=2,
        batch_size=8,
        learning_rate=1e-3,
        weight_decay=0.0,
        checkpoint_seconds=0,
        sample_every=look,
        validate_every=look,
    )
    result = train(stage, folder, settings, mesh=make_mesh(devices=jax.devices()[:1]))
    assert result.finished
    return read_fashion(result.model), load_fashion(read_fashion(result.model), result.model)


def changed(before, after):
    """Parts of which anything changed."""
    different = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, after)
    return {part for part in different if any(jax.tree.leaves(different[part]))}


def test_first_stage_trains_f_theta_alone_without_pose(world, tmp_path):
    plain = without_pose(MODEL)
    parts = {part: str(world.base / part) for part in plain.configs()} | {"unet": str(world.base / "plain_unet")}
    stage = objective(world, plain, parts=parts, trainable="^inversion/", pool=0.3)
    model, after = run(stage, tmp_path / "run")
    assert model == plain
    assert changed(world.params | {"unet": random_fashion(plain)["unet"]}, after) == {"inversion"}


def test_second_stage_begins_as_the_first_and_learns_pose(world, tmp_path):
    parts = {part: str(world.base / part) for part in MODEL.configs()} | {"unet": str(world.base / "plain_unet")}
    stage = objective(world, parts=parts, dropout=EditDropout(pose=0.0, everything=0.0))
    start = stage.restore_parts(jax.tree.map(jnp.asarray, random_fashion(MODEL, seed=1)))
    kernel, plain = start["unet"]["conv_in"]["kernel"], without_pose(MODEL)
    assert not kernel[:, :, plain.unet.in_channels :].any()
    np.testing.assert_array_equal(
        kernel[:, :, : plain.unet.in_channels], random_fashion(plain)["unet"]["conv_in"]["kernel"]
    )
    model, after = run(stage, tmp_path / "run", look=2)
    assert model == MODEL and changed(start, after) == {"unet", "inversion"}
    assert after["unet"]["conv_in"]["kernel"][:, :, plain.unet.in_channels :].any()
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert all(name in metrics for name in ("loss_text", "loss_retrieved", "loss_own"))
    assert list((tmp_path / "run" / "samples").iterdir())


def test_reference_net_and_an_image_prompt_are_trained_beside_the_unet(world, tmp_path):
    """Both at once: they start as copies of the U-Net, every part has slopes, and the model folder holds them."""
    both = dataclasses.replace(with_image_prompt(MODEL), reference_net=True)
    parts = {part: str(world.base / part) for part in MODEL.configs() if part != "inversion"}
    closer = Garments(world.records, both.image_encoder.image_size, shape=both.image_size)
    prompts = dataclasses.replace(world.prompts, tokens=both.tokens)
    people = PersonsWithGarments(world.people.people, closer, world.rows, prompts, most=3)
    stage = dataclasses.replace(
        objective(world, both, parts=parts, trainable="^(unet|image_adapter|reference_net)/"),
        people=people,
        held_out=people,
    )
    batch = people.batch(np.arange(2))
    assert batch["pictures"].shape == (2, 4, 32, 32, 3)
    np.testing.assert_array_equal(batch["pictures"][:, 0], batch["garment"])
    shapes = PersonShapes((32, 32), 16, 3, 77, pictures=True).abstract_batch(2)
    assert {name: x.shape for name, x in batch.items()} == {name: x.shape for name, x in shapes.items()}
    start = stage.restore_parts(jax.tree.map(jnp.asarray, random_fashion(both, seed=1)))
    assert start["unet"]["conv_in"]["bias"].tolist() == start["reference_net"]["conv_in"]["bias"].tolist()
    assert jax.eval_shape(stage.init, jax.random.key(0)).keys() == start.keys()
    trained, frozen = partition(start, stage.trainable)

    @quick_jit
    def slopes(trained, batch):
        return jax.grad(lambda tree: stage.loss(merge(tree, frozen), {}, batch, jax.random.key(0))[0].mean())(trained)

    found = slopes(trained, batch)
    assert found.keys() == {"unet", "image_adapter", "reference_net"}
    for part, tree in found.items():
        leaves = jax.tree.leaves(tree)
        assert all(np.isfinite(x).all() for x in leaves) and any(x.any() for x in leaves), part
    stage.export(start, tmp_path)
    assert read_fashion(tmp_path) == both
    jax.tree.map(np.testing.assert_array_equal, load_fashion(both, tmp_path), start)


def test_what_is_measured_is_what_serves(world, monkeypatch):
    """F_theta's dropout is of training."""
    keys, stage = [], objective(world)

    def words(self, params, garments, key=None):
        keys.append(key)
        raise InterruptedError

    monkeypatch.setattr(type(MODEL), "words", words)
    params = jax.tree.map(jnp.asarray, random_fashion(MODEL))
    with pytest.raises(InterruptedError):
        stage.loss(params, {}, stage._example_batch(), jax.random.key(0))
    with pytest.raises(InterruptedError):
        stage.validation(params, {}, jax.random.key(0))
    assert keys[0] is not None and None in keys[1:]
    for trainable, drops in ((".", True), ("^unet/", False), ("^(inversion)/", True)):
        assert dataclasses.replace(stage, trainable=trainable).trains_words == drops


def test_an_editing_stage_trains_adapters_where_its_config_says_so(world, monkeypatch):
    stage = objective(world)
    monkeypatch.setitem(builders.PERSON_BUILDERS, "fashion_rag", lambda model, data: stage)
    config = {"objective": "fashion_rag", "model": {}, "data": {}, "lora": {"rank": 2, "targets": "attn"}}
    adapted = make_objective(config)
    assert adapted.rank == 2 and not adapted.base.trains_words  # frozen words keep what they are
    lora = config["lora"] | {"also": "^inversion/"}
    assert make_objective(config | {"lora": lora}).base.trains_words
    with pytest.raises(UserError, match="has no frozen encoders"):
        make_objective(config | {"data": {"encodings": "kept"}, "train": {"seed": 0}})


def test_a_persons_own_garment_is_never_retrieved_and_the_table_is_kept(world, monkeypatch):
    for row, found in enumerate(world.rows):
        assert row not in found and len(set(found.tolist())) == 3
    import ragdiff_jax.training.retrieved as module

    monkeypatch.setattr(module, "embed_garments", None)  # a second start asks no encoder
    kept = world.base / "kept"
    arguments = (MODEL, world.params, world.prompts.tokenizer, world.records, world.database, 3)
    np.testing.assert_array_equal(retrieved_rows(*arguments, keep=world.base / "kept"), world.rows)
    with pytest.raises(TypeError):
        retrieved_rows(*arguments, keep=world.base / "kept", exclude_target=False)  # another table
    redrawn = [dataclasses.replace(world.records[0], garment=world.records[1].garment), *world.records[1:]]
    elsewhere = [dataclasses.replace(world.records[0], garment_id="another"), *world.records[1:]]
    for people in (redrawn, elsewhere):
        with pytest.raises(TypeError):  # the same ids and words
            retrieved_rows(*arguments[:3], people, Garments(people, MODEL.image_encoder.image_size), 3, keep=kept)
    # Of several processes all read the table or none: one that looks late would leave the others at their barrier.
    monkeypatch.setattr(module, "agree", lambda lacks: (not lacks,))  # another hasn't what this one has
    with pytest.raises(TypeError):
        retrieved_rows(*arguments, keep=world.base / "kept")


@pytest.mark.parametrize("same", [True, False])
def test_pictures_are_read_one_by_one_for_the_table(world, same):
    """Neither records nor squares stay: a data set's pictures are larger than memory."""
    seen, most = [], []

    class Source:
        def __len__(self):
            return len(world.records)

        def __getitem__(self, row):
            most.append(sum(ref() is not None for ref in seen))
            record = dataclasses.replace(world.records[row])
            seen.append(weakref.ref(record))
            return record

    people = Source()
    database = Garments(people if same else Source(), MODEL.image_encoder.image_size)
    arguments = (MODEL, world.params, world.prompts.tokenizer, people, database, 3)
    np.testing.assert_array_equal(retrieved_rows(*arguments), world.rows)
    assert max(most) <= 1 and len(seen) == (16 if same else 24)
    before = len(seen)
    database[0]
    assert len(seen) == before + 1  # the pass over all kept no square
    assert retrieved_rows(*arguments, keep=world.base / "kept").shape == world.rows.shape
    assert max(most) <= 1


def test_people_whose_garment_is_hidden_are_left_out(world):
    nothing = encode_grey(np.zeros((32, 32), np.uint8))
    blank = dataclasses.replace(
        world.records[0], label_map=nothing, category="dresses", keypoints=NO_KEYPOINTS
    )
    people = PersonArrays([*world.records[:3], blank], shape=(32, 32), tokenizer=world.prompts.tokenizer)
    several = PersonsWithGarments(people, world.database, np.zeros((4, 1), np.int32), world.prompts, most=1)
    assert several.rows().tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="nothing to change for dresses"):
        people[3]
    alone = PersonArrays([blank], shape=(32, 32), tokenizer=world.prompts.tokenizer)
    with pytest.raises(UserError, match="nobody shows anything"):
        PersonsWithGarments(alone, world.database, np.zeros((1, 1), np.int32), world.prompts, most=1).rows()


def test_what_a_sample_sees(world):
    """Up to three by rank; the own garment, where it stands among them, in one of the places that count, and then the
    one that is looked at closely.
    """
    for share, expected in ((0.0, False), (1.0, True)):
        shown, count, top = objective(world).chosen(64, jax.random.key(0), share)
        assert set(np.unique(count)) == {1, 2, 3}
        assert (np.asarray(top) == (0 if expected else 1)).all()
        for row, n in zip(np.asarray(shown), np.asarray(count), strict=True):
            assert (0 in row[:n]) is expected
            assert [value for value in row if value] == [place + 1 for place, value in enumerate(row) if value]


def test_losing_everything_leaves_nothing_of_text_garments_and_pose(world):
    stage = objective(world, dropout=EditDropout(everything=1.0))
    batch = {name: jnp.asarray(value) for name, value in world.people.batch(np.arange(4)).items()}
    loss = jax.jit(lambda batch: stage.loss(world.params, {}, batch, jax.random.key(3))[0])
    other = dict(batch)
    other["garments"] = 255 - batch["garments"]
    other["prompt_ids"] = batch["prompt_ids"].at[:, :, 1:4].set(300)
    other["keypoints"] = batch["keypoints"] * 0.5
    np.testing.assert_allclose(loss(batch), loss(other), rtol=1e-5)
    kept = dataclasses.replace(stage, dropout=EditDropout(text=0.0, garments=0.0, pose=0.0, everything=0.0))
    full = jax.jit(lambda batch: kept.loss(world.params, {}, batch, jax.random.key(3))[0])
    assert (np.abs(full(batch) - full(other)) > 1e-6).all()
