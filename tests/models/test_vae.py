"""The autoencoder against diffusers, through the real loading and saving code."""

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ragdiff_jax import weights
from ragdiff_jax.errors import UserError
from ragdiff_jax.models import vae

torch.set_num_threads(1)

SD = {
    "block_out_channels": (16, 32),
    "layers_per_block": 2,
    "norm_num_groups": 4,
    "scaling_factor": 0.13025,
}
FLUX = {
    "block_out_channels": (8, 16, 16),
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
}
NO_ATTENTION = {"block_out_channels": (8, 8), "norm_num_groups": 2, "mid_block_add_attention": False}


def torch_vae(config):
    torch.manual_seed(0)
    depth = len(config["block_out_channels"])
    blocks = {
        "down_block_types": ["DownEncoderBlock2D"] * depth,
        "up_block_types": ["UpDecoderBlock2D"] * depth,
    }
    return diffusers.AutoencoderKL(**config, **blocks).eval()


def abstract_params(config):
    model = vae.AutoencoderKL(config)
    image = jnp.zeros((1, 16, 16, 3))
    return model, jax.eval_shape(lambda key: model.init(key, image)["params"], jax.random.key(0))


def relative_error(ours, theirs):
    theirs = theirs.detach().numpy().transpose(0, 2, 3, 1)
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("config", [SD, FLUX, NO_ATTENTION], ids=["sd", "flux", "no_attention"])
def test_encode_and_decode_equal_diffusers(config, tmp_path):
    reference = torch_vae(config)
    reference.save_pretrained(tmp_path / "theirs")
    ours = vae.VAEConfig.from_dict(weights.read_config(tmp_path / "theirs"))
    model, abstract = abstract_params(ours)
    params = weights.load_part(tmp_path / "theirs", abstract)

    image = np.random.default_rng(0).uniform(-1, 1, (2, 16, 24, 3)).astype(np.float32)
    with torch.no_grad():
        posterior = reference.encode(torch.from_numpy(image.transpose(0, 3, 1, 2))).latent_dist
        decoded = reference.decode(posterior.mean).sample
    mean, logvar = jax.jit(lambda p, x: model.apply({"params": p}, x, method="encode"))(params, image)
    assert mean.shape == (2, 16 // ours.factor, 24 // ours.factor, ours.latent_channels)
    assert relative_error(mean, posterior.mean) <= 1e-5
    assert relative_error(logvar, posterior.logvar) <= 1e-5
    latents = posterior.mean.numpy().transpose(0, 2, 3, 1)
    image = jax.jit(lambda p, x: model.apply({"params": p}, x, method="decode"))(params, latents)
    assert relative_error(image, decoded) <= 1e-5


def test_saved_part_opens_in_diffusers_bit_for_bit(tmp_path):
    reference = torch_vae(FLUX)
    reference.save_pretrained(tmp_path / "theirs")
    config = vae.VAEConfig.from_dict(weights.read_config(tmp_path / "theirs"))
    params = weights.load_part(tmp_path / "theirs", abstract_params(config)[1])
    weights.save_part(tmp_path / "ours", config.to_dict(), params)
    again = diffusers.AutoencoderKL.from_pretrained(tmp_path / "ours")
    assert again.config.shift_factor == 0.1159
    for name, tensor in reference.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_old_attention_names_are_understood(tmp_path):
    """Published SD 1 and 2 autoencoders name the attention query, key, value and proj_attn."""
    from safetensors.torch import save_file

    reference = torch_vae(SD)
    reference.save_pretrained(tmp_path)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, tensor in reference.state_dict().items():
        for new, before in old.items():
            name = name.replace(f".{new}.", f".{before}.")
        tensors[name] = tensor
    save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors")
    abstract = abstract_params(vae.VAEConfig.from_dict(weights.read_config(tmp_path)))[1]
    params = weights.load_part(tmp_path, abstract)
    np.testing.assert_array_equal(
        params["encoder"]["mid_block"]["attentions_0"]["to_out_0"]["kernel"],
        reference.encoder.mid_block.attentions[0].to_out[0].weight.detach().numpy().T,
    )


def test_scaling_is_inverted_and_shifts_first():
    config = vae.VAEConfig(scaling_factor=0.5, shift_factor=2.0)
    latents = jnp.full((1, 2, 2, 4), 3.0)
    scaled = vae.scale_latents(config, latents)
    np.testing.assert_allclose(scaled, 0.5)
    np.testing.assert_allclose(vae.unscale_latents(config, scaled), latents)


def test_kl_and_sampling_follow_the_gaussian():
    zeros = jnp.zeros((2, 32, 32, 4))
    np.testing.assert_allclose(vae.kl_divergence(zeros, zeros), 0.0)
    np.testing.assert_allclose(vae.kl_divergence(zeros + 1, zeros), 0.5 * 32 * 32 * 4)
    draws = vae.sample_latents(zeros + 3, zeros + jnp.log(4.0), jax.random.key(0))
    assert abs(float(draws.mean()) - 3) < 0.1 and abs(float(draws.std()) - 2) < 0.1


@pytest.mark.parametrize(
    "config, word",
    [
        ({"down_block_types": ["AttnDownBlock2D"], "block_out_channels": [64]}, "AttnDownBlock2D"),
        ({"act_fn": "relu"}, "relu"),
        ({"latents_mean": [0.0]}, "latents_mean"),
    ],
)
def test_another_kind_of_autoencoder_is_refused_by_name(config, word):
    with pytest.raises(UserError, match=word):
        vae.VAEConfig.from_dict(config)
