"""Conditions that are made of the image encoder's tokens of the photo [b, l, c]; which, says `systems/variants.py`."""

import dataclasses
from typing import Any

from jaxtyping import Array, Float

from ragdiff_jax.models.clip_vision import preprocess
from ragdiff_jax.systems.conditions import Conditions


def read_tokens(model: Any, params: Any, conditions: Conditions, photo: Float[Array, "b H W 3"]) -> Conditions:
    """`conditions` with the image prompt or the words that `model` (a RAGDiffusion) makes of them.

    The layers that they are read from are those of the originals: IP-Adapter-plus' last but one, TryOffDiff's last,
    Paint-by-Example's normed class token. An image prompt is gated as the photo is.
    """
    states = model._apply(params, "image_encoder", preprocess(photo, model.image_encoder.image_size))
    if model.image_adapter is not None:
        prompt = model._apply(params, "image_adapter", states.penultimate)
        gates = dataclasses.replace(conditions.gates, adapter=conditions.gates.reference)
        conditions = dataclasses.replace(conditions, adapter=prompt, gates=gates)
    if model.class_adapter is not None:
        words = model._apply(params, "class_adapter", states.pooled[:, None])
        conditions = dataclasses.replace(conditions, words=words)
    if model.token_adapter is not None:
        words = model._apply(params, "token_adapter", states.last_hidden_state)
        conditions = dataclasses.replace(conditions, words=words)
    return conditions
