"""Zero-shot attributes: the nearest prompt is said where that is trustworthy, and what is given wins."""

import numpy as np
import pytest

from ragdiff_jax.data.attributes import ATTRIBUTES, STRUCTURAL, attribute_ids
from ragdiff_jax.data.tokenizer import train_tokenizer
from ragdiff_jax.data.wording import prompts
from ragdiff_jax.systems.zero_shot import Calibration, ZeroShotAttributes, calibrate, known_rows

SURE = {name: Calibration(scale=50.0, threshold=0.5) for name in STRUCTURAL}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = [text for value in ATTRIBUTES["Category"] for text in prompts("", "Category", value)]
    return train_tokenizer(texts, 600, tmp_path_factory.mktemp("tokenizer"))


def text_tower(ids):
    """A vector of its own for each sequence of tokens; what stands behind the end token doesn't count."""
    rows = []
    for row in np.asarray(ids):
        end = int(np.argmax(row == row.max()))
        rows.append(np.random.default_rng(row[: end + 1].astype(np.uint32)).normal(size=64))
    rows = np.stack(rows)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def predictor(tokenizer, texts, calibration=SURE):
    """Whose photo i looks like the mean of `texts[i]`."""
    images = np.stack([text_tower(tokenizer.encode(some)).sum(axis=0) for some in texts])
    images = images / np.linalg.norm(images, axis=1, keepdims=True)
    return ZeroShotAttributes(lambda photos: images[: len(photos)], text_tower, tokenizer, calibration)


def photos(count):
    return np.zeros((count, 8, 8, 3), np.uint8)


def test_the_nearest_prompt_is_said_and_what_is_given_wins(tokenizer):
    hoodie = [*prompts("", "Category", "Hoodie"), *prompts("Hoodie", "Sleeve Length", "Mid")]
    found = predictor(tokenizer, [hoodie]).predict(photos(1), [{}])[0]
    assert (found["Category"], found["Sleeve Length"]) == ("Hoodie", "Mid")
    given = predictor(tokenizer, [hoodie]).predict(photos(1), [{"Sleeve Length": "Long"}])[0]
    assert given["Category"] == "Hoodie" and "Sleeve Length" not in given
    # A given category is the one that the other prompts name: no sleeve of a polo is like this photo.
    polo = predictor(tokenizer, [hoodie]).scores(photos(1), ["Polo"])[0]["Sleeve Length"]
    own = predictor(tokenizer, [hoodie]).scores(photos(1), [None])[0]["Sleeve Length"]
    assert own.max() > polo.max() + 0.2


def test_below_the_threshold_and_without_one_nothing_is_said(tokenizer):
    hoodie = prompts("", "Category", "Hoodie")
    never = dict.fromkeys(STRUCTURAL, Calibration(scale=50.0, threshold=None))
    assert predictor(tokenizer, [hoodie], never).predict(photos(1), [{}]) == [{}]
    flat = dict.fromkeys(STRUCTURAL, Calibration(scale=0.01, threshold=0.9))
    assert predictor(tokenizer, [hoodie], flat).predict(photos(1), [{}]) == [{}]


def test_trousers_get_no_collar(tokenizer):
    texts = [*prompts("", "Category", "Trousers"), *prompts("Trousers", "Collar", "Hooded")]
    found = predictor(tokenizer, [texts]).predict(photos(1), [{}])[0]
    assert found["Category"] == "Trousers" and "Collar" not in found


def noisy(rng, count, right):
    """(cosines, ids) of `Fit` alone: of a share `right` the true value is nearest, by more the surer it is."""
    truth = rng.integers(0, 3, count)
    shown = np.where(rng.random(count) < right, truth, rng.integers(0, 3, count))
    cosines = {name: np.zeros((count, len(ATTRIBUTES[name])), np.float32) for name in STRUCTURAL}
    cosines["Fit"][np.arange(count), shown] = np.where(shown == truth, 0.2, 0.1) * rng.random(count)
    ids = np.zeros((count, len(STRUCTURAL)), np.int32)
    ids[:, STRUCTURAL.index("Fit")] = truth + 1
    return cosines, ids


def test_the_threshold_keeps_its_promise_on_other_photos():
    rng = np.random.default_rng(0)
    own = calibrate(*noisy(rng, 2000, 0.5))["Fit"]
    cosines, ids = noisy(rng, 2000, 0.5)
    scores = np.exp(own.scale * cosines["Fit"])
    likely = scores / scores.sum(axis=1, keepdims=True)
    said = likely.max(axis=1) >= own.threshold
    right = likely.argmax(axis=1) == ids[:, STRUCTURAL.index("Fit")] - 1
    assert 0.1 < said.mean() < 0.95 and right[said].mean() > 0.75 > right.mean()


def test_what_the_photos_do_not_show_is_never_said():
    rng = np.random.default_rng(0)
    cosines, ids = noisy(rng, 1000, 0.9)
    assert calibrate(cosines, ids)["Fit"].threshold is not None
    assert calibrate(cosines, rng.permutation(ids))["Fit"].threshold is None, "noise"
    ids[ids > 0] = 2
    assert calibrate(cosines, ids)["Fit"].threshold is None, "one value proves nothing"
    few = calibrate({name: rows[:10] for name, rows in cosines.items()}, ids[:10], {"Fit": Calibration(scale=7.0)})
    assert few["Fit"].scale == 7.0, "too few photos: what was known before stays"


def test_what_a_bottom_has_not_does_not_count():
    rng = np.random.default_rng(0)
    cosines, ids = noisy(rng, 400, 0.9)
    for name in ("Top Open", "Category"):
        truth = rng.integers(0, 2, len(ids))
        ids[:, STRUCTURAL.index(name)] = truth + 1
    right = rng.random(len(ids)) < 0.9
    cosines["Top Open"][np.arange(400), (ids[:, STRUCTURAL.index("Top Open")] - 1) ^ ~right] = rng.random(400)
    skirts = {name: np.concatenate([rows, rows]) for name, rows in cosines.items()}
    skirts["Top Open"][400:] = (0, 5)  # as sure as can be, and always right
    ids = np.concatenate([ids, ids])
    ids[400:, 0], ids[400:, STRUCTURAL.index("Top Open")] = ATTRIBUTES["Category"].index("Skirt") + 1, 2
    found, tops = calibrate(skirts, ids), calibrate(cosines, ids[:400])
    assert found["Top Open"] == tops["Top Open"] and tops["Top Open"].threshold is not None
    assert known_rows(ids, "Top Open").sum() == 400 and known_rows(ids, "Fit").all()
    ids[:, 0] = 0
    assert known_rows(ids, "Top Open").all(), "an unknown category may have it"


def test_ids_are_those_of_the_predicted_names(tokenizer):
    found = predictor(tokenizer, [prompts("", "Category", "Dress")]).predict(photos(1), [{}])[0]
    assert attribute_ids(found)[0] == ATTRIBUTES["Category"].index("Dress") + 1
