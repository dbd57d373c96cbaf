"""What the editor shows its model of a person's picture."""

import numpy as np
import pytest

from ragdiff_jax.pipelines.edit import seen_part


def mask(top, bottom, left, right, shape=(100, 80)):
    drawn = np.zeros(shape, bool)
    drawn[top:bottom, left:right] = True
    return drawn


@pytest.mark.parametrize(
    "box, size, window, rows, columns",
    [
        ((40, 60, 30, 50), (64, 64), 0.5, (30, 70), (20, 60)),  # in the middle of a square twice as large
        ((40, 60, 30, 35), (64, 64), 0.5, (30, 70), (12, 52)),  # the longer side decides
        ((0, 20, 60, 80), (64, 64), 0.5, (0, 40), (40, 80)),  # in a corner
        ((10, 90, 10, 70), (64, 64), 0.5, (0, 100), (0, 80)),  # too large for that: everything
        ((40, 60, 30, 40), (64, 48), 0.5, (30, 70), (20, 50)),  # of the model's proportions
        ((40, 60, 30, 50), (64, 64), 0.0, (0, 100), (0, 80)),
    ],
)
def test_the_part_around_the_mask_is_seen(box, size, window, rows, columns):
    seen = seen_part(mask(*box), size, window)
    assert [(part.start, part.stop) for part in seen] == [rows, columns]
