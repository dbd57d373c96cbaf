"""When a photo or a mask is called doubtful."""

import numpy as np
import pytest

from ragdiff_jax.data.images import encode_jpeg
from ragdiff_jax.errors import UserError
from ragdiff_jax.pipelines.doubts import Limits, agreement, fit_landmark, memory_limits, photo_doubts
from ragdiff_jax.retrieval import Memory, MemoryItem

NONE = Limits(None, None)


def box(top, bottom, left=4, right=28, size=32):
    mask = np.zeros((size, size), bool)
    mask[top:bottom, left:right] = True
    return mask


def photo():
    return np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)


def test_each_rule_speaks_for_itself():
    same, apart = np.stack([box(4, 20)] * 4), np.stack([box(0, 8), box(8, 16), box(16, 24), box(24, 32)])
    near, far = np.float32([0.9, 0.8, 0.7, 0.6]), np.float32([0.3, 0.2, 0.1, 0.0])
    limits = Limits(cosine=0.5, agreement=0.4)
    assert photo_doubts(photo(), near, same, limits) == ()
    assert photo_doubts(photo(), far, apart, NONE) == (), "a small memory says nothing"
    (doubt,) = photo_doubts(photo(), far, same, limits)
    assert "0.30" in doubt and "no garment" in doubt
    (doubt,) = photo_doubts(photo(), near, apart, limits)
    assert "several garments" in doubt and "--alternative or --landmark" in doubt
    (doubt,) = photo_doubts(np.full((32, 32, 3), 200, np.uint8), near, same, limits)
    assert "blank" in doubt


def test_agreement_is_the_mean_iou_of_pairs():
    assert agreement(np.stack([box(0, 8), box(0, 16), box(16, 32)])) == pytest.approx(0.5 / 3)
    assert agreement(box(0, 8)[None]) == 1


def memory_of(path, count, thumbnails=True):
    rng = np.random.default_rng(0)
    memory = Memory.create(path, "f" * 64, 32, 8)
    picture = encode_jpeg(photo()) if thumbnails else None
    memory.add(
        [
            MemoryItem(id=str(i), embedding=rng.normal(size=8), landmark=box(0, 8 + i % 20), thumbnail=picture)
            for i in range(count)
        ]
    )
    return memory


def test_limits_come_from_the_memory(tmp_path):
    seen = []

    def nearest(photos, rows):
        seen.append((photos.shape, rows.tolist()))
        return np.linspace(0, 1, len(rows))

    memory = memory_of(tmp_path / "m", 60)
    limits = memory_limits(memory, 4, 32, nearest)
    assert seen == [((60, 32, 32, 3), list(range(60)))]
    assert limits.cosine == pytest.approx(0.02)
    assert limits == memory_limits(memory, 4, 32, nearest), "the same every time"
    sets = [agreement(memory.landmarks[np.random.default_rng(i).choice(60, 4)]) for i in range(300)]
    assert abs(np.mean(np.array(sets) < limits.agreement) - 0.05) < 0.05
    assert memory_limits(memory_of(tmp_path / "small", 20), 4, 32, nearest) == NONE
    assert memory_limits(memory_of(tmp_path / "bare", 60, thumbnails=False), 4, 32, nearest).cosine is None


def test_a_damaged_thumbnail_is_named(tmp_path, monkeypatch):
    memory = memory_of(tmp_path / "m", 60)
    monkeypatch.setattr(memory, "thumbnail", lambda row: b"junk" if row == 7 else encode_jpeg(photo()))
    with pytest.raises(UserError, match="m: thumbnail of 7: "):
        memory_limits(memory, 4, 32, lambda photos, rows: np.zeros(len(rows)))


def test_a_mask_of_any_size_becomes_a_landmark():
    fitted, doubts = fit_landmark(box(10, 90, 5, 45, 100)[:, :50], 32)
    assert fitted.shape == (32, 32) and doubts == ()
    rows, columns = np.flatnonzero(fitted.any(1)), np.flatnonzero(fitted.any(0))
    assert (rows[0], rows[-1]) == (3, 28) and abs((columns[0] + columns[-1]) / 2 - 15.5) <= 0.5, "not stretched"


def test_doubtful_and_useless_masks():
    for mask, words in ((np.zeros((40, 40), bool), "no garment"), (np.ones((40, 60), bool), "full")):
        with pytest.raises(UserError, match=f"mine.png: .*{words}"):
            fit_landmark(mask, 32, "mine.png")
    (doubt,) = fit_landmark(~box(4, 28), 32)[1]
    assert "inverted" in doubt
    (doubt,) = fit_landmark(box(10, 12, 10, 12), 32)[1]
    assert "speck" in doubt
