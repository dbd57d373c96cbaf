"""Which conditions a model has: R's ablations and baselines on one backbone, one system with parts left out or put in.

    photo      reference         ReferenceNet's keys and values in every self-attention (R 3.3)
               latent_concat     its latents under the noisy ones, in one picture (TryOffAnyone)
               image_prompt      CLIP's tokens through a Resampler, a second cross-attention (IP-Adapter-plus)
               image_tokens      CLIP's tokens through an adapter, in place of the text's (TryOffDiff)
               class_token       CLIP's class token through an MLP, in place of the text's (Paint-by-Example)
               control           through a copy of the U-Net's encoder, added to the skips (ControlNet)
    structure  structure         the retrieved embedding through EP-Adapter (R 3.2)
    silhouette landmark          the retrieved one through the Landmark Guider (R 3.2)
               predicted_landmark  one that a small U-Net draws from the photo (R Table 2, "Generating mask")

Where the added parts' sizes are open, they follow from those of the model.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ragdiff_jax.errors import UserError
from ragdiff_jax.models.f_theta import FThetaConfig
from ragdiff_jax.models.token_adapter import TokenAdapterConfig
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.systems.parts import token_count
from ragdiff_jax.systems.ragdiffusion import RAGDiffusion

_NOTHING: Mapping[str, Any] = {
    "reference_net": False,
    "ep_adapter": None,
    "landmark_guider": None,
    "latent_concat": False,
    "image_adapter": None,
    "class_adapter": None,
    "token_adapter": None,
    "photo_guider": None,
    "mask_unet": None,
}


def _image_prompt(model: RAGDiffusion) -> dict[str, Any]:
    # As many queries as IP-Adapter-plus, whatever the structure embedding needs.
    adapter = dataclasses.replace(model.ep_adapter, embed_dim=model.image_encoder.hidden_size, num_queries=16)
    return {"image_adapter": adapter}


def _class_token(model: RAGDiffusion) -> dict[str, Any]:
    """F_theta shown one token: transformer layers of a single token, as Paint-by-Example's mapper has five of."""
    width = model.image_encoder.hidden_size
    return {
        "class_adapter": FThetaConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_attention_heads=model.image_encoder.num_attention_heads,
            num_hidden_layers=5,
            mlp_dim=2 * width,
            num_tokens=1,
            token_dim=model.unet.cross_attention_dim,
            dropout=0.0,
        )
    }


def _image_tokens(model: RAGDiffusion) -> dict[str, Any]:
    return {
        "token_adapter": TokenAdapterConfig(
            hidden_size=model.image_encoder.hidden_size,
            input_tokens=token_count(model),
            num_attention_heads=model.image_encoder.num_attention_heads,
            output_dim=model.unet.cross_attention_dim,
        )
    }


def _predicted_landmark(model: RAGDiffusion) -> dict[str, Any]:
    """A U-Net of pixels: MainNet's widths under a level of half its first, attention in the middle alone."""
    widths = (model.unet.block_out_channels[0] // 2, *model.unet.block_out_channels)
    levels = len(widths)
    unet = UNetConfig(
        sample_size=model.image_size,
        in_channels=3,
        out_channels=1,
        block_out_channels=widths,
        layers_per_block=1,
        transformer_layers=(1,) * levels,
        attention_heads=(model.unet.attention_heads[-1],) * levels,
        cross_attention_dim=model.unet.cross_attention_dim,
        norm_num_groups=min(32, widths[0] // 4),
        addition_time_embed_dim=0,
        text_embed_dim=0,
        down_attention=(False,) * levels,
        up_attention=(False,) * levels,
    )
    return {"mask_unet": unet, "landmark_guider": model.landmark_guider}


# What each condition needs of a model that has all of R's.
CONDITIONS: Mapping[str, Callable[[RAGDiffusion], dict[str, Any]]] = {
    "reference": lambda model: {"reference_net": True},
    "latent_concat": lambda model: {"latent_concat": True},
    "image_prompt": _image_prompt,
    "image_tokens": _image_tokens,
    "class_token": _class_token,
    "control": lambda model: {"photo_guider": model.landmark_guider},
    "structure": lambda model: {"ep_adapter": model.ep_adapter},
    "landmark": lambda model: {"landmark_guider": model.landmark_guider},
    "predicted_landmark": _predicted_landmark,
}
_OF_IMAGE_ENCODER = ("image_prompt", "image_tokens", "class_token")


def with_conditions(model: RAGDiffusion, names: Collection[str]) -> RAGDiffusion:
    """`model`, which has ReferenceNet, EP-Adapter and Landmark Guider, with the conditions `names` in their place.

    Raises `UserError` for an unknown name, names that want one place, and tokens of an image encoder that isn't there.
    """
    if unknown := [name for name in names if name not in CONDITIONS]:
        raise UserError(f"condition {unknown[0]!r}: there are {', '.join(CONDITIONS)}")
    if {"landmark", "predicted_landmark"} <= set(names):
        raise UserError("conditions landmark and predicted_landmark: there is one silhouette; choose one")
    if needing := [name for name in names if name in _OF_IMAGE_ENCODER and model.image_encoder is None]:
        raise UserError(f"condition {needing[0]}: reads an image encoder's tokens; name model.parts.image_encoder")
    changes = dict(_NOTHING)
    for name in names:
        changes |= CONDITIONS[name](model)
    return dataclasses.replace(model, **changes)


def conditions_of(model: RAGDiffusion) -> tuple[str, ...]:
    """The conditions that a model has, by name."""
    has = {
        "reference": model.reference_net,
        "latent_concat": model.latent_concat,
        "image_prompt": model.image_adapter is not None,
        "image_tokens": model.token_adapter is not None,
        "class_token": model.class_adapter is not None,
        "control": model.photo_guider is not None,
        "structure": model.ep_adapter is not None,
        "landmark": model.landmark_guider is not None and model.mask_unet is None,
        "predicted_landmark": model.mask_unet is not None,
    }
    return tuple(name for name in CONDITIONS if has[name])
