"""`ragdiff reproduce` with a small model from end to end: verdicts, files, resumption, trainings, bad input."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from small_fashion import save_small

from ragdiff_jax.cli import reproduce
from ragdiff_jax.data.synth_dataset import prepare_synth, synth_record
from ragdiff_jax.data.tokenizer import train_tokenizer
from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation.claims.catalogue import CLAIMS
from ragdiff_jax.evaluation.claims.measures import MEASURES
from ragdiff_jax.evaluation.claims.store import Measured
from ragdiff_jax.evaluation.claims.variants import model_of

CONFIG = """
from ml_collections import ConfigDict

def get_config(stem):
    return ConfigDict({"stem": stem})
"""


@pytest.fixture(scope="module")
def stem(world, tmp_path_factory):
    """(model, memory of 24 drawn garments, a folder that keeps what calls have drawn)."""
    from ragdiff_jax.cli.main import main

    base = tmp_path_factory.mktemp("stem")
    drawn = prepare_synth(base / "drawn", count=24, size=64, seed=3, splits={"train": 1.0})
    build = ["memory", "build", "--dataset", str(drawn), "--split", "train", "--model", str(world[0])]
    assert main([*build, "--out", str(base / "memory")]) == 0
    return world[0], base / "memory"


@pytest.fixture
def call(ragdiff, stem, tmp_path):
    model, memory = stem
    out = tmp_path / "out"

    def run(*argv):
        return ragdiff("reproduce", "--stem", model, "--memory", memory, "--budget", "smoke", "--out", out, *argv)

    return run


def test_claims_of_every_kind_are_judged_and_kept(call, tmp_path):
    only = ("--only", "R-T4", "R-3.2", "R-F7", "R-9.3", "R-4.4-style", "R-3.3-follows", "R-F11", "--json")
    code, lines, err = call(*only)
    assert code == 0, err
    *claims, last = lines
    assert [row["id"] for row in claims] == [claim.id for claim in CLAIMS if claim.id.startswith(only[1:-1])]
    assert last["not run"] == 0 and sum(last[name] for name in ("holds", "undecided")) > 0
    record = json.loads((tmp_path / "out" / "claims.json").read_text())
    assert [row["id"] for row in record["claims"]] == [row["id"] for row in claims]
    assert len(record["inputs"]["stem"]["sha256"]) == 64 and record["budget"]["photos"] == 8
    for row in record["claims"]:
        found = row["found"]
        assert found["low"] <= found["improvement"] <= found["high"] and found["n"] >= 4
    text = (tmp_path / "out" / "claims.md").read_text()
    assert "| R-T4-top1 | Table 4 |" in text and "0.806" in text
    html = (tmp_path / "out" / "claims.html").read_text()
    assert html.count("<svg") > 14 and "data:image/jpeg;base64" in html

    # The same again measures nothing and says the same.
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "measured").iterdir()}
    assert {path.name.rpartition("-")[0] for path in kept} >= {"retrieval", "control", "style_growth", "pictures-usual"}
    assert call(*only)[1] == lines
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "measured").iterdir()} == kept


def test_edits_are_judged(call, tmp_path):
    captions = [synth_record(row, seed=3, size=16).caption for row in range(24)]
    train_tokenizer(captions, 600, tmp_path / "fashion_tokenizer")
    only = ("--only", "ours-noise", "F-words", "F-retrieval", "--editor", save_small(tmp_path), "--json")
    code, lines, err = call(*only)
    assert code == 0, err
    assert len(lines) == 4 and lines[-1]["not run"] == 0, lines


def test_variants_are_trained_once_equally_long_or_the_claim_says_why_not(call, stem, tmp_path, monkeypatch):
    trained, configs = [], tmp_path / "configs"

    def fake(config, workdir, settings):
        trained.append((config, settings["train.steps"], settings["train.seed"]))
        if "vanilla" in config:
            raise UserError("out of cloth")
        shutil.copytree(stem[0], workdir / "model")

    def pictures(name):
        def run(world, seed):
            model_of(world, name, seed)
            return Measured(columns={"ssim_aligned": np.ones(8)}, groups=np.arange(8).astype(str))

        return dataclasses.replace(MEASURES[f"{name}/held_out"], run=run)

    monkeypatch.setattr(reproduce, "train", fake)
    for name in ("full", "silhouette_only", "vanilla", "embedding_only"):
        monkeypatch.setitem(MEASURES, f"{name}/held_out", pictures(name))
    for name in ("baselines/full.py", "baselines/silhouette_only.py", "baselines/vanilla.py"):
        (configs / name).parent.mkdir(parents=True, exist_ok=True)
        (configs / name).write_text(CONFIG)
    only = ("--only", "R-T2-both", "R-T2-emb", "R-T1-ssim-vanilla", "--configs", configs, "--train-steps", 3, "--json")
    code, lines, err = call(*only)
    assert code == 0, err
    found = {row["id"]: row["found"] for row in lines[:-1]}
    assert found["R-T2-both"]["verdict"] == "undecided" and found["R-T2-both"]["improvement"] == 0  # one and the same
    assert "out of cloth" in found["R-T1-ssim-vanilla"]["reason"]
    assert "no config" in found["R-T2-emb"]["reason"] and "embedding_only.py" in found["R-T2-emb"]["reason"]
    assert [steps for _, steps, _ in trained] == [3, 3, 3] and {seed for *_, seed in trained} == {0}
    assert trained[0][0].endswith(f"baselines/full.py:{stem[0]}")

    call(*only)
    assert len(trained) == 4  # what failed was tried again, the two that ended weren't
    call(*only, "--train-steps", 4)
    assert len(trained) == 7  # longer trainings are others
    lines = call(*only, "--no-training", "--seed", 1)[1]
    assert "--no-training" in lines[0]["found"]["reason"] and len(trained) == 7


def test_the_list_says_each_claims_test_and_runs_nothing(ragdiff, tmp_path):
    code, out, _ = ragdiff("reproduce", "--list", "--only", "R-T7-ssim")
    assert code == 0 and "Table 7" in out[0] and "improvement above" in out[2] and "0.6872" in out[3]
    code, lines, _ = ragdiff("reproduce", "--list", "--json")
    assert len(lines) >= 24 and any(line["needs_training"] for line in lines)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--only", "R-T9"], "no such claim"),
        (["--budget", "week"], "smoke, hour, day"),
        (["--photos", "2"], "--photos 2"),
        (["--configs", "nowhere"], "nowhere"),
        (["--stem", "nowhere"], "nowhere"),
        (["--tower", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_is_one_line(call, argv, message):
    code, out, err = call(*argv)
    assert (code, out, len(err)) == (2, [], 1) and message in err[0]


def test_without_a_place_or_with_anothers_memory_nothing_begins(ragdiff, stem, tmp_path):
    code, _, err = ragdiff("reproduce")
    assert code == 2 and len(err) == 1 and "--out" in err[0]
    code, _, err = ragdiff("reproduce", "--stem", stem[0], "--out", tmp_path)  # the shipped memory is another encoder's
    assert code == 2 and len(err) == 1 and "encoder" in err[0]


SAVES = """#!/bin/sh
trap 'sleep 1; echo saved > saved; echo "ragdiff: interrupted" >&2; exit 130' INT
echo "step 1" >&2
for _ in $(seq 100); do sleep 0.1; done
"""


def test_a_training_that_is_interrupted_may_save(tmp_path):
    """Ctrl-C reaches both processes at once."""
    (tmp_path / "python").write_text(SAVES)
    (tmp_path / "python").chmod(0o755)
    code = "import signal, sys; from ragdiff_jax.cli.reproduce import train; sys.executable = './python'\n"
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job's is ignored
    code += "train('c', 'w', {})"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr.readline() == "step 1\n", "what it says is seen as it comes"
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (tmp_path / "saved").exists() and "KeyboardInterrupt" in err
