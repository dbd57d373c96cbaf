"""What enters the U-Net from outside: it computes what the papers say, and gate 0 takes it away exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import linen as nn
from quick import quick_jit
from small_model import random_params, small_system

from ragdiff_jax.models.attention import dot_product_attention, reference_attention
from ragdiff_jax.models.ep_adapter import EPAdapter, EPAdapterConfig
from ragdiff_jax.models.landmark_guider import LandmarkGuider, LandmarkGuiderConfig
from ragdiff_jax.models.resampler import Resampler
from ragdiff_jax.models.transformer import CrossAttention, Gates, KeyValue
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.weights.model_folder import abstract_params

torch.set_num_threads(1)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def random_variables(module, *arguments):
    """Random numbers in the place of `init`, which would have to be compiled."""
    shapes = nn.meta.unbox(jax.eval_shape(module.init, jax.random.key(0), *arguments))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.4, leaf.dtype), shapes)


def relative_error(ours, theirs):
    return np.abs(np.asarray(ours) - np.asarray(theirs)).max() / np.abs(np.asarray(theirs)).max()


def torch_decoupled_attention(w, x, text, prompt, heads, scale):
    """IP-Adapter: one query; text and image prompt have keys and values of their own; the results are summed.

    `w`: matrices [in, out]; `scale` [b].
    """

    def split(tokens):
        return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)

    query = split(x @ w["to_q"])

    def attend(tokens, key, value):
        key, value = split(tokens @ key), split(tokens @ value)
        share = torch.softmax(query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5, dim=-1)
        return (share @ value).transpose(1, 2).flatten(2)

    hidden = attend(text, w["to_k"], w["to_v"]) + scale[:, None, None] * attend(prompt, w["to_k_ip"], w["to_v_ip"])
    return hidden @ w["to_out"] + w["bias"]


def test_decoupled_attention_is_ip_adapters():
    unet = UNetConfig(
        block_out_channels=(16,),
        layers_per_block=1,
        transformer_layers=(3,),
        attention_heads=(4,),
        cross_attention_dim=12,
        norm_num_groups=4,
        down_attention=(True,),
        up_attention=(True,),
    )
    config = EPAdapterConfig(embed_dim=10, dim=8, depth=1, heads=2, dim_head=4, num_queries=5)
    adapter, embedding = EPAdapter(config, unet), normal(0, 2, 10)
    params = random_variables(adapter, embedding)["params"]
    prompts = quick_jit(adapter.apply)({"params": params}, embedding)
    assert set(prompts) == {site for site, *_ in unet.sites()}
    site, layer = "up_blocks_0/attentions_1", 2
    assert prompts[site].key.shape == (3, 2, 5, 4, 4)

    x, text, gate = normal(2, 2, 9, 16), normal(3, 2, 7, 12), jnp.array([1.0, 0.6])
    attention = CrossAttention(heads=4, attention="xla", dtype=jnp.float32)
    prompt = KeyValue(prompts[site].key[layer], prompts[site].value[layer])
    variables = random_variables(attention, x, text, None, None)
    ours = quick_jit(attention.apply)(variables, x, text, prompt, gate)

    resampler = Resampler(dim=8, depth=1, heads=2, dim_head=4, num_queries=5, output_dim=12)
    tokens = quick_jit(resampler.apply)({"params": params["resampler"]}, embedding[:, None])
    own = variables["params"]
    matrices = {name: own[name]["kernel"] for name in ("to_q", "to_k", "to_v")}
    matrices |= {f"{name}_ip": params["up_blocks_0_attentions_1"][name][layer] for name in ("to_k", "to_v")}
    matrices |= {"to_out": own["to_out_0"]["kernel"], "bias": own["to_out_0"]["bias"]}
    matrices = {name: torch.from_numpy(np.array(value)) for name, value in matrices.items()}
    theirs = torch_decoupled_attention(
        matrices, *(torch.from_numpy(np.array(value)) for value in (x, text, tokens)), 4, torch.tensor([1.0, 0.6])
    )
    assert relative_error(ours, theirs) <= 1e-5


def concatenated_attention(query, key, value, reference_key, reference_value):
    """R Eq. 4 as it is written: one softmax over the keys of both."""
    key, value = jnp.concatenate([key, reference_key], axis=1), jnp.concatenate([value, reference_value], axis=1)
    logits = jnp.einsum("bqnd,bknd->bnqk", query, key) * query.shape[-1] ** -0.5
    return jnp.einsum("bnqk,bknd->bqnd", jax.nn.softmax(logits, axis=-1), value)


QKV = [normal(seed, 3, length, 2, 8) * 2 for seed, length in enumerate((6, 6, 6, 5, 5))]


def test_reference_attention_is_one_softmax_over_both_keys_and_so_is_its_gradient():
    cotangent = normal(9, 3, 6, 2, 8)

    def both(function):
        def run(*x):
            out, back = jax.vjp(function, *x)
            return out, *back(cotangent)

        return quick_jit(run)(*QKV)

    ours, theirs = both(lambda *x: reference_attention(*x, jnp.ones(3))), both(concatenated_attention)
    for name, a, b in zip("out q k v rk rv".split(), ours, theirs, strict=True):
        assert relative_error(a, b) <= 1e-5, name


def test_a_gate_of_zero_leaves_the_samples_own_attention_bit_for_bit():
    gate = jnp.array([0.0, 1.0, 0.0])
    out, back = jax.vjp(lambda *x: reference_attention(*x, gate), *QKV)
    plain = dot_product_attention(*QKV[:3])
    np.testing.assert_array_equal(out[::2], plain[::2])
    assert np.abs(out[1] - plain[1]).max() > 0.01
    # Nor does such a sample teach ReferenceNet anything.
    for gradient in back(jnp.ones_like(out))[3:]:
        assert not gradient[::2].any() and gradient[1].any()


@pytest.fixture(scope="module")
def unet():
    """(module, parameters, inputs, conditions(seed, gate)) of the small U-Net; the conditions are random numbers."""
    model = small_system()
    params = random_params(model)["unet"]
    width, size = model.unet.cross_attention_dim, model.latent_size
    x = (
        normal(0, 2, size, size, model.unet.in_channels),
        jnp.array([10, 900]),
        normal(1, 2, 5, width),
        normal(2, 2, model.unet.text_embed_dim),
        model.time_ids(2, 32, 32),
    )
    abstract = abstract_params(model)
    shapes = {
        "reference": jax.eval_shape(model.reference, nn.meta.unbox(abstract), x[0]),
        "adapter": jax.eval_shape(
            lambda p: model.modules()["ep_adapter"].apply({"params": p}, jnp.zeros((2, 32))),
            nn.meta.unbox(abstract["ep_adapter"]),
        ),
    }

    def conditions(seed, gate):
        rng = np.random.default_rng(seed)
        contents = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), s.dtype), shapes)
        gate = jnp.broadcast_to(jnp.asarray(gate, jnp.float32), (2,))
        return contents | {"gates": Gates(reference=gate, adapter=gate)}

    return model.modules()["unet"], params, x, conditions


def test_gates_of_zero_give_the_plain_unet_bit_for_bit(unet):
    module, params, x, conditions = unet
    with jax.disable_jit():  # a compiler may add up the same numbers in another order
        plain = module.apply({"params": params}, *x)
        nothing = jnp.zeros((*x[0].shape[:3], 16))
        closed = module.apply({"params": params}, *x, landmark_features=nothing, **conditions(20, 0.0))
    np.testing.assert_array_equal(closed, plain)


def test_compiled_gates_hold_back_every_bit_of_the_contents(unet):
    module, params, x, conditions = unet
    run = quick_jit(lambda params, c: module.apply({"params": params}, *x, **c))
    plain = quick_jit(lambda params: module.apply({"params": params}, *x))(params)
    closed = run(params, conditions(20, 0.0))
    assert relative_error(closed, plain) <= 2e-6
    np.testing.assert_array_equal(run(params, conditions(30, 0.0)), closed)
    opened = run(params, conditions(20, 1.0))
    assert relative_error(opened, plain) > 1e-3
    # One sample's gate is no other's.
    mixed = run(params, conditions(20, [0.0, 1.0]))
    np.testing.assert_array_equal(mixed[0], closed[0])
    np.testing.assert_array_equal(mixed[1], opened[1])


def test_landmark_features_start_at_zero_on_the_latents_grid():
    model = LandmarkGuider(LandmarkGuiderConfig(channels=(4, 4, 8, 8), features=12))
    silhouette = jnp.ones((2, 24, 16, 1))

    @quick_jit
    def run(key):
        params = nn.meta.unbox(model.init(key, silhouette)["params"])
        gradient = jax.grad(lambda p: model.apply({"params": p}, silhouette).sum())(params)
        return model.apply({"params": params}, silhouette), gradient

    features, gradient = run(jax.random.key(0))
    assert features.shape == (2, 24 // 8, 16 // 8, 12)
    assert not features.any()
    # The layer that is zero is the last alone: its gradient isn't.
    assert gradient["conv_out"]["kernel"].any()


def test_every_parameter_of_every_part_has_logical_axes():
    model = small_system()
    boxed = abstract_params(model)
    assert set(boxed) == {
        "unet", "reference_net", "ep_adapter", "landmark_guider", "structure_net", "vae", "text_encoder"
    }  # fmt: skip
    leaves = jax.tree_util.tree_flatten_with_path(boxed, is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata))[0]
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        assert isinstance(leaf, nn.Partitioned), name
        assert len(leaf.names) == leaf.value.ndim, name
