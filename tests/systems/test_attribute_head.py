"""StructureNet's head says what it is sure of, as the ids' order has it, and only what was calibrated."""

import numpy as np
import pytest

from ragdiff_jax.data.attributes import ATTRIBUTES, STRUCTURAL
from ragdiff_jax.systems.attribute_head import HeadAttributes
from ragdiff_jax.systems.zero_shot import Calibration, calibrate

SIZES = [1 + len(ATTRIBUTES[name]) for name in STRUCTURAL]
SURE = {name: Calibration(scale=1.0, threshold=0.9) for name in STRUCTURAL}


def logits(**values):
    """One photo's: 9 for the values named (spaces are underscores), the unknown's id higher still."""
    row = np.zeros(sum(SIZES), np.float32)
    starts = np.cumsum([0, *SIZES[:-1]])
    row[starts] = 20.0  # id 0 was never a target: what it says counts for nothing
    for name, value in values.items():
        name = name.replace("_", " ")
        row[starts[STRUCTURAL.index(name)] + 1 + ATTRIBUTES[name].index(value)] = 9.0
    return row[None]


def photos(count):
    return np.zeros((count, 8, 8, 3), np.uint8)


def test_what_is_sure_is_said_and_what_is_given_is_not_said_again():
    predictor = HeadAttributes(lambda _: logits(Category="Polo", Sleeve_Length="Long"), SURE)
    assert predictor.predict(photos(1), [{}]) == [{"Category": "Polo", "Sleeve Length": "Long"}]
    assert predictor.predict(photos(1), [{"Category": "Polo"}]) == [{"Sleeve Length": "Long"}]
    # A skirt has no sleeves, whatever the head saw.
    assert predictor.predict(photos(1), [{"Category": "Skirt"}]) == [{}]


def test_nothing_is_said_that_was_not_calibrated():
    assert HeadAttributes(lambda _: logits(Category="Polo"), {}).predict(photos(1), [{}]) == [{}]
    only = {"Sleeve Length": Calibration(scale=1.0, threshold=0.9)}
    predictor = HeadAttributes(lambda _: logits(Category="Polo", Sleeve_Length="Long"), only)
    assert predictor.predict(photos(1), [{}]) == [{"Sleeve Length": "Long"}]
    unsure = {"Category": Calibration(scale=0.1, threshold=0.9)}
    assert HeadAttributes(lambda _: logits(Category="Polo"), unsure).predict(photos(1), [{}]) == [{}]


def test_calibration_finds_the_scale_of_logits():
    """Logits that are twice as steep as the chances they stand for are halved."""
    rng = np.random.default_rng(0)
    count, values = 4000, len(ATTRIBUTES["Sleeve Length"])
    true = rng.normal(size=(count, values)) * 2
    chances = np.exp(true) / np.exp(true).sum(axis=1, keepdims=True)
    drawn = (chances.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1).clip(max=values - 1)
    scores = {name: np.zeros((count, len(ATTRIBUTES[name])), np.float32) for name in STRUCTURAL}
    scores["Sleeve Length"] = np.float32(2 * true)
    ids = np.zeros((count, len(STRUCTURAL)), np.int32)
    ids[:, STRUCTURAL.index("Sleeve Length")] = drawn + 1
    found = calibrate(scores, ids, scales=HeadAttributes.scales)
    assert found["Sleeve Length"].scale == pytest.approx(0.5, rel=0.15)
    assert 0 < found["Sleeve Length"].threshold < 1
