"""The linear starts of small networks: hue passes the autoencoder, noise passes the U-Net."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_jit

from ragdiff_jax.errors import UserError
from ragdiff_jax.models.unet import UNet
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.models.vae import AutoencoderKL, VAEConfig
from ragdiff_jax.training.objectives.colour_start import colour_start
from ragdiff_jax.training.objectives.noise_start import noise_start

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


UNET = UNetConfig(
    sample_size=8,
    in_channels=4,
    out_channels=4,
    block_out_channels=(16, 32),
    layers_per_block=1,
    transformer_layers=(1, 1),
    attention_heads=(2, 2),
    cross_attention_dim=8,
    norm_num_groups=4,
    addition_time_embed_dim=4,
    text_embed_dim=8,
    down_attention=(False, False),
    up_attention=(False, False),
)


def test_noise_passes_a_fresh_unet():
    network = UNet(UNET)
    noise = jax.random.normal(jax.random.key(1), (2, 8, 8, 4))
    inputs = (noise, jnp.array([10, 900]), jnp.zeros((2, 3, 8)), jnp.zeros((2, 8)), jnp.zeros((2, 6)))
    params = quick_jit(network.init)(jax.random.key(0), *inputs)["params"]
    apply = quick_jit(network.apply)

    def correlation(params):
        out = apply({"params": nn.meta.unbox(params)}, *inputs)
        return float(jnp.vdot(out, noise) / (jnp.linalg.norm(out) * jnp.linalg.norm(noise) + 1e-6))

    assert correlation(noise_start(params, UNET)) > 0.95
    assert abs(correlation(params)) < 0.5


def test_a_unet_that_is_too_narrow_for_the_noise_is_named():
    with pytest.raises(UserError, match="twice as many"):
        noise_start({}, UNetConfig(in_channels=200, out_channels=200))
