"""Alignment, MS-SSIM and the logo's numbers against independent computations; scores don't depend on the devices."""

import jax
import numpy as np
import pytest
from scipy.signal import convolve2d

from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation.alignment import align, bounding_box
from ragdiff_jax.evaluation.logo import edge_correlation, psnr
from ragdiff_jax.evaluation.ms_ssim import ms_ssim
from ragdiff_jax.evaluation.pair_scores import METRICS, PairScores, chosen_metrics
from ragdiff_jax.parallel import make_mesh


def garment(top, left, height, width, colour=(180, 40, 60), size=64):
    picture = np.full((size, size, 3), 255, np.uint8)
    picture[top : top + height, left : left + width] = colour
    picture[top + height // 4 : top + height // 2, left + width // 4 : left + width // 2] = (20, 60, 200)
    return picture


def test_alignment_moves_and_scales_into_the_true_box():
    real, fake = garment(8, 10, 40, 32), garment(20, 24, 20, 16)
    masks = [picture.min(axis=2) < 250 for picture in (real, fake)]
    moved, mask = align(fake, masks[1], masks[0])
    assert bounding_box(masks[0]) == (8, 10, 48, 42) == bounding_box(mask)
    assert np.abs(moved.astype(int) - real).mean() < 4 < np.abs(fake.astype(int) - real).mean()
    assert (moved[:8] == 255).all() and (moved[:, 42:] == 255).all()
    nothing = np.zeros_like(masks[0])
    assert align(fake, nothing, masks[0])[0] is fake and bounding_box(nothing) is None


def textbook_ms_ssim(a, b):
    """Of one channel in float64, by two-dimensional windows."""
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    found = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        ma, mb, aa, bb, ab = (convolve2d(x, window, mode="valid") for x in (a, b, a * a, b * b, a * b))
        contrast = (2 * (ab - ma * mb) + 0.03**2) / (aa - ma**2 + bb - mb**2 + 0.03**2)
        whole = contrast * (2 * ma * mb + 0.01**2) / (ma**2 + mb**2 + 0.01**2)
        found *= max(0, (whole if scale == 4 else contrast).mean()) ** weight
        height, width = (2 * (side // 2) for side in a.shape)
        a, b = (x[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)) for x in (a, b))
    return found


@pytest.mark.parametrize("noise", [0.02, 0.4])
def test_ms_ssim_is_the_textbooks(noise):
    rng = np.random.default_rng(0)
    a = rng.random((1, 12, 12, 2)).repeat(16, axis=1).repeat(15, axis=2)[:, :, :179]
    b = np.clip(a + noise * rng.standard_normal(a.shape), 0, 1)
    truth = np.mean([textbook_ms_ssim(a[0, :, :, c], b[0, :, :, c]) for c in range(2)])
    assert float(ms_ssim(np.float32(a), np.float32(b))[0]) == pytest.approx(truth, abs=2e-5)
    with pytest.raises(ValueError, match="need 176"):
        ms_ssim(np.zeros((1, 175, 180, 1)), np.zeros((1, 175, 180, 1)))


def test_logo_numbers():
    real = garment(8, 10, 40, 32)
    box, shifted = (10, 12, 46, 40), np.roll(real, 4, axis=1)
    assert psnr(real, real, box) == 100 and edge_correlation(real, real, box) == pytest.approx(1)
    darker = (real * 0.9).astype(np.uint8)
    assert psnr(real, darker, box) < 100 and edge_correlation(real, darker, box) > 0.95 > edge_correlation(
        real, shifted, box
    )
    assert edge_correlation(real, np.full_like(real, 9), box) == 0
    other = np.where(np.arange(64)[:, None, None] < 32, real, 0).astype(np.uint8)
    error = ((real[10:46, 12:40].astype(float) - other[10:46, 12:40]) ** 2).mean()
    assert psnr(real, other, box) == pytest.approx(20 * np.log10(255) - 10 * np.log10(error))
    with pytest.raises(ValueError, match="does not lie"):
        psnr(real, real, (0, 0, 65, 5))


def test_what_moved_is_seen_unaligned_only_and_what_changed_colour_in_both():
    real = np.stack([garment(8, 10, 40, 32)] * 2)
    fake = np.stack([garment(16, 18, 40, 32), garment(8, 10, 40, 32, colour=(40, 180, 60))])
    metrics = chosen_metrics("generation", 64, None, boxes=True)
    found = PairScores(metrics, batch=2)(real, fake, [(10, 12, 46, 40), None])
    assert found["ssim"][0] < 0.9 and found["ssim_aligned"][0] == pytest.approx(1, abs=1e-4)
    assert found["silhouette_iou"][0] < 0.7 and found["silhouette_iou"][1] == 1
    assert found["colour_bias"][0] == pytest.approx(0, abs=1e-3) and found["colour_bias"][1] > 20
    assert found["ciede2000"][0] > 1 and found["ciede2000_aligned"][0] == pytest.approx(0, abs=1e-9)
    assert found["logo_psnr"][0] == 100 and np.isnan(found["logo_psnr"][1])


def test_metrics_that_cannot_be_measured_are_refused():
    assert "ms_ssim" not in chosen_metrics("generation", 128, None, False)
    assert chosen_metrics("generation", 256, None, True) == METRICS["generation"]
    for asked, words in (
        ("lpips", "weights aren't here"),
        ("FID", "weights"),
        ("beauty", "not known"),
        ("ms_ssim", "176"),
    ):
        with pytest.raises(UserError, match=words):
            chosen_metrics("generation", 64, [asked], False)
    with pytest.raises(UserError, match="--boxes"):
        chosen_metrics("generation", 64, ["logo_psnr"], False)


def test_devices_and_batches_dont_matter():
    rng = np.random.default_rng(3)
    real = np.stack([garment(*rng.integers(4, 12, 2), 40, 32) for _ in range(11)])
    fake = np.stack([garment(*rng.integers(4, 12, 2), 36, 36) for _ in range(11)])
    metrics, boxes = chosen_metrics("generation", 64, None, False), [None] * 11
    one = PairScores(metrics, batch=11)(real, fake, boxes)
    for devices in (2, 8):
        mesh = make_mesh(devices=jax.devices()[:devices])
        other = PairScores(metrics, mesh, batch=4)
        parts = [other(real[at : at + other.batch], fake[at : at + other.batch], boxes[at : at + other.batch])
                 for at in range(0, 11, other.batch)]  # fmt: skip
        for name, values in one.items():
            assert np.concatenate([part[name] for part in parts]) == pytest.approx(values, rel=1e-5, abs=1e-6), name
