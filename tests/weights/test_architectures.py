"""The published architectures have every tensor that diffusers and transformers build, at full size, unallocated."""

import math

import diffusers
import pytest
import torch
import transformers

from ragdiff_jax.weights.architectures import ARCHITECTURES
from ragdiff_jax.weights.kinds import KINDS
from ragdiff_jax.weights.names import resolve
from ragdiff_jax.weights.streaming import disk_shapes

CLASSES = {
    "unet": diffusers.UNet2DConditionModel,
    "vae": diffusers.AutoencoderKL,
    "clip-text": (transformers.CLIPTextModelWithProjection, transformers.CLIPTextModel, transformers.CLIPTextConfig),
    "clip-vision": (transformers.CLIPVisionModelWithProjection, None, transformers.CLIPVisionConfig),
    "dinov2": (transformers.Dinov2Model, None, transformers.Dinov2Config),
}
# What transformers 5 calls DINOv2's tensors in memory; on disk they have the published names.
DINOV2 = {
    ".attention.q_proj.": ".attention.attention.query.",
    ".attention.k_proj.": ".attention.attention.key.",
    ".attention.v_proj.": ".attention.attention.value.",
    ".attention.o_proj.": ".attention.output.dense.",
    ".mlp.gate_proj.": ".mlp.weights_in.",
    ".mlp.down_proj.": ".mlp.weights_out.",
}


def their_shapes(kind, config):
    values = {name: value for name, value in config.items() if name not in ("_class_name", "architectures")}
    with torch.device("meta"):
        if kind in ("unet", "vae"):
            model = CLASSES[kind](**values)
        else:
            projected, plain, configure = CLASSES[kind]
            values.pop("model_type")
            model = (plain if config["architectures"] == ["CLIPTextModel"] else projected)(configure(**values))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if kind != "dinov2":
        return shapes
    out = {}
    for name, shape in shapes.items():
        for new, old in DINOV2.items():
            name = name.replace(new, old)
        if ".mlp.weights_in." in name:  # gate and up, one after the other
            shape = (2 * shape[0], *shape[1:])
        if ".mlp.up_proj." not in name:
            out[name] = shape
    return out


@pytest.mark.parametrize(
    "kind, name",
    [
        ("unet", "sd1"),
        ("unet", "sd2-inpainting"),
        ("unet", "sdxl"),
        ("vae", "sdxl"),
        ("vae", "flux"),
        ("clip-text", "vit-l"),
        ("clip-text", "vit-h-sd2"),
        ("clip-text", "bigg"),
        ("clip-vision", "vit-l"),
        ("clip-vision", "vit-h"),
        ("dinov2", "base"),
        ("dinov2", "giant"),
    ],
)
def test_every_name_and_shape_is_theirs(kind, name):
    config = KINDS[kind].named(name)
    ours = disk_shapes(KINDS[kind].abstract(config))
    assert len(resolve(ours, their_shapes(kind, ARCHITECTURES[kind][name]), name)) == len(ours)
    assert KINDS[kind].config.from_dict(config.to_dict()) == config


def test_f_theta_and_ip_adapter_have_as_many_parameters_as_the_published_files():
    f_theta = disk_shapes(KINDS["f-theta"].abstract(KINDS["f-theta"].named("vit-h")))
    assert sum(math.prod(shape) for shape in f_theta.values()) == 136_360_704
    adapter = disk_shapes(KINDS["ip-adapter"].abstract(KINDS["ip-adapter"].named("plus-sdxl")))
    stacks = [shape[0] for name, shape in adapter.items() if name.endswith((".to_k", ".to_v"))]
    # 51 tensors of the Resampler, keys and values of 70 cross-attentions.
    assert len(adapter) - len(stacks) + sum(stacks) == 191 and sum(stacks) == 2 * 70


def test_each_kind_has_its_architectures():
    assert set(ARCHITECTURES) == set(KINDS)
