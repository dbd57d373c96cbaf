"""Edges where they are, and nowhere else."""

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from ragdiff_jax.data.canny import canny, colour_histogram, structure_descriptor


def shirt(width, fill, size=128, stripes=0):
    picture = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle(((size - width) // 2, 30, (size + width) // 2, 110), fill=fill)
    draw.rectangle((10, 30, size - 10, 52), fill=fill)
    for x in range(0, stripes):
        draw.line((20 + 6 * x, 34, 20 + 6 * x, 50), fill="white")
    return np.asarray(picture)


def test_a_step_is_one_line_at_its_place_whatever_its_contrast():
    for dark in (0, 120):
        picture = np.full((64, 64), 255, np.uint8)
        picture[:, 30:] = dark
        edges = canny(picture)
        assert (edges.sum(axis=1) == 1).all()
        assert set(np.nonzero(edges)[1]) <= {29, 30}
    assert not canny(np.full((64, 64), 90, np.uint8)).any()
    # A slope and faint noise are no edges.
    noise = np.random.default_rng(0).normal(128, 3, (64, 64)) + np.arange(64)
    assert canny(noise.clip(0, 255).astype(np.uint8)).mean() < 0.01


def test_edges_of_a_disc_are_closed_and_thin():
    y, x = np.mgrid[:96, :96]
    edges = canny(np.where((y - 48) ** 2 + (x - 48) ** 2 < 30**2, 40, 250).astype(np.uint8))
    assert ndimage.label(edges, np.ones((3, 3)))[1] == 1
    assert ndimage.binary_fill_holes(ndimage.binary_dilation(edges)).sum() > 0.9 * np.pi * 30**2
    radius = np.hypot(*(np.argwhere(edges) - 48).T)
    assert np.abs(radius - 30).max() < 2 and edges.sum() < 1.6 * 2 * np.pi * 30


def test_weak_edges_stay_where_they_touch_a_strong_one():
    picture = np.full((64, 96), 200, np.uint8)
    picture[:, 64:] = np.linspace(60, 175, 64).astype(np.uint8)[:, None]  # fades along the edge
    picture[:, :20] = 178
    edges = canny(picture)
    assert edges[:60, 60:68].any(axis=1).all() and not edges[:, :40].any()


def test_shape_decides_and_colour_does_not():
    plain, other, wide = (structure_descriptor(p) for p in (shirt(50, "navy"), shirt(50, "red"), shirt(90, "navy")))
    assert plain @ other > 0.95 > plain @ wide
    np.testing.assert_allclose(np.linalg.norm(plain), 1, rtol=1e-5)
    assert not structure_descriptor(np.full((64, 64, 3), 255, np.uint8)).any()


def test_colour_histograms_say_how_much_is_shared():
    def histogram(fill, **more):
        picture = shirt(50, fill, **more)
        return colour_histogram(picture, picture.min(axis=-1) < 200)

    navy, red, faded = histogram("navy"), histogram("red"), histogram((10, 10, 140))
    assert np.minimum(navy, red).sum() < 0.1 < 0.5 < np.minimum(navy, faded).sum()
    np.testing.assert_allclose(navy.sum(), 1, rtol=1e-5)
