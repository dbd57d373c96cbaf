"""A model goes out bit for bit, in what diffusers and transformers load; adapters are merged; its weight is known."""

import json
import shutil

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file
from small_model import random_params, small_system

from ragdiff_jax.data.tokenizer import train_tokenizer
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.lora import TARGETS, init_lora, merge_lora
from ragdiff_jax.parallel import make_mesh
from ragdiff_jax.systems.zero_shot import Calibration
from ragdiff_jax.weights.exporting import export_model
from ragdiff_jax.weights.info import parse_mesh, weights_info
from ragdiff_jax.weights.lora_file import save_lora
from ragdiff_jax.weights.model_folder import (
    encoder_fingerprint,
    load,
    read_calibration,
    read_model,
    save_model,
    write_calibration,
)

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """(folder, system, parameters, folder of adapters, merged parameters)."""
    base = tmp_path_factory.mktemp("model")
    system = small_system()
    params = random_params(system)
    train_tokenizer(["a red shirt", "a blue hoodie"], 600, base / "tokenizer")
    save_model(base / "model", system, params, [base / "tokenizer"])
    shapes = jax.eval_shape(lambda key: init_lora(key, params, TARGETS, 2), jax.random.key(0))
    rng = np.random.default_rng(1)
    adapters = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32) * 0.1, shapes)
    save_lora(base / "lora", adapters, params, rank=2, alpha=4.0)
    return base / "model", system, params, base / "lora", adapters


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_whole_model_is_the_same_model_and_loads_elsewhere(model, tmp_path):
    folder, system, params, *_ = model
    done = export_model(folder, tmp_path / "out")
    assert {part.part for part in done} == set(params)
    assert read_model(tmp_path / "out") == system
    same(load(system, tmp_path / "out"), params)
    assert (tmp_path / "out" / "tokenizer" / "vocab.json").is_file()
    for kind, part in (
        (diffusers.UNet2DConditionModel, "unet"),
        (diffusers.AutoencoderKL, "vae"),
        (transformers.CLIPTextModelWithProjection, "text_encoder"),
    ):
        theirs = kind.from_pretrained(tmp_path / "out" / part)
        (file,) = (folder / part).glob("*.safetensors")
        ours = {name.removeprefix("text_model."): value for name, value in load_file(file).items()}
        state = {name.removeprefix("text_model."): value for name, value in theirs.state_dict().items()}
        assert set(state) == set(ours)
        for name, tensor in state.items():
            np.testing.assert_array_equal(tensor.numpy(), ours[name])


def test_adapters_are_merged_into_both_unets_and_nothing_else_changes(model, tmp_path):
    folder, system, params, lora, adapters = model
    done = {part.part: part.adapted for part in export_model(folder, tmp_path / "out", lora=lora, lora_scale=0.5)}
    assert done["unet"] > done["reference_net"] > 0 == done["vae"]
    want = jax.jit(merge_lora, static_argnums=2)(params, adapters, 0.5 * 4.0 / 2)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), load(system, tmp_path / "out"), want
    )


def test_one_part_in_another_dtype(model, tmp_path):
    folder, _, _, lora, _ = model
    (part,) = export_model(folder, tmp_path / "out", parts=["vae"], dtype="bfloat16")
    assert part.bytes == 2 * part.parameters
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["vae"]
    (alone,) = export_model(folder / "vae", tmp_path / "vae")
    assert (
        alone.part == ""
        and (tmp_path / "vae" / "config.json").read_text() == (folder / "vae" / "config.json").read_text()
    )
    with pytest.raises(UserError, match="adapts reference_net, unet"):
        export_model(folder, tmp_path / "none", parts=["vae"], lora=lora)
    with pytest.raises(UserError, match="no part 'tower'"):
        export_model(folder, tmp_path / "none", parts=["tower"])
    with pytest.raises(UserError, match="there already"):
        export_model(folder, tmp_path / "out")
    assert not (tmp_path / "none").exists()


def test_what_a_memory_belongs_to_keeps_its_numbers_and_what_it_says_of_attributes(model, tmp_path):
    folder, system, params, *_ = model
    shutil.copytree(folder, tmp_path / "model")
    write_calibration(tmp_path / "model" / "structure_net", {"Fit": Calibration(scale=2.0, threshold=0.5)})
    export_model(tmp_path / "model", tmp_path / "out", dtype="bfloat16")
    written = load(read_model(tmp_path / "out"), tmp_path / "out")
    assert encoder_fingerprint(system, written) == encoder_fingerprint(system, params)
    kernel = written["vae"]["decoder"]["conv_in"]["kernel"]
    assert (kernel.astype(jnp.bfloat16).astype(kernel.dtype) == kernel).all(), "the others are rounded"
    for part in (tmp_path / "out" / "structure_net", tmp_path / "alone"):
        if part.name == "alone":
            export_model(tmp_path / "model" / "structure_net", part, dtype="bfloat16")
        assert read_calibration(part) == {"Fit": Calibration(scale=2.0, threshold=0.5)}
        assert sorted(path.name for path in part.glob("*.safetensors")) == ["model.safetensors"]
        assert load_file(part / "model.safetensors").keys() and weights_info(part)[0].dtypes.keys() == {"float32"}


def test_adapters_of_another_network_are_listed_and_nothing_is_written(model, tmp_path):
    folder, _, params, *_ = model
    other = {"unet": {"mid_block": {"resnets_0": {"conv1": params["unet"]["mid_block"]["resnets_0"]["conv1"]}}}}
    other["unet"]["mid_block"]["resnets_9"] = {"conv1": {"kernel": np.zeros((3, 3, 4, 4), np.float32)}}
    pair = jax.eval_shape(lambda key: init_lora(key, other, "conv1/kernel$", 2), jax.random.key(0))
    save_lora(tmp_path / "lora", jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), pair), other, rank=2, alpha=2.0)
    with pytest.raises(UserError, match=r"does not fit unet: mid_block.resnets.9.conv1.weight \(not there"):
        export_model(folder, tmp_path / "out", lora=tmp_path / "lora")
    assert not (tmp_path / "out").exists()


def test_config_that_disagrees_with_its_tensors_is_refused(model, tmp_path):
    shutil.copytree(model[0] / "vae", tmp_path / "vae")
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    (tmp_path / "vae" / "config.json").write_text(json.dumps(config | {"latent_channels": 5}))
    with pytest.raises(UserError, match="wrong shape"):
        export_model(tmp_path / "vae", tmp_path / "out")
    (tmp_path / "vae" / "config.json").write_text(json.dumps({"_class_name": "Flux"}))
    with pytest.raises(UserError, match="no network here is a Flux"):
        export_model(tmp_path / "vae", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_info_counts_what_is_there_and_what_a_device_holds(model):
    folder, system, params, *_ = model
    infos = {info.part: info for info in weights_info(folder, mesh={"data": 2, "fsdp": 2, "tensor": 2})}
    assert set(infos) == set(params)
    placed = load(system, folder, mesh=make_mesh(data=2, fsdp=2, tensor=2))
    for part, tree in placed.items():
        leaves = jax.tree.leaves(tree)
        info = infos[part]
        assert info.parameters == sum(leaf.size for leaf in leaves) == info.dtypes["float32"]
        assert info.bytes == sum(leaf.nbytes for leaf in leaves)
        assert info.device_bytes == sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves), part
    (alone,) = weights_info(folder / "unet", mesh=parse_mesh("fsdp=2"), dtype="bfloat16")
    assert alone.called == "UNet2DConditionModel" and alone.device_bytes < alone.bytes / 3
    (file,) = weights_info(folder / "vae" / "diffusion_pytorch_model.safetensors")
    assert file.called == "file" and file.parameters == infos["vae"].parameters and file.device_bytes is None


@pytest.mark.parametrize("text", ["", "fsdp", "fsdp=0", "model=2", "fsdp=2,fsdp=2", "fsdp=-1"])
def test_a_mesh_that_is_none_is_one_line(text):
    with pytest.raises(UserError, match="--mesh"):
        parse_mesh(text)
