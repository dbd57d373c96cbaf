"""Fashion-RAG's parts: the network of each, what it is shown to make its parameters, and what must fit what."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax.numpy as jnp

from ragdiff_jax.data.pose import JOINTS
from ragdiff_jax.diffusion.samplers import SamplerName
from ragdiff_jax.errors import UserError, check_choice
from ragdiff_jax.models.attention import Implementation
from ragdiff_jax.models.clip_text import CLIPTextModel
from ragdiff_jax.models.clip_vision import NORMALISATIONS, CLIPVisionModel
from ragdiff_jax.models.ep_adapter import EPAdapter
from ragdiff_jax.models.f_theta import FTheta
from ragdiff_jax.models.transformer import Remat
from ragdiff_jax.models.unet import UNet
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.models.vae import AutoencoderKL

if TYPE_CHECKING:
    from ragdiff_jax.systems.fashion_rag import FashionRAG

POSE_CHANNELS = len(JOINTS)
_OWN_CONFIG = ("inversion", "image_adapter", "retrieval_text_encoder", "retrieval_image_encoder")


def part_configs(model: "FashionRAG") -> dict[str, Any]:
    """{part: its config} of the parts that the model has."""
    configs = {part: getattr(model, part) for part in ("unet", "vae", "text_encoder", "image_encoder")}
    configs |= {part: getattr(model, part) for part in _OWN_CONFIG if getattr(model, part) is not None}
    return configs | ({"reference_net": reference_config(model)} if model.reference_net else {})


def reference_config(model: "FashionRAG") -> UNetConfig:
    """ReferenceNet's architecture: the U-Net's, but that it sees latents alone."""
    return dataclasses.replace(model.unet, in_channels=model.vae.latent_channels)


def networks(model: "FashionRAG") -> dict[str, nn.Module]:
    """The networks by part."""
    common: Mapping[str, Any] = dict(remat=model.remat, attention=model.attention, dtype=model.dtype)
    kinds = {
        "unet": lambda config: UNet(config, **common),
        "vae": lambda config: AutoencoderKL(config, model.dtype),
        "text_encoder": lambda config: CLIPTextModel(config, model.dtype),
        "image_encoder": lambda config: CLIPVisionModel(config, model.dtype),
        "inversion": lambda config: FTheta(config, model.dtype),
        "image_adapter": lambda config: EPAdapter(config, model.unet, model.dtype),
        "reference_net": lambda config: UNet(config, role="reference", **common),
        # Their cosines are compared with those of a memory on the disk.
        "retrieval_text_encoder": lambda config: CLIPTextModel(config, jnp.float32),
        "retrieval_image_encoder": lambda config: CLIPVisionModel(config, jnp.float32),
    }
    return {part: kinds[part](config) for part, config in part_configs(model).items()}


def example(model: "FashionRAG", part: str) -> tuple[Any, ...]:
    """Arguments of a part's network, of the smallest shapes that make its parameters."""
    config, kind = part_configs(model)[part], part.removeprefix("retrieval_")
    if kind in ("unet", "reference_net"):
        side = 2 ** (len(config.block_out_channels) - 1)
        context = jnp.zeros((1, 8, config.cross_attention_dim)) if kind == "unet" else None
        return jnp.zeros((1, side, side, config.in_channels)), jnp.zeros((1,), jnp.int32), context
    if kind == "vae":
        return (jnp.zeros((1, 2 * config.factor, 2 * config.factor, 3)),)
    if kind == "text_encoder":
        return (jnp.zeros((1, 8), jnp.int32),)
    if kind == "image_encoder":
        return (jnp.zeros((1, config.image_size, config.image_size, 3)),)
    return (jnp.zeros((1, 2, config.embed_dim if kind == "image_adapter" else config.hidden_size)),)


def check_parts(model: "FashionRAG") -> None:
    """Raises `UserError` for parts and fields that don't fit together."""
    if not 0 <= model.window <= 1:
        raise UserError(f"FashionRAG: window {model.window}: a share of the picture's side, or 0 for the whole picture")
    for name, kind in (("sampler", SamplerName), ("remat", Remat), ("attention", Implementation)):
        check_choice(name, getattr(model, name), kind)
    latents, levels = model.vae.latent_channels, len(model.unet.block_out_channels)
    width = model.text_encoder.hidden_size
    fits = [
        ("the U-Net's cross_attention_dim", model.unet.cross_attention_dim, {width}),
        ("the U-Net's input channels", model.unet.in_channels, {2 * latents + 1, 2 * latents + 1 + POSE_CHANNELS}),
        ("the U-Net's output channels", model.unet.out_channels, {latents}),
        ("the U-Net's text_embed_dim", model.unet.text_embed_dim, {0}),
    ]
    if (model.inversion is None) == (model.image_adapter is None):
        raise UserError(
            "FashionRAG: garments reach the U-Net as words (inversion) or as an image prompt (image_adapter); give one"
        )
    if model.inversion is not None:
        fits.append(("F_theta's token_dim", model.inversion.token_dim, {width}))
        fits.append(("F_theta's hidden_size", model.inversion.hidden_size, {model.image_encoder.hidden_size}))
    else:
        fits.append(("image_adapter's embed_dim", model.image_adapter.embed_dim, {model.image_encoder.hidden_size}))
        if model.visual_levels is not None:
            raise UserError("FashionRAG: visual_levels says which levels see words; an image prompt goes to all")
    for name, got, need in fits:
        if got not in need:
            raise UserError(f"FashionRAG: {name} is {got}, but must be {' or '.join(map(str, sorted(need)))}")
    for side in model.image_size:
        if side % (model.vae.factor * 2 ** (levels - 1)):
            raise UserError(
                f"FashionRAG: pictures of {model.image_size[1]}x{model.image_size[0]} don't divide by "
                f"{model.vae.factor * 2 ** (levels - 1)}"
            )
    if (model.retrieval_text_encoder is None) != (model.retrieval_image_encoder is None):
        raise UserError("FashionRAG: retrieval has two towers of its own, or none")
    text, image = model.retrieval_towers()
    if not text.with_projection or text.projection_dim != image.projection_dim:
        raise UserError(
            "FashionRAG: the towers that retrieve must project to one width; a text encoder without projection "
            "(SD 2's) needs retrieval_text_encoder and retrieval_image_encoder beside it"
        )
    if {model.normalisation, model.retrieval_normalisation} - NORMALISATIONS.keys():
        raise UserError(f"FashionRAG: normalisation must be one of {', '.join(NORMALISATIONS)}")
    if model.garment_fit not in ("pad", "crop"):
        raise UserError(f"FashionRAG: garment_fit {model.garment_fit!r} must be pad or crop")
    if model.visual_levels is not None and not set(model.visual_levels) <= set(range(levels + 1)):
        raise UserError(f"FashionRAG: visual_levels {model.visual_levels} must lie in 0 to {levels}")
