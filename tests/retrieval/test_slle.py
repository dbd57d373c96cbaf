"""SLLE: scikit-learn's barycenter weights, sane at every degenerate neighbourhood, differentiable."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from sklearn.manifold._locally_linear import barycenter_weights

from ragdiff_jax.errors import UserError
from ragdiff_jax.retrieval import fuse_embeddings, slle_weights


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def sklearn_weights(query, neighbours, reg=1e-3):
    b, k, d = neighbours.shape
    indices = np.arange(b * k).reshape(b, k)
    return barycenter_weights(
        query.astype(np.float64), neighbours.reshape(b * k, d).astype(np.float64), indices, reg
    )


def relative_error(ours, theirs):
    return np.max(np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1))


@pytest.mark.parametrize("k", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("d", [32, 128, 768])
def test_weights_are_scikit_learns(k, d):
    rng = np.random.default_rng(k * d)
    base = rng.normal(size=(6, 1, d))
    neighbours = unit(base + 0.7 * rng.normal(size=(6, k, d))).astype(np.float32)
    query = unit(base[:, 0] + 0.7 * rng.normal(size=(6, d))).astype(np.float32)
    for reg in (1e-3, 1e-1):
        ours = np.asarray(slle_weights(jnp.asarray(query), jnp.asarray(neighbours), reg))
        assert relative_error(ours, sklearn_weights(query, neighbours, reg)) <= 1e-5


def degenerate(name):
    rng = np.random.default_rng(0)
    query, one = unit(rng.normal(size=(3, 16))), unit(rng.normal(size=(3, 1, 16)))
    neighbours = {
        "duplicates": np.repeat(one, 4, axis=1),
        "collinear": query[:, None] + one * np.arange(1, 5)[:, None],
        "zero": np.zeros((3, 4, 16)),
        "equal to a neighbour": np.concatenate([query[:, None], unit(rng.normal(size=(3, 3, 16)))], axis=1),
        "all equal to the query": np.repeat(query[:, None], 4, axis=1),
        "more neighbours than dimensions": unit(rng.normal(size=(3, 40, 16))),
        "tiny differences": query[:, None] + 1e-30 * one * np.arange(1, 5)[:, None],
        "huge": 1e18 * rng.normal(size=(3, 4, 16)),
    }[name]
    return jnp.asarray(query, jnp.float32), jnp.asarray(neighbours, jnp.float32)


DEGENERATE = [
    "duplicates",
    "collinear",
    "zero",
    "equal to a neighbour",
    "all equal to the query",
    "more neighbours than dimensions",
    "tiny differences",
    "huge",
]


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_neighbours_give_finite_weights_that_sum_to_one(name):
    query, neighbours = degenerate(name)
    weights = slle_weights(query, neighbours)
    assert np.isfinite(weights).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in DEGENERATE if name not in ("tiny differences", "huge")])
def test_degenerate_neighbours_match_scikit_learn(name):
    query, neighbours = degenerate(name)
    ours = np.asarray(slle_weights(query, neighbours))
    # These systems have a condition of 1 / reg: float32 keeps 1e-7 * 1e3.
    assert relative_error(ours, sklearn_weights(np.asarray(query), np.asarray(neighbours))) <= 2e-4


@pytest.mark.parametrize("name", DEGENERATE)
def test_gradients_are_finite_where_the_neighbourhood_degenerates(name):
    def objective(query, neighbours):
        weights = slle_weights(query, neighbours)
        return jnp.sum(jnp.sin(fuse_embeddings(query, neighbours, weights)))

    for gradient in jax.jit(jax.grad(objective, argnums=(0, 1)))(*degenerate(name)):
        assert np.isfinite(gradient).all()


def test_gradients_are_right():
    rng = np.random.default_rng(1)
    query, neighbours = rng.normal(size=(2, 8)), rng.normal(size=(2, 3, 8))

    def objective(query, neighbours):
        return jnp.sum(jnp.square(slle_weights(jnp.asarray(query), jnp.asarray(neighbours), 1e-1)))

    arguments = (jnp.asarray(query, jnp.float32), jnp.asarray(neighbours, jnp.float32))
    check_grads(objective, arguments, order=1, modes=["rev"], rtol=2e-2, atol=2e-2, eps=1e-2)


vectors = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@settings(max_examples=25, deadline=None)
@given(rng=vectors, scale=st.sampled_from([1e-6, 0.25, 3.0, 1e6]))
def test_permutation_translation_and_scale(rng, scale):
    """The weights follow their neighbours, and only differences matter."""
    query, neighbours = rng.normal(size=(2, 12)), rng.normal(size=(2, 4, 12))

    def weights(query, neighbours):
        return np.asarray(slle_weights(jnp.asarray(query, jnp.float32), jnp.asarray(neighbours, jnp.float32)))

    order, shift = rng.permutation(4), rng.normal(size=12)
    expected = weights(query, neighbours)
    tolerance = {"rtol": 1e-3, "atol": 1e-3}
    np.testing.assert_allclose(weights(query, neighbours[:, order]), expected[:, order], **tolerance)
    np.testing.assert_allclose(weights(query + shift, neighbours + shift), expected, **tolerance)
    np.testing.assert_allclose(weights(query * scale, neighbours * scale), expected, **tolerance)
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-4)


def test_a_point_inside_its_neighbours_is_rebuilt():
    rng = np.random.default_rng(4)
    neighbours, mix = rng.normal(size=(1, 4, 32)), np.array([[0.4, 0.3, 0.2, 0.1]])
    query = np.einsum("bk,bkd->bd", mix, neighbours)
    weights = slle_weights(jnp.asarray(query, jnp.float32), jnp.asarray(neighbours, jnp.float32), 1e-6)
    np.testing.assert_allclose(weights, mix, atol=1e-3)
    rebuilt = fuse_embeddings(jnp.zeros((1, 32)), jnp.asarray(neighbours, jnp.float32), weights, alpha=1.0)
    np.testing.assert_allclose(rebuilt, query, atol=1e-2)


def test_fusion_is_equation_3():
    rng = np.random.default_rng(5)
    embedding, neighbours = unit(rng.normal(size=(2, 8))), unit(rng.normal(size=(2, 4, 8)))
    weights = rng.dirichlet(np.ones(4), size=2)
    arrays = [jnp.asarray(a, jnp.float32) for a in (embedding, neighbours, weights)]
    expected = 0.3 * np.einsum("bk,bkd->bd", weights, neighbours) + 0.7 * embedding
    np.testing.assert_allclose(fuse_embeddings(*arrays, alpha=0.3), expected, atol=1e-6)
    np.testing.assert_allclose(fuse_embeddings(*arrays, alpha=0.0), embedding, atol=1e-7)
    np.testing.assert_allclose(
        fuse_embeddings(*arrays, alpha=0.3, renormalise=True), unit(expected), atol=1e-6
    )


def test_a_ridge_that_is_not_positive_is_named():
    with pytest.raises(UserError, match="0.0"):
        slle_weights(jnp.zeros((1, 3)), jnp.zeros((1, 2, 3)), 0.0)
