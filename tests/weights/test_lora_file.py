"""Adapters on disk: what diffusers writes and reads, alone and merged; files that don't fit are one line."""

import json

import diffusers
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from quick import quick_jit
from safetensors.torch import load_file, save_file

from ragdiff_jax import weights
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.lora import TARGETS, init_lora, merge_lora
from ragdiff_jax.models.unet import UNet
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.weights.kinds import KINDS
from ragdiff_jax.weights.lora_file import load_lora, open_lora, save_lora

torch.set_num_threads(1)

CONFIG = {
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "transformer_layers_per_block": [1, 3],
    "attention_head_dim": [1, 2],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "cross_attention_dim": 12,
    "norm_num_groups": 4,
}
WIDE = TARGETS.replace("/kernel$", "/kernel$|(proj_in|conv1|ff/net_2)/kernel$")


merged_on_device = quick_jit(merge_lora, static_argnums=2)


def on_device(tree):
    """Zeros in the place of a tree: where a run's adapters lie before they are read."""
    return jax.device_put(jax.tree.map(np.zeros_like, tree))


def random_tree(abstract, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: np.asarray(rng.normal(size=x.shape) * 0.3, x.dtype), nn.meta.unbox(abstract))


@pytest.fixture(scope="module")
def system():
    """(config, parameters, adapters) of a U-Net and of its ReferenceNet."""
    config = UNetConfig.from_dict(CONFIG)
    latents, step = jnp.zeros((1, 2, 2, 4)), jnp.zeros((1,), jnp.int32)
    reference = jax.eval_shape(lambda key: UNet(config, role="reference").init(key, latents, step), jax.random.key(0))
    params = random_tree({"unet": KINDS["unet"].abstract(config), "reference_net": reference["params"]}, 0)
    adapters = jax.eval_shape(lambda key: init_lora(key, params, WIDE, 2), jax.random.key(0))
    return config, params, random_tree(adapters, 1)


def test_diffusers_reads_it_and_adds_the_same(system, tmp_path):
    """Its own reader, and W + alpha / r B A in torch: what PEFT's layers add to the output."""
    config, params, adapters = system
    save_lora(tmp_path, adapters, params, rank=2, alpha=6.0)
    state, alphas, metadata = diffusers.StableDiffusionXLPipeline.lora_state_dict(tmp_path, return_lora_metadata=True)
    assert alphas is None and all("lora" in name for name in state)  # load_lora_weights asks for the latter
    unet = {name.removeprefix("unet."): tensor for name, tensor in state.items() if name.startswith("unet.")}
    assert metadata["unet.r"] == 2 and metadata["unet.lora_alpha"] == 6.0
    weights.save_part(tmp_path / "unet", config.to_dict(), params["unet"])
    theirs = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    modules = {name.rsplit(".lora_", 1)[0] for name in unet}
    assert modules == set(metadata["unet.target_modules"])
    assert {m.split(".")[-1] for m in modules} >= {"to_q", "to_k", "to_v", "0", "proj_in", "conv1", "2"}
    merged = tmp_path / "merged"
    weights.save_part(merged, config.to_dict(), merged_on_device(params, adapters, 3.0)["unet"])
    ours = load_file(merged / "diffusion_pytorch_model.safetensors")
    with torch.no_grad():
        for module in modules:
            a, b = unet[f"{module}.lora_A.weight"], unet[f"{module}.lora_B.weight"]
            base = theirs.get_submodule(module).weight
            delta = (b.flatten(1) @ a.flatten(1)).reshape(base.shape)
            torch.testing.assert_close(ours[f"{module}.weight"], base + 3.0 * delta, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["diffusers", "peft"])
def test_saved_adapters_come_back_bit_for_bit_for_training(layout, system, tmp_path):
    _, params, adapters = system
    if layout == "peft":
        params, adapters = {"unet": params["unet"]}, {"unet": adapters["unet"]}
    save_lora(tmp_path, adapters, params, rank=2, alpha=4.0, layout=layout)
    zeros = on_device(adapters)
    again = load_lora(open_lora(tmp_path), zeros, params, scale=2.0)
    jax.tree.map(np.testing.assert_array_equal, again, adapters)
    # Trained on with another alpha, the product stays what it was.
    other = load_lora(open_lora(tmp_path), zeros, params, scale=1.0)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(close, merged_on_device(params, other, 1.0), merged_on_device(params, adapters, 2.0))


def test_reference_nets_last_block_is_named_by_its_place_in_the_whole_stack(system, tmp_path):
    _, params, adapters = system
    file = save_lora(tmp_path, adapters, params, rank=2, alpha=2.0)
    last = "reference_net.up_blocks.0.attentions.1.transformer_blocks.2.attn1.to_k.lora_A.weight"
    np.testing.assert_array_equal(
        load_file(file)[last].numpy().T,
        adapters["reference_net"]["up_blocks_0"]["attentions_1"]["transformer_blocks_last"]["attn1"]["to_k"]["lora_A"][
            "kernel"
        ],
    )


def pair(module="mid_block.attentions.0.proj_in", out=16, into=16, rank=2):
    return {
        f"unet.{module}.lora_A.weight": torch.ones(rank, into),
        f"unet.{module}.lora_B.weight": torch.ones(out, rank),
    }


def test_older_names_and_alphas_are_understood(tmp_path):
    old = {"unet.m.lora.down.weight": torch.ones(2, 3), "unet.m.lora.up.weight": torch.ones(4, 2)}
    save_file(old | {"unet.m.alpha": torch.tensor(8.0)}, tmp_path / "old.safetensors")
    assert open_lora(tmp_path / "old.safetensors").parts["unet"]["m"].scale == 4.0
    save_file(old, tmp_path / "none.safetensors")
    assert open_lora(tmp_path / "none.safetensors").parts["unet"]["m"].scale == 1.0
    (tmp_path / "peft").mkdir()
    peft = {
        "base_model.model.a.m.lora_A.weight": torch.ones(4, 3),
        "base_model.model.a.m.lora_B.weight": torch.ones(4, 4),
    }
    save_file(peft, tmp_path / "peft" / "adapter_model.safetensors")
    config = {"r": 4, "lora_alpha": 8, "alpha_pattern": {"m": 16}, "use_rslora": True}
    (tmp_path / "peft" / "adapter_config.json").write_text(json.dumps(config))
    assert open_lora(tmp_path / "peft", part="reference_net").parts["reference_net"]["a.m"].scale == 8.0
    for settings, scale in (({"alpha_pattern": {"a.(m|n)": 32}}, 8.0), ({"alpha_pattern": {"n": 32}}, 2.0)):
        (tmp_path / "peft" / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8} | settings))
        assert open_lora(tmp_path / "peft").parts["unet"]["a.m"].scale == scale
    for settings in ({"lora_alpha": None}, {"alpha_pattern": [1]}, {"alpha_pattern": {"(": 1}}):
        (tmp_path / "peft" / "adapter_config.json").write_text(json.dumps(settings))
        with pytest.raises(UserError, match="the alpha of a.m can't be read"):
            open_lora(tmp_path / "peft")


@pytest.mark.parametrize(
    "tensors, words",
    [
        ({"unet.m.lora_A.weight": torch.ones(2, 3)}, "no lora_B"),
        (pair() | {"unet.m.dora_scale": torch.ones(3)}, "dora_scale"),
        ({"lora_unet_m.lora_down.weight": torch.ones(2, 3)}, "lora_unet_m"),
        (pair() | {"unet.mid_block.attentions.0.proj_in.lora_B.weight": torch.ones(16, 3)}, "don't fit together"),
        (pair() | {"unet.mid_block.attentions.0.proj_in.alpha": torch.tensor(8)}, "proj_in.alpha"),
        (pair(rank=0), "rank 0"),
        ({"unet.m.lora_A.weight": torch.ones(2, 3).int(), "unet.m.lora_B.weight": torch.ones(2, 2)}, "I32"),
    ],
)
def test_other_adapters_are_refused_by_name(tensors, words, tmp_path):
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=words) as error:
        open_lora(tmp_path / "a.safetensors")
    assert "\n" not in str(error.value)


def test_adapters_of_another_run_are_refused(system, tmp_path):
    _, params, adapters = system
    save_lora(tmp_path, adapters, params, rank=2, alpha=2.0)
    zeros = on_device({"unet": adapters["unet"]})
    with pytest.raises(UserError, match="adapts reference_net"):
        load_lora(open_lora(tmp_path), zeros, params, scale=1.0)
    fewer = jax.eval_shape(lambda: init_lora(jax.random.key(0), {"unet": params["unet"]}, TARGETS, 2))
    fewer = on_device(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), fewer))
    save_lora(tmp_path / "unet", {"unet": adapters["unet"]}, params, rank=2, alpha=2.0)
    with pytest.raises(UserError, match="not expected"):
        load_lora(open_lora(tmp_path / "unet"), fewer, params, scale=1.0)
    with pytest.raises(UserError, match="one part"):
        save_lora(tmp_path, adapters, params, rank=2, alpha=2.0, layout="peft")
    with pytest.raises(UserError, match="has neither"):
        open_lora(tmp_path.parent)
