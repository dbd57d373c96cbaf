"""Fashion-RAG put together: its step against torch, what guidance takes away, and what each garment's weight does."""

import dataclasses

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from quick import quick_jit
from small_fashion import random_fashion, small_fashion

from ragdiff_jax import weights
from ragdiff_jax.data.pose import pose_maps
from ragdiff_jax.diffusion.guidance import guided
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.f_theta import FThetaConfig
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.systems.fashion_rag import FashionRAG
from ragdiff_jax.systems.garment_weights import accepted, fuse_words, garment_weights
from ragdiff_jax.systems.initialise import widen_inputs
from ragdiff_jax.weights.architectures import ARCHITECTURES

torch.set_num_threads(1)
MODEL = small_fashion()


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(jnp.asarray, random_fashion(MODEL))


def inputs(batch=2, seed=0):
    rng = np.random.default_rng(seed)
    mask = np.zeros((batch, 32, 32), np.float32)
    mask[:, 8:24, 4:20] = 1
    keypoints = np.concatenate([rng.uniform(2, 30, (batch, 18, 2)), np.ones((batch, 18, 1))], axis=-1)
    arrays = {
        "person": rng.uniform(-1, 1, (batch, 32, 32, 3)),
        "mask": mask,
        "keypoints": keypoints,
        "context": rng.normal(size=(batch, 77, 32)),
    }
    return {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}


def test_the_step_equals_torch(tmp_path):
    """[latents | mask | masked latents | 18 pose maps] through 27 channels, with guidance, as diffusers computes it."""
    sizes = {
        "sample_size": 8,
        "in_channels": 27,
        "block_out_channels": [8, 16],
        "layers_per_block": 1,
        "attention_head_dim": [1, 2],
        "cross_attention_dim": 32,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "norm_num_groups": 4,
        "use_linear_projection": True,
    }
    torch.manual_seed(0)
    theirs = diffusers.UNet2DConditionModel(**sizes).eval()
    theirs.save_pretrained(tmp_path)
    unet = UNetConfig.from_dict(weights.read_config(tmp_path))
    model = small_fashion(unet=unet, vae=dataclasses.replace(MODEL.vae, latent_channels=4))
    params = random_fashion(model)
    abstract = jax.eval_shape(lambda key: model.init(key, ["unet"]), jax.random.key(0))
    params["unet"] = weights.load_part(tmp_path, abstract["unet"])
    given = inputs()
    conditions = quick_jit(model.condition)(params, **given)
    assert conditions.pose.shape == (2, 8, 8, 18) and conditions.mask.shape == (2, 8, 8, 1)
    latents = jnp.asarray(np.random.default_rng(1).normal(size=(2, 8, 8, 4)), jnp.float32)
    empty = jnp.asarray(np.random.default_rng(2).normal(size=(1, 77, 32)), jnp.float32)
    t = jnp.array([7, 7], jnp.int32)

    @quick_jit
    def denoise(params, conditions, latents, t):
        nothing = conditions.unconditional(empty)
        return guided(lambda *a: model.denoise(params, *a), conditions, nothing, 7.5)(latents, t)

    ours = denoise(params, conditions, latents, t)

    def torch_side(context, pose):
        stack = jnp.concatenate([latents, conditions.mask, conditions.masked, pose], axis=-1)
        stack = torch.from_numpy(np.array(stack)).permute(0, 3, 1, 2)
        return theirs(stack, torch.tensor([7, 7]), torch.from_numpy(np.array(context))).sample.permute(0, 2, 3, 1)

    with torch.no_grad():
        conditional = torch_side(given["context"], conditions.pose)
        plain = torch_side(jnp.broadcast_to(empty, (2, 77, 32)), jnp.zeros_like(conditions.pose))
        expected = (plain + 7.5 * (conditional - plain)).numpy()
    assert np.abs(np.asarray(ours) - expected).max() / np.abs(expected).max() <= 1e-5


def test_new_inputs_change_nothing_until_they_are_trained(params):
    from ragdiff_jax.systems.fashion_presets import without_pose

    plain = without_pose(MODEL)
    narrow = {**params, "unet": dict(params["unet"])}
    kernel = params["unet"]["conv_in"]["kernel"][:, :, : plain.unet.in_channels]
    narrow["unet"]["conv_in"] = {**params["unet"]["conv_in"], "kernel": kernel}
    wide = {**params, "unet": widen_inputs(narrow["unet"], MODEL.unet.in_channels)}
    latents, t = jnp.ones((2, 8, 8, 8)), jnp.array([3, 500], jnp.int32)
    conditions = quick_jit(MODEL.condition)(params, **inputs())
    ours = quick_jit(MODEL.denoise)(wide, conditions, latents, t)
    before = quick_jit(plain.denoise)(narrow, conditions.replace(pose=None), latents, t)
    np.testing.assert_allclose(ours, before, atol=2e-5)
    with pytest.raises(ValueError, match="fewer"):
        widen_inputs(wide["unet"], 3)


def test_conditions_hold_what_the_released_code_gives_its_unet(params):
    given = inputs()
    conditions = MODEL.condition(params, **given)
    np.testing.assert_array_equal(conditions.mask[..., 0], np.asarray(given["mask"])[:, ::4, ::4])
    hidden = MODEL.encode(params, given["person"] * (1 - given["mask"])[..., None])
    np.testing.assert_allclose(conditions.masked, hidden, atol=1e-6)
    np.testing.assert_allclose(conditions.pose, pose_maps(given["keypoints"], (32, 32), (8, 8)), atol=1e-6)
    gone = MODEL.condition(params, **given, pose_gate=jnp.array([1.0, 0.0])).pose
    assert gone[0].any() and not gone[1].any()


def test_levels_without_garments_see_the_text_alone(params):
    """With all levels it is the plain computation, with none that of the text alone, with some neither."""
    given, latents, t = inputs(), jnp.ones((2, 8, 8, 8)), jnp.array([3, 500], jnp.int32)
    text = given["context"][::-1]
    out = {}
    for levels in (None, (0, 1), (1,), ()):
        model = dataclasses.replace(MODEL, visual_levels=levels)
        run = quick_jit(lambda p, model=model: model.denoise(p, model.condition(p, **given, plain=text), latents, t))
        out[levels] = run(params)
    other = given | {"context": text}
    alone = quick_jit(lambda p: MODEL.denoise(p, MODEL.condition(p, **other), latents, t))(params)
    np.testing.assert_allclose(out[None], out[(0, 1)], atol=1e-5)
    np.testing.assert_allclose(out[()], alone, atol=1e-5)
    for other in ((0, 1), ()):
        assert np.abs(out[(1,)] - out[other]).max() > 1e-4
    with pytest.raises(UserError, match="visual_levels"):
        dataclasses.replace(MODEL, visual_levels=(5,))


def test_every_garment_changes_the_prompt_and_none_leaves_it(params):
    ids = np.full((3, 77), 599, np.int32)
    ids[:, :4] = [598, 70, 71, 72]
    garments = jnp.asarray(np.random.default_rng(3).uniform(-1, 1, (3, 2, 16, 16, 3)), jnp.float32)
    counts = jnp.array([0, 4, 8], jnp.int32)

    @quick_jit
    def read(params, ids):
        words = MODEL.words(params, garments).reshape(3, 8, 32)
        return MODEL.encode_prompt(params, ids, words, counts, 5), MODEL.encode_prompt(params, ids)

    context, plain = map(np.asarray, read(params, jnp.asarray(ids)))
    np.testing.assert_allclose(context[0], plain[0], atol=1e-6)
    np.testing.assert_allclose(context[1, :4], plain[1, :4], atol=1e-6)  # causal: what stands before does not know
    changed = np.abs(context - plain).max(axis=-1) > 1e-4
    assert changed[1, 4:8].all() and changed[2, 4:12].all()


def test_full_size_is_the_papers():
    model = FashionRAG.from_config("sd2_inpaint")
    published = ARCHITECTURES["unet"]["fashion-rag"]
    assert UNetConfig.from_dict(published) == model.unet
    assert model.inversion == FThetaConfig.from_dict(ARCHITECTURES["f-theta"]["vit-h"] | {"dropout": 0.5})
    assert model.unet.in_channels == 27 and model.latent_size == (64, 48)
    assert model.guidance_scale == 7.5 and model.retrieval_normalisation == "half"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"unet": dataclasses.replace(MODEL.unet, in_channels=20)}, "input channels is 20"),
        ({"inversion": dataclasses.replace(MODEL.inversion, token_dim=8)}, "token_dim is 8"),
        ({"image_size": (30, 32)}, "32x30"),
        ({"text_encoder": dataclasses.replace(MODEL.text_encoder, with_projection=False)}, "retrieval_text_encoder"),
        ({"normalisation": "imagenet"}, "normalisation"),
    ],
)
def test_parts_that_do_not_fit_are_named(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(MODEL, **change)


def test_weights_of_garments():
    text = jnp.eye(4)[:1]
    alike = jnp.array([0.8, 0.6, 0.0, 0.0])
    garments = jnp.stack([alike, jnp.array([0.8, 0.5, 0.33, 0.0]), jnp.array([0.0, 0.0, 0.0, 1.0])])[None]
    equal = garment_weights(text, garments, "equal")
    np.testing.assert_allclose(equal, np.full((1, 3), 1 / 3))
    for kind in ("similarity", "agreement"):
        found = np.asarray(garment_weights(text, garments, kind))[0]
        assert found.sum() == pytest.approx(1) and (found >= 0).all()
        assert found[2] < 0.01 < found[0], kind  # the odd one out
    np.testing.assert_array_equal(accepted(jnp.array([[0.5, 0.45, 0.1]]), 0.1), [[1, 1, 0]])


def test_words_are_fused_by_weight():
    words = jnp.arange(2 * 3 * 2 * 1, dtype=jnp.float32).reshape(2, 3, 2, 1)
    weights = jnp.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    kept, counts = fuse_words(words, weights, "concat")
    np.testing.assert_array_equal(counts, [4, 0])
    np.testing.assert_array_equal(kept[0, :4, 0], [0, 1, 4, 5])  # the second is passed over
    mean, counts = fuse_words(words, jnp.array([[3.0, 1.0, 0.0], [1.0, 1.0, 1.0]]), "pool")
    np.testing.assert_array_equal(counts, [2, 2])
    np.testing.assert_allclose(mean[:, :, 0], [[0.5, 1.5], [8, 9]])
