"""KID against the definition, and the fixed random features that small worlds are measured on."""

import jax
import numpy as np
import pytest

from ragdiff_jax.evaluation.batches import Batched
from ragdiff_jax.evaluation.kid import kid, kid_of_pairs, random_feature_kid
from ragdiff_jax.evaluation.random_features import DIMENSIONS, random_feature_extractor
from ragdiff_jax.parallel import make_mesh


def textbook_kid(x, y):
    """Equation 4 of the paper, pair by pair."""

    def kernel(a, b):
        return (a @ b / len(a) + 1) ** 3

    n, m = len(x), len(y)
    return (
        sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
        + sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
        - 2 * sum(kernel(a, b) for a in x for b in y) / (n * m)
    )


def test_kid_is_the_textbooks():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((21, 8)), rng.standard_normal((13, 8)) + 0.3
    assert kid(x, y) == pytest.approx(textbook_kid(x, y), rel=1e-9)
    x, y = np.float32(x), np.float32(y)
    assert kid(x, y) == pytest.approx(textbook_kid(np.float64(x), np.float64(y)), rel=1e-9)


def test_kid_is_unbiased_and_pairs_give_intervals():
    rng = np.random.default_rng(1)
    same = [kid(rng.standard_normal((30, 4)), rng.standard_normal((30, 4))) for _ in range(400)]
    assert abs(np.mean(same)) < 3 * np.std(same) / 20
    # The second of a pair resembles the first: the estimate of pairs stays unbiased, the other one gets too small.
    x = rng.standard_normal((400, 30, 4))
    y = 0.8 * x + 0.6 * rng.standard_normal(x.shape)
    values = np.array([kid_of_pairs(a, b).mean() for a, b in zip(x, y, strict=True)])
    assert abs(values.mean()) < 3 * values.std() / 20
    assert np.mean([kid(a, b) for a, b in zip(x, y, strict=True)]) < -3 * values.std() / 20


def test_pseudo_values_are_left_out_pairs():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((9, 5)), rng.standard_normal((9, 5)) + 1
    values, whole = kid_of_pairs(x, y), kid_of_pairs(x, y).mean()
    without = kid_of_pairs(x[1:], y[1:]).mean()
    assert values[0] == pytest.approx(9 * whole - 8 * without)


@pytest.mark.parametrize("rows, message", [((1, 5), "1 real"), ((5, 1), "1 generated")])
def test_too_few_or_broken_rows_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        kid(*(np.zeros((n, 3)) for n in rows))
    with pytest.raises(ValueError, match="finite"):
        kid(np.full((3, 3), np.nan), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="3 and 4 numbers"):
        kid(np.zeros((3, 3)), np.zeros((3, 4)))


def pictures(count, seed, size=48):
    """Smooth coloured patches on white."""
    rng = np.random.default_rng(seed)
    found = np.full((count, size, size, 3), 255, np.uint8)
    for picture in found:
        top, left = rng.integers(0, size // 3, 2)
        picture[top : top + size // 2, left : left + size // 2] = rng.integers(0, 256, 3)
    return found


def test_random_feature_kid_sees_blur_noise_and_colour():
    real, other = pictures(60, 0), pictures(60, 1)
    same = random_feature_kid(real, other)
    rng = np.random.default_rng(2)
    noisy = np.clip(other + rng.normal(0, 12, other.shape), 0, 255).astype(np.uint8)
    noisier = np.clip(other + rng.normal(0, 30, other.shape), 0, 255).astype(np.uint8)
    blurred = (
        sum(np.roll(other.astype(int), (i, j), (1, 2)) for i in range(-2, 3) for j in range(-2, 3)) // 25
    ).astype(np.uint8)
    grey = np.repeat(other.mean(axis=3, keepdims=True), 3, axis=3).astype(np.uint8)
    found = [random_feature_kid(real, worse) for worse in (noisy, noisier, blurred, grey)]
    assert all(value > same for value in found)
    assert found[1] > found[0]


def test_random_features_never_change():
    features = random_feature_extractor()(pictures(3, 5))
    assert features.shape == (3, DIMENSIONS) and features.dtype == np.float32
    assert features[0, :3] == pytest.approx(GOLDEN, rel=1e-4)


GOLDEN = [0.07378757, 0.00171181, 0.05291714]


@pytest.mark.skipif(len(jax.devices()) < 8, reason="needs 8 devices")
def test_the_mesh_and_the_batch_dont_matter():
    shown = pictures(21, 6)
    alone = random_feature_extractor(batch=5)(shown)
    for devices in (1, 2, 8):
        mesh = make_mesh(data=devices, devices=jax.devices()[:devices])
        assert random_feature_extractor(mesh, batch=12)(shown) == pytest.approx(alone, rel=1e-5, abs=1e-6)


def test_uneven_columns_are_refused():
    program = Batched(lambda params, a, b: a + b + params, 1.0, batch=4)
    assert program(np.arange(6.0), np.ones(6)).tolist() == [2, 3, 4, 5, 6, 7]
    with pytest.raises(ValueError, match="same number"):
        program(np.arange(6.0), np.ones(5))
