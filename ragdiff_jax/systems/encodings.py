"""What RAGDiffusion's frozen networks make of a training sample: in the step, or once and for all (`data.encodings`).

    photo_latents [b,h,w,c]  the posterior's mean, scaled       embedding [b,d]  of the photo with its attributes
    flat_mean, flat_logvar [b,h,w,c]  the VAE's moments          embedding_unknown [b,d]  without any
    context [b,l,e], pooled [b,p]  the caption                   photo [b,H,W,3]  where trained parts see it
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ragdiff_jax.models.vae import sample_latents, scale_latents
from ragdiff_jax.systems.conditions import Text


def in_parts(function: Callable, batch: Mapping[str, Array], size: int = 4) -> dict[str, Array]:
    """`function(batch)`, of so many rows at a time: large pictures of all at once may not fit beside a training."""
    (rows,) = {len(x) for x in batch.values()}
    if rows % size:
        return function(batch)
    parts = jax.tree.map(lambda x: x.reshape(rows // size, size, *x.shape[1:]), dict(batch))
    return jax.tree.map(lambda x: x.reshape(rows, *x.shape[2:]), jax.lax.map(function, parts))


def encode_pairs(model: Any, params: Mapping[str, Any], batch: Mapping[str, Array]) -> dict[str, Array]:
    """The encodings of `RAGDiffusion.loss`' batch. Pure; wants the augmented pictures that the loss would get."""
    mean, logvar = model.moments(params, batch["flat"])
    text = model.encode_text(params, batch["text_ids"])
    unknown = jnp.zeros_like(batch["photo_attributes"])
    photo = {"photo": batch["photo"]} if model.sees_photo else {}
    return photo | {
        "photo_latents": model.encode(params, batch["photo"]),
        "flat_mean": mean,
        "flat_logvar": logvar,
        "embedding": model.embed(params, batch["photo"], batch["photo_attributes"]),
        "embedding_unknown": model.embed(params, batch["photo"], unknown),
        "context": text.context,
        "pooled": text.pooled,
    }


def flat_latents(model: Any, params: Mapping[str, Any], batch: Mapping[str, Array], key: jax.Array):
    """A draw from the posterior of each flat-lay, scaled [b,h,w,c]: from kept moments where the batch has them."""
    if "flat_mean" not in batch:
        return model.encode(params, batch["flat"], key)
    mean, logvar = (batch[name].astype(jnp.float32) for name in ("flat_mean", "flat_logvar"))
    return scale_latents(model.vae, sample_latents(mean, logvar, key))


def text_of(
    model: Any, params: Mapping[str, Any], batch: Mapping[str, Array], dropped: Bool[Array, "b"], empty: Any
) -> Text:
    """The prompts with the dropped ones empty. `empty`: the empty prompt's ids [l], or its encoding [1, ...]."""
    if "context" not in batch:
        return model.encode_text(params, jnp.where(dropped[:, None], empty[None], batch["text_ids"]))

    def pick(nothing, given):
        return jnp.where(dropped.reshape(-1, *(1,) * (given.ndim - 1)), nothing.astype(given.dtype), given)

    return jax.tree.map(pick, empty, Text(batch["context"], batch["pooled"]))


def noise_with_offset(key: jax.Array, shape: tuple[int, ...], offset: float) -> Float[Array, "b h w c"]:
    """Normal noise; with `offset` each channel of a sample is moved as a whole too, so that brightness is learned."""
    noise = jax.random.normal(key, shape)
    if not offset:
        return noise
    moved = jax.random.normal(jax.random.fold_in(key, 1), (shape[0], 1, 1, shape[-1]))
    return noise + offset * moved
