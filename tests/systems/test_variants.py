"""Models with other conditions: what each adds is trained, and a closed gate leaves nothing of the photo."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_jit
from small_model import random_params, small_system

import ragdiff_jax as rd
from ragdiff_jax.parallel import flatten, merge, partition
from ragdiff_jax.retrieval.device_memory import place
from ragdiff_jax.systems.initialise import control_from_unet
from ragdiff_jax.systems.parts import TRAINED_PARTS
from ragdiff_jax.systems.variants import CONDITIONS, conditions_of, with_conditions

SMALL = small_system()
SYSTEM = dataclasses.replace(SMALL, image_encoder=SMALL.structure_net.vision, dropout=rd.Dropout(
    text=0.0, structure=0.0, everything=0.0, reference=0.0
))
# All that go together and that no other test trains: one program for most of the baselines.
TOGETHER = ("latent_concat", "image_prompt", "image_tokens", "control", "predicted_landmark")
B, SIZE, SIDE, C = 2, SYSTEM.image_size, SYSTEM.latent_size, SYSTEM.unet.in_channels


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.fixture(scope="module")
def model():
    return with_conditions(SYSTEM, TOGETHER)


@pytest.fixture(scope="module")
def params(model):
    return jax.tree.map(jnp.asarray, random_params(model))


def test_two_steps_move_all_that_the_conditions_add_and_nothing_frozen(model, params):
    memory = place(np.zeros((8, SYSTEM.structure_net.embed_dim), np.float32), np.zeros((8, SIZE, SIZE), bool))
    batch = {
        "photo": normal(0, B, SIZE, SIZE, 3),
        "mask": (normal(1, B, SIZE, SIZE, 1) > 0).astype(jnp.float32),
        "photo_latents": normal(2, B, SIDE, SIDE, C),
        "flat_mean": normal(3, B, SIDE, SIDE, C),
        "flat_logvar": normal(4, B, SIDE, SIDE, C),
        "context": normal(5, B, 77, SYSTEM.unet.cross_attention_dim),
        "pooled": normal(6, B, SYSTEM.unet.text_embed_dim),
    }
    empty = rd.Text(batch["context"][:1], batch["pooled"][:1])
    before, frozen = partition(params, f"^({'|'.join(TRAINED_PARTS)})/")
    assert {path.split("/")[0] for path, _ in flatten(before)} == set(TRAINED_PARTS) & set(model.modules())

    @quick_jit
    def step(trained, frozen):
        def loss(trained):
            whole = merge(trained, frozen)
            return model.loss(whole, batch, jax.random.key(7), memory=memory, empty_ids=empty).mean()

        value, gradient = jax.value_and_grad(loss)(trained)
        return jax.tree.map(lambda x, g: x - 1e-4 * jnp.sign(g), trained, gradient), value

    after, first = step(before, frozen)
    after, second = step(after, frozen)
    assert second < first
    moved = dict(flatten(after))
    still = [path for path, leaf in flatten(before) if np.array_equal(leaf, moved[path])]
    # A bias of all keys alike leaves softmax as it is.
    assert {path for path in still if not path.endswith("k_proj/bias")} == set()


def test_a_closed_gate_leaves_nothing_of_the_photo(model, params):
    text = rd.Text(normal(0, B, 77, SYSTEM.unet.cross_attention_dim), normal(1, B, SYSTEM.unet.text_embed_dim))
    gate = jnp.array([0.0, 1.0])

    @quick_jit
    def run(params, photo, latents):
        conditions = model.make_conditions(
            params,
            photo=photo,
            photo_latents=latents,
            silhouette=jnp.ones((B, SIZE, SIZE, 1)),
            text=text,
            gates=rd.Gates(reference=gate, adapter=gate),
        )
        return model.denoise(params, conditions, normal(2, B, SIDE, SIDE, C), jnp.array([10, 900]))

    photos, latents = normal(3, 2, B, SIZE, SIZE, 3), normal(4, 2, B, SIDE, SIDE, C)
    one = run(params, photos[0], latents[0])
    assert one.shape == (B, SIDE, SIDE, C)
    for other in (run(params, photos[1], latents[0]), run(params, photos[0], latents[1])):
        np.testing.assert_array_equal(one[0], other[0])
        assert np.abs(one[1] - other[1]).max() > 1e-4 * np.abs(one[1]).max()


def test_a_controlnet_starts_as_the_unets_encoder_that_adds_nothing(params):
    blank = jax.tree.map(jnp.zeros_like, params["control_net"])
    start = control_from_unet(blank, params["unet"])
    assert jax.tree.map(jnp.shape, start) == jax.tree.map(jnp.shape, blank)
    for name, tree in start.items():
        if name.startswith("controlnet_"):
            assert not any(leaf.any() for leaf in jax.tree.leaves(tree))
        else:
            jax.tree.map(np.testing.assert_array_equal, tree, params["unet"][name])


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_is_what_a_model_says_it_has(name):
    assert conditions_of(with_conditions(SYSTEM, [name])) == (name,)


@pytest.mark.parametrize(
    "names, word",
    [
        (["silhouette"], "condition 'silhouette': there are reference"),
        (["landmark", "predicted_landmark"], "one silhouette"),
        (["structure", "image_prompt"], "second cross-attention"),
        (["image_tokens", "class_token"], "the text's tokens"),
    ],
)
def test_conditions_that_want_one_place_are_refused(names, word):
    with pytest.raises(rd.UserError, match=word):
        with_conditions(SYSTEM, names)


def test_parts_that_lack_what_they_read_are_refused():
    with pytest.raises(rd.UserError, match="name model.parts.image_encoder"):
        with_conditions(SMALL, ["image_prompt"])
    with pytest.raises(rd.UserError, match="there is no landmark_guider"):
        dataclasses.replace(with_conditions(SYSTEM, ["predicted_landmark"]), landmark_guider=None)
    with pytest.raises(rd.UserError, match="null 'zero'"):
        dataclasses.replace(with_conditions(SYSTEM, ["latent_concat"]), null="zero")
