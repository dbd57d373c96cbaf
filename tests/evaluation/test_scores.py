"""The numbers of `ragdiff analyze` on worlds small enough to count by hand."""

import numpy as np
import pytest

from ragdiff_jax.evaluation import retrieval
from ragdiff_jax.evaluation.charts import PALETTE, draw_histograms, draw_pairs
from ragdiff_jax.evaluation.retrieval import bounds, landmark_rows, mask_ious, retrieval_scores
from ragdiff_jax.evaluation.similarity import similarity, tsne
from ragdiff_jax.evaluation.twins import twin_groups
from ragdiff_jax.retrieval import LandmarkRule

NOBODY = np.array([-1, -1], np.int32)


def stripes(*heights, size=20):
    masks = np.zeros((len(heights), size, size), bool)
    for mask, height in zip(masks, heights, strict=True):
        mask[:height] = True
    return masks


def unit(rows):
    return np.float32(rows) / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def world():
    """Two photos (true heights 10 and 20), seven garments; the first photo is nearest to 0, then 1, the other to 6."""
    masks = stripes(10, 9, 1, 2, 3, 4, 19)
    memory = unit(np.eye(7) + 0.1)
    photos = unit(memory[[0, 6]] + [0.3 * memory[1], 0 * memory[1]])
    return photos, memory, masks, mask_ious(stripes(10, 20), masks)


def test_ious(world):
    assert world[3][0] == pytest.approx([1, 0.9, 0.1, 0.2, 0.3, 0.4, 10 / 19])
    assert world[3][1] == pytest.approx(np.array([10, 9, 1, 2, 3, 4, 19]) / 20)


def test_the_nearest_and_the_landmark_are_counted(world):
    photos, memory, masks, ious = world
    scores = retrieval_scores(photos, memory, masks, ious, NOBODY, LandmarkRule(k=2))
    assert scores["top1"] == scores["top5"] == 1
    assert scores["iou"] == pytest.approx((1 + 19 / 20) / 2)
    assert scores["landmark_iou"] == pytest.approx((1 + 19 / 20) / 2)
    # Without its own flat-lay the first photo finds garment 1.
    without = retrieval_scores(photos, memory, masks, ious, np.array([0, -1], np.int32), LandmarkRule(k=2))
    assert without["iou"] == pytest.approx((9 / 10 + 19 / 20) / 2)


def test_the_likeliest_landmark_may_lie_beyond_the_neighbours(world, monkeypatch):
    photos, memory, masks, ious = world
    # At this temperature all seven are as likely: the one that overlaps most with all of them has height 4.
    rule = LandmarkRule(k=2, candidates=50, temperature=1e4)
    rows, at = landmark_rows(photos, memory, masks, NOBODY, rule)
    assert rows.shape == (2, 7)
    assert at.shape == (2, 5) and rows[np.arange(2), at[:, 0]].tolist() == [5, 5]
    scores = retrieval_scores(photos, memory, masks, ious, NOBODY, rule)
    assert scores["landmark_iou"] == pytest.approx((4 / 10 + 4 / 20) / 2)
    assert (scores["landmark_top1"], scores["landmark_top5"]) == (0, 1), "what is offered beside it has other heights"
    monkeypatch.setattr(retrieval, "_PIXELS", 1)
    again, chosen = landmark_rows(photos, memory, masks, NOBODY, rule)
    assert np.array_equal(again, rows) and np.array_equal(chosen, at), "a photo at a time, where candidates are large"
    # At a low one the nearest is all that counts.
    rows, at = landmark_rows(photos, memory, masks, NOBODY, LandmarkRule(k=2, candidates=7, temperature=1e-3))
    assert at[:, 0].tolist() == [0, 0]


def test_random_choice_and_oracle_are_exact(world):
    ious = world[3]
    found = bounds(ious, NOBODY)
    assert found["random"]["top1"] == pytest.approx((2 / 7 + 1 / 7) / 2)
    assert found["random"]["iou"] == pytest.approx(ious.mean())
    # Of 7 garments 5 are drawn: both right ones stay out in 1 of 21 draws, the single one in 2 of 7.
    assert found["random"]["top5"] == pytest.approx(1 - (1 / 21 + 2 / 7) / 2)
    assert found["oracle"] == pytest.approx({"top1": 1, "top5": 1, "iou": (1 + 19 / 20) / 2})
    own = bounds(ious, np.array([0, -1], np.int32))
    assert own["oracle"]["iou"] == pytest.approx((0.9 + 19 / 20) / 2)
    assert own["random"]["iou"] == pytest.approx((ious[0, 1:].mean() + ious[1].mean()) / 2)


def test_similarity_tells_own_from_others():
    rng = np.random.default_rng(0)
    flats = unit(rng.normal(size=(40, 16)))
    alone = np.arange(40)
    found = similarity(flats, flats, flats, np.arange(40), alone)
    assert found["auc"] == found["rank1"] == 1 and found["own"]["mean"] == pytest.approx(1)
    assert found["others"]["count"] == found["memory"]["count"] == 40 * 39
    assert sum(found["others"]["histogram"]) == pytest.approx(1, abs=1e-3)
    lost = similarity(unit(rng.normal(size=(40, 16))), flats, flats, np.full(40, -1), alone)
    assert abs(lost["auc"] - 0.5) < 0.1 and lost["memory"]["count"] == 40 * 40


def test_a_twin_is_no_other():
    """Every garment is there twice, in one shape: a tower that knows shapes alone is right about each."""
    flats = np.repeat(unit(np.random.default_rng(0).normal(size=(20, 16))), 2, axis=0)
    found = similarity(flats, flats, flats, np.full(40, -1), np.repeat(np.arange(20), 2))
    assert found["auc"] == found["rank1"] == 1 and found["others"]["count"] == 40 * 38
    assert similarity(flats[:2], flats[:2], flats, np.full(2, -1), np.zeros(2))["auc"] is None


def test_twins_of_twins_are_one_group():
    ids, partners = ("d", "a", "b", "c", "e"), ("x", "b", "c", None, "x")  # a-b-c, and two of one that isn't there
    assert twin_groups(ids, partners) == ("d", "a", "a", "a", "d")


def test_tsne_keeps_pairs_together_and_repeats_itself():
    rng = np.random.default_rng(0)
    flats = unit(rng.normal(size=(12, 8)))
    photos = unit(flats + 0.01 * rng.normal(size=flats.shape))
    first, again = tsne(photos, flats, seed=3), tsne(photos, flats, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    apart = np.linalg.norm(first[0][:, None] - first[1][None], axis=-1)
    assert np.diagonal(apart).mean() < 0.5 * apart.mean()


def test_charts_show_every_curve_point_and_category():
    curves = {"own": [0, 1, 0], "others": [1, 0, 0], "memory": [0, 0, 1]}
    page = draw_histograms([("a", curves)])
    for name in curves:
        assert not np.array_equal(page, draw_histograms([("a", curves | {name: [0.5, 1, 0.2]})])), name
    corners = np.array([[0.0, 0], [1, 1]])
    page = draw_pairs([("a", corners, corners[::-1])], ["Hoodie", "Skirt"])
    assert not np.array_equal(page, draw_pairs([("a", corners / 2, corners[::-1])], ["Hoodie", "Skirt"]))
    assert not np.array_equal(page, draw_pairs([("a", corners, corners[::-1] / 2)], ["Hoodie", "Skirt"]))
    assert not np.array_equal(page, draw_pairs([("a", corners, corners[::-1])], ["Hoodie", "Hoodie"]))
    many = [f"category {number}" for number in range(len(PALETTE) + 3)]
    plane = np.random.default_rng(0).random((len(many), 2))
    assert draw_pairs([("a", plane, plane)], many).shape == page.shape, "more categories than colours"
