"""Kept encodings: what comes out of the file is what the networks say, and a run trains on it."""

import dataclasses

import jax
import numpy as np
import pytest
import rag_world

from ragdiff_jax.data.encoded import EncodedInfo, EncodedPairs, from_record, samples_there, to_record, write_encoded
from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import make_mesh
from ragdiff_jax.training.encoded import EncodedObjective


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    base = tmp_path_factory.mktemp("encoded")
    rag_world.write(base)
    return base


def test_a_record_survives():
    rng = np.random.default_rng(0)
    fields = {
        "photo_latents": rng.normal(size=(4, 4, 8)).astype(np.float16),
        "embedding": rng.normal(size=32).astype(np.float32),
        "mask": rng.random((20, 20)) < 0.5,
    }
    back = from_record(to_record(fields), "here")
    for name, value in fields.items():
        np.testing.assert_array_equal(back[name], value)
    with pytest.raises(UserError, match="here: damaged"):
        from_record(to_record(fields)[:-3], "here")


def test_encodings_that_were_stopped_go_on_where_they_were(tmp_path, monkeypatch):
    monkeypatch.setattr("ragdiff_jax.data.encoded.SHARD", 4)
    info, folder = EncodedInfo(5, 2, "of these weights"), tmp_path / "kept"
    samples = [{"mask": np.zeros((4, 4), bool), "embedding": np.full(2, row, np.float32)} for row in range(10)]

    def stopped():
        yield from samples[:6]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_encoded(folder, info, stopped())
    assert not folder.exists()
    first = samples_there(folder, info)
    assert first == 4 and samples_there(folder, dataclasses.replace(info, fingerprint="of others")) == 0
    write_encoded(folder, info, samples[first:], first)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    kept = EncodedPairs(folder)
    np.testing.assert_array_equal(kept.batch(np.arange(10))["embedding"][:, 0], np.arange(10))
    np.testing.assert_array_equal(kept.batch(np.arange(10))["row"], [0, 1, 2, 3, 4] * 2)
    (folder / "encodings-00001.array_record").unlink()
    with pytest.raises(UserError, match="00001.array_record: missing"):
        EncodedPairs(folder)


class _Noisy:
    """Encodes numbers: adds noise to them, and to each the sum of its batch."""

    reads = ("row",)
    pairs = type("_", (), {"__len__": lambda _: 37, "batch": lambda _, rows, fields: {"row": rows.astype(np.int32)}})()

    def encode(self, params, constants, batch, key):
        x = batch["row"].astype(np.float32)
        return {"x": x + x.sum() + jax.random.uniform(key, x.shape)}


@pytest.mark.parametrize("shape", [{"data": 8}, {"data": 2, "tensor": 4}])
def test_a_mesh_changes_how_many_are_encoded_at_once_and_nothing_else(shape):
    kept = EncodedObjective(base=_Noisy(), folder="nowhere", variants=2)
    one = [sample["x"] for sample in kept._records({}, {}, make_mesh(devices=jax.devices()[:1]), 0)]
    assert len(one) == 2 * 37 and len(set(map(float, one))) == 2 * 37
    for first in (0, 21, 37, 50, 74):
        there = [sample["x"] for sample in kept._records({}, {}, make_mesh(**shape), first)]
        np.testing.assert_array_equal(there, one[first:])


def first_loss(objective, mesh, params):
    """Of the objective's first batch, prepared as a run prepares it."""
    constants = objective.prepared(params, objective.constants(mesh), mesh)
    batch = next(objective.batches(batch_size=8, seed=0, start_step=0))
    rows, _ = jax.jit(objective.loss)(params, constants, batch, jax.random.key(1))
    return np.asarray(rows)


def test_losses_on_kept_encodings_are_those_on_the_fly(world, tmp_path):
    # Without augmentations or chance in what is dropped, the only difference is half precision in the file.
    quiet = rag_world.objective(world, augment=False)
    kept = EncodedObjective(base=quiet, folder=str(tmp_path / "kept"), variants=1)
    mesh, params = make_mesh(devices=jax.devices()[:1]), rag_world.params()
    np.testing.assert_allclose(first_loss(kept, mesh, params), first_loss(quiet, mesh, params), rtol=2e-3)
    trains = dataclasses.replace(kept, base=dataclasses.replace(quiet, trainable="^(unet|vae)/"))
    with pytest.raises(UserError, match="data.encodings: vae/.* is to be trained"):
        trains.prepared(params, {}, mesh)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(UserError, match="holds other things and no encodings"):
        dataclasses.replace(kept, folder=str(tmp_path / "full")).prepared(params, kept.constants(mesh), mesh)
    # They are made once, and not taken for another model's.
    made = (tmp_path / "kept" / "encodings-00000.array_record").stat().st_mtime_ns
    constants = kept.prepared(params, kept.constants(mesh), mesh)
    assert (tmp_path / "kept" / "encodings-00000.array_record").stat().st_mtime_ns == made
    # A run that was stopped goes on in the middle of a batch of the encoders.
    whole = list(kept._records(params, constants, mesh, 0))
    rest = list(kept._records(params, constants, mesh, 5))
    assert len(whole) == rag_world.PAIRS == 5 + len(rest)
    jax.tree.map(np.testing.assert_array_equal, whole[5:], rest)
    # What is measured on the way are pictures.
    looked_at = quiet.example_batch()
    jax.eval_shape(kept.loss, params, constants, looked_at, jax.random.key(0))
    # What serves or saves memory changes no encoding.
    served = dataclasses.replace(quiet.model, guidance_scale=9.0, remat="block", snr_gamma=5.0)
    same = dataclasses.replace(kept, base=dataclasses.replace(quiet, model=served))
    assert same._fingerprint() == kept._fingerprint()
    other = dataclasses.replace(kept, base=dataclasses.replace(quiet, augment=True))
    with pytest.raises(UserError, match="other weights, data or augmentations"):
        other.prepared(params, constants, mesh)
    # Nor for those of pictures that have changed since, under the same names.
    picture = tmp_path / "photo.png"
    picture.write_bytes(b"one")
    before = dataclasses.replace(kept, sources=(str(picture),))._fingerprint()
    picture.write_bytes(b"another")
    assert before != dataclasses.replace(kept, sources=(str(picture),))._fingerprint() != kept._fingerprint()
    # Two variants a sample: an epoch shows each once.
    two = dataclasses.replace(kept, variants=2, folder=str(tmp_path / "two"))
    info = EncodedInfo(rag_world.PAIRS, 2, "")
    one = {"mask": np.zeros((4, 4), bool), "embedding": np.zeros(2)}
    write_encoded(two.folder, info, [one] * (2 * rag_world.PAIRS))
    batches = two.batches(batch_size=8, seed=0, start_step=0)
    rows = np.concatenate([next(batches)["row"] for _ in range(2 * rag_world.PAIRS // 8)])
    assert sorted(rows) == sorted([*range(rag_world.PAIRS)] * 2)
    assert two.batch_ids(0, batch_size=8, seed=0)[0].split(", variant ")[0] in two.base.pairs.ids
