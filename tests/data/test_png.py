import io

import numpy as np
import pytest
from PIL import Image

from ragdiff_jax.data.images import decode_image, decode_indices, decode_mask, encode_png
from ragdiff_jax.data.png import fast_png
from ragdiff_jax.data.synth import synth_garment


@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (48, 31)])
def test_what_is_packed_fast_is_read_back(shape):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (*shape, 3), np.uint8)
    assert np.array_equal(decode_image(fast_png(picture)), picture)
    assert np.array_equal(decode_indices(fast_png(picture[..., 0])), picture[..., 0])
    mask = picture[..., 0] > 127
    assert np.array_equal(decode_mask(fast_png(mask)), mask)
    assert Image.open(io.BytesIO(fast_png(mask))).mode == "1"


def test_drawn_pictures_stay_small():
    flats = [synth_garment(row, size=128).flat for row in range(12)]
    assert sum(len(fast_png(flat)) for flat in flats) < 1.3 * sum(len(encode_png(flat)) for flat in flats)
