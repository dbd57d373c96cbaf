"""F_theta and the splicing of its tokens into prompts, against the same in torch."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from quick import quick_jit

from ragdiff_jax import weights
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.clip_text import CLIPTextConfig, CLIPTextModel, eos_position, insert_placeholders, splice_tokens
from ragdiff_jax.models.f_theta import FTheta, FThetaConfig
from ragdiff_jax.weights.importing import import_weights
from ragdiff_jax.weights.kinds import KINDS

torch.set_num_threads(1)

VISION = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "hidden_act": "gelu"}
CONFIG = FThetaConfig(**VISION, num_hidden_layers=2, mlp_dim=20, num_tokens=4, token_dim=12)
PLACEHOLDER, BOS, EOS = 7, 48, 49


class TorchFTheta(torch.nn.Module):
    """The released module's computation and tensor names."""

    def __init__(self):
        super().__init__()
        layer = transformers.models.clip.modeling_clip.CLIPEncoderLayer
        config = transformers.CLIPVisionConfig(**VISION, attn_implementation="eager")
        self.encoder_layers = torch.nn.ModuleList([layer(config) for _ in range(2)])
        self.post_layernorm = torch.nn.LayerNorm(16, eps=config.layer_norm_eps)
        linear = [torch.nn.Linear(*sizes) for sizes in ((16, 20), (20, 20), (20, 4 * 12))]
        self.layers = torch.nn.Sequential(
            linear[0], torch.nn.GELU(), torch.nn.Dropout(), linear[1], torch.nn.GELU(), torch.nn.Dropout(), linear[2]
        )

    def forward(self, x):
        for layer in self.encoder_layers:
            x = layer(x, attention_mask=None)
            x = x[0] if isinstance(x, tuple) else x
        return self.layers(self.post_layernorm(x[:, 0])).reshape(-1, 4, 12)


def randomise(module, spread=0.3):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, spread)
    return module.eval()


def relative_error(ours, theirs):
    theirs = theirs.detach().numpy()
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.fixture(scope="module")
def f_theta(tmp_path_factory):
    """(torch's module, our parameters read from its file)."""
    folder, module = tmp_path_factory.mktemp("f_theta"), randomise(TorchFTheta())
    torch.save(module.state_dict(), folder / "inversion_adapter.pth")
    (folder / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    import_weights(folder / "inversion_adapter.pth", "f-theta", folder / "part")
    return module, weights.load_part(folder / "part", KINDS["f-theta"].abstract(CONFIG))


def states(seed=0, rows=3):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(rows, 9, 16)), jnp.float32)


def test_f_theta_equals_torch(f_theta):
    module, params = f_theta
    ours = FTheta(CONFIG).apply({"params": params}, states())
    assert ours.shape == (3, 4, 12)
    assert relative_error(ours, module(torch.from_numpy(np.array(states())))) <= 1e-5


def test_dropout_needs_a_key_and_only_acts_in_training(f_theta):
    _, params = f_theta
    apply = FTheta(CONFIG).apply
    still = apply({"params": params}, states())
    once, again = (
        apply({"params": params}, states(), deterministic=False, rngs={"dropout": jax.random.key(seed)})
        for seed in (0, 1)
    )
    assert not np.allclose(still, once) and not np.allclose(once, again)
    with pytest.raises(Exception, match="dropout"):
        apply({"params": params}, states(), deterministic=False)


def test_dropout_of_a_config_is_checked():
    with pytest.raises(UserError, match="dropout"):
        FThetaConfig.from_dict({"dropout": 1.5})


def text_ids(ends):
    """Texts of ids above 9 that end at `ends`, padded with 0 as SD 2's are."""
    ids = np.random.default_rng(1).integers(10, 40, (len(ends), 24)).astype(np.int32)
    ids[:, 0] = BOS
    for row, end in zip(ids, ends, strict=True):
        row[end], row[end + 1 :] = EOS, 0
    return ids


def test_placeholders_stand_where_the_text_would_have_them():
    config = CLIPTextConfig(vocab_size=50, eos_token_id=EOS)
    ids = text_ids((3, 7, 5))
    counts = np.array([8, 0, 4], np.int32)
    out = np.asarray(insert_placeholders(config, jnp.asarray(ids), jnp.asarray(counts), PLACEHOLDER))
    for before, after, end, count in zip(ids, out, (3, 7, 5), counts, strict=True):
        expected = [*before[:end], *[PLACEHOLDER] * count, EOS]
        np.testing.assert_array_equal(after[: len(expected)], expected)
        assert not after[len(expected) :].any()
    np.testing.assert_array_equal(eos_position(config, jnp.asarray(out)), np.array([3, 7, 5]) + counts)


@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
def test_spliced_prompt_equals_torch(f_theta, act, tmp_path):
    """Through splicing, positions and the causal transformer; rows hold 2, 0 and 1 garments."""
    module, params = f_theta
    sizes = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 2}
    theirs = transformers.CLIPTextConfig(
        **sizes, vocab_size=50, max_position_embeddings=24, hidden_act=act, eos_token_id=EOS, bos_token_id=BOS
    )
    encoder = randomise(transformers.CLIPTextModel(theirs))
    encoder.save_pretrained(tmp_path)
    config = CLIPTextConfig.from_dict(weights.read_config(tmp_path))
    model, garments = CLIPTextModel(config), jnp.array([2, 0, 1], jnp.int32)
    ids = jnp.asarray(text_ids((3, 7, 5)))
    text = weights.load_part(tmp_path, jax.eval_shape(model.init, jax.random.key(0), ids)["params"])

    @quick_jit
    def run(ids):
        tokens = FTheta(CONFIG).apply({"params": params}, states(rows=6)).reshape(3, 8, 12)
        start = eos_position(config, ids)
        ids = insert_placeholders(config, ids, garments * 4, PLACEHOLDER)
        table = model.apply({"params": text}, ids, method="embed_tokens")
        return ids, model.apply({"params": text}, ids, splice_tokens(table, tokens, start, garments * 4))

    ids, ours = run(ids)

    # The released way: the embeddings behind the first placeholder of each row are overwritten, then positions added.
    body = getattr(encoder, "text_model", encoder)
    spliced = body.embeddings.token_embedding(torch.from_numpy(np.array(ids)).long()).clone()
    words = module(torch.from_numpy(np.array(states(rows=6)))).reshape(3, 8, 12)
    for row, count in enumerate(np.asarray(garments) * 4):
        if count:
            first = int(np.argmax(np.asarray(ids)[row] == PLACEHOLDER))
            spliced[row, first : first + count] = words[row, :count]
    embedded = spliced + body.embeddings.position_embedding(torch.arange(24))[None]
    mask = torch.full((24, 24), -torch.inf).triu(1)[None, None]
    hidden = body.encoder(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
    hidden = body.final_layer_norm(hidden)
    assert relative_error(ours.last_hidden_state, hidden) <= 1e-5
