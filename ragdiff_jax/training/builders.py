"""Config sections -> objectives, one function a stage."""

from collections.abc import Mapping
from typing import Any

from ragdiff_jax.models.vae import VAEConfig
from ragdiff_jax.training.objectives.autoencoder import AutoencoderObjective


def _rest(model: Mapping[str, Any], *taken: str) -> dict[str, Any]:
    return {name: value for name, value in model.items() if name not in taken}


def autoencoder(model: Mapping[str, Any], **data) -> AutoencoderObjective:
    config = VAEConfig.from_dict(model["vae"].to_dict())
    return AutoencoderObjective(config=config, **_rest(model, "vae"), **data)


BUILDERS = {"autoencoder": autoencoder}
