"""What a training sample is told, and what it is left without (R 3.3, 4.1): the chances are `Dropout`'s."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ragdiff_jax.data.augment import move_landmark
from ragdiff_jax.models.transformer import Gates
from ragdiff_jax.retrieval.landmarks import fuse_landmarks, iou
from ragdiff_jax.systems.conditions import Conditions
from ragdiff_jax.systems.encodings import text_of


def training_conditions(
    model: Any,
    params: Mapping[str, Any],
    batch: Mapping[str, Array],
    keys: Key[Array, "9"],
    memory: Any,
    empty_ids: Any,
) -> tuple[Conditions, Float[Array, "b"] | None]:
    """(conditions, loss of each sample's predicted silhouette or None) of a RAGDiffusion.

    `batch`, `memory` and `empty_ids` are `RAGDiffusion.loss`'; of `keys` the first five and the last are used.
    """
    b = batch["mask"].shape[0]

    def chance(index, probability):
        return jax.random.bernoulli(keys[index], probability, (b,))

    photo, structure, silhouette, found, mask_loss = batch.get("photo"), None, None, None, None
    if model.retrieves:
        embedding = batch.get("embedding")
        if embedding is None:
            embedding = model.embed(params, photo, batch["photo_attributes"])
        ids, _, neighbours, weights = model.retrieve(memory, embedding, batch["memory_row"])
        structure = model.fuse(embedding, neighbours, weights)
        found, _ = fuse_landmarks(memory.landmarks[ids], weights)
        if "padding" in batch:
            found = move_landmark(batch["padding"].astype(jnp.float32), found.astype(jnp.float32)) > 0
    if model.mask_unet is not None:
        logits = model.mask_logits(params, photo)
        found = logits[..., 0] > 0
        # Cross-entropy of each pixel.
        mask_loss = (jax.nn.softplus(logits) - logits * batch["mask"]).mean(axis=(1, 2, 3))
    if model.landmark_guider is not None:
        use_found = chance(0, model.dropout.retrieved_landmark)
        if model.dropout.retrieved_iou:
            use_found &= iou(found, batch["mask"][..., 0]) >= model.dropout.retrieved_iou
        found = found.astype(jnp.float32)[..., None]
        silhouette = jnp.where(use_found[:, None, None, None], found, batch["mask"])

    everything = chance(1, model.dropout.everything)
    no_text = everything | chance(2, model.dropout.text)
    no_structure = everything | chance(3, model.dropout.structure)
    no_reference = everything | chance(4, model.dropout.reference)
    conditions = model.make_conditions(
        params,
        photo=photo,
        photo_latents=batch.get("photo_latents"),
        structure=structure,
        silhouette=silhouette,
        text=text_of(model, params, batch, no_text, empty_ids),
        gates=Gates(reference=1.0 - no_reference, adapter=1.0 - no_structure),
        landmark_gate=1.0 - chance(8, model.dropout.landmark) if model.dropout.landmark else None,
    )
    return conditions, mask_loss
