"""Past F: the top garment's keys and values, and the image prompt in the words' place. Null is the plain model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_jit
from small_fashion import random_fashion, small_fashion

from ragdiff_jax.data.person_garments import garment_picture
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.transformer import Gates
from ragdiff_jax.systems.fashion_presets import with_image_prompt
from ragdiff_jax.systems.fashion_rag import FashionRAG
from ragdiff_jax.systems.garment_weights import accepted
from ragdiff_jax.systems.initialise import adapter_from_unet, narrow_inputs, reference_from_unet

PLAIN = small_fashion()
BOTH = dataclasses.replace(with_image_prompt(PLAIN), reference_net=True)


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(jnp.asarray, random_fashion(BOTH))


@pytest.fixture(scope="module")
def given(params):
    """(what the plain model is told, the same with both conditions there, prompts of two garments by their weights)."""
    rng = np.random.default_rng(0)
    mask = np.zeros((2, 32, 32), np.float32)
    mask[:, 8:24, 4:20] = 1
    person, top, context, garments = (
        jnp.asarray(rng.uniform(-1, 1, shape), jnp.float32)
        for shape in ((2, 32, 32, 3), (2, 32, 32, 3), (2, 9, 32), (1, 2, 16, 16, 3))
    )

    @quick_jit
    def make(params):
        weights = jnp.array([[1.0, 1.0], [1.0, 0.0], [0.0, 5.0]])
        prompts = BOTH.image_prompt(params, jnp.repeat(garments, 3, axis=0), weights)
        first = jax.tree.map(lambda x: x[:, :2], prompts)
        told = (params, person, jnp.asarray(mask), jnp.zeros((2, 18, 3)), context)
        return BOTH.condition(*told, top=top, image_prompt=first), prompts

    both, prompts = make(params)
    return both.replace(reference=None, adapter=None, gates=None), both, prompts


def test_closed_gates_are_the_plain_unet(params, given):
    plain, both, _ = given
    latents, t = jnp.ones((2, 8, 8, 8)), jnp.array([3, 500], jnp.int32)
    assert {float(x) for x in jnp.stack(jax.tree.leaves(both.gates)).ravel()} == {1.0}
    empty = jnp.zeros((1, 9, 32))
    without, closed = plain.unconditional(empty), both.unconditional(empty)
    assert not any(gate.any() for gate in jax.tree.leaves(closed.gates))
    np.testing.assert_array_equal(without.context, closed.context)
    ours = np.asarray(quick_jit(BOTH.denoise)(params, closed, latents, t))
    # Two compiled programs may differ in the last bit; tests/models/test_conditions.py has them uncompiled.
    theirs = np.asarray(quick_jit(PLAIN.denoise)(params, without, latents, t))
    assert np.abs(ours - theirs).max() <= 2e-6 * np.abs(theirs).max()


def test_each_condition_reaches_the_picture_and_its_own_sample_alone(params, given):
    plain, both, _ = given
    latents, t = jnp.ones((2, 8, 8, 8)), jnp.array([3, 500], jnp.int32)

    @quick_jit
    def run(reference, adapter):
        return BOTH.denoise(params, both.replace(gates=Gates(reference=reference, adapter=adapter)), latents, t)

    none, first = jnp.zeros(2), jnp.array([1.0, 0.0])
    base = run(none, none)
    for gates in ((first, none), (none, first)):
        moved = np.abs(run(*gates) - base).max(axis=(1, 2, 3))
        assert moved[0] > 1e-4 and moved[1] == 0


def test_an_image_prompt_is_the_mean_of_the_garments_that_count(given):
    for prompt in given[2].values():
        for x in (prompt.key, prompt.value):
            np.testing.assert_allclose(x[:, 0], (x[:, 1] + x[:, 2]) / 2, atol=1e-5)
            assert np.abs(x[:, 1] - x[:, 2]).max() > 1e-4


def test_both_start_as_copies_of_the_unet(params):
    latents = PLAIN.vae.latent_channels
    unet = params["unet"]
    reference = reference_from_unet(params["reference_net"], narrow_inputs(unet, latents))
    np.testing.assert_array_equal(reference["conv_in"]["kernel"], unet["conv_in"]["kernel"][:, :, :latents])
    source = unet["down_blocks_0"]["attentions_0"]["transformer_blocks"]
    copy = reference["down_blocks_0"]["attentions_0"]["transformer_blocks"]
    np.testing.assert_array_equal(copy["attn1"]["to_k"]["kernel"], source["attn1"]["to_k"]["kernel"])
    assert jax.tree.map(jnp.shape, reference) == jax.tree.map(jnp.shape, params["reference_net"])
    adapter = adapter_from_unet(params["image_adapter"], unet, PLAIN.unet)
    np.testing.assert_array_equal(adapter["down_blocks_0_attentions_0"]["to_v"], source["attn2"]["to_v"]["kernel"])


def test_parts_that_do_not_fit_are_named():
    with pytest.raises(UserError, match="words .inversion. or as an image prompt"):
        dataclasses.replace(PLAIN, inversion=None)
    with pytest.raises(UserError, match="words .inversion. or as an image prompt"):
        dataclasses.replace(BOTH, inversion=PLAIN.inversion)
    with pytest.raises(UserError, match="image prompt goes to all"):
        dataclasses.replace(BOTH, visual_levels=(0,))
    with pytest.raises(UserError, match="embed_dim is 8"):
        dataclasses.replace(BOTH, image_adapter=dataclasses.replace(BOTH.image_adapter, embed_dim=8))
    assert with_image_prompt(FashionRAG.from_config("sd2_inpaint")).image_adapter.to_dict() == {
        "_class_name": "EPAdapter", "embed_dim": 1280, "dim": 1280, "depth": 4, "heads": 20, "dim_head": 64,
        "num_queries": 16, "ff_mult": 4,
    }  # fmt: skip


def test_a_floor_rejects_where_a_margin_cannot():
    cosines = jnp.array([[0.5, 0.45, 0.1], [0.2, 0.19, 0.18]])
    np.testing.assert_array_equal(accepted(cosines, 0.1), [[1, 1, 0], [1, 1, 1]])
    np.testing.assert_array_equal(accepted(cosines, None, 0.3), [[1, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(accepted(cosines, 0.01, 0.3), [[1, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(accepted(cosines, None), np.ones((2, 3)))


def test_a_garment_fills_the_persons_proportions():
    """A memory's square of a narrow garment: its white sides go first; what isn't white stays."""
    square = np.full((40, 40, 3), 255, np.uint8)
    square[:, 10:30] = 9
    seen = garment_picture(square, (40, 20))
    assert (seen == 9).all()
    square[:, 2] = 9
    whole = garment_picture(square, (40, 20))
    assert (whole[:9] == 255).all() and (whole[12:28, 7:13] == 9).all()
