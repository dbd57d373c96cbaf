"""The claims: a list that can be run, verdicts that are right on made-up numbers, nothing measured twice."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation.claims import measures, runner
from ragdiff_jax.evaluation.claims.budget import BUDGETS
from ragdiff_jax.evaluation.claims.catalogue import CLAIMS
from ragdiff_jax.evaluation.claims.claim import Claim, chosen
from ragdiff_jax.evaluation.claims.generating import METRICS, control_picks, of_photos
from ragdiff_jax.evaluation.claims.light import balanced, lit
from ragdiff_jax.evaluation.claims.store import Measured, Store
from ragdiff_jax.evaluation.claims.variants import VARIANTS, config_of
from ragdiff_jax.evaluation.claims.verdict import judge
from ragdiff_jax.evaluation.claims.world import NotRun, World

# Of each kind of measurement the columns that it has; what retrieval has, the command's own test looks at.
PICTURES = {*METRICS, "landmark_iou", "follows", "truth_iou", "seconds_retrieve", "seconds_denoise"}
COLUMNS = {
    "pictures": PICTURES,
    "edits": {"text", "own", "shown", "first", "kid_tower", "kid_random"},
    "control": {"hit", "chance", "own_colour", "other_colour"},
    "text_retrieval": {"nearest", "five", "chance"},
    "words": {"own", "chance"},
    "logos": {"psnr", "edges"},
    **dict.fromkeys(VARIANTS, PICTURES),
}


def test_every_claim_can_be_measured_and_says_what_it_tests():
    assert len(CLAIMS) >= 24 and len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    assert {claim.paper for claim in CLAIMS} == {"R", "F", "ours"}
    for claim in CLAIMS:
        assert claim.says.endswith(".") and claim.where and claim.better in claim.test
        for side in (claim.a, claim.b):
            if isinstance(side, str):
                name, _, column = side.partition(":")
                assert name in measures.MEASURES, claim.id
                known = COLUMNS.get(name) or COLUMNS.get(name.partition("/")[0])
                assert known is None or column in known, (claim.id, column)
    trained = [any(map(measures.needs_training, claim.measures)) for claim in CLAIMS]
    assert trained == sorted(trained) and trained.count(False) >= 24  # what runs with the shipped weights comes first


def test_claims_are_chosen_by_id_beginning_and_pattern():
    assert [claim.id for claim in chosen(CLAIMS, ["R-T7"])] == ["R-T7-ssim", "R-T7-kid", "R-T7-ssim8", "R-T7-kid8"]
    assert [claim.id for claim in chosen(CLAIMS, ["R-T7-ssim"])] == ["R-T7-ssim"]
    assert chosen(CLAIMS, ["*-clipt"])[0].id == "F-Nr-clipt" and chosen(CLAIMS, None) == CLAIMS
    with pytest.raises(UserError, match="R-T4-top1"):
        chosen(CLAIMS, ["R-T4-tpo1"])


def columns(a, b, groups=None) -> list[Measured]:
    a, b = np.asarray(a, float), np.asarray(b, float)
    names = np.arange(len(a)).astype(str) if groups is None else np.asarray(groups)
    return [Measured(columns={"a": a, "b": b}, groups=names)]


def claim(**fields) -> Claim:
    return Claim(**{"id": "x", "paper": "R", "where": "Table", "says": "X.", "a": "m:a", "b": "m:b"} | fields)


def verdict(a, b, groups=None, bound=None, **fields):
    both = columns(a, b, groups)
    asked = claim(**fields) if bound is None else claim(b=bound, **fields)
    return judge(asked, both, both if bound is None else None, resamples=2000)


def test_a_verdict_is_that_of_the_known_effect():
    rng = np.random.default_rng(0)
    b = rng.normal(10, 3, 200)  # what samples share is far larger than the effect: pairing has to take it out
    a = b + rng.normal(0.1, 0.3, 200)
    found = verdict(a, b)
    assert found.verdict == "holds" and found.low < 0.1 < found.high and found.n == 200
    assert found.improvement == pytest.approx((a - b).mean()) and found.mean_b == pytest.approx(b.mean())
    assert verdict(a, b, better="lower").verdict == "doesn't hold"
    assert verdict(a, b, threshold=0.3).verdict == "doesn't hold"
    assert verdict(a, b, threshold=0.1).verdict == "undecided"
    assert verdict(b, a, threshold=-0.3).verdict == "holds"  # no worse by more than 0.3
    assert verdict(b, a, relative=True, threshold=-0.02).verdict == "holds"  # it lost one per cent
    assert verdict(b, a, relative=True, threshold=-0.002).verdict == "doesn't hold"
    assert verdict(a, b, bound=9.0).verdict == "holds" and verdict(a, b, bound=11.0).verdict == "doesn't hold"


def test_no_effect_is_seldom_called_one():
    rng = np.random.default_rng(1)
    called = sum(verdict(rng.normal(size=60), rng.normal(size=60)).verdict != "undecided" for _ in range(60))
    assert called <= 8  # 5 % of 60 is 3


def test_what_belongs_together_counts_once_and_seeds_must_agree():
    rng = np.random.default_rng(2)
    a = rng.normal(0.25, 1, 40)
    assert verdict(a, 0 * a).verdict == "undecided"
    many = np.tile(a, 9)  # copies are no new samples
    assert verdict(many, 0 * many).verdict == "holds"
    assert verdict(many, 0 * many, groups=np.tile(np.arange(40).astype(str), 9)).verdict == "undecided"
    up, down = columns(np.full(30, 1.2), np.zeros(30)), columns(np.full(30, -0.2), np.zeros(30))
    both = up + down
    found = judge(claim(), both, both)
    assert found.low > 0 and found.verdict == "undecided" and found.by_seed == pytest.approx((1.2, -0.2))
    with pytest.raises(ValueError, match="different samples"):
        judge(claim(), up, columns(np.zeros(20), np.zeros(20)))


class Fake(World):
    """What a runner asks of a World, without models."""

    drawn, image_size = "1", 64

    def __init__(self, out, budget=BUDGETS["smoke"], weights="w"):
        self.out, self.budget, self.weights = out, budget, weights

    def fingerprint(self, name):
        return name + self.weights


def test_nothing_is_measured_twice_and_other_weights_are_measured_again(tmp_path, monkeypatch):
    made = []

    def run(world, seed):
        made.append((world.weights, seed))
        if world.weights == "none":
            raise NotRun("no config: vanilla.py")
        rows = np.arange(8.0) + seed
        return Measured(columns={"a": rows + 1, "b": rows}, groups=np.arange(8).astype(str), facts={"n": 8})

    fake = measures.Measure(run=run, inputs=("stem",), uses=("photos",))
    monkeypatch.setitem(measures.MEASURES, "m", fake)
    begun = []

    def judged(world, seeds=(0, 1)):
        found = runner.Runner(world, seeds, begin=lambda name, seed: begun.append(seed)).run([claim(), claim()])
        return [finding.verdict for _, finding in found]

    assert judged(Fake(tmp_path)) == ["holds", "holds"]
    assert made == [("w", 0), ("w", 1)] and begun == [0, 1]
    judged(Fake(tmp_path))
    judged(Fake(tmp_path, dataclasses.replace(BUDGETS["smoke"], people=5)))  # not of what it depends on
    assert len(made) == 2
    judged(Fake(tmp_path, weights="v"), seeds=(0,))
    judged(Fake(tmp_path, dataclasses.replace(BUDGETS["smoke"], photos=9)), seeds=(0,))
    assert made[2:] == [("v", 0), ("w", 0)]
    kept = Store(tmp_path / "measured").path("m", fake.key(Fake(tmp_path), 0))
    kept.write_bytes(kept.read_bytes()[:-200])  # a torn file
    judged(Fake(tmp_path), seeds=(0,))
    assert made[4:] == [("w", 0)]
    assert judged(Fake(tmp_path, weights="none"), seeds=(0,)) == ["not run", "not run"] and len(made) == 6


def test_a_change_of_the_config_that_a_variants_own_takes_is_another_recipe(tmp_path):
    configs = tmp_path / "configs"
    shutil.copytree(Path(__file__).parents[2] / "configs", configs)
    before = {name: config_of(configs, name) for name in VARIANTS}
    assert before["vanilla"]["model"]["conditions"] == ["reference"]
    shared = configs / "ragdiffusion/tiny.py"
    text = shared.read_text()
    assert "8e-4" in text
    shared.write_text(text.replace("8e-4", "7e-4"))
    changed = {name for name in before if config_of(configs, name) != before[name]}
    assert {"full", "vanilla", "fresh_reference", "pgea"} <= changed and not changed & {"autoencoder4", "pgea_in"}


def test_numbers_that_are_none_are_not_kept(tmp_path):
    with pytest.raises(ValueError, match="finite"):
        Store(tmp_path).write("m", {}, Measured(columns={"a": np.array([1, np.nan])}, groups=np.array(["x", "y"])))
    assert not list(tmp_path.iterdir())


def test_a_picked_silhouette_is_a_hit_if_it_is_the_one_that_was_drawn():
    masks = np.zeros((2, 3, 32, 32), bool)
    masks[:, 0, 4:28, 4:28], masks[:, 1, 8:16, 2:30], masks[:, 2, 2:30, 12:20] = True, True, True
    masks[1] = masks[1, :1]  # nothing to tell apart
    pictures = np.where(masks[..., None], np.uint8([200, 30, 30]), np.uint8(255))
    pictures[0, 2] = pictures[0, 1]  # the third pick got the second's shape
    picks, left_out = control_picks(pictures, masks)
    assert [(pick.photo, pick.pick, pick.hit) for pick in picks] == [(0, 0, True), (0, 1, True), (0, 2, False)]
    assert left_out == 6
    found = of_photos(picks, 2)
    assert found["hit"] == pytest.approx([2 / 3, 0]) and found["chance"] == pytest.approx([1 / 3, 0])


def test_light_is_set_right_where_it_is_wrong_and_left_alone_where_it_is_not():
    usual = np.full((8, 8, 3), 130, np.uint8)
    assert (balanced(usual) == usual).all()
    dark = lit(usual, "dark")
    assert dark.mean() < 70 and dark.mean() < balanced(dark).mean() < usual.mean()
    bright = lit(np.full((8, 8, 3), 150, np.uint8), "bright")
    assert bright.mean() > 200 > balanced(bright).mean()
