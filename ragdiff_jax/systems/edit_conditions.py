"""What Fashion-RAG's U-Net is told beside noise and time, as one pytree, and how guidance takes it away."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from ragdiff_jax.models.transformer import Gates, Leaf


@flax.struct.dataclass
class EditConditions:
    """Made once an image; nothing of it changes between steps.

    Attributes:
      context: text and garments through the text encoder [b, l, d].
      plain: the text alone [b, l, d] for the levels that see no garments, or None: all see them.
      mask: 1 where to draw anew [b, h, w, 1]; masked: latents of the person without it [b, h, w, c].
      pose: heat maps [b, h, w, 18], or None for a U-Net without.
      reference: {site: KeyValue [depth, b, l, heads, d]} of ReferenceNet, which saw the top garment, or None: absent.
      adapter: the same of the garments' image prompt, or None: absent.
      gates: [b] each; 0 removes reference or adapter from that sample exactly.
    """

    context: Leaf
    plain: Leaf
    mask: Leaf
    masked: Leaf
    pose: Leaf
    reference: Mapping[str, Any] | Leaf = None
    adapter: Mapping[str, Any] | Leaf = None
    gates: Gates | Leaf = None

    def batch_axes(self) -> "EditConditions":
        """The batch axis of each member, a prefix tree as `jax.vmap` and `diffusion.guided` take it."""
        stacked = {name: None if getattr(self, name) is None else 1 for name in ("reference", "adapter")}
        rest = ("plain", "pose", "gates")
        return EditConditions(
            context=0, mask=0, masked=0, **{n: None if getattr(self, n) is None else 0 for n in rest}, **stacked
        )

    def unconditional(self, empty: Leaf) -> "EditConditions":
        """The other half of guidance: the empty prompt [1, l, d], no garments and no pose; mask and masked stay."""
        context = jnp.broadcast_to(empty, self.context.shape).astype(self.context.dtype)
        return self.replace(
            context=context,
            plain=None if self.plain is None else context,
            pose=None if self.pose is None else jnp.zeros_like(self.pose),
            gates=jax.tree.map(jnp.zeros_like, self.gates),
        )
