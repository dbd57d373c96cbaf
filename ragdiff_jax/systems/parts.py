"""RAGDiffusion's parts: the network of each, what it is shown to make its parameters, and what must fit what.

A model has the parts of the conditions that it has (`systems/variants.py`), and these alone.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from ragdiff_jax.diffusion.samplers import SamplerName
from ragdiff_jax.errors import UserError, check_choice
from ragdiff_jax.models.attention import Implementation
from ragdiff_jax.models.clip_text import CLIPTextModel
from ragdiff_jax.models.clip_vision import CLIPVisionModel
from ragdiff_jax.models.ep_adapter import EPAdapter
from ragdiff_jax.models.f_theta import FTheta
from ragdiff_jax.models.landmark_guider import LandmarkGuider
from ragdiff_jax.models.structure_net import StructureNet
from ragdiff_jax.models.token_adapter import TokenAdapter
from ragdiff_jax.models.transformer import Remat
from ragdiff_jax.models.unet import UNet
from ragdiff_jax.models.vae import AutoencoderKL

if TYPE_CHECKING:
    from ragdiff_jax.systems.ragdiffusion import RAGDiffusion

Params = Mapping[str, Any]
Null = Literal["gate", "zero"]
TEXT_PARTS = ("text_encoder", "text_encoder_2")
# What the stage `ragdiffusion` trains, of the parts that a model has; the others are frozen.
TRAINED_PARTS = (
    "unet",
    "reference_net",
    "ep_adapter",
    "landmark_guider",
    "image_adapter",
    "class_adapter",
    "token_adapter",
    "control_net",
    "photo_guider",
    "mask_unet",
)


def networks(model: "RAGDiffusion") -> dict[str, nn.Module]:
    """The networks by part."""
    common = dict(remat=model.remat, attention=model.attention, dtype=model.dtype)
    parts: dict[str, nn.Module] = {"unet": UNet(model.unet, **common)}
    if model.reference_net:
        parts["reference_net"] = UNet(model.unet, role="reference", **common)
    if model.ep_adapter is not None:
        parts["ep_adapter"] = EPAdapter(model.ep_adapter, model.unet, model.dtype)
    if model.landmark_guider is not None:
        parts["landmark_guider"] = LandmarkGuider(model.landmark_guider, model.dtype)
    if model.image_adapter is not None:
        parts["image_adapter"] = EPAdapter(model.image_adapter, model.unet, model.dtype)
    if model.class_adapter is not None:
        parts["class_adapter"] = FTheta(model.class_adapter, model.dtype)
    if model.token_adapter is not None:
        parts["token_adapter"] = TokenAdapter(model.token_adapter, model.dtype)
    if model.photo_guider is not None:
        parts["control_net"] = UNet(model.unet, role="control", **common)
        parts["photo_guider"] = LandmarkGuider(model.photo_guider, model.dtype)
    if model.mask_unet is not None:
        parts["mask_unet"] = UNet(model.mask_unet, **common)
    # In fp32, as the memory was embedded: cosines are compared with those of a memory on the disk.
    parts["structure_net"] = StructureNet(model.structure_net)
    parts["vae"] = AutoencoderKL(model.vae, model.dtype)
    for part, config in zip(TEXT_PARTS, model.text_encoders, strict=False):
        parts[part] = CLIPTextModel(config, model.dtype)
    if model.image_encoder is not None:
        parts["image_encoder"] = CLIPVisionModel(model.image_encoder, model.dtype)
    return parts


def example(model: "RAGDiffusion", part: str) -> tuple[Any, ...]:
    """Arguments of a part's network, of the smallest shapes that make its parameters."""
    if part in ("unet", "reference_net", "control_net"):
        latents, time = jnp.zeros((1, 8, 8, model.unet.in_channels)), jnp.zeros((1,), jnp.int32)
        context = None if part == "reference_net" else jnp.zeros((1, 8, model.unet.cross_attention_dim))
        return latents, time, context, jnp.zeros((1, model.unet.text_embed_dim)), jnp.zeros((1, 6))
    image = jnp.zeros((1, 2 * model.vae.factor, 2 * model.vae.factor, 3))
    if part in TEXT_PARTS:
        return (jnp.zeros((1, 8), jnp.int32),)
    if part == "structure_net":
        return image, image, jnp.zeros((1, len(model.structure_net.attribute_sizes)), jnp.int32)
    if part == "ep_adapter":
        return (jnp.zeros((1, model.ep_adapter.embed_dim)),)
    if part == "landmark_guider":
        return (image[..., :1],)
    if part == "mask_unet":
        return image, jnp.zeros((1,), jnp.int32)
    if part == "image_encoder":
        side = model.image_encoder.image_size
        return (jnp.zeros((1, side, side, 3)),)
    if part in ("image_adapter", "class_adapter", "token_adapter"):
        return (jnp.zeros((1, 1 if part == "class_adapter" else token_count(model), model.image_encoder.hidden_size)),)
    return (image,)  # vae, photo_guider


def token_count(model: "RAGDiffusion") -> int:
    """How many tokens the image encoder gives, the class token included."""
    return 1 + (model.image_encoder.image_size // model.image_encoder.patch_size) ** 2


def check_parts(model: "RAGDiffusion") -> None:
    """Raises `UserError` for parts that don't fit together, or that want the same place."""
    for name, kind in (("sampler", SamplerName), ("remat", Remat), ("attention", Implementation), ("null", Null)):
        check_choice(name, getattr(model, name), kind)
    last, width = model.text_encoders[-1], model.unet.cross_attention_dim
    if model.image_size % model.vae.factor:
        raise UserError(f"image_size={model.image_size}: must be a multiple of the VAE's factor, {model.vae.factor}")
    if model.text_pads and len(model.text_pads) != len(model.text_encoders):
        raise UserError(f"RAGDiffusion: {len(model.text_pads)} text_pads for {len(model.text_encoders)} text encoders")
    fits = [
        ("text encoders' widths together", sum(config.hidden_size for config in model.text_encoders), width),
        ("pooled text width", last.projection_dim, model.unet.text_embed_dim),
        ("VAE's latent channels", model.vae.latent_channels, model.unet.in_channels),
    ]
    for name, guider in (("landmark", model.landmark_guider), ("photo", model.photo_guider)):
        if guider is not None:
            fits += [
                (f"{name} guider's features", guider.features, model.unet.block_out_channels[0]),
                (f"{name} guider's strides, multiplied,", math.prod(guider.strides), model.vae.factor),
            ]
    if model.ep_adapter is not None:
        fits.append(("EP-Adapter's embed_dim", model.ep_adapter.embed_dim, model.structure_net.embed_dim))
    readers = {name: getattr(model, name) for name in ("image_adapter", "class_adapter", "token_adapter")}
    readers = {name: config for name, config in readers.items() if config is not None}
    if readers and model.image_encoder is None:
        raise UserError(f"RAGDiffusion: {next(iter(readers))} reads the tokens of an image_encoder, and there is none")
    hidden = None if model.image_encoder is None else model.image_encoder.hidden_size
    for name, config in readers.items():
        fits.append((f"{name}'s input", config.embed_dim if name == "image_adapter" else config.hidden_size, hidden))
    if model.class_adapter is not None:
        fits.append(("class_adapter's token", model.class_adapter.token_dim, width))
    if model.token_adapter is not None:
        fits.append(("token_adapter's output", model.token_adapter.output_dim, width))
        fits.append(("token_adapter's tokens", model.token_adapter.input_tokens, token_count(model)))
    if model.mask_unet is not None:
        channels = (model.mask_unet.in_channels, model.mask_unet.out_channels)
        fits.append(("mask_unet's channels in and out", channels, (3, 1)))
    for name, got, need in fits:
        if got != need:
            raise UserError(f"RAGDiffusion: {name} is {got}, but its counterpart needs {need}")
    if model.image_encoder is not None and model.image_encoder.projection_dim != last.projection_dim:
        raise UserError(
            f"RAGDiffusion: the image encoder projects to {model.image_encoder.projection_dim}, the last text "
            f"encoder to {last.projection_dim}; take both from one CLIP"
        )
    for first, second, place in (
        ("ep_adapter", "image_adapter", "the second cross-attention"),
        ("class_adapter", "token_adapter", "the text's tokens"),
    ):
        if getattr(model, first) is not None and getattr(model, second) is not None:
            raise UserError(f"RAGDiffusion: {first} and {second} both take {place}; choose one")
    if model.mask_unet is not None and model.landmark_guider is None:
        raise UserError("RAGDiffusion: mask_unet predicts landmarks, and there is no landmark_guider to take them")
    if model.null == "zero" and (readers or model.latent_concat or model.photo_guider is not None):
        raise UserError("RAGDiffusion: null 'zero' is for ReferenceNet and EP-Adapter alone; use 'gate'")
