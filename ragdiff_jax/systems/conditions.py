"""What MainNet is told beside noise and time, as one pytree, and how each piece of it is taken away exactly."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax.numpy as jnp

from ragdiff_jax.models.transformer import Gates, Leaf


@flax.struct.dataclass
class Text:
    """Encoded prompts: tokens [b, l, d] for cross-attention, one pooled vector [b, p] for the added condition."""

    context: Leaf
    pooled: Leaf


@flax.struct.dataclass
class Conditions:
    """Everything that doesn't change between denoising steps, made once an image.

    Attributes:
      text: encoded prompts.
      landmark_features: Landmark Guider's output [b, h, w, c], already times its gate, or None: absent.
      reference, adapter: {site: KeyValue [depth, b, l, heads, d]} of ReferenceNet and EP-Adapter (or the image prompt),
        or None: absent.
      gates: [b] each; 0 removes reference or adapter from that sample exactly. `reference` is the photo's, and
        closes the three below too.
      words: the photo's tokens [b, q, d], which stand for the text's, or None.
      beside: the photo's latents [b, h, w, c], which stand under the noisy ones, or None.
      hint: the photo's features [b, h, w, f] for ControlNet, or None.
    """

    text: Text | Leaf
    landmark_features: Leaf
    reference: Mapping[str, Any] | Leaf
    adapter: Mapping[str, Any] | Leaf
    gates: Gates | Leaf
    words: Leaf = None
    beside: Leaf = None
    hint: Leaf = None

    def batch_axes(self) -> "Conditions":
        """The batch axis of each member, a prefix tree as `jax.vmap` and `diffusion.guided` take it."""
        return Conditions(
            text=0,
            landmark_features=None if self.landmark_features is None else 0,
            reference=None if self.reference is None else 1,
            adapter=None if self.adapter is None else 1,
            gates=0,
            words=None if self.words is None else 0,
            beside=None if self.beside is None else 0,
            hint=None if self.hint is None else 0,
        )

    def with_closed_gates(self, empty: Text) -> "Conditions":
        """Empty text, no structure, no photo, the same landmark: what `RAGDiffusion.unconditional` makes of them where
        training closes gates (docs/papers.md).

        `empty` is the empty prompt through the encoders, [1, l, d] and [1, p] or a whole batch of it.
        """
        nothing = jnp.zeros(self.text.context.shape[0], jnp.float32)
        text = Text(
            jnp.broadcast_to(empty.context, self.text.context.shape).astype(self.text.context.dtype),
            jnp.broadcast_to(empty.pooled, self.text.pooled.shape).astype(self.text.pooled.dtype),
        )
        return dataclasses.replace(self, text=text, gates=Gates(reference=nothing, adapter=nothing))
