"""The linear start of a small autoencoder lets hue through."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_jit

from ragdiff_jax.errors import UserError
from ragdiff_jax.models.vae import AutoencoderKL, VAEConfig
from ragdiff_jax.training.objectives.colour_start import colour_start

CONFIG = VAEConfig(block_out_channels=(16, 32, 64), latent_channels=4, norm_num_groups=4)


def test_a_patch_keeps_its_colour_before_any_training():
    network = AutoencoderKL(CONFIG)
    params = quick_jit(network.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]
    apply = quick_jit(network.apply)
    variables = {"params": nn.meta.unbox(colour_start(params, CONFIG))}
    colours = np.random.default_rng(0).uniform(-1, 1, (4, 1, 1, 3)).astype(np.float32)
    image = jnp.broadcast_to(colours, (4, 16, 16, 3))
    error = jnp.abs(apply(variables, image) - image)[:, 4:12, 4:12]
    assert error.mean() < 0.12
    plain = jnp.abs(apply({"params": nn.meta.unbox(params)}, image) - image)
    assert error.mean() < plain.mean() / 3


def test_an_architecture_that_does_not_fit_is_named():
    with pytest.raises(UserError, match="growing widths"):
        colour_start({}, VAEConfig(block_out_channels=(128, 256, 512, 512), norm_num_groups=32))
