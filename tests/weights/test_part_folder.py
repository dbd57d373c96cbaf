"""Folders of weights: saved ones come back on any mesh, broken ones are one line, none is half-written."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import load_file, save_file

from ragdiff_jax import weights
from ragdiff_jax.errors import UserError


def make_params(dtype=jnp.float32):
    def leaf(seed, shape):
        return jax.random.normal(jax.random.key(seed), shape).astype(dtype)

    return {
        "conv_in": {"kernel": leaf(0, (3, 3, 4, 8)), "bias": leaf(1, (8,))},
        "encoder": {"layers": {"fc1": {"kernel": leaf(2, (3, 8, 16))}}},
        "logit_scale": leaf(3, ()),
    }


def abstract(params):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x, np.float32), np.asarray(y, np.float32))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_round_trip_of_each_dtype(dtype, tmp_path):
    params = make_params(dtype)
    weights.save_part(tmp_path, {"a": 1}, params)
    assert_same(weights.load_part(tmp_path, abstract(params)), params)
    assert weights.read_config(tmp_path) == {"a": 1}
    assert load_file(tmp_path / "model.safetensors")["encoder.layers.2.fc1.weight"].shape == (16, 8)


def test_dtype_can_change_on_the_way_out_and_in(tmp_path):
    params = make_params()
    weights.save_part(tmp_path, {}, params, jnp.bfloat16)
    loaded = weights.load_part(tmp_path, abstract(params))
    assert_same(loaded, jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), params))
    assert (
        jax.tree.leaves(weights.load_part(tmp_path, abstract(params), dtype=jnp.bfloat16))[0].dtype
        == jnp.bfloat16
    )


def test_sharded_leaves_read_their_slices_alone(tmp_path):
    params = make_params()
    weights.save_part(tmp_path, {}, params)
    mesh = jax.make_mesh((2, 4), ("data", "fsdp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)

    def place(*axes):
        return NamedSharding(mesh, PartitionSpec(*axes))

    shardings = {
        "conv_in": {"kernel": place(None, None, "fsdp", "data"), "bias": place()},
        "encoder": {"layers": {"fc1": {"kernel": place(None, "fsdp", "data")}}},
        "logit_scale": place(),
    }
    loaded = weights.load_part(tmp_path, abstract(params), shardings=shardings)
    assert_same(loaded, params)
    kernel = loaded["encoder"]["layers"]["fc1"]["kernel"]
    assert kernel.sharding == shardings["encoder"]["layers"]["fc1"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (3, 2, 8)
    # A sharded tree is saved like any other.
    weights.save_part(tmp_path / "again", {}, loaded)
    assert_same(weights.load_part(tmp_path / "again", abstract(params), shardings=place()), params)


def test_a_stack_may_be_sharded_over_its_layers(tmp_path):
    params = {"layers": {"fc1": {"kernel": jax.random.normal(jax.random.key(0), (4, 2, 6))}}}
    weights.save_part(tmp_path, {}, params)
    mesh = jax.make_mesh((4,), ("x",), devices=jax.devices()[:4], axis_types=(jax.sharding.AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("x"))
    assert_same(weights.load_part(tmp_path, abstract(params), shardings=sharding), params)


def test_split_files_have_an_index_and_a_later_save_leaves_none_behind(tmp_path):
    params = make_params()
    weights.save_part(tmp_path, {"_class_name": "UNet2DConditionModel"}, params, max_shard_bytes=1200)
    names = sorted(os.listdir(tmp_path))
    assert "diffusion_pytorch_model.safetensors.index.json" in names and len(names) > 3
    assert_same(weights.load_part(tmp_path, abstract(params)), params)
    weights.save_part(tmp_path, {"_class_name": "UNet2DConditionModel"}, params)
    assert sorted(os.listdir(tmp_path)) == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert_same(weights.load_part(tmp_path, abstract(params)), params)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not tensors at all",
        b"\xff" * 8 + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (70).to_bytes(8, "little")
        + b'{"a":{"dtype":"F32","shape":[99999],"data_offsets":[0,4]}}'.ljust(70)
        + b"1234",
    ],
    ids=["empty", "text", "huge_header", "no_object", "lying_shape"],
)
def test_broken_files_are_one_line(content, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="model.safetensors") as error:
        weights.load_part(tmp_path, abstract(make_params()))
    assert "\n" not in str(error.value)


def test_a_truncated_file_is_refused(tmp_path):
    weights.save_part(tmp_path, {}, make_params())
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        weights.load_part(tmp_path, abstract(make_params()))


def test_integer_tensors_are_refused(tmp_path):
    save_file({"a": np.zeros(3, np.int64)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="I64"):
        weights.load_part(tmp_path, {"a": jax.ShapeDtypeStruct((3,), jnp.float32)})


@pytest.mark.parametrize(
    "index",
    [
        "[]",
        "{",
        '{"weight_map": {"a": "../../etc/passwd"}}',
        '{"weight_map": {"a": 3}}',
        '{"weight_map": {"a": "b.safetensors"}}',
    ],
)
def test_hostile_indices_are_refused(index, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UserError):
        weights.load_part(tmp_path, abstract(make_params()))


def test_a_folder_without_weights_says_what_it_holds(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="pytorch_model.bin"):
        weights.load_part(tmp_path, abstract(make_params()))
    with pytest.raises(UserError, match="no such folder"):
        weights.load_part(tmp_path / "none", abstract(make_params()))


def test_an_interrupted_save_leaves_the_old_part(tmp_path, monkeypatch):
    old = make_params()
    weights.save_part(tmp_path, {"version": 1}, old)

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        weights.save_part(tmp_path, {"version": 2}, jax.tree.map(lambda x: x + 1, old))
    monkeypatch.undo()
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]
    assert_same(weights.load_part(tmp_path, abstract(old)), old)
    assert weights.read_config(tmp_path) == {"version": 1}


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        weights.save_part(tmp_path / "file" / "part", {}, make_params())


def test_fingerprint_sees_values_names_and_config_and_not_the_stored_dtype(tmp_path):
    params = make_params(jnp.bfloat16)
    base = weights.fingerprint(params, {"a": 1, "b": [2]})
    assert len(base) == 64 and base == weights.fingerprint(params, {"b": [2], "a": 1})
    assert base == weights.fingerprint(
        jax.tree.map(lambda x: x.astype(jnp.float32), params), {"a": 1, "b": [2]}
    )
    assert base != weights.fingerprint(params, {"a": 2, "b": [2]})
    assert base != weights.fingerprint(
        {**params, "logit_scale": params["logit_scale"] + 1}, {"a": 1, "b": [2]}
    )
    renamed = {("scale" if k == "logit_scale" else k): v for k, v in params.items()}
    assert base != weights.fingerprint(renamed, {"a": 1, "b": [2]})


def test_model_json_round_trip_and_errors(tmp_path):
    model = weights.ModelFile(
        system="ragdiffusion", parts={"vae": "AutoencoderKL"}, settings={"guidance": 2.0}
    )
    weights.write_model_json(tmp_path, model)
    assert weights.read_model_json(tmp_path) == model
    path = tmp_path / "model.json"
    good = json.loads(path.read_text())
    for bad in (good | {"schema": 2}, good | {"parts": []}, {"schema": 1}):
        path.write_text(json.dumps(bad))
        with pytest.raises(UserError, match="model.json"):
            weights.read_model_json(tmp_path)
    path.write_text("{")
    with pytest.raises(UserError, match="JSON"):
        weights.read_model_json(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="no such file"):
        weights.read_model_json(tmp_path)
