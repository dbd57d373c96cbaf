"""The losses of the contrastive stages: one positive a row, or silhouettes that say how alike two garments are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from ragdiff_jax.errors import UserError
from ragdiff_jax.training.large_batch import info_nce, sigmoid_loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairLoss:
    """Which contrastive loss the rows of two sides have with one another, over all devices (`training/large_batch`).

    Attributes:
      loss: `info_nce` or `sigmoid`.
      symmetric: of InfoNCE, the mean of both directions.
      tile, method: as `large_batch.info_nce` takes them; they change memory and messages, not the loss.
    """

    loss: str = "info_nce"
    symmetric: bool = False
    tile: int = 1024
    method: str = "auto"

    def __post_init__(self):
        if self.loss not in ("info_nce", "sigmoid"):
            raise UserError(f"loss={self.loss!r}: choose info_nce or sigmoid")

    def __call__(
        self,
        queries: Float[Array, "b d"],
        keys: Float[Array, "b d"],
        scale: float | Float[Array, ""],
        bias: float | Float[Array, ""],
        **names,
    ) -> tuple[Float[Array, " b"], Float[Array, ""]]:
        """(loss of each row, share of rows whose positive is nearest). `bias` is the sigmoid loss's; `names` say what
        is no negative, as in `info_nce`.
        """
        options = names | {"tile": self.tile, "method": self.method}
        if self.loss == "sigmoid":
            rows, right = sigmoid_loss(queries, keys, scale, bias, **options)
        else:
            rows, right = info_nce(queries, keys, scale, symmetric=self.symmetric, **options)
        return rows, right.mean()


def text_names(ids: Int[Array, "b l"]) -> Int[Array, "b 2"]:
    """Two names of each text, equal (`match="all"`) where all its ids are, and by chance once in 2^60 pairs."""
    factors = np.random.default_rng(0).integers(1, 2**32, (2, ids.shape[1]), dtype=np.uint32) | 1
    sums = (jnp.asarray(factors)[None] * (ids[:, None].astype(jnp.uint32) + 1)).sum(axis=-1, dtype=jnp.uint32)
    return (sums >> 1).astype(jnp.int32)


def shape_info_nce(
    queries: Float[Array, "b d"],
    keys: Float[Array, "n d"],
    scale: float | Float[Array, ""],
    targets: Float[Array, "b n"],
) -> tuple[Float[Array, "b"], Float[Array, ""]]:
    """(loss of each row, accuracy): InfoNCE with a distribution over all keys in place of the one positive.

    Rows of `targets` sum to 1. The targets' own entropy is taken off, so that the least loss is 0.
    """
    logits = scale * jnp.einsum("id,jd->ij", queries, keys, precision=jax.lax.Precision.HIGHEST)
    rows = -(targets * (jax.nn.log_softmax(logits, axis=1) - jnp.log(jnp.maximum(targets, 1e-30)))).sum(axis=1)
    accuracy = (jnp.argmax(logits, axis=1) == jnp.argmax(targets, axis=1)).mean()
    return rows, accuracy


def overlaps(masks: Shaped[Array, "b h w"], others: Shaped[Array, "n h w"]) -> Float[Array, "b n"]:
    """IoU of each silhouette (in {0,1}) with each of the others."""
    one, other = (x.reshape(x.shape[0], -1).astype(jnp.float32) for x in (masks, others))
    both = one @ other.T
    return both / jnp.maximum(one.sum(axis=1)[:, None] + other.sum(axis=1)[None] - both, 1.0)
