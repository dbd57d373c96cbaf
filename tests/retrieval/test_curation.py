"""What a curated memory keeps."""

import numpy as np
import pytest
from sklearn.cluster import DBSCAN

from ragdiff_jax.errors import UserError
from ragdiff_jax.retrieval import curation
from ragdiff_jax.retrieval.curation import balanced, curate, dbscan, eps_for, represent


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def crowd(seed=0):
    """Three dense regions of 150, 60 and 40 rows, and 12 rows on their own."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.normal(size=(3, 24)))
    parts = [centres[i] + 0.05 * rng.normal(size=(n, 24)) for i, n in enumerate((150, 60, 40))]
    return unit(np.concatenate([*parts, rng.normal(size=(12, 24))])).astype(np.float32)


def test_categories_get_equal_places_and_what_small_ones_leave_is_shared():
    names = ["a"] * 500 + ["b"] * 30 + ["c"] * 300 + ["d"] * 5
    rows = balanced(names, 200, seed=1)
    counts = {name: int(sum(names[row] == name for row in rows)) for name in "abcd"}
    assert counts["d"] == 5 and counts["b"] == 30 and abs(counts["a"] - counts["c"]) <= 1
    assert len(rows) == 200 and (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, balanced(names, 200, seed=1))
    assert set(rows) != set(balanced(names, 200, seed=2))
    assert len(balanced(names, 10**6, seed=0)) == len(names)


@pytest.mark.parametrize("eps", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("min_samples", [2, 5, 30])
def test_dbscan_is_scikit_learns(monkeypatch, eps, min_samples):
    monkeypatch.setattr(curation, "_ROWS", 37)
    vectors = crowd()
    labels, core = dbscan(vectors, eps, min_samples)
    theirs = DBSCAN(eps=eps, min_samples=min_samples, metric="cosine").fit(vectors)
    np.testing.assert_array_equal(labels < 0, theirs.labels_ < 0)
    np.testing.assert_array_equal(np.flatnonzero(core), theirs.core_sample_indices_)
    pairs = {(int(a), int(b)) for a, b in zip(labels[core], theirs.labels_[core], strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_eps_leaves_the_asked_share_out():
    vectors = crowd()
    eps = eps_for(vectors, 12 / len(vectors), 5)
    noise = dbscan(vectors, eps, 5)[0] < 0
    assert noise[-12:].sum() >= 10 and noise.sum() <= 12


def test_those_kept_have_one_near_everybody():
    vectors = crowd()
    kept = represent(vectors, 12)
    assert len(set(kept)) == 12 and (np.diff(kept) > 0).all()

    def reach(rows):
        """The greedy choice's own measure."""
        return (np.maximum(vectors @ vectors[rows].T, 0) ** 4).max(axis=1).mean()

    rng = np.random.default_rng(0)
    assert reach(kept) > max(reach(rng.choice(len(vectors), 12, replace=False)) for _ in range(50))
    # By hand: at each step the row of largest gain.
    likeness, best, chosen = np.maximum(vectors @ vectors.T, 0) ** 4, np.zeros(len(vectors)), []
    for _ in range(12):
        chosen.append(int(np.maximum(likeness - best[:, None], 0).sum(axis=0).argmax()))
        best = np.maximum(best, likeness[:, chosen[-1]])
    np.testing.assert_array_equal(kept, sorted(chosen))
    assert len(represent(vectors, len(vectors))) == len(vectors)


def test_the_report_adds_up():
    vectors = crowd()
    names = [f"g{row}" for row in range(len(vectors))]
    categories = ["Shirt"] * 150 + ["Dress"] * 112
    found = curate(vectors, categories, names, 100, outliers=0.05)
    report = found.report
    assert report["kept"] == len(found.kept) == 100
    assert report["encoded"] == report["kept"] + report["represented"] + len(report["outliers"])
    assert sum(report["categories"]["kept"].values()) == 100
    assert report["nearest_cosine"]["kept"] < report["nearest_cosine"]["before"]
    assert not set(report["outliers"]) & {names[row] for row in found.kept}
    with pytest.raises(UserError, match="--select 262"):
        curate(vectors, categories, names, 262, outliers=0.05)
