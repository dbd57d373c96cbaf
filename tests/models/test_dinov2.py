"""DINOv2 against transformers, through the real loading and saving code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from quick import quick_jit

from ragdiff_jax import weights
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.dinov2 import DINOv2, DINOv2Config

torch.set_num_threads(1)

SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 42, "patch_size": 14}


def their_model(**changes):
    model = transformers.Dinov2Model(transformers.Dinov2Config(**SIZES | changes))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():  # biases start at 0, LayerScale at 1: a mistake in them would hide
            parameter.normal_(0.0, 0.3)
    return model.eval()


def abstract_params(config):
    pixels = jnp.zeros((1, config.image_size, config.image_size, 3))
    return jax.eval_shape(lambda key: DINOv2(config).init(key, pixels)["params"], jax.random.key(0))


@pytest.mark.parametrize("swiglu", [False, True], ids=["mlp", "swiglu"])
def test_equals_transformers_at_its_own_size_and_at_others(swiglu, tmp_path):
    reference = their_model(use_swiglu_ffn=swiglu)
    reference.save_pretrained(tmp_path)
    config = DINOv2Config.from_dict(weights.read_config(tmp_path))
    params = weights.load_part(tmp_path, abstract_params(config))
    for size in [(42, 42), (70, 28)]:  # the position table as it is, and resampled
        pixels = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
        ours = quick_jit(lambda p, x: DINOv2(config).apply({"params": p}, x))(params, pixels)
        with torch.no_grad():
            theirs = reference(torch.from_numpy(pixels.transpose(0, 3, 1, 2))).last_hidden_state.numpy()
        assert np.abs(ours.last_hidden_state - theirs).max() <= 1e-5 * np.abs(theirs).max()
        np.testing.assert_array_equal(ours.pooled, ours.last_hidden_state[:, 0])


def test_saved_part_opens_in_transformers_bit_for_bit(tmp_path):
    reference = their_model()
    reference.save_pretrained(tmp_path / "theirs")
    config = DINOv2Config.from_dict(weights.read_config(tmp_path / "theirs"))
    params = weights.load_part(tmp_path / "theirs", abstract_params(config))
    weights.save_part(tmp_path / "ours", config.to_dict(), params)
    again = transformers.Dinov2Model.from_pretrained(tmp_path / "ours")
    for name, tensor in reference.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_rematerialised_layers_have_the_same_gradient():
    config = DINOv2Config(**SIZES)
    pixels = jnp.ones((1, 42, 42, 3))
    variables = quick_jit(DINOv2(config).init)(jax.random.key(0), pixels)

    def gradient(remat):
        loss = lambda v: jnp.sum(DINOv2(config, remat=remat).apply(v, pixels).pooled[:, :3] ** 3)  # noqa: E731
        return quick_jit(jax.grad(loss))(variables)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), gradient(False), gradient(True))


@pytest.mark.parametrize(
    "change, word",
    [({"model_type": "vit"}, "vit"), ({"image_size": [28, 42]}, "square"), ({"hidden_act": "relu6"}, "relu6")],
)
def test_another_kind_is_refused_by_name(change, word):
    with pytest.raises(UserError, match=word):
        DINOv2Config.from_dict(SIZES | change)


def test_pixels_that_do_not_divide_into_patches_are_refused():
    with pytest.raises(ValueError, match="patch size 14"):
        jax.eval_shape(DINOv2(DINOv2Config(**SIZES)).init, jax.random.key(0), jnp.zeros((1, 40, 42, 3)))
