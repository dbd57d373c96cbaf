"""StructureNet: unit vectors that the attributes move, two towers that start alike and train apart."""

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_jit

from ragdiff_jax import weights
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.clip_vision import CLIPVisionConfig
from ragdiff_jax.models.structure_net import StructureNet, StructureNetConfig, twin_towers
from ragdiff_jax.weights.model_folder import structure_fingerprint

CONFIG = StructureNetConfig(
    vision=CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=12,
        image_size=16,
        patch_size=8,
    ),
    attribute_sizes=(4, 3, 5, 2, 3, 3, 3, 3, 3, 3),
    attribute_dim=2,
    dim=16,
    depth=1,
    heads=2,
    dim_head=8,
    embed_dim=10,
)
MODEL = StructureNet(CONFIG)
IMAGES = jax.random.uniform(jax.random.key(1), (3, 20, 20, 3), minval=-1.0)
UNKNOWN = jnp.zeros((3, 10), jnp.int32)


@pytest.fixture(scope="module")
def params():
    variables = jax.jit(MODEL.init)(jax.random.key(0), IMAGES, IMAGES, UNKNOWN)
    return twin_towers(nn.meta.unbox(variables["params"]))


@partial(jax.jit, static_argnames="tower")
def embed(params, attributes=UNKNOWN, tower="photo"):
    return MODEL.apply({"params": params}, IMAGES, attributes, tower, method="embed")


def test_embeddings_are_unit_vectors_of_the_image(params):
    e = embed(params)
    assert e.shape == (3, 10) and e.dtype == jnp.float32
    np.testing.assert_allclose(jnp.linalg.norm(e, axis=-1), 1.0, rtol=1e-5)
    assert float(jnp.abs(e[0] - e[1]).max()) > 1e-4


def test_every_attribute_moves_the_embedding_and_has_rows_of_its_own(params):
    base = embed(params)
    moved = [embed(params, UNKNOWN.at[:, i].set(1)) for i in range(10)]
    for i, e in enumerate(moved):
        assert float(jnp.abs(e - base).max()) > 1e-5, i
    assert len({e.tobytes() for e in map(np.asarray, moved)}) == 10


def test_an_id_outside_its_attribute_is_unknown(params):
    """It must not read the row of another attribute."""
    np.testing.assert_array_equal(embed(params, UNKNOWN.at[:, 3].set(2)), embed(params))
    np.testing.assert_array_equal(embed(params, UNKNOWN.at[:, 3].set(-1)), embed(params))


def test_towers_start_alike_and_are_separate(params):
    np.testing.assert_allclose(embed(params), embed(params, tower="flat"), rtol=1e-5, atol=1e-6)
    changed = {**params, "flat": jax.tree.map(lambda x: x + 0.01, params["flat"])}
    np.testing.assert_array_equal(embed(changed), embed(params))
    assert float(jnp.abs(embed(changed, tower="flat") - embed(params)).max()) > 1e-4


def test_twin_towers_take_a_given_vit_without_sharing_buffers(params):
    vision = jax.tree.map(lambda x: x + 1.0, params["photo"]["vision"])
    twins = twin_towers(params, vision)
    for tower in ("photo", "flat"):
        np.testing.assert_array_equal(
            twins[tower]["vision"]["visual_projection"]["kernel"], vision["visual_projection"]["kernel"]
        )
    # Donating a state in which two leaves are one buffer is an error.
    pair = [twins[t]["resampler"]["latents"].unsafe_buffer_pointer() for t in ("photo", "flat")]
    assert pair[0] != pair[1]


def test_gradients_reach_both_towers_and_the_table(params):
    def loss(params):
        photo, flat = MODEL.apply({"params": params}, IMAGES, IMAGES[::-1], UNKNOWN.at[:, 0].set(3))
        return -jnp.sum(photo * flat)

    gradients = jax.jit(jax.grad(loss))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        name = jax.tree_util.keystr(path)
        if "'encoder'" in name:
            # The last layer comes after the penultimate tokens; keys' biases don't move a softmax.
            if "k_proj']['bias" not in name:
                assert float(jnp.abs(leaf[0]).max()) > 0, name
            np.testing.assert_array_equal(leaf[-1], 0.0)
        else:
            assert float(jnp.abs(leaf).max()) > 0, name
    table = gradients["attributes"]["table"]
    used = np.zeros(len(table), bool)
    offsets = np.cumsum((0, *CONFIG.attribute_sizes[:-1]))
    used[offsets] = True
    used[0], used[3] = False, True
    np.testing.assert_array_equal(np.abs(table).max(axis=-1) > 0, used)


def test_folder_round_trip(params, tmp_path):
    weights.save_part(tmp_path, CONFIG.to_dict(), params)
    config = StructureNetConfig.from_dict(weights.read_config(tmp_path))
    assert config == CONFIG
    abstract = jax.eval_shape(
        lambda key: MODEL.init(key, IMAGES, IMAGES, UNKNOWN)["params"], jax.random.key(0)
    )
    again = weights.load_part(tmp_path, abstract)
    assert weights.fingerprint(again, config.to_dict()) == weights.fingerprint(params, CONFIG.to_dict())


def test_config_errors_name_what_is_missing():
    with pytest.raises(UserError, match="attribute_sizes"):
        StructureNetConfig.from_dict({"vision": CONFIG.vision.to_dict()})
    plain = CONFIG.to_dict() | {"vision": CONFIG.vision.to_dict() | {"architectures": ["CLIPVisionModel"]}}
    with pytest.raises(UserError, match="CLIPVisionModelWithProjection"):
        StructureNetConfig.from_dict(plain)


def _embed(network, params, images, method):
    return quick_jit(partial(network.apply, method=method))({"params": params}, images, UNKNOWN)


def test_a_photo_tower_of_convolutions_shares_all_but_the_eye(params):
    config = dataclasses.replace(CONFIG, photo_stages=((6, 0), (8, 2)))
    network = StructureNet(config)
    own = nn.meta.unbox(quick_jit(network.init)(jax.random.key(0), IMAGES, IMAGES, UNKNOWN)["params"])
    see = quick_jit(partial(network.apply, tower="photo", method="embed_with_tokens"))
    twins = twin_towers(own, jax.tree.map(lambda x: x + 1.0, params["flat"]["vision"]))
    assert twins["photo"].keys() == {"conv", "resampler"} and twins["flat"].keys() == {"vision", "resampler"}
    jax.tree.map(np.testing.assert_array_equal, twins["photo"]["resampler"], twins["flat"]["resampler"])
    e, tokens = see({"params": own}, IMAGES, UNKNOWN)
    assert e.shape == (3, 10) and tokens.shape == (3, 1 + 4 * 4, 12)
    np.testing.assert_allclose(tokens[:, 0], tokens[:, 1:].mean(axis=1), rtol=1e-5, atol=1e-6)
    # A blank picture's tokens differ by their place alone, and by all of it.
    white = jnp.ones((1, 16, 16, 3))
    _, blank = see({"params": own}, white, UNKNOWN[:1])
    assert len({row.tobytes() for row in np.asarray(blank[0, 1:]).round(5)}) == 16
    assert StructureNetConfig.from_dict(config.to_dict()) == config
    # A memory belongs to the standard tower, whatever sees the photos.
    assert structure_fingerprint(config, own) == structure_fingerprint(CONFIG, own)
    # It may see photos in fewer pixels than the ViT sees flat-lays, with the same weights.
    small = dataclasses.replace(config, photo_size=8)
    assert StructureNetConfig.from_dict(small.to_dict()) == small
    assert structure_fingerprint(small, own) == structure_fingerprint(config, own)
    see = quick_jit(partial(StructureNet(small).apply, tower="photo", method="embed_with_tokens"))
    seen = see({"params": own}, IMAGES, UNKNOWN)[1]
    assert seen.shape == (3, 1 + 2 * 2, 12)
    flats = [_embed(StructureNet(c), own, IMAGES, "embed_flat") for c in (config, small)]
    np.testing.assert_array_equal(*flats)
    with pytest.raises(UserError, match="photo_size 8 is for photo_stages"):
        dataclasses.replace(CONFIG, photo_size=8)
    with pytest.raises(UserError, match="5 photo_stages halve 16 pixels"):
        dataclasses.replace(CONFIG, photo_stages=((6, 0),) * 5)


def test_a_mirrored_photo_may_have_the_photos_own_vector(params):
    config = dataclasses.replace(CONFIG, photo_mirrored=True)
    plain, both = StructureNet(CONFIG), StructureNet(config)
    views = (IMAGES, IMAGES[:, :, ::-1])
    e, mirrored = (_embed(both, params, images, "embed_photo") for images in views)
    np.testing.assert_allclose(e, mirrored, atol=1e-5)
    parts = [_embed(plain, params, images, "embed_photo") for images in views]
    assert np.abs(parts[0] - parts[1]).max() > 1e-3
    np.testing.assert_allclose(e, sum(parts) / np.linalg.norm(sum(parts), axis=1, keepdims=True), atol=1e-5)
    flats = [_embed(network, params, IMAGES, "embed_flat") for network in (plain, both)]
    np.testing.assert_array_equal(*flats)
    assert structure_fingerprint(config, params) == structure_fingerprint(CONFIG, params)
    assert StructureNetConfig.from_dict(config.to_dict()) == config
