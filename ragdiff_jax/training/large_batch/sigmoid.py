"""The sigmoid loss of SigLIP (arXiv 2303.15343, Eq. 1) over a batch of any size: every pair on its own.

queries [N,D], keys [N,D] -> rows [N], row i the sum over j of -log sigmoid(z_ij (scale * q_i . k_j + bias)) with
z = 1 for i = j and -1 otherwise; the mean of the rows is the paper's loss.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from ragdiff_jax.training.large_batch import tiles
from ragdiff_jax.training.large_batch.tiles import Side, Walk


def sigmoid_loss(
    queries: Float[Array, "n d"],
    keys: Float[Array, "n d"],
    scale: float | Float[Array, ""],
    bias: float | Float[Array, ""],
    *,
    query_ids: Int[Array, "n a"] | Int[Array, " n"] | None = None,
    key_ids: Int[Array, "n b"] | Int[Array, " n"] | None = None,
    match: tiles.Match = "any",
    tile: int = tiles.TILE,
    method: tiles.Method = "auto",
    mesh: Mesh | None = None,
    axes: tuple[str, ...] = tiles.DEFAULT_AXES,
) -> tuple[Float[Array, " n"], Bool[Array, " n"]]:
    """(loss of each row, whether its positive is nearer than every negative).

    Differentiable in queries, keys, `scale` and `bias` (SigLIP starts at 10 and -10). The rest is as `info_nce`'s;
    pairs that share a name are in no row's sum.
    """
    walk = tiles.make_walk(queries, keys, match=match, tile=tile, method=method, mesh=mesh, axes=axes)
    n = queries.shape[0]
    ids = tiles.checked_ids(query_ids, n, "query_ids"), tiles.checked_ids(key_ids, n, "key_ids")
    scale, bias = (jnp.asarray(value, tiles.wide(queries.dtype)) for value in (scale, bias))
    return _sigmoid(walk, queries, keys, *ids, scale, bias)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sigmoid(walk, queries, keys, query_ids, key_ids, scale, bias):
    return _forward(walk, queries, keys, query_ids, key_ids, scale, bias)[0]


def _logits(walk: Walk, own: Side, other: Side, scale, bias):
    """(z * logit, inner products, z, which pairs count) of a tile."""
    keep, diagonal = tiles.pairing(walk, own, other)
    inner = tiles.products(own.vectors, other.vectors)
    z = jnp.where(diagonal, 1.0, -1.0).astype(inner.dtype)
    return z * (scale * inner + bias), inner, z, keep


def _forward(walk: Walk, queries, keys, query_ids, key_ids, scale, bias):
    n = queries.shape[0]

    def local(queries, keys, query_ids, key_ids, scale, bias):
        place = tiles.places(walk, queries.shape[0], n)

        def update(state, own, other):
            total, positive, best = state
            signed, inner, z, keep = _logits(walk, own, other, scale, bias)
            total += jnp.where(keep, jax.nn.softplus(-signed), 0.0).sum(axis=1)
            positive += jnp.where(keep & (z > 0), inner, 0.0).sum(axis=1)
            return total, positive, jnp.maximum(best, jnp.where(keep & (z < 0), inner, -jnp.inf).max(axis=1))

        def start(rows):
            zero = jnp.zeros((rows,), scale.dtype)
            return zero, zero, jnp.full_like(zero, -jnp.inf)

        query, key = Side(queries, query_ids, place), Side(keys, key_ids, place)
        total, positive, best = tiles.meet(walk, query, key, start, update)
        return total, positive > best

    result = tiles.spread(local, walk, (queries, keys, query_ids, key_ids), (scale, bias), "rr")
    return tuple(result), (queries, keys, query_ids, key_ids, scale, bias)


def _backward(walk: Walk, kept, cotangents):
    queries, keys, query_ids, key_ids, scale, bias = kept
    n = queries.shape[0]
    share = cotangents[0].astype(scale.dtype)

    def local(queries, keys, query_ids, key_ids, share, scale, bias):
        place = tiles.places(walk, queries.shape[0], n)

        def pull(own, other):
            def update(state, own, other):
                signed, inner, z, keep = _logits(walk, own, other, scale, bias)
                # The row of the loss is the query's; a key's share is 0.
                share = own.extra[0][:, None] + other.extra[0][None]
                weight = jnp.where(keep, -z * jax.nn.sigmoid(-signed) * share, 0.0)
                sums = ((weight * inner).sum(axis=1), weight.sum(axis=1))
                return tuple(a + b for a, b in zip(state, (tiles.weighted(weight, other.vectors), *sums), strict=True))

            def start(rows):
                zero = jnp.zeros((rows,), scale.dtype)
                return jnp.zeros((rows, own.vectors.shape[1]), scale.dtype), zero, zero

            return tiles.meet(walk, own, other, start, update)

        query = Side(queries, query_ids, place, (share,))
        key = Side(keys, key_ids, place, (jnp.zeros_like(share),))
        pulled, by_row, weights = pull(query, key)
        to_queries = (scale * pulled).astype(queries.dtype)
        key, query = tiles.first(to_queries, (key, query))
        return (
            to_queries,
            (scale * pull(key, query)[0]).astype(keys.dtype),
            tiles.summed(walk, by_row.sum()),
            tiles.summed(walk, weights.sum()),
        )

    arrays = (queries, keys, query_ids, key_ids, share)
    to_queries, to_keys, to_scale, to_bias = tiles.spread(local, walk, arrays, (scale, bias), "rrss")
    return to_queries, to_keys, None, None, to_scale, to_bias


_sigmoid.defvjp(_forward, _backward)
