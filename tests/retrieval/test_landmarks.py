"""Landmark fusion chooses the neighbour mask that agrees with the weighted blend."""

import jax
import jax.numpy as jnp
import numpy as np

from ragdiff_jax.retrieval import fuse_landmarks, iou


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
