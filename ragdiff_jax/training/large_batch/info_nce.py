"""InfoNCE over a batch of any size (RAGDiffusion 3.1, Eq. 1; arXiv 1807.03748).

queries [N,D], keys [N,D] -> a loss for each row [N]. Row i's positive is key i, its negatives are all other keys of
all devices. Forward keeps a log-sum-exp a row; backward computes the logits again.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from ragdiff_jax.training.large_batch import tiles
from ragdiff_jax.training.large_batch.tiles import Side, Walk


def info_nce(
    queries: Float[Array, "n d"],
    keys: Float[Array, "n d"],
    scale: float | Float[Array, ""],
    *,
    query_ids: Int[Array, "n a"] | Int[Array, " n"] | None = None,
    key_ids: Int[Array, "n b"] | Int[Array, " n"] | None = None,
    match: tiles.Match = "any",
    symmetric: bool = False,
    tile: int = tiles.TILE,
    method: tiles.Method = "auto",
    mesh: Mesh | None = None,
    axes: tuple[str, ...] = tiles.DEFAULT_AXES,
) -> tuple[Float[Array, " n"], Bool[Array, " n"]]:
    """(loss of each row, whether its positive is nearer than every negative).

    Differentiable in queries, keys and `scale` (1 / temperature). Logits and sums are float32 (float64 for float64),
    whatever the vectors are; the result doesn't depend on tile, method or mesh but for the order of sums.

    Args:
      queries, keys: as a rule unit vectors; of the whole batch, rows split over `axes` of the mesh. Any N.
      scale: what the inner products are multiplied by.
      query_ids, key_ids: names of what each row shows, at least 0 (a negative id is no name). Key j is no negative of
        query i, j != i, if they share one (`match="any"`), or if all ids are equal in order (`"all"`).
      symmetric: the mean of both directions: row i also has query i among all queries for key i.
      tile: rows of a tile; memory of the logits is tile^2 numbers.
      method: `gather` brings all vectors of one side to every device; `ring` passes blocks round. `auto` takes the
        ring where a side is over half a GiB.
      mesh: None takes the mesh that `mesh_context` set; without one all is on one device.

    Raises `UserError` for shapes and names that don't fit.
    """
    walk = tiles.make_walk(queries, keys, match=match, tile=tile, method=method, mesh=mesh, axes=axes)
    n = queries.shape[0]
    ids = tiles.checked_ids(query_ids, n, "query_ids"), tiles.checked_ids(key_ids, n, "key_ids")
    scale = jnp.asarray(scale, tiles.wide(queries.dtype))
    return _info_nce(walk, symmetric, queries, keys, *ids, scale)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _info_nce(walk, symmetric, queries, keys, query_ids, key_ids, scale):
    return _forward(walk, symmetric, queries, keys, query_ids, key_ids, scale)[0]


def _forward(walk: Walk, symmetric: bool, queries, keys, query_ids, key_ids, scale):
    n = queries.shape[0]

    def local(queries, keys, query_ids, key_ids, scale):
        place = tiles.places(walk, queries.shape[0], n)
        query, key = Side(queries, query_ids, place), Side(keys, key_ids, place)
        lse, best, positive = _log_sum_exp(walk, query, key, scale)
        rows, back = lse - positive, jnp.zeros_like(lse)
        if symmetric:
            back, _, positive = _log_sum_exp(walk, key, query, scale)
            rows = (rows + back - positive) / 2
        return rows, positive > best, lse, back

    outputs = tiles.spread(local, walk, (queries, keys, query_ids, key_ids), (scale,), "rrrr")
    rows, right, lse, back = outputs
    return (rows, right), (queries, keys, query_ids, key_ids, scale, lse, back)


def _row_products(queries, keys):
    """Inner product of row i with row i, [n]."""
    kind = tiles.wide(queries.dtype)
    return jnp.sum(queries.astype(kind) * keys.astype(kind), axis=1)


def _log_sum_exp(walk: Walk, own: Side, other: Side, scale):
    """(log-sum-exp over a row's logits, largest logit but its own, its own), [n] each.

    Its own is taken from the tiles, whose rounding it has to share: a row without negatives has no loss at all.
    """
    kind = scale.dtype

    def update(state, own, other):
        top, total, best, positive = state
        keep, diagonal = tiles.pairing(walk, own, other)
        logits = jnp.where(keep, scale * tiles.products(own.vectors, other.vectors), -jnp.inf)
        best = jnp.maximum(best, jnp.where(diagonal, -jnp.inf, logits).max(axis=1))
        positive += jnp.where(diagonal & keep, logits, 0.0).sum(axis=1)
        higher = jnp.maximum(top, logits.max(axis=1))
        base = jnp.where(jnp.isfinite(higher), higher, 0.0)  # a row of padding has no logit at all
        total = total * jnp.exp(top - base) + jnp.exp(logits - base[:, None]).sum(axis=1)
        return higher, total, best, positive

    def start(rows):
        none = jnp.full((rows,), -jnp.inf, kind)
        zero = jnp.zeros_like(none)
        return none, zero, none, zero

    top, total, best, positive = tiles.meet(walk, own, other, start, update)
    return jnp.where(total > 0, top + jnp.log(jnp.where(total > 0, total, 1.0)), 0.0), best, positive


def _backward(walk: Walk, symmetric: bool, kept, cotangents):
    queries, keys, query_ids, key_ids, scale, lse, back = kept
    n = queries.shape[0]
    share = cotangents[0].astype(scale.dtype) / (2 if symmetric else 1)

    def local(queries, keys, query_ids, key_ids, share, lse, back, scale):
        place = tiles.places(walk, queries.shape[0], n)
        # A direction that isn't asked for has no weight: exp(logit - inf) = 0.
        other_share = share if symmetric else jnp.zeros_like(share)
        back = back if symmetric else jnp.full_like(back, jnp.inf)
        query = Side(queries, query_ids, place, (share, lse))
        key = Side(keys, key_ids, place, (other_share, back))
        pull = partial(_pull, walk, scale=scale)
        both = share + other_share

        def gradient(pulled, positives):
            return (scale * (pulled - both[:, None] * positives.astype(scale.dtype))).astype(queries.dtype)

        # One after another: a wide copy of either side must not lie there while the rows are walked.
        pulled, by_row = pull(query, key)
        to_queries = gradient(pulled, tiles.first(pulled, keys))
        key, query = tiles.first(to_queries, (key, query))
        pulled = pull(key, query)[0]
        to_keys = gradient(pulled, tiles.first(pulled, queries))
        own = _row_products(*tiles.first(to_keys, (queries, keys)))
        to_scale = tiles.summed(walk, jnp.sum(by_row - both * own))
        return to_queries, to_keys, to_scale

    arrays = (queries, keys, query_ids, key_ids, share, lse, back)
    to_queries, to_keys, to_scale = tiles.spread(local, walk, arrays, (scale,), "rrs")
    return to_queries, to_keys, None, None, to_scale


def _pull(walk: Walk, own: Side, other: Side, *, scale):
    """(sum over the others of weight * vector [n,d], sum of weight * inner product [n]); weights are dLoss/dlogit."""

    def update(state, own, other):
        keep, _ = tiles.pairing(walk, own, other)
        inner = tiles.products(own.vectors, other.vectors)
        logits = jnp.where(keep, scale * inner, -jnp.inf)
        (share, lse), (other_share, other_lse) = own.extra, other.extra
        weight = share[:, None] * jnp.exp(logits - lse[:, None])
        weight += other_share[None] * jnp.exp(logits - other_lse[None])
        return state[0] + tiles.weighted(weight, other.vectors), state[1] + (weight * inner).sum(axis=1)

    def start(rows):
        return jnp.zeros((rows, own.vectors.shape[1]), scale.dtype), jnp.zeros((rows,), scale.dtype)

    return tiles.meet(walk, own, other, start, update)


_info_nce.defvjp(_forward, _backward)
