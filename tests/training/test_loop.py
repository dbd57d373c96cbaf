"""What the loop promises whoever trains with it."""

import json
import logging
import os
import signal
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from toy import Toy, exported, lines, losses, replace

from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import make_mesh
from ragdiff_jax.training import metrics, train
from ragdiff_jax.training.workdir import check_config, write_config


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_eight_devices_train_like_one(tmp_path, settings, one):
    train(Toy(), tmp_path / "one", settings, one)
    train(Toy(), tmp_path / "eight", settings, make_mesh(data=2, fsdp=4))
    first, second = losses(tmp_path / "one"), losses(tmp_path / "eight")
    assert list(first) == list(range(1, 11))
    assert first[10] < first[1]
    np.testing.assert_allclose(list(first.values()), list(second.values()), rtol=1e-5)


def test_resume_equals_an_uninterrupted_run_bit_for_bit(tmp_path, settings, one):
    train(Toy(), tmp_path / "whole", settings, one)
    # The line of step 6 to 8 stands in the file although the checkpoint is of step 5: as after a crash.
    train(Toy(), tmp_path / "cut", replace(settings, steps=5), one)
    with open(tmp_path / "cut" / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "loss": 99.0}\n{"step": 7, "lo')
    result = train(Toy(), tmp_path / "cut", settings, one)
    assert result.finished and result.model == tmp_path / "cut" / "model"
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    same(exported(tmp_path / "cut"), exported(tmp_path / "whole"))


def test_when_the_time_is_over_there_is_a_model_and_the_run_can_go_on(tmp_path, settings, one):
    result = train(Toy(), tmp_path / "run", replace(settings, seconds=1e-9), one)
    assert result.step == 1 and result.finished and exported(tmp_path / "run")
    train(Toy(), tmp_path / "run", settings, one)
    train(Toy(), tmp_path / "whole", settings, one)
    same(exported(tmp_path / "run"), exported(tmp_path / "whole"))


def test_accumulation_equals_the_big_batch(tmp_path, settings):
    mesh = make_mesh(data=2, fsdp=2, devices=jax.devices()[:4])
    still = Toy(noise=0.0)  # noise is drawn for each micro-batch, so the two would differ by it
    train(still, tmp_path / "big", replace(settings, batch_size=16, steps=4), mesh)
    train(still, tmp_path / "micro", replace(settings, batch_size=16, accumulate=4, steps=4), mesh)
    big, micro = losses(tmp_path / "big"), losses(tmp_path / "micro")
    np.testing.assert_allclose(list(big.values()), list(micro.values()), rtol=1e-5)
    grads = [[line["grad"] for line in lines(tmp_path / name)] for name in ("big", "micro")]
    np.testing.assert_allclose(*grads, rtol=1e-5)


def test_trainable_parts_move_and_frozen_parts_stay(tmp_path, settings, one):
    np.save(tmp_path / "part.npy", np.linspace(-1, 1, 16, dtype=np.float32))
    toy = Toy(part=tmp_path / "part.npy")
    train(toy, tmp_path / "short", replace(settings, steps=1), one)
    before = exported(tmp_path / "short")
    (tmp_path / "part.npy").unlink()  # a resume doesn't read the pretrained parts again
    train(toy, tmp_path / "short", settings, one)
    after = exported(tmp_path / "short")
    np.testing.assert_array_equal(after["backbone.bias"], np.linspace(-1, 1, 16, dtype=np.float32))
    for name in after:
        assert (name.split(".")[0] == "backbone") == np.array_equal(before[name], after[name]), name


def test_ema_is_the_average_with_a_rising_decay(tmp_path, settings, one):
    # The same steps without EMA, averaged by hand.
    raw = []
    for step in range(1, 3):
        train(Toy(), tmp_path / "raw", replace(settings, steps=step, ema_decay=0.0), one)
        raw.append(exported(tmp_path / "raw")["head.kernel"])
    train(Toy(), tmp_path / "ema", replace(settings, steps=2), one)
    initial = jax.jit(Toy().init)(jax.random.key(0))["head"]["kernel"].value
    average = np.asarray(initial)
    for t, value in enumerate(raw):
        decay = min(0.9, (1 + t) / (10 + t))
        average = decay * average + (1 - decay) * value
    np.testing.assert_allclose(exported(tmp_path / "ema")["head.kernel"], average, rtol=1e-5, atol=1e-7)


def test_a_damaged_newest_checkpoint_is_set_aside_and_said(tmp_path, settings, one, caplog):
    settings = replace(settings, checkpoint_every=4)
    train(Toy(), tmp_path / "whole", settings, one)
    train(Toy(), tmp_path / "cut", replace(settings, steps=8), one)
    data = [
        p for p in (tmp_path / "cut/checkpoints/8/params").rglob("*") if p.is_file() and p.parent.name == "d"
    ]
    largest = max(data, key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    largest.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        train(Toy(), tmp_path / "cut", settings, one)
    assert "checkpoint of step 8 can't be read" in caplog.text
    assert (tmp_path / "cut/checkpoints/damaged-8").is_dir()
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    same(exported(tmp_path / "cut"), exported(tmp_path / "whole"))


def test_a_half_written_checkpoint_is_not_taken(tmp_path, settings, one):
    train(Toy(), tmp_path, replace(settings, steps=4, checkpoint_every=2), one)
    # As a kill in the middle of a save leaves it, and as a copy that stopped leaves it.
    (tmp_path / "checkpoints/6.orbax-checkpoint-tmp/state").mkdir(parents=True)
    (tmp_path / "checkpoints/4/params/manifest.ocdbt").unlink()
    assert train(Toy(), tmp_path, settings, one).finished
    assert list(losses(tmp_path)) == list(range(1, 11))


def test_only_damaged_checkpoints_stop_the_run(tmp_path, settings, one):
    train(Toy(), tmp_path, replace(settings, steps=2), one)
    (tmp_path / "checkpoints/2/params/manifest.ocdbt").unlink()
    with pytest.raises(UserError, match="no checkpoint in .* can be read"):
        train(Toy(), tmp_path, settings, one)
    assert (tmp_path / "checkpoints/2").is_dir()


def test_a_loss_that_is_not_finite_names_step_and_rows(tmp_path, settings, one):
    settings = replace(settings, checkpoint_every=1)
    with pytest.raises(UserError, match=r"step 6: loss nan.*batch rows 3 \(pair-5-3\)"):
        train(Toy(nan_at=5), tmp_path, settings, one)
    assert max(int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()) == 5
    assert list(losses(tmp_path)) == [1, 2, 3, 4, 5]


def test_other_settings_on_an_old_workdir(tmp_path, settings, one, capsys):
    train(Toy(), tmp_path, replace(settings, steps=2), one)
    with pytest.raises(UserError, match=r"batch_size=8 \(now 16\)"):
        train(Toy(), tmp_path, replace(settings, batch_size=16), one)
    with pytest.raises(UserError, match="trainable"):
        train(Toy(trainable="head"), tmp_path, settings, one)
    capsys.readouterr()
    train(Toy(), tmp_path, replace(settings, steps=3, learning_rate=1e-3), one)
    assert "learning_rate 0.01 -> 0.001" in capsys.readouterr().err


def plain(**fields):
    """A plain config; `data__folder` is `data.folder`."""
    config = {
        "objective": "toy",
        "data": {"folder": "pairs", "decoded": "", "resident": False, "encodings": "a", "categories": ["Hoodie"]},
        "model": {"shape_temperature": 0.02, "parts": {"vae": "vae"}, "changes": {"remat": "none"}},
    }
    for name, value in fields.items():
        room, key = name.split("__")
        config[room][key] = value
    return config


def test_other_data_and_model_on_an_old_workdir(tmp_path, settings, one, capsys):
    two, three = (replace(settings, steps=steps) for steps in (2, 3))
    train(Toy(), tmp_path, two, one, same=plain())
    other = plain(data__folder="runs/it's mine", data__categories=[], model__shape_temperature=0.05, model__most=3)
    with pytest.raises(UserError) as error:
        train(Toy(), tmp_path, three, one, same=other)
    for words in (
        "data.categories: was ['Hoodie'], is []",
        """data.folder: was 'pairs', is "runs/it's mine\"""",
        "model.most: was not set, is 3",
        "model.shape_temperature: was 0.02, is 0.05",
        """use the same (--set 'data.categories=('"'"'Hoodie'"'"',)' --set data.folder=pairs --set model.shape""",
        "or a new workdir",
    ):
        assert words in str(error.value)
    with pytest.raises(UserError, match=r"data.encodings: was 'a', is ''"):
        train(Toy(), tmp_path, three, one, same=plain(data__encodings=""))
    (tmp_path / "moved").symlink_to(Path("pairs").absolute())
    places = {"data__decoded": "kept", "data__resident": True, "data__encodings": "b", "data__also": ""}
    places |= {"data__folder": str(tmp_path / "moved"), "model__changes": {"remat": "block"}}
    capsys.readouterr()
    assert train(Toy(), tmp_path, three, one, same=plain(**places)).step == 3
    said = capsys.readouterr().err
    assert "data.decoded '' -> 'kept'" in said and "model.changes.remat 'none' -> 'block'" in said
    # Called without a config: nothing is compared, and what was recorded stays.
    train(Toy(), tmp_path, three, one)
    assert json.loads((tmp_path / "config.json").read_text())["config"]["data"]["decoded"] == "kept"


def test_a_run_that_goes_on_with_more_data_says_so(tmp_path, settings, one, capsys):
    train(Toy(rows=40), tmp_path, replace(settings, steps=2), one)
    for rows, words in ((40, False), (44, True), (44, False)):
        steps = json.loads((tmp_path / "config.json").read_text())["settings"]["steps"] + 1
        train(Toy(rows=rows), tmp_path, replace(settings, steps=steps), one)
        assert (f"an epoch has {rows} rows, had 40" in capsys.readouterr().err) == words


def test_a_workdir_without_a_record_or_a_step_binds_nobody(tmp_path, settings, one, capsys):
    two = replace(settings, steps=2)
    train(Toy(), tmp_path / "old", two, one)  # as workdirs were written before
    train(Toy(), tmp_path / "old", replace(two, steps=3), one, same=plain())
    assert "data and model settings weren't recorded" in capsys.readouterr().err
    with pytest.raises(UserError, match="data.folder: was 'pairs', is 'other'"):
        train(Toy(), tmp_path / "old", two, one, same=plain(data__folder="other"))
    with pytest.raises(UserError, match="step 1: loss nan"):
        train(Toy(nan_at=0), tmp_path / "failed", two, one, same=plain())
    # It may have been too large for the memory.
    smaller = replace(two, batch_size=4)
    assert train(Toy(), tmp_path / "failed", smaller, one, same=plain(data__folder="other")).finished


def test_where_the_data_lie_is_no_other_stage(tmp_path):
    base = {"class": "Toy", "trainable": "head"}
    write_config(tmp_path, {"objective": base, "settings": {}})
    resident = {"class": "ResidentObjective", "base": base, "trainable": "head"}
    assert check_config(tmp_path, {"objective": resident, "settings": {}}) == []


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"accumulate": 3}, "accumulate=3"),
        ({"schedule": "cosin"}, "cosine"),
        ({"steps": 0}, "steps=0"),
        ({"ema_decay": 1.0}, "ema_decay=1.0"),
    ],
)
def test_settings_that_make_no_sense(settings, changes, words):
    with pytest.raises(UserError, match=words):
        replace(settings, **changes)


class Crowd(Toy):
    """As a contrastive loss, whose rows are each other's negatives."""

    rows_interact = True


def test_rows_that_are_compared_are_not_cut_apart(tmp_path, settings, one):
    with pytest.raises(UserError, match="accumulate=2: Crowd compares the rows.*micro_batches"):
        train(Crowd(), tmp_path, replace(settings, accumulate=2), one)


def test_fewer_steps_than_there_are_is_refused(tmp_path, settings, one):
    train(Toy(), tmp_path, replace(settings, steps=4), one)
    with pytest.raises(UserError, match="has 4 steps already; set train.steps"):
        train(Toy(), tmp_path, replace(settings, steps=2), one)


def test_a_batch_that_does_not_fit_the_mesh(tmp_path, settings):
    with pytest.raises(UserError, match="multiple of 8: the nearest batch_size is 8 or 16"):
        train(Toy(), tmp_path, replace(settings, batch_size=12), make_mesh())


def test_a_pattern_that_matches_nothing_lists_the_parts(tmp_path, settings, one):
    with pytest.raises(UserError, match="parts are: backbone, "):
        train(Toy(trainable="unet"), tmp_path, settings, one)


def test_what_a_run_leaves_behind(tmp_path, settings, one, capsys):
    settings = replace(
        settings, sample_every=5, validate_every=5, checkpoint_every=2, keep=2, schedule="cosine"
    )
    train(Toy(), tmp_path, settings, one)
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == ["step-10-grid.png", "step-5-grid.png"]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["10", "8", "frozen"]
    assert json.loads((tmp_path / "config.json").read_text())["settings"]["batch_size"] == 8
    assert [line["step"] for line in lines(tmp_path) if "validation/weight" in line] == [5, 10]
    assert lines(tmp_path)[0]["lr"] == pytest.approx(1e-2)
    assert list((tmp_path / "tensorboard").iterdir())
    assert "step 5/10  loss " in capsys.readouterr().err
    assert not list(tmp_path.glob(".model*")) and not list(tmp_path.rglob("*.partial"))


def test_two_workdirs_of_one_name_are_two_runs_elsewhere_too(tmp_path, monkeypatch):
    opened = []
    fake = types.SimpleNamespace(init=lambda **options: opened.append(options))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for folder in ("a", "b", "a"):
        workdir = tmp_path / folder / "stage1"
        workdir.mkdir(parents=True, exist_ok=True)
        metrics._open_wandb("garments", workdir, None)
    ids = [options["id"] for options in opened]
    assert ids[0] == ids[2] != ids[1] and {options["name"] for options in opened} == {"stage1"}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_before_the_first_step_ends_the_run_at_once(tmp_path, settings, one, name, monkeypatch):
    """What comes before it may take hours, and there is nothing to save."""

    def told(*arguments):
        os.kill(os.getpid(), signal.Signals[name])
        raise AssertionError("it went on")

    train(Toy(), tmp_path, replace(settings, steps=3), one)
    with monkeypatch.context() as patched:
        patched.setattr(Toy, "prepared", told)
        for workdir, step in ((tmp_path / "new", 0), (tmp_path, 3)):
            stopped = train(Toy(), workdir, settings, one)
            assert (stopped.step, stopped.finished, stopped.stopped_by) == (step, False, name)
    assert train(Toy(), tmp_path, settings, one).finished
