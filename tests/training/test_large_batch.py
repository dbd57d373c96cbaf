"""Tiled losses equal the N x N loss on any number of devices; micro-batches leave the gradient exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from quick import quick_jit

from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import make_mesh, mesh_context
from ragdiff_jax.training.large_batch import info_nce, micro_batched, row_keys, sigmoid_loss, tiles
from ragdiff_jax.training.large_batch.micro_batches import cut_rows, join_rows

# (fp32, x64): relative error to the largest entry.
CLOSE = {np.float32: 1e-5, np.float64: 1e-10}


def pairs(n, kind, dim=24):
    """Unit vectors, names of which some are shared, a weight for each row."""
    rng = np.random.default_rng(n)
    queries, keys = rng.normal(size=(2, n, dim))
    queries, keys = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, keys))
    query_ids = rng.integers(-1, 12, (n, 2)).astype(np.int32)
    key_ids = query_ids[np.arange(n), rng.integers(0, 2, n)][:, None]
    weights = rng.normal(size=n)
    floats, names = (queries, keys, weights), (query_ids, key_ids)
    queries, keys, weights = (jnp.asarray(x, kind) for x in floats)
    return queries, keys, *map(jnp.asarray, names), weights


def not_negative(query_ids, key_ids):
    same = (query_ids[:, None, :, None] == key_ids[None, :, None, :]) & (query_ids >= 0)[:, None, :, None]
    return same.any((2, 3)) & ~np.eye(len(query_ids), dtype=bool)


def plain_info_nce(queries, keys, scale, masked, symmetric):
    logits = scale * jnp.einsum("id,jd->ij", queries, keys, precision="highest")
    logits = jnp.where(masked, -jnp.inf, logits)
    rows = jax.nn.logsumexp(logits, axis=1) - jnp.diagonal(logits)
    if symmetric:
        rows = (rows + jax.nn.logsumexp(logits, axis=0) - jnp.diagonal(logits)) / 2
    return rows, jnp.argmax(logits, axis=1) == jnp.arange(len(logits))


def plain_sigmoid(queries, keys, scale, bias, masked):
    logits = scale * jnp.einsum("id,jd->ij", queries, keys, precision="highest") + bias
    signs = 2 * jnp.eye(len(logits), dtype=logits.dtype) - 1
    return jnp.where(masked, 0.0, jax.nn.softplus(-signs * logits)).sum(axis=1)


def agree(found, expected, kind):
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == theirs.dtype == kind
        np.testing.assert_allclose(ours, theirs, atol=CLOSE[kind] * float(jnp.abs(theirs).max()), rtol=0)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("devices", "n", "tile", "method"),
    [
        (1, 37, 3, "auto"),
        (2, 37, 5, "gather"),
        (2, 24, 7, "ring"),
        (4, 37, 5, "ring"),
        (8, 37, 3, "gather"),
        (8, 64, 999, "ring"),
    ],
)
def test_value_and_gradients_are_those_of_the_n_by_n_loss(kind, devices, n, tile, method):
    """Also where N divides neither by the devices nor by the tile."""
    with jax.enable_x64(kind == np.float64):
        queries, keys, query_ids, key_ids, weights = pairs(n, kind)
        masked = not_negative(query_ids, key_ids)
        assert 0 < masked.sum() < n * n / 2
        mesh = make_mesh(data=-1, fsdp=2 if devices > 2 else 1, devices=jax.devices()[:devices])
        options = {"query_ids": query_ids, "key_ids": key_ids, "tile": tile, "method": method, "mesh": mesh}
        scale, bias = jnp.asarray(9.0, kind), jnp.asarray(-3.0, kind)

        def ours(queries, keys, scale, bias):
            rows, right = info_nce(queries, keys, scale, symmetric=True, **options)
            pairwise, _ = sigmoid_loss(queries, keys, scale, bias, **options)
            return (weights * rows).sum() + (weights[::-1] * pairwise).sum(), right

        def theirs(queries, keys, scale, bias):
            rows, right = plain_info_nce(queries, keys, scale, masked, True)
            pairwise = plain_sigmoid(queries, keys, scale, bias, masked)
            return (weights * rows).sum() + (weights[::-1] * pairwise).sum(), right

        arguments = (queries, keys, scale, bias)
        (value, right), gradients = quick_jit(jax.value_and_grad(ours, argnums=(0, 1, 2, 3), has_aux=True))(*arguments)
        oracle = quick_jit(jax.value_and_grad(theirs, argnums=(0, 1, 2, 3), has_aux=True))
        (expected, answers), truth = oracle(*arguments)
        agree((value, gradients), (expected, truth), kind)
        np.testing.assert_array_equal(right, answers)


def test_one_direction_has_no_weight_on_the_other():
    """At a scale where exp(logit) alone is beyond float32."""
    queries, keys, _, _, weights = pairs(20, np.float32)
    nothing = np.zeros((20, 20), bool)

    def ours(queries, keys):
        return (weights * info_nce(queries, keys, 120.0, tile=7)[0]).sum()

    def theirs(queries, keys):
        return (weights * plain_info_nce(queries, keys, 120.0, nothing, False)[0]).sum()

    found, expected = (quick_jit(jax.value_and_grad(f, argnums=(0, 1)))(queries, keys) for f in (ours, theirs))
    agree(found, expected, np.float32)


def test_match_all_needs_every_name():
    queries, keys, *_ = pairs(6, np.float32)
    names = np.array([[1, 2], [1, 3], [1, 2], [4, 2], [-1, -1], [-1, -1]], np.int32)
    names, masked = jnp.asarray(names), np.zeros((6, 6), bool)
    masked[0, 2] = masked[2, 0] = True
    rows, _ = info_nce(queries, keys, 5.0, query_ids=names, key_ids=names, match="all", tile=4)
    np.testing.assert_allclose(rows, plain_info_nce(queries, keys, 5.0, masked, False)[0], rtol=1e-6)


def test_a_tower_that_says_one_thing_of_all_is_not_right():
    same = jnp.ones((8, 4)) / 2
    rows, right = info_nce(same, same, 10.0)
    np.testing.assert_allclose(rows, np.log(8), rtol=1e-6)
    assert not right.any()


def test_bfloat16_vectors_are_summed_in_float32():
    queries, keys, *_ = pairs(64, np.float32)
    queries, keys = (jnp.asarray(x, jnp.bfloat16) for x in (queries, keys))
    rows, _ = quick_jit(lambda q: info_nce(q, keys, 14.0, tile=16, symmetric=True))(queries)
    wide = plain_info_nce(queries.astype(jnp.float32), keys.astype(jnp.float32), 14.0, np.zeros((64, 64), bool), True)
    assert rows.dtype == jnp.float32
    np.testing.assert_allclose(rows, wide[0], rtol=1e-5)
    gradient = quick_jit(jax.grad(lambda q: info_nce(q, keys, 14.0, tile=16)[0].sum()))(queries)
    assert gradient.dtype == jnp.bfloat16


def test_no_device_holds_a_row_of_the_table_nor_in_a_ring_all_vectors():
    """Compiled memory of a batch whose logits would take 128 MiB a device."""
    mesh, n, dim = make_mesh(data=8), 2**14, 256
    rows = jax.NamedSharding(mesh, jax.P(("data", "fsdp")))
    vectors = jax.ShapeDtypeStruct((n, dim), jnp.bfloat16, sharding=rows)
    used = {}
    for method in ("gather", "ring"):

        def mean(queries, keys, method=method):
            return info_nce(queries, keys, 14.0, symmetric=True, tile=256, method=method, mesh=mesh)[0].mean()

        program = jax.jit(jax.value_and_grad(mean, argnums=(0, 1)), out_shardings=(None, (rows, rows)))
        used[method] = program.lower(vectors, vectors).compile().memory_analysis().temp_size_in_bytes
    # Vectors of one side are 8 MiB. XLA on a CPU holds them twice.
    assert used["gather"] < 3.5 * n * dim * 2
    assert used["ring"] < 1.5 * n * dim * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tile": 0}, "tile 0"),
        ({"method": "tree"}, "gather or ring"),
        ({"match": "some"}, "any or all"),
        ({"keys": jnp.zeros((7, 4))}, r"\(7, 4\)"),
        ({"query_ids": jnp.zeros((5, 1), jnp.int32)}, "query_ids"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    arguments = {"match": "any", "tile": 4, "method": "auto", "mesh": None, "axes": ()}
    vectors = {"queries": jnp.zeros((8, 4)), "keys": jnp.zeros((8, 4))}
    with pytest.raises(UserError, match=message):
        if "query_ids" in changes:
            tiles.checked_ids(changes["query_ids"], 8, "query_ids")
        tiles.make_walk(**vectors | arguments | changes)


class Tower(nn.Module):
    """Two layers with dropout whose key belongs to the row."""

    @nn.compact
    def __call__(self, x, keys):
        for width in (16, 8):
            x = nn.gelu(nn.Dense(width)(x))
            keep = jax.vmap(lambda key, width=width: jax.random.bernoulli(key, 0.7, (width,)))(keys)
            x = jnp.where(keep, x / 0.7, 0.0)
        return x / jnp.linalg.norm(x, axis=1, keepdims=True).clip(1e-6)


@pytest.mark.parametrize(("devices", "count"), [(1, 8), (4, 4)])
def test_micro_batches_give_the_gradient_of_the_whole_batch_dropout_included(devices, count):
    mesh = make_mesh(devices=jax.devices()[:devices])
    rng = np.random.default_rng(0)
    photo, flat = rng.normal(size=(2, 32, 12)).astype(np.float32)
    keys = row_keys(jax.random.key(1), 32)
    params = Tower().init(jax.random.key(0), photo, keys)

    def embed(params, rows):
        return tuple(Tower().apply(params, rows[name], rows["keys"]) for name in ("photo", "flat"))

    def loss(params, parts):
        rows = {"photo": photo, "flat": flat, "keys": keys}
        return info_nce(*micro_batched(embed, parts)(params, rows), 10.0, tile=8)[0].mean()

    with mesh_context(mesh):
        whole, parts = (quick_jit(jax.value_and_grad(loss), static_argnums=1)(params, n) for n in (1, count))
    assert float(jnp.abs(jax.tree.leaves(whole[1])[0]).max()) > 1e-3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max())), parts, whole)


def test_cut_rows_come_back_in_order():
    mesh = make_mesh(data=4, devices=jax.devices()[:4])
    batch = {"x": jnp.arange(24.0).reshape(24, 1), "t": jnp.float32(3)}
    with mesh_context(mesh):
        pieces = jax.jit(lambda b: cut_rows(b, 3))(batch)
        np.testing.assert_array_equal(join_rows(pieces["x"]), batch["x"])
    assert pieces["x"].shape == (3, 8, 1) and pieces["t"].shape == (3,)
    # Device 0 holds rows 0 to 5 and keeps them: two in each piece.
    np.testing.assert_array_equal(pieces["x"][:, :2, 0], np.arange(6).reshape(3, 2))
    with pytest.raises(UserError, match="multiple of 20"):
        cut_rows(batch, 5, mesh)
