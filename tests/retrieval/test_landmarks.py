"""Landmark fusion chooses the neighbour mask that agrees with the weighted blend."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ragdiff_jax as rd
from ragdiff_jax.retrieval import LandmarkRule, fuse_landmarks, iou, likeliest_landmark, offered_landmarks


def box(top, bottom, left=4, right=12):
    mask = np.zeros((16, 16), bool)
    mask[top:bottom, left:right] = True
    return mask


def choose(masks, weights):
    landmark, choice = fuse_landmarks(jnp.asarray(np.stack(masks))[None], jnp.asarray([weights], jnp.float32))
    np.testing.assert_array_equal(landmark[0], masks[int(choice[0])])
    return int(choice[0])


def test_the_consensus_wins_not_the_nearest():
    masks = [box(2, 4), box(2, 10), box(2, 11), box(2, 10)]
    assert choose(masks, [0.4, 0.2, 0.2, 0.2]) == 1


def test_negative_weights_and_overshoot_are_clipped():
    masks = [box(2, 10), box(2, 14), box(2, 10), box(2, 6)]
    assert choose(masks, [2.0, -0.5, 0.0, -0.5]) == 0


def test_a_tie_goes_to_the_nearer_neighbour():
    assert choose([box(2, 10)] * 4, [0.1, 0.2, 0.3, 0.4]) == 0


def test_an_empty_mask_is_never_chosen_beside_another():
    empty = np.zeros((16, 16), bool)
    assert choose([empty, empty, box(2, 10), empty], [0.4, 0.3, 0.1, 0.2]) == 2
    assert choose([empty] * 4, [0.25] * 4) == 0


def test_types_of_masks_agree_and_are_kept():
    masks, weights = np.stack([box(2, 8), box(2, 10)])[None], jnp.asarray([[0.6, 0.4]])
    for array in (masks, masks.astype(np.uint8) * 255, masks.astype(np.float32)):
        landmark, choice = jax.jit(fuse_landmarks)(jnp.asarray(array), weights)
        assert landmark.dtype == array.dtype and int(choice[0]) == 0
        np.testing.assert_array_equal(landmark[0], array[0, 0])


def test_iou():
    a, b = jnp.asarray(box(0, 8)), jnp.asarray(box(4, 12))
    assert float(iou(a, b)) == np.float32(1 / 3)
    assert float(iou(a, a)) == 1.0
    assert float(iou(a, jnp.zeros_like(a))) == 0.0
    assert float(iou(jnp.zeros_like(a), jnp.zeros_like(a))) == 1.0


def test_the_likeliest_landmark_has_the_highest_expected_iou():
    rng = np.random.default_rng(0)
    masks = rng.random((3, 9, 16, 16)) < rng.uniform(0.1, 0.9, (3, 9, 1, 1))
    cosines = np.sort(rng.uniform(-1, 1, (3, 9)).astype(np.float32), axis=1)[:, ::-1]
    landmark, choice = jax.jit(likeliest_landmark)(jnp.asarray(masks), jnp.asarray(cosines), 0.3)
    for row in range(3):
        chances = np.exp(np.float64(cosines[row]) / 0.3)
        one = jnp.asarray(masks[row])
        shared = np.asarray(iou(one[:, None].repeat(9, 1), one[None].repeat(9, 0)))
        assert int(choice[row]) == np.argmax(shared @ (chances / chances.sum()))
        np.testing.assert_array_equal(landmark[row], masks[row, int(choice[row])])


def test_between_two_kinds_the_likeliest_is_what_overlaps_with_both():
    masks = np.stack([box(2, 4), box(2, 14), box(2, 9), np.zeros((16, 16), bool)])[None]
    cosines = jnp.asarray([[0.50, 0.49, 0.48, 0.47]])
    assert int(likeliest_landmark(jnp.asarray(masks), cosines, 0.05)[1][0]) == 2
    assert int(likeliest_landmark(jnp.asarray(masks), cosines, 1e-3)[1][0]) == 0
    large = jnp.asarray(masks.repeat(12, 2).repeat(12, 3))  # compared at 64 px, returned as it is
    chosen, choice = likeliest_landmark(large, cosines, 0.05)
    assert int(choice[0]) == 2 and chosen.shape == (1, 192, 192)
    empty_first = jnp.zeros((1, 2, 8, 8), bool).at[0, 1].set(True)
    assert int(likeliest_landmark(empty_first, jnp.asarray([[0.9, 0.1]]), 0.05)[1][0]) == 1


def test_what_is_offered_covers_the_kinds_that_the_garment_may_be():
    short, long = [box(2, 5), box(2, 6), box(3, 6)], [box(2, 14), box(2, 15)]
    masks = jnp.asarray(np.stack([*short, *long, np.zeros((16, 16), bool)]))[None]
    cosines = jnp.asarray([[0.50, 0.49, 0.48, 0.46, 0.45, 0.51]])
    ranks, chances = jax.jit(offered_landmarks, static_argnums=3)(masks, cosines, 0.05, 2)
    assert ranks[0, 0] == likeliest_landmark(masks, cosines, 0.05)[1][0] and ranks[0, 0] < 3
    assert ranks[0, 1] in (3, 4), "the next nearest are like the first"
    # What both offered know nothing of, the empty one, counts for the first.
    said = np.exp(np.asarray(cosines[0]) / 0.05)
    said /= said.sum()
    np.testing.assert_allclose(chances[0], [said[[0, 1, 2, 5]].sum(), said[3:5].sum()], rtol=1e-5)
    every, shares = offered_landmarks(masks, cosines, 0.05, 9)
    assert sorted(every[0].tolist()) == list(range(6)) and every[0, -1] == 5, "each once, the empty one last"
    assert float(shares.sum()) == pytest.approx(1)


def test_each_offer_is_the_one_that_adds_most():
    rng = np.random.default_rng(1)
    masks = rng.random((2, 12, 16, 16)) < rng.uniform(0.1, 0.9, (2, 12, 1, 1))
    cosines = np.sort(rng.uniform(-1, 1, (2, 12)).astype(np.float32), axis=1)[:, ::-1]
    ranks, _ = jax.jit(offered_landmarks, static_argnums=3)(jnp.asarray(masks), jnp.asarray(cosines), 0.3, 5)
    for row in range(2):
        chances = np.exp(np.float64(cosines[row]) / 0.3)
        one = jnp.asarray(masks[row])
        shared = np.asarray(iou(one[:, None].repeat(12, 1), one[None].repeat(12, 0)), np.float64)
        for place in range(5):
            before = shared[np.asarray(ranks[row, :place])].max(axis=0, initial=0)
            gains = np.maximum(shared, before) @ chances
            gains[np.asarray(ranks[row, :place])] = -1
            assert int(ranks[row, place]) == np.argmax(gains)


def test_a_rule_of_neighbours_alone_offers_these():
    rng = np.random.default_rng(0)
    near = rng.normal(size=(3, 8, 6)).astype(np.float32)
    near /= np.linalg.norm(near, axis=2, keepdims=True)
    photo = near[:, 2] + 0.1 * near[:, 0]
    masks = jnp.asarray(rng.random((3, 8, 16, 16)) < 0.5)
    for k in (3, 8):
        found = LandmarkRule(k=k)(jnp.asarray(photo), jnp.asarray(near[:, :k]), jnp.zeros((3, k)), masks[:, :k])
        _, choice = fuse_landmarks(masks[:, :k], found.weights)
        for first, ranks in zip(choice.tolist(), found.ranks.tolist(), strict=True):
            assert ranks == [first, *(rank for rank in range(k) if rank != first)][: min(k, 5)]
        assert found.ranks.shape[1] == LandmarkRule(k=k).offers(100) and np.isnan(found.chances).all()


def test_a_memory_of_fewer_garments_than_neighbours_offers_all_of_them():
    vectors, masks = jnp.eye(3)[None], jnp.asarray(np.stack([box(2, 5), box(2, 10), box(2, 11)]))[None]
    for rule in (LandmarkRule(k=8), LandmarkRule(k=8, candidates=20)):
        found = rule(vectors[:, 0], vectors, jnp.asarray([[0.3, 0.2, 0.1]]), masks)
        assert sorted(found.ranks[0].tolist()) == [0, 1, 2] and rule.offers(3) == 3


def test_a_rule_says_which_numbers_it_cannot_use():
    with pytest.raises(rd.UserError, match="landmark_candidates -1"):
        LandmarkRule.of({"landmark_candidates": -1})
    with pytest.raises(rd.UserError, match="landmark_temperature 0"):
        LandmarkRule(temperature=0.0)
    assert LandmarkRule.of({"neighbours": 8, "image_size": 64}) == LandmarkRule(k=8)
    assert [LandmarkRule(candidates=256).considered(rows) for rows in (3, 100, 5000)] == [4, 100, 256]
    assert [LandmarkRule(candidates=256).offers(rows) for rows in (4, 100)] == [4, 5]
    vectors = jnp.eye(4)[None]
    masks = jnp.asarray(np.stack([box(2, 4), box(2, 9), box(2, 10), box(2, 11)]))[None]
    found = LandmarkRule(candidates=1)(vectors[:, 0], vectors, jnp.asarray([[0.2, 0.1, 0.1, 0.1]]), masks)
    assert found.ranks.tolist() == [[0]] and LandmarkRule(candidates=1).offers(4) == 1, "the nearest, asked for"
