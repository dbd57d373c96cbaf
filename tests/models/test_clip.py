"""CLIP's towers against transformers, through the real loading and saving code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from ragdiff_jax import weights
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.clip_text import CLIPTextConfig, CLIPTextModel
from ragdiff_jax.models.clip_vision import MEAN, STD, CLIPVisionConfig, CLIPVisionModel, preprocess

torch.set_num_threads(1)

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "projection_dim": 8,
}
TEXT = SIZES | {"vocab_size": 50, "max_position_embeddings": 12, "bos_token_id": 48}
VISION = SIZES | {"image_size": 16, "patch_size": 4}


def randomise(module):
    """transformers starts biases at 0 and norms at 1; parity must see them too."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.3)
    return module.eval()


def relative_error(ours, theirs):
    theirs = theirs.detach().numpy()
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def abstract_params(model, example):
    return jax.eval_shape(lambda key: model.init(key, example)["params"], jax.random.key(0))


def text_ids(eos):
    """Ids below 40 between BOS 48 and EOS 49, padded with EOS; the legacy rule must find EOS 49 too."""
    ids = np.random.default_rng(0).integers(3, 40, (3, 12)).astype(np.int32)
    ids[:, 0] = 48
    for row, end in zip(ids, (3, 7, 11), strict=True):
        row[end:] = 49 if eos == 49 else 2
        row[end] = 49
    return jnp.asarray(ids)


@pytest.mark.parametrize(
    "act, eos, projected",
    [("quick_gelu", 49, True), ("gelu", 2, True), ("quick_gelu", 2, False), ("gelu", 49, False)],
)
def test_text_equals_transformers(act, eos, projected, tmp_path):
    config = transformers.CLIPTextConfig(**TEXT, hidden_act=act, eos_token_id=eos, pad_token_id=49)
    kind = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    reference = randomise(kind(config))
    reference.save_pretrained(tmp_path)
    ours = CLIPTextConfig.from_dict(weights.read_config(tmp_path))
    assert ours.with_projection is projected
    model = CLIPTextModel(ours)
    ids = text_ids(eos)
    params = weights.load_part(tmp_path, abstract_params(model, ids))
    out = jax.jit(model.apply)({"params": params}, ids)
    with torch.no_grad():
        theirs = reference(torch.from_numpy(np.array(ids)).long(), output_hidden_states=True)
    assert relative_error(out.last_hidden_state, theirs.last_hidden_state) <= 1e-5
    assert relative_error(out.penultimate, theirs.hidden_states[-2]) <= 1e-5
    if projected:
        assert relative_error(out.text_embeds, theirs.text_embeds) <= 1e-5
    else:
        assert out.text_embeds is None
        assert relative_error(out.pooled, theirs.pooler_output) <= 1e-5


def test_token_embeddings_can_be_spliced_in():
    model = CLIPTextModel(CLIPTextConfig(**TEXT, eos_token_id=49))
    ids = text_ids(49)
    variables = jax.jit(model.init)(jax.random.key(0), ids)
    apply = jax.jit(model.apply)
    table = model.apply(variables, ids, method="embed_tokens")
    plain = apply(variables, ids)
    same = apply(variables, ids, table)
    np.testing.assert_allclose(plain.pooled, same.pooled, rtol=1e-5, atol=1e-6)
    other = apply(variables, ids, table.at[:, 1].add(1.0))
    assert not np.allclose(plain.pooled, other.pooled)


@pytest.mark.parametrize("act, projected", [("quick_gelu", True), ("gelu", False)])
def test_vision_equals_transformers(act, projected, tmp_path):
    config = transformers.CLIPVisionConfig(**VISION, hidden_act=act)
    kind = transformers.CLIPVisionModelWithProjection if projected else transformers.CLIPVisionModel
    reference = randomise(kind(config))
    reference.save_pretrained(tmp_path)
    model = CLIPVisionModel(CLIPVisionConfig.from_dict(weights.read_config(tmp_path)))
    pixels = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    params = weights.load_part(tmp_path, abstract_params(model, pixels))
    out = jax.jit(model.apply)({"params": params}, pixels)
    with torch.no_grad():
        theirs = reference(
            torch.from_numpy(np.array(pixels).transpose(0, 3, 1, 2)), output_hidden_states=True
        )
    assert relative_error(out.last_hidden_state, theirs.last_hidden_state) <= 1e-5
    assert relative_error(out.penultimate, theirs.hidden_states[-2]) <= 1e-5
    if projected:
        assert relative_error(out.image_embeds, theirs.image_embeds) <= 1e-5
        tokens = model.apply({"params": params}, pixels, method="project_tokens")
        with torch.no_grad():
            norm = reference.vision_model.post_layernorm(theirs.hidden_states[-2])
            assert relative_error(tokens, reference.visual_projection(norm)) <= 1e-5
    else:
        assert relative_error(out.pooled, theirs.pooler_output) <= 1e-5


@pytest.mark.parametrize(
    "kind", ["CLIPTextModel", "CLIPTextModelWithProjection", "CLIPVisionModelWithProjection"]
)
def test_saved_part_opens_in_transformers_bit_for_bit(kind, tmp_path):
    text = "Text" in kind
    config = transformers.CLIPTextConfig(**TEXT) if text else transformers.CLIPVisionConfig(**VISION)
    reference = randomise(getattr(transformers, kind)(config))
    reference.save_pretrained(tmp_path / "theirs")
    value = weights.read_config(tmp_path / "theirs")
    ours = (CLIPTextConfig if text else CLIPVisionConfig).from_dict(value)
    model = CLIPTextModel(ours) if text else CLIPVisionModel(ours)
    example = jnp.zeros((1, 12), jnp.int32) if text else jnp.zeros((1, 16, 16, 3))
    params = weights.load_part(tmp_path / "theirs", abstract_params(model, example))
    weights.save_part(tmp_path / "ours", ours.to_dict(), params)
    again = getattr(transformers, kind).from_pretrained(tmp_path / "ours")
    for name, tensor in reference.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_rematerialised_gradients_are_the_same():
    config = CLIPTextConfig(**TEXT, eos_token_id=49)
    ids = text_ids(49)
    variables = jax.jit(CLIPTextModel(config).init)(jax.random.key(0), ids)

    def loss(variables, remat):
        return jnp.sum(CLIPTextModel(config, remat=remat).apply(variables, ids).text_embeds ** 2)

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    plain, remat = (gradient(variables, flag) for flag in (False, True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), plain, remat)


def test_preprocess_gives_clip_colours_and_size():
    white = preprocess(jnp.ones((1, 20, 20, 3)), 16)
    assert white.shape == (1, 16, 16, 3)
    np.testing.assert_allclose(white[0, 5, 5], (1 - np.array(MEAN)) / np.array(STD), rtol=1e-5)
    # Overshoot of the bicubic filter at an edge must stay inside the range of pictures.
    edge = preprocess(
        jnp.where(jnp.arange(40)[None, :, None, None] < 20, -1.0, 1.0) * jnp.ones((1, 40, 40, 3)), 16
    )
    assert float(edge.max()) <= float(white.max()) + 1e-5


@pytest.mark.parametrize(
    "config, word",
    [({"hidden_act": "swish"}, "swish"), ({"hidden_size": 10, "num_attention_heads": 3}, "multiple")],
)
def test_impossible_configs_are_refused(config, word):
    with pytest.raises(UserError, match=word):
        CLIPTextConfig.from_dict(config)
