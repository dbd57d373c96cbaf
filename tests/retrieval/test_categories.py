"""Search within a category answers as a search over the category's rows alone."""

import numpy as np
import pytest

import ragdiff_jax.retrieval.categories as module
from ragdiff_jax.errors import UserError
from ragdiff_jax.retrieval.categories import CategorySearcher
from ragdiff_jax.systems.text_retrieval import retrieval_metrics


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 8)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), ["dresses" if n % 3 else "top" for n in range(30)]


def test_only_the_own_category_is_found_nearest_first(rows):
    vectors, categories = rows
    searcher = CategorySearcher(vectors, categories)
    queries, asked = vectors[[4, 3, 7]] + 0.01, ["dresses", "top", "top"]
    found, cosines = searcher.search(queries, asked, 4)
    for query, category, mine, scores in zip(queries, asked, found, cosines, strict=True):
        own = [row for row, name in enumerate(categories) if name == category]
        ranked = sorted(own, key=lambda row: -vectors[row] @ query)[:4]
        assert mine.tolist() == ranked
        np.testing.assert_allclose(scores, vectors[ranked] @ query / np.linalg.norm(query), atol=1e-5)
    assert found[0, 0] == 4 and found[1, 0] == 3


def test_a_row_that_is_left_out_is_never_found(rows):
    vectors, categories = rows
    searcher = CategorySearcher(vectors, categories)
    found, _ = searcher.search(vectors[[4, 4, 4]], ["dresses"] * 3, 3, np.array([4, -1, 3]))
    assert 4 not in found[0] and found[1, 0] == 4 and found[2, 0] == 4  # 3 is of the other category


def test_many_queries_are_searched_in_chunks_of_one_shape(rows, monkeypatch):
    vectors, categories = rows
    make, shapes = module.make_searcher, []

    def watched(*arguments):
        searcher = make(*arguments)
        search = searcher.search
        searcher.search = lambda queries, *rest: shapes.append(queries.shape) or search(queries, *rest)
        return searcher

    monkeypatch.setattr(module, "make_searcher", watched)
    rng = np.random.default_rng(1)
    queries = rng.normal(size=(2600, 8)).astype(np.float32)
    asked = ["top" if n % 13 == 0 else "dresses" for n in range(len(queries))]
    exclude = rng.integers(-1, 30, len(queries))
    found, cosines = CategorySearcher(vectors, categories, "exact").search(queries, asked, 3, exclude)
    assert shapes == [(1024, 8)] * 3 + [(200, 8)]
    scores = queries / np.linalg.norm(queries, axis=1, keepdims=True) @ vectors.T
    scores[np.array(asked)[:, None] != np.array(categories)[None]] = -np.inf
    scores[np.arange(30)[None] == exclude[:, None]] = -np.inf
    expected = np.argsort(-scores, axis=1)[:, :3]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(cosines, np.take_along_axis(scores, expected, axis=1), atol=1e-5)


def test_too_few_garments_are_named(rows):
    searcher = CategorySearcher(*rows)
    with pytest.raises(UserError, match="lower_body: the database has 0 garments"):
        searcher.search(rows[0][:1], ["lower_body"], 1)
    with pytest.raises(UserError, match="has 10 garments, 11 are needed to retrieve 10"):
        searcher.search(rows[0][:1], ["top"], 10, np.array([0]))


def test_precision_and_recall_count_what_is_relevant():
    ranked = np.array([[0, 1, 2], [3, 2, 1]], np.int32)
    relevant = np.array([[1, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], bool)
    found = retrieval_metrics(np.concatenate([ranked, ranked[:1]]), relevant, (1, 3, 5))
    assert found == pytest.approx({"precision@1": 0.5, "recall@1": 1 / 6, "precision@3": 0.5, "recall@3": 7 / 12})
    assert retrieval_metrics(ranked[:1], relevant[2:], (1,)) == {}
