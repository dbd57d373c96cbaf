"""FID against SciPy in float64, clean-fid's resizing against Pillow, and F's crops."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.linalg import sqrtm

from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation.edits import Edit, masked_crop, patch, read_edits
from ragdiff_jax.evaluation.fid import clean_resize, fid, fid_without_groups, jackknife_error


@pytest.mark.parametrize("n, m, d", [(60, 50, 8), (40, 60, 24)])
def test_fid_is_scipys(n, m, d):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n, d)), rng.standard_normal((m, d)) @ rng.standard_normal((d, d)) + 0.3
    covariances = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = sqrtm(covariances[0] @ covariances[1]).real
    truth = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(sum(covariances) - 2 * root)
    assert fid(x, y) == pytest.approx(truth, rel=1e-6)
    assert fid(np.float32(x), np.float32(y)) == pytest.approx(truth, rel=1e-5)
    assert fid(x, x) == pytest.approx(0, abs=1e-9)


def test_fid_of_fewer_pictures_than_numbers():
    """Two points each: on one line the root is known by hand."""
    x, y = np.array([[0.0, 0, 0], [2, 0, 0]]), np.array([[0.0, 0, 0], [4, 0, 0]])
    assert fid(x, y) == pytest.approx(1 + 2 + 8 - 2 * 4)  # variances 2 and 8, root of the product 4
    with pytest.raises(ValueError, match="1 generated"):
        fid(x, y[:1])
    with pytest.raises(ValueError, match="3 and 2"):
        fid(x, y[:, :2])
    with pytest.raises(ValueError, match="finite"):
        fid(x, y * np.nan)


def test_the_jackknife_covers_the_spread_of_fid():
    rng = np.random.default_rng(1)
    draws = [(rng.standard_normal((200, 3)), rng.standard_normal((200, 3)) * 1.3 + 0.5) for _ in range(60)]
    spread = np.std([fid(*draw) for draw in draws])
    errors = [jackknife_error(fid_without_groups(*draw)) for draw in draws]
    assert 0.7 < np.mean(errors) / spread < 1.4


@pytest.mark.parametrize("n, d", [(97, 6), (24, 30)])
def test_groups_left_out_by_sums_are_groups_left_out_of_the_rows(n, d):
    rng = np.random.default_rng(5)
    x, y = 100 + rng.standard_normal((n, d)), 101 + rng.standard_normal((n, d)) @ rng.standard_normal((d, d))
    truth = [fid(*(np.delete(rows, np.s_[group::7], axis=0) for rows in (x, y))) for group in range(7)]
    assert fid_without_groups(x, y, 7) == pytest.approx(truth, rel=1e-9)
    x[:, 0] = y[:, 0] = 3  # never varies: no Cholesky factor
    assert np.isfinite(fid_without_groups(x, y, 7)).all()


def test_structure_twins_are_left_out_together():
    """Each pair nearly twice: errors of twins that stand in for each other are too small."""
    rng = np.random.default_rng(3)
    spread, together, apart = [], [], []
    names = [str(row // 2) for row in range(120)]
    for _ in range(60):
        x, y = (np.repeat(rng.standard_normal((60, 2)), 2, axis=0) for _ in range(2))
        spread.append(fid(x, y))
        together.append(jackknife_error(fid_without_groups(x, y, twins=names)))
        apart.append(jackknife_error(fid_without_groups(x, y)))
    assert np.mean(apart) < 0.85 * np.mean(together)
    # The first ten groups are those of the first ten names.
    place = np.unique(names, return_inverse=True)[1] % 20
    assert fid_without_groups(x, y, twins=names)[3] == pytest.approx(fid(x[place != 3], y[place != 3]), rel=1e-9)


@pytest.mark.parametrize("side", [48, 400])
def test_resizing_is_clean_fids(side):
    picture = np.random.default_rng(2).integers(0, 256, (side, side, 3)).astype(np.uint8)
    truth = [
        np.asarray(Image.fromarray(picture[..., c].astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC))
        for c in range(3)
    ]
    found = np.asarray(clean_resize(jnp.asarray(picture[None]), 299))[0]
    assert found == pytest.approx(np.stack(truth, axis=-1).clip(0, 255), abs=1e-2)


def test_f_cuts_to_what_was_drawn():
    picture = np.random.default_rng(3).integers(0, 200, (120, 90, 3)).astype(np.uint8)
    mask = np.zeros((120, 90), bool)
    mask[10:110, 5:80] = True
    mask[10:20, 5:20] = False
    crop = masked_crop(picture, mask)
    assert crop.shape == (100, 75, 3) and (crop[:10, :15] == 255).all() and (crop[50] == picture[60, 5:80]).all()
    assert (patch(crop, lower=False) == crop[18:82, 5:69]).all()
    assert (patch(crop, lower=True) == crop[15:79, 5:69]).all()
    assert patch(crop[:30, :20], lower=True).shape == (30, 20, 3)


def test_what_is_wrong_with_edits_is_listed(tmp_path):
    for name, size, colour in (("a", (8, 8), 9), ("mask", (8, 8), 255), ("small", (4, 4), 255), ("black", (8, 8), 0)):
        Image.new("L", size, colour).save(tmp_path / f"{name}.png")
    lines = [
        '{"image": "a.png", "caption": "a shirt", "mask": "mask.png", "category": "dresses", "retrieved": ["a.png"]}',
        '{"image": "b", "mask": "small.png"}',
        '{"image": "c", "mask": "black.png"}',
        '{"image": "d", "retrieved": ["none.png"]}',
        '{"image": "other"}',
        '{"image": "a", "words": "a shirt"}',
        '{"image": "a", "caption": "a skirt"}',
    ]
    (tmp_path / "edits.jsonl").write_text("\n".join(lines))
    wrong = []
    read_edits(tmp_path / "edits.jsonl", dict.fromkeys("abcd", tmp_path / "a.png"), wrong)
    expected = "4 x 4 and 8 x 8", "an empty mask", "none.png", ":5: other", ":6: not", ":7: a: stands twice"
    for line, words in zip(wrong, expected, strict=True):
        assert words in line
    edit = Edit("a shirt", tmp_path / "mask.png", (), False)
    assert [part.shape for part in edit.read(tmp_path / "a.png", 16)] == [(16, 16, 3)] * 2
    Image.fromarray(np.pad(np.ones((4, 4), np.uint8), 2)).save(tmp_path / "ones.png")  # 0 and 1, as contracts allow
    crop, _ = Edit("a shirt", tmp_path / "ones.png", (), False).read(tmp_path / "a.png", 4)
    assert (crop == 9).all()
    with pytest.raises(UserError, match="cannot be read"):
        read_edits(tmp_path / "none.jsonl", {}, wrong)
