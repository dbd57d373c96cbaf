"""A garment's silhouette in its flat-lay, as it stands out: of the garment, its soft edge cut where it should be."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ragdiff_jax.data.images import decode_image, decode_mask, encode_jpeg, square, square_mask
from ragdiff_jax.data.silhouettes import flat_mask
from ragdiff_jax.data.synth_dataset import synth_record


def test_flat_mask_finds_the_garment():
    truth = np.zeros((64, 64), bool)
    truth[10:50, 20:44] = True
    flat = np.where(truth[..., None], [180, 30, 60], 255).astype(np.uint8)
    flat[25:30, 30:35] = 255  # a white print is garment
    flat[2, 2] = 0  # dust isn't
    noisy = decode_image(encode_jpeg(flat, 80))
    for picture in (flat, noisy):
        found = flat_mask(picture)
        assert (found & truth).sum() / (found | truth).sum() > 0.9
    np.testing.assert_array_equal(flat_mask(flat), truth)
    assert not flat_mask(np.full((64, 64, 3), 255, np.uint8)).any()


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("side", [32, 64, 128])
@pytest.mark.parametrize("colour", [(20, 40, 90), (236, 232, 225), (200, 30, 30)])
def test_half_a_pixel_around_is_no_garment(side, colour):
    """A blunt T-shirt at sixteen times the size, with dark and light stripes, made small as pictures are."""
    large = side * 16
    garment = Image.new("1", (large, large))
    draw = ImageDraw.Draw(garment)
    for box in ((0.31, 0.22, 0.69, 0.83), (0.12, 0.22, 0.88, 0.41)):
        draw.rectangle([round(large * x) for x in box], fill=1)
    draw.ellipse([round(large * x) for x in (0.42, 0.15, 0.58, 0.27)], fill=0)
    shade = np.where(np.arange(large)[:, None, None] // (large // 12) % 2, 1.0, 0.93) * np.array(colour)
    picture = np.where(np.asarray(garment)[..., None], np.broadcast_to(shade, (large, large, 3)), 255.0)

    def small(x):
        return x.reshape(side, 16, side, 16, -1).mean((1, 3))

    truth = small(np.asarray(garment, np.float64))[..., 0] >= 0.5
    found = flat_mask(np.round(small(picture)).astype(np.uint8))
    assert overlap(found, truth) > 0.97
    assert abs(found.sum() / truth.sum() - 1) < 0.03


def test_what_is_thin_stays():
    flat = np.full((64, 64, 3), 255, np.uint8)
    flat[30:60, 16:48] = (60, 70, 160)
    flat[6:30, 20:22] = flat[6:30, 42:44] = (60, 70, 160)  # straps
    flat[30:60, 16] = (190, 190, 200)  # a light seam at the edge
    found = flat_mask(flat)
    assert found[6:30, 20:22].all() and found[6:30, 42:44].all() and found[30:60, 17:48].all()


@pytest.mark.parametrize("inside", [255, 250, 235])
def test_a_garment_that_only_its_outline_shows_keeps_it(inside):
    """White on white, and lighter than its ground."""
    flat = np.full((64, 64, 3), 255 if inside < 255 else 245, np.uint8)
    truth = np.zeros((64, 64), bool)
    truth[10:50, 20:44] = True
    flat[truth] = inside
    flat[10, 20:44] = flat[49, 20:44] = flat[10:50, 20] = flat[10:50, 43] = 190
    np.testing.assert_array_equal(flat_mask(flat), truth)


def test_drawn_garments_of_64_pixels_give_their_silhouettes_back():
    overlaps = []
    for row in range(0, 32, 2):
        record = synth_record(row, size=128)
        flat = square(decode_image(record.flat), 64, fill="white")
        overlaps.append(overlap(flat_mask(flat), square_mask(decode_mask(record.mask), 64)))
    assert np.mean(overlaps) > 0.975 and min(overlaps) > 0.9
