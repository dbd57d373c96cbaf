"""Operations counted from a trace, beside those counted by hand and those that others publish."""

import jax
import jax.numpy as jnp
import pytest

from ragdiff_jax.models.unet import UNet
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.parallel.flops import count_flops

S = jax.ShapeDtypeStruct


def test_products_in_loops_branches_and_gradients():
    x, w = S((5, 7), jnp.float32), S((7, 7), jnp.float32)
    one = 2 * 5 * 7 * 7
    assert count_flops(jnp.dot, x, w) == {"matrix": one, "convolution": 0}

    def loop(x, w):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, length=3)[0].sum()

    assert count_flops(jax.jit(loop), x, w)["matrix"] == 3 * one
    assert count_flops(jax.grad(loop, argnums=(0, 1)), x, w)["matrix"] == 9 * one
    branch = lambda x, w: jax.lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: x @ w @ w)  # noqa: E731
    assert count_flops(branch, x, w)["matrix"] == 2 * one
    assert count_flops(jax.grad(jax.checkpoint(lambda w, x: jnp.tanh(x @ w).sum())), w, x)["matrix"] == 3 * one


def test_a_while_loop_has_no_length():
    with pytest.raises(ValueError, match="while"):
        count_flops(lambda x: jax.lax.while_loop(lambda c: c[0, 0] < 1, lambda c: c @ c, x), S((2, 2), jnp.float32))


def test_a_strided_convolution_and_its_gradients():
    x, k = S((2, 8, 8, 3), jnp.float32), S((3, 3, 3, 5), jnp.float32)

    def convolve(x, k):
        pad = ((1, 1), (1, 1))
        return jax.lax.conv_general_dilated(x, k, (2, 2), pad, dimension_numbers=("NHWC", "HWIO", "NHWC")).sum()

    one = 2 * (2 * 4 * 4 * 5) * (3 * 3 * 3)
    assert count_flops(convolve, x, k)["convolution"] == one
    assert count_flops(jax.value_and_grad(convolve, argnums=(0, 1)), x, k)["convolution"] == pytest.approx(3 * one)


def test_sdxl_is_what_is_published():
    """6.761 TFLOP a forward pass at 1024 px (AI-Hypercomputer/tpu-recipes, SDXL-MaxDiffusion: 162.27 of 24)."""
    network = UNet(UNetConfig(), attention="xla")
    arguments = (
        S((1, 128, 128, 4), jnp.float32),
        S((1,), jnp.int32),
        S((1, 77, 2048), jnp.float32),
        S((1, 1280), jnp.float32),
        S((1, 6), jnp.float32),
    )
    params = jax.eval_shape(network.init, jax.random.key(0), *arguments)
    assert sum(count_flops(network.apply, params, *arguments).values()) == pytest.approx(6.761e12, rel=1e-3)
