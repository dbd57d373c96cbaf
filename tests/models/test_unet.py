"""The U-Net computes what diffusers' computes, through the real loading and saving code; so does ReferenceNet."""

import diffusers
import jax
import numpy as np
import pytest
import torch
from flax import linen as nn
from quick import quick_jit

from ragdiff_jax import weights
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.unet import UNet
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.systems.initialise import reference_from_unet

torch.set_num_threads(1)

# SDXL's kind: text and size added to the time, linear projections, the first level without attention, depths 2 and 3.
SDXL = {
    "sample_size": 18,
    "block_out_channels": [8, 16, 24],
    "layers_per_block": 1,
    "transformer_layers_per_block": [1, 2, 3],
    "attention_head_dim": [1, 2, 3],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "cross_attention_dim": 20,
    "use_linear_projection": True,
    "norm_num_groups": 4,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 6,
    "projection_class_embeddings_input_dim": 12 + 6 * 6,
}
# SD's kind: nothing added, projections by 1x1 convolutions, depth 1, the last level without attention.
SD = {
    "sample_size": 12,
    "in_channels": 9,
    "block_out_channels": [8, 16],
    "layers_per_block": 2,
    "attention_head_dim": 2,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 20,
    "norm_num_groups": 4,
}
# SD 2's kind: linear projections, the heads of each level.
SD2 = SD | {"use_linear_projection": True, "attention_head_dim": [1, 2], "upcast_attention": True}
# Its numbers are those of stabilityai/stable-diffusion-xl-base-1.0.
REAL_SDXL = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "num_attention_heads": None,
    "out_channels": 4,
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
}


def torch_unet(config):
    torch.manual_seed(0)
    model = diffusers.UNet2DConditionModel(**config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms and biases start at 1 and 0, where a mistake in them hides
                parameter.add_(0.2 * torch.randn(parameter.shape))
    return model


def inputs(config: UNetConfig, b=2, h=18, w=20):
    rng = np.random.default_rng(0)
    out = {
        "latents": rng.normal(size=(b, h, w, config.in_channels)).astype(np.float32),
        "timesteps": np.array([0, 613], np.int32),
        "context": rng.normal(size=(b, 7, config.cross_attention_dim)).astype(np.float32),
    }
    if config.text_embed_dim:
        out["pooled"] = rng.normal(size=(b, config.text_embed_dim)).astype(np.float32)
        out["time_ids"] = np.tile(np.array([144, 160, 0, 8, 144, 160], np.float32), (b, 1))
    return out


def abstract_params(config: UNetConfig, role="main"):
    model = UNet(config, role=role)
    example = inputs(config, h=8, w=8)
    return jax.eval_shape(lambda key, x: model.init(key, **x)["params"], jax.random.key(0), example)


def run_torch(model, x):
    added = None
    if "pooled" in x:
        added = {"text_embeds": torch.from_numpy(x["pooled"]), "time_ids": torch.from_numpy(x["time_ids"])}
    with torch.no_grad():
        out = model(
            torch.from_numpy(x["latents"].transpose(0, 3, 1, 2)),
            torch.from_numpy(x["timesteps"]),
            torch.from_numpy(x["context"]),
            added_cond_kwargs=added,
        ).sample
    return out.numpy().transpose(0, 2, 3, 1)


def relative_error(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory):
    """(diffusers' model, its folder, our config, our parameters as read from the folder)."""
    folder = tmp_path_factory.mktemp("sdxl")
    model = torch_unet(SDXL)
    model.save_pretrained(folder)
    config = UNetConfig.from_dict(weights.read_config(folder))
    return model, folder, config, weights.load_part(folder, abstract_params(config))


@pytest.fixture(scope="module")
def reference_net(sdxl):
    """(abstract, parameters) of ReferenceNet as read from the U-Net's folder."""
    _, folder, config, _ = sdxl
    abstract = abstract_params(config, role="reference")
    return abstract, weights.load_part(folder, abstract, allow_surplus=True)


def test_sdxl_kind_equals_diffusers_at_a_size_that_does_not_halve_evenly(sdxl):
    reference, _, config, params = sdxl
    x = inputs(config)  # 18x20 -> 9x10 -> 5x5
    ours = quick_jit(lambda p, x: UNet(config).apply({"params": p}, **x))(params, x)
    assert ours.shape == x["latents"].shape
    assert relative_error(ours, run_torch(reference, x)) <= 1e-5


@pytest.mark.parametrize("written", [SD, SD2], ids=["sd1", "sd2"])
def test_sd_kinds_equal_diffusers(written, tmp_path):
    reference = torch_unet(written)
    reference.save_pretrained(tmp_path)
    config = UNetConfig.from_dict(weights.read_config(tmp_path))
    assert not config.text_embed_dim and config.use_linear_projection == ("use_linear_projection" in written)
    assert config.to_dict()["upcast_attention"] == written.get("upcast_attention", False)
    params = weights.load_part(tmp_path, abstract_params(config))
    x = inputs(config, h=12, w=7)
    ours = quick_jit(lambda p, x: UNet(config).apply({"params": p}, **x))(params, x)
    assert relative_error(ours, run_torch(reference, x)) <= 1e-5


def test_saved_part_opens_in_diffusers_bit_for_bit(sdxl, tmp_path):
    reference, _, config, params = sdxl
    weights.save_part(tmp_path, config.to_dict(), params)
    again = diffusers.UNet2DConditionModel.from_pretrained(tmp_path)
    for name in SDXL:
        assert again.config[name] == reference.config[name], name
    theirs = again.state_dict()
    assert set(theirs) == set(reference.state_dict())
    for name, tensor in reference.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name


def test_reference_net_is_read_from_the_unets_own_file(sdxl, reference_net):
    _, _, config, params = sdxl
    abstract, read = reference_net
    # The same by the way of training: copies of MainNet's tree.
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), nn.meta.unbox(abstract))
    copied = reference_from_unet(zeros, params)
    assert jax.tree.structure(read) == jax.tree.structure(copied)
    jax.tree.map(np.testing.assert_array_equal, read, copied)
    block, attention = config.last_site.split("/")
    last = read[block][attention]
    whole = params[block][attention]["transformer_blocks"]
    depth = whole["attn1"]["to_k"]["kernel"].shape[0]
    assert depth == 2 and last["transformer_blocks"]["norm1"]["scale"].shape[0] == depth - 1
    assert set(last["transformer_blocks_last"]) == {"norm1", "attn1"}
    for name in ("to_k", "to_v"):
        np.testing.assert_array_equal(
            last["transformer_blocks_last"]["attn1"][name]["kernel"], whole["attn1"][name]["kernel"][-1]
        )
    # Nothing that no later key or value reads.
    assert not {"conv_norm_out", "conv_out", "up_blocks_2"} & set(read)


def test_reference_net_gives_the_keys_and_values_of_the_unet_without_text(sdxl, reference_net):
    reference, _, config, _ = sdxl
    _, params = reference_net
    x = inputs(config) | {"timesteps": np.zeros(2, np.int32)}
    x["context"], x["pooled"] = np.zeros_like(x["context"]), np.zeros_like(x["pooled"])
    seen = {}
    hooks = [
        module.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out.numpy()}))
        for name, module in reference.named_modules()
        if name.endswith(("attn1.to_k", "attn1.to_v"))
    ]
    run_torch(reference, x)
    for hook in hooks:
        hook.remove()
    ours = quick_jit(
        lambda p, x: UNet(config, role="reference").apply(
            {"params": p}, x["latents"], x["timesteps"], None, x["pooled"], x["time_ids"]
        )
    )(params, x)
    assert len(seen) == 2 * sum(depth for _, depth, *_ in config.sites())
    for site, depth, width, heads in config.sites():
        assert ours[site].key.shape[0] == depth and ours[site].key.shape[-2:] == (heads, width // heads)
        disk = site.replace("blocks_", "blocks.").replace("attentions_", "attentions.").replace("/", ".")
        for layer in range(depth):
            for name, value in (("to_k", ours[site].key), ("to_v", ours[site].value)):
                theirs = seen[f"{disk}.transformer_blocks.{layer}.attn1.{name}"]
                assert relative_error(np.reshape(value[layer], theirs.shape), theirs) <= 1e-5, (site, layer, name)


@pytest.mark.parametrize("written", [SDXL, SD, REAL_SDXL], ids=["sdxl", "sd", "real"])
def test_config_survives_its_own_dict(written):
    config = UNetConfig.from_dict(written)
    assert UNetConfig.from_dict(config.to_dict()) == config
    assert list(config.block_out_channels) == written["block_out_channels"]


@pytest.mark.parametrize(
    "change, word",
    [
        ({"act_fn": "gelu"}, "gelu"),
        ({"class_embed_type": "timestep"}, "class_embed_type"),
        ({"addition_embed_type": "image"}, "addition_embed_type"),
        ({"encoder_hid_dim": 32}, "encoder_hid_dim"),
        ({"down_block_types": ["AttnDownBlock2D"] * 3}, "AttnDownBlock2D"),
        ({"mid_block_type": "UNetMidBlock2D"}, "UNetMidBlock2D"),
        ({"norm_num_groups": 32}, "norm groups"),
        ({"layers_per_block": [1, 2, 1]}, "layers_per_block"),
    ],
)
def test_another_kind_of_unet_is_refused_by_name(change, word):
    with pytest.raises(UserError, match=word):
        UNetConfig.from_dict(SDXL | change)


def test_sdxls_parameters_are_counted_without_allocating_them():
    config = UNetConfig.from_dict(REAL_SDXL)
    count = sum(leaf.size for leaf in jax.tree.leaves(abstract_params(config)))
    assert count == 2_567_463_684
