"""Adapters add a product of low rank to what they are asked to, and gradients reach them through scanned stacks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from quick import quick_jit

from ragdiff_jax.errors import UserError
from ragdiff_jax.models.lora import TARGETS, init_lora, merge_lora
from ragdiff_jax.models.transformer import SpatialTransformer
from ragdiff_jax.models.unet import UNet
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.parallel import flatten, make_mesh, shardings_for

CONFIG = UNetConfig(
    block_out_channels=(8,),
    layers_per_block=1,
    transformer_layers=(2,),
    attention_heads=(2,),
    cross_attention_dim=12,
    use_linear_projection=False,
    norm_num_groups=4,
    text_embed_dim=0,
    down_attention=(True,),
    up_attention=(True,),
)


def init(key, role="main"):
    context = jnp.zeros((1, 3, 12)) if role == "main" else None
    model = UNet(CONFIG, role=role)
    return model.init(key, jnp.zeros((1, 4, 4, 4)), jnp.zeros((1,), jnp.int32), context)["params"]


@pytest.fixture(scope="module")
def params():
    abstract = {"unet": jax.eval_shape(init, jax.random.key(0))}
    rng = np.random.default_rng(0)
    return abstract, jax.tree.map(
        lambda x: np.asarray(rng.normal(size=x.shape) * 0.3, x.dtype), nn.meta.unbox(abstract)
    )


def test_new_adapters_change_nothing_and_stand_beside_what_was_asked_for(params):
    adapters = quick_jit(lambda key: init_lora(key, params[1], TARGETS, 3))(jax.random.key(0))
    paths = {path.rsplit("/lora_", 1)[0] for path, _ in flatten(adapters)}
    wanted = {p.removesuffix("/kernel") for p, _ in flatten(params[1]) if "/attn" in p and p.endswith("/kernel")}
    assert paths == wanted
    merged = quick_jit(merge_lora, static_argnums=2)(params[1], adapters, 2.0)
    assert jax.tree.structure(merged) == jax.tree.structure(params[1])
    jax.tree.map(np.testing.assert_array_equal, merged, params[1])


@quick_jit
def _convolve(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize(
    "targets, kernel",
    [
        (r"attn1/to_q/kernel$", ("transformer_blocks", "attn1", "to_q")),  # a stack
        (r"/proj_in/kernel$", ("proj_in",)),  # a convolution of 1x1
        (r"/norm/kernel$|resnets_0/conv1/kernel$", ("conv1",)),  # of 3x3
    ],
)
def test_the_product_is_added_layer_by_layer(targets, kernel, params):
    adapters = jax.eval_shape(lambda: init_lora(jax.random.key(0), params[1], targets, 2))
    rng = np.random.default_rng(1)
    adapters = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), adapters)
    merged = quick_jit(merge_lora, static_argnums=2)(params[1], adapters, 0.5)
    branch = "resnets_0" if kernel == ("conv1",) else "attentions_0"
    before, after, pair = params[1]["unet"], merged["unet"], adapters["unet"]
    for name in ("mid_block", branch, *kernel):
        before, after, pair = before[name], after[name], pair[name]
    difference = np.asarray(after["kernel"] - before["kernel"])
    a, b = np.asarray(pair["lora_A"]["kernel"]), np.asarray(pair["lora_B"]["kernel"])
    if difference.ndim == 4:  # the two convolutions one after the other
        image = np.random.default_rng(2).normal(size=(1, 5, 5, a.shape[2])).astype(np.float32)
        close = dict(rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(_convolve(image, difference), 0.5 * _convolve(_convolve(image, a), b), **close)
    else:
        assert a.shape == (2, 8, 2) and b.shape == (2, 2, 8)
        for layer in range(2):
            np.testing.assert_allclose(difference[layer], 0.5 * a[layer] @ b[layer], rtol=1e-4, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, merged["unet"]["conv_in"], params[1]["unet"]["conv_in"])


def test_gradients_of_a_merged_stack_reach_its_adapters(params):
    """The gradient of B is scale * A^T times that of the kernel itself, in each layer of the scanned stack."""
    stack = params[1]["unet"]["mid_block"]["attentions_0"]
    adapters = quick_jit(lambda key: init_lora(key, stack, r"attn2/to_v/kernel$", 2))(jax.random.key(0))
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(1, 4, 4, 8)), jnp.float32)
    context = jnp.asarray(rng.normal(size=(1, 3, 12)), jnp.float32)

    def loss(tree):
        model = SpatialTransformer(depth=2, heads=2, groups=4, linear_projection=False)
        return jnp.sum(model.apply({"params": tree}, x, context)[0] ** 2)

    @quick_jit
    def gradients(base, adapters):
        return jax.grad(loss)(base), jax.grad(lambda adapters: loss(merge_lora(base, adapters, 2.0)))(adapters)

    whole, low = gradients(stack, adapters)
    for name in ("transformer_blocks", "attn2", "to_v"):
        whole, low, adapters = whole[name], low[name], adapters[name]
    want = 2.0 * np.einsum("lir,lio->lro", adapters["lora_A"]["kernel"], whole["kernel"])
    assert np.abs(want).max() > 0
    np.testing.assert_allclose(low["lora_B"]["kernel"], want, rtol=1e-3, atol=1e-5 * np.abs(want).max())
    assert not np.any(low["lora_A"]["kernel"])  # while B is zero


def test_adapters_lie_on_the_mesh_as_their_kernels_do(params):
    boxed = jax.eval_shape(lambda key: init_lora(key, {"unet": init(key)}, TARGETS, 2), jax.random.key(0))
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    specs = shardings_for(boxed, mesh)["unet"]["mid_block"]["attentions_0"]["transformer_blocks"]["attn2"]["to_k"]
    kernel = shardings_for(params[0], mesh)["unet"]["mid_block"]["attentions_0"]["transformer_blocks"]["attn2"]["to_k"]
    assert kernel["kernel"].spec == PartitionSpec(None, "fsdp", "tensor")
    assert specs["lora_A"]["kernel"].spec == PartitionSpec(None, "fsdp", None)
    assert specs["lora_B"]["kernel"].spec == PartitionSpec(None, None, "tensor")


@pytest.mark.parametrize(
    "targets, rank, words",
    [
        ("(", 2, "regular expression"),
        ("nothing", 2, "match no kernel"),
        (TARGETS, 0, "at least 1"),
        (TARGETS, 8, "lower"),
    ],
)
def test_impossible_adapters_are_refused(targets, rank, words, params):
    with pytest.raises(UserError, match=words):
        init_lora(jax.random.key(0), params[1], targets, rank)
