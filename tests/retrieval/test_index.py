"""Three searchers, one signature, one answer; bad vectors are refused on the way in."""

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ragdiff_jax.errors import UserError
from ragdiff_jax.retrieval import exact_search, index, make_searcher


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


RNG = np.random.default_rng(0)
ROWS = unit(RNG.normal(size=(500, 32))).astype(np.float32)
QUERIES = unit(ROWS[:7] + 0.1 * RNG.normal(size=(7, 32))).astype(np.float32)
MESH = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
KINDS = ["exact", "approx", "scann"]


def truth(k, exclude=None):
    scores = QUERIES @ ROWS.T
    if exclude is not None:
        scores[np.arange(len(exclude))[exclude >= 0], exclude[exclude >= 0]] = -np.inf
    ids = np.argsort(-scores, axis=1)[:, :k]
    return ids, np.take_along_axis(scores, ids, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 4, 20])
def test_nearest_rows_and_cosines(kind, k):
    # Scaled vectors: the cosine is of unit vectors, whatever comes in.
    ids, cosines = make_searcher(kind, 3 * ROWS).search(5 * QUERIES, k)
    expected = truth(k)
    np.testing.assert_array_equal(ids, expected[0])
    np.testing.assert_allclose(cosines, expected[1], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_excluded_row_is_left_out_and_k_stays(kind):
    exclude = np.array([0, 1, -1, 3, -1, 300, 6])
    searcher = make_searcher(kind, ROWS)
    ids, cosines = searcher.search(QUERIES, 4, exclude)
    np.testing.assert_array_equal(ids, truth(4, exclude)[0])
    assert np.isfinite(cosines).all()
    np.testing.assert_array_equal(searcher.search(QUERIES, 4, np.full(7, -1))[0], truth(4)[0])


def test_exact_search_inside_jit_and_vmapped_gradient():
    exclude = jnp.asarray([0, -1, 2, -1, -1, -1, -1])
    ids, _ = jax.jit(lambda e, q, x: exact_search(e, q, 3, x))(ROWS, QUERIES, exclude)
    np.testing.assert_array_equal(ids, truth(3, np.asarray(exclude))[0])


def test_ties_go_to_the_lower_row():
    rows = np.repeat(ROWS[:1], 16, axis=0)
    sharded = jax.device_put(rows, jax.NamedSharding(MESH, jax.P("data")))
    for array in (rows, sharded):
        np.testing.assert_array_equal(make_searcher("exact", array).search(rows[:1], 3)[0], [[0, 1, 2]])


@pytest.mark.parametrize("k", [1, 4, 15])
def test_a_sharded_database_gives_the_same_answers(k):
    """Also with more neighbours than a device has rows."""
    rows = jax.device_put(ROWS[:16], jax.NamedSharding(MESH, jax.P("data")))
    exclude = np.array([0, 1, -1, 3, -1, 15, 6])
    expected = make_searcher("exact", ROWS[:16]).search(QUERIES, k, exclude)
    ids, cosines = make_searcher("exact", rows).search(QUERIES, k, exclude)
    np.testing.assert_array_equal(ids, expected[0])
    np.testing.assert_allclose(cosines, expected[1], atol=1e-6)


def test_a_sharded_database_is_searched_where_it_lies():
    """Only k candidates a shard travel, never the rows or all the scores."""
    rows = jax.device_put(
        np.tile(ROWS, (8, 1)) + 0.01 * RNG.normal(size=(4000, 32)), jax.NamedSharding(MESH, jax.P("data"))
    )
    searcher = make_searcher("auto", rows)
    assert searcher.kind == "exact"
    ids, cosines = searcher.search(QUERIES, 4)
    scores = QUERIES @ unit(np.asarray(rows)).T
    np.testing.assert_array_equal(ids, np.argsort(-scores, axis=1)[:, :4])
    queries = jax.device_put(jnp.asarray(QUERIES), jax.NamedSharding(MESH, jax.P()))
    text = searcher._find.lower(searcher._embeddings, queries, k=4).compile().as_text()
    gathered = re.findall(r"= \w+\[([\d,]+)\]\S* all-gather", text)
    assert gathered and all(np.prod([int(n) for n in shape.split(",")]) <= 7 * 8 * 4 for shape in gathered)


def test_tree_search_above_the_brute_force_size(monkeypatch):
    """The tree is used above 20,000 rows; the limit is lowered here, to keep the build short."""
    monkeypatch.setattr(index, "BRUTE_FORCE_ROWS", 1500)
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(30, 32))
    rows = unit(centres[rng.integers(0, 30, 3000)] + 0.3 * rng.normal(size=(3000, 32))).astype(np.float32)
    queries = unit(rows[:50] + 0.05 * rng.normal(size=(50, 32))).astype(np.float32)
    searcher = make_searcher("auto", rows)
    assert searcher.kind == "scann"
    exclude = np.arange(50)
    ids, cosines = searcher.search(queries, 4, exclude)
    expected, _ = make_searcher("exact", rows).search(queries, 4, exclude)
    recall = np.mean(
        [len(set(a) & set(b)) / 4 for a, b in zip(np.asarray(ids), np.asarray(expected), strict=True)]
    )
    assert recall > 0.9
    assert not (np.asarray(ids) == exclude[:, None]).any()
    np.testing.assert_allclose(cosines, np.einsum("bd,bkd->bk", queries, rows[np.asarray(ids)]), atol=1e-5)


def test_more_neighbours_than_the_tree_read_are_still_found(monkeypatch):
    monkeypatch.setattr(index, "BRUTE_FORCE_ROWS", 100)
    searcher = make_searcher("scann", ROWS, scann_leaves_fraction=0.01)
    ids, cosines = searcher.search(QUERIES, 400)
    np.testing.assert_array_equal(np.sort(ids, axis=1), np.sort(truth(400)[0], axis=1))


def test_auto_is_exact_for_small_and_without_scann(monkeypatch):
    assert make_searcher("auto", ROWS).kind == "exact"
    monkeypatch.setattr(index, "BRUTE_FORCE_ROWS", 100)
    monkeypatch.setattr(index.importlib.util, "find_spec", lambda name: None)
    assert make_searcher("auto", ROWS).kind == "exact"


def test_scann_without_its_package_names_the_fix(monkeypatch):
    monkeypatch.setitem(sys.modules, "scann.scann_ops.py", None)
    with pytest.raises(UserError, match="pip install scann"):
        make_searcher("scann", ROWS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_bad_rows_are_refused_by_number(kind, value):
    rows = ROWS.copy()
    rows[3] = value
    with pytest.raises(UserError, match="row 3"):
        make_searcher(kind, rows)
    with pytest.raises(UserError, match="row 3"):
        make_searcher("exact", jnp.asarray(rows))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("queries", "k", "exclude", "message"),
    [
        (np.where(np.arange(32) == 5, np.nan, QUERIES), 4, None, "query 0"),
        (np.zeros((2, 32), np.float32), 4, None, "query 0"),
        (QUERIES[:, :31], 4, None, "31"),
        (QUERIES[0], 4, None, r"\[queries, 32\]"),
        (QUERIES, 0, None, "k 0"),
        (QUERIES, 501, None, "501"),
        (QUERIES, 500, np.zeros(7, int), "499"),
        (QUERIES, 4, np.zeros(3, int), "exclude"),
        (QUERIES, 4, np.full(7, 500), "500"),
        (QUERIES, 4, np.zeros(7), "exclude"),
    ],
)
def test_bad_queries_are_named(kind, queries, k, exclude, message):
    with pytest.raises(UserError, match=message):
        make_searcher(kind, ROWS).search(queries, k, exclude)


def test_unknown_kind_and_empty_database_are_named():
    with pytest.raises(UserError, match="faiss"):
        make_searcher("faiss", ROWS)
    with pytest.raises(UserError, match="at least one row"):
        make_searcher("exact", ROWS[:0])
