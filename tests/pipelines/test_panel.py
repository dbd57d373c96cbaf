"""The panel holds every cell, whatever the pictures' shapes."""

import numpy as np
import pytest

from ragdiff_jax.pipelines.panel import Cell, draw_panel, neighbour_cell


def test_every_cell_is_drawn():
    red = np.zeros((40, 80, 3), np.uint8) + np.uint8([255, 0, 0])
    mask = np.zeros((16, 16), bool)
    mask[4:12, 4:12] = True
    chosen = neighbour_cell(mask, rank=1, id="x" * 200, cosine=0.5, weight=-0.25, chosen=True)
    page = draw_panel([[Cell(picture=red, title="photo"), chosen], [Cell(picture=red, title="photo")]], cell=64)
    height, width, _ = page.shape
    assert width == 12 + 2 * (64 + 12)
    is_red = (page[..., 0] > 200) & (page[..., 1] < 60)
    assert is_red[: height // 2].any() and is_red[height // 2 :].any()
    right = page[:, 12 + 64 + 12 :]
    assert (right < 60).all(-1).sum() > 500  # the silhouette


def test_a_panel_needs_a_cell():
    with pytest.raises(ValueError, match="at least one cell"):
        draw_panel([[]])
