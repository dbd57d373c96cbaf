"""SSIM, colour differences and bootstrap intervals against independent computations and published numbers."""

import numpy as np
import pytest
from scipy.signal import convolve2d

from ragdiff_jax.evaluation.bootstrap import difference_interval, mean_interval, way_interval
from ragdiff_jax.evaluation.colour import ciede2000, lab
from ragdiff_jax.evaluation.ssim import ssim


def textbook_ssim(a, b):
    """SSIM of two channels in float64, by two-dimensional windows."""
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2

    def mean(x):
        return convolve2d(x, window, mode="valid")

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean()


@pytest.mark.parametrize("noise", [0.01, 0.3])
def test_ssim_is_the_textbooks(noise):
    rng = np.random.default_rng(0)
    smooth = rng.random((3, 7, 9, 3)).repeat(6, axis=1).repeat(5, axis=2)  # flat patches: variances near zero
    other = np.clip(smooth + noise * rng.standard_normal(smooth.shape), 0, 1)
    found = np.asarray(ssim(np.float32(smooth), np.float32(other)))
    channels = [np.stack([a, b]).transpose(3, 0, 1, 2) for a, b in zip(smooth, other, strict=True)]
    truth = [np.mean([textbook_ssim(a, b) for a, b in pair]) for pair in channels]
    assert found == pytest.approx(truth, abs=2e-5)


def test_ssim_of_the_same_and_of_the_opposite():
    picture = np.random.default_rng(1).random((1, 16, 16, 1)).astype(np.float32)
    assert float(ssim(picture, picture)[0]) == pytest.approx(1, abs=1e-6)
    assert float(ssim(picture, 1 - picture)[0]) < 0
    with pytest.raises(ValueError, match="smaller than the window"):
        ssim(picture[:, :10], picture[:, :10])


# Sharma, Wu and Dalal's test data, which go through every branch of the hue.
@pytest.mark.parametrize(
    "a, b, difference",
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
        ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_ciede2000_is_the_published(a, b, difference):
    a, b = np.array([a], float), np.array([b], float)
    assert ciede2000(a, b) == pytest.approx(difference, abs=1e-4)
    assert ciede2000(b, a) == pytest.approx(difference, abs=1e-4)


def test_lab_of_known_colours():
    colours = np.uint8([[255, 255, 255], [0, 0, 0], [255, 0, 0]])
    assert lab(colours) == pytest.approx(np.array([[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20]]), abs=0.02)


def test_mean_interval_is_the_normal_one_for_many_samples():
    values = np.random.default_rng(2).normal(3, 2, 400)
    found, error = mean_interval(values, seed=0), 1.96 * values.std() / np.sqrt(400)
    assert found.estimate == pytest.approx(values.mean())
    assert (found.high - found.low) / 2 == pytest.approx(error, rel=0.05)
    assert mean_interval(values, seed=0) == found != mean_interval(values, seed=1)


def test_samples_drawn_together_give_a_wider_interval():
    values = np.random.default_rng(3).normal(size=200)
    alone, names = mean_interval(values, seed=0), np.arange(200).repeat(4)
    together = mean_interval(values.repeat(4), seed=0, groups=names)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high))  # copies say nothing new


def test_groups_of_different_sizes_keep_their_weight():
    found = mean_interval(np.array([1.0, 1.0, 1.0, 0.0]), seed=0, groups=np.array(["a", "a", "a", "b"]))
    assert (found.estimate, found.low, found.high) == (0.75, 0.0, 1.0)


def test_pairs_cancel_what_they_share():
    rng = np.random.default_rng(4)
    common = rng.normal(0, 10, 100)
    found = difference_interval(common + 1, common + rng.normal(0, 0.1, 100), seed=0)
    assert 0.95 < found.low < found.estimate < found.high < 1.05


def test_the_way_from_floor_to_ceiling():
    floor, ceiling = np.zeros(50), np.full(50, 0.8)
    found = way_interval(np.linspace(0, 0.8, 50), floor, ceiling, seed=0)
    assert found.low < 0.5 < found.high and found.estimate == pytest.approx(0.5)
    assert way_interval(floor, floor, floor, seed=0).estimate == 0
