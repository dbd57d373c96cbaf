"""Runs in processes of their own: killed, stopped, and two that train as one."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ports import free_port
from toy import Toy, exported, lines, losses, replace

from ragdiff_jax.errors import UserError
from ragdiff_jax.training import TrainSettings, train
from ragdiff_jax.training.workdir import locked

WORKER = Path(__file__).with_name("worker.py")
ROOT = Path(__file__).parents[2]


def start(workdir, settings: TrainSettings, cache, **arguments):
    arguments = {**arguments, "workdir": str(workdir), "cache": str(cache)}
    arguments["settings"] = settings.as_dict()
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, str(WORKER), json.dumps(arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.strip().splitlines()[-1])


def pair(workdir, settings, cache, seconds=120, **arguments):
    """Two workers of one run; `arguments` may be a list of two for one name, one each."""
    port = free_port()
    workers = []
    for rank in range(2):
        own = {name: value[rank] if isinstance(value, tuple) else value for name, value in arguments.items()}
        used = settings[rank] if isinstance(settings, tuple) else settings
        processes = {"coordinator": f"localhost:{port}", "num": 2, "id": rank}
        workers.append(start(workdir, used, cache, processes=processes, **own))
    return workers


def ended(process, seconds=120):
    """(exit code, stderr)."""
    try:
        _, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"the worker did not end:\n{process.communicate()[1][-3000:]}")
    return process.returncode, err


def last_line(err):
    return [line for line in err.splitlines() if line.startswith("ragdiff:")][-1:]


def wait_for(condition, process, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            pytest.fail(f"the worker did not get there:\n{process.communicate()[1][-3000:]}")
        time.sleep(0.02)


def test_killed_and_stopped_and_resumed(tmp_path, settings, one, cache):
    settings = replace(settings, steps=60, checkpoint_every=4, keep=2)
    train(Toy(), tmp_path / "whole", settings, one)
    cut = tmp_path / "cut"
    metrics = cut / "metrics.jsonl"

    def lines_written(at_least, other_than=None):
        """By the run that is at work: a resumed one replaces the file before it adds to it."""

        def there():
            if not metrics.exists() or metrics.stat().st_ino == other_than:
                return False
            return len(metrics.read_text().splitlines()) >= at_least

        return there

    process = start(cut, settings, cache, toy={"slow": 0.1}, devices=8, use=1)
    wait_for(lines_written(7), process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL

    killed = metrics.stat().st_ino
    process = start(cut, settings, cache, toy={"slow": 0.1}, devices=8, use=1)
    wait_for(lines_written(11, killed), process)
    process.send_signal(signal.SIGTERM)
    stopped = finish(process)
    assert not stopped["finished"] and not (cut / "model").exists()
    assert (cut / "checkpoints" / str(stopped["step"])).is_dir()

    assert train(Toy(), cut, settings, one).finished
    assert lines(cut) == lines(tmp_path / "whole")
    a, b = exported(cut), exported(tmp_path / "whole")
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_two_processes_train_like_one(tmp_path, settings, one, cache):
    settings = replace(settings, steps=3, log_every=1, sample_every=3, validate_every=3)
    train(Toy(), tmp_path / "one", settings, one)
    order = [0, 2, 3, 1]  # rows of one process that don't lie side by side
    workers = pair(tmp_path / "two", settings, cache, devices=2, mesh={"fsdp": 4}, order=order)
    assert [finish(worker) for worker in workers] == [{"step": 3, "finished": True}] * 2
    single, double = losses(tmp_path / "one"), losses(tmp_path / "two")
    np.testing.assert_allclose(list(double.values()), list(single.values()), rtol=1e-5)
    # What two processes saved, one process goes on with.
    settings = replace(settings, steps=4)
    assert train(Toy(), tmp_path / "two", settings, one).finished


def test_both_of_two_processes_may_hold_every_row(tmp_path, settings, one, cache):
    settings = replace(settings, steps=2, log_every=1)
    train(Toy(), tmp_path / "one", settings, one)
    mesh = {"fsdp": 2, "tensor": 2}
    workers = pair(tmp_path / "two", settings, cache, devices=2, mesh=mesh, order=[0, 2, 1, 3])
    assert [finish(worker) for worker in workers] == [{"step": 2, "finished": True}] * 2
    single, double = losses(tmp_path / "one"), losses(tmp_path / "two")
    np.testing.assert_allclose(list(double.values()), list(single.values()), rtol=1e-5)


def test_two_processes_measure_and_export_with_weights_over_both(tmp_path, settings, cache):
    settings = replace(settings, steps=1, log_every=1, validate_every=1)
    stages = ["structure_net", "autoencoder"]
    workers = pair(tmp_path / "two", settings, cache, devices=1, mesh={"fsdp": 2}, stages=stages)
    assert [finish(worker) for worker in workers] == [{"step": 1, "finished": True}] * 2
    for stage, number in (("structure_net", "iou_top1"), ("autoencoder", "psnr_flat")):
        assert any(name.endswith(number) for line in lines(tmp_path / "two" / stage) for name in line)
        assert (tmp_path / "two" / stage / "model/model.json").is_file()


def test_sigterm_to_one_of_two_saves_both_at_one_step(tmp_path, settings, cache):
    settings = replace(settings, steps=1000, log_every=500)
    workers = pair(tmp_path, settings, cache, devices=1, toy={"slow": 0.05})
    wait_for(lambda: len((tmp_path / "metrics.jsonl").read_text().splitlines()) > 5
             if (tmp_path / "metrics.jsonl").exists() else False, workers[0])  # fmt: skip
    workers[1].send_signal(signal.SIGTERM)
    stopped = [finish(worker) for worker in workers]
    assert stopped[0] == stopped[1] and not stopped[0]["finished"]
    assert (tmp_path / "checkpoints" / str(stopped[0]["step"])).is_dir()


def test_one_of_two_dies_and_the_other_says_so(tmp_path, settings, cache, monkeypatch):
    monkeypatch.setenv("RAGDIFF_LOST_SECONDS", "8")
    settings = replace(settings, steps=1000, checkpoint_every=2)
    workers = pair(tmp_path, settings, cache, devices=1, toy={"slow": 0.05})
    wait_for(lambda: (tmp_path / "checkpoints" / "4").is_dir(), workers[0])
    workers[1].kill()
    workers[1].communicate(timeout=60)
    code, err = ended(workers[0])
    assert code != 0 and "Traceback" not in err
    assert last_line(err) and "the last checkpoint is intact" in last_line(err)[0]
    survivor = train(Toy(), tmp_path, replace(settings, steps=8), None)
    assert survivor.finished


def test_different_configs_stop_both(tmp_path, settings, cache):
    workers = pair(tmp_path, (settings, replace(settings, learning_rate=1e-3)), cache, devices=1)
    for code, err in map(ended, workers):
        assert code == 2 and "settings.learning_rate is 0.01 in process 0 and 0.001 in process 1" in last_line(err)[0]


def test_a_failure_in_one_is_the_message_of_both(tmp_path, settings, cache):
    workers = pair(tmp_path, settings, cache, devices=1, toy={"broken_at": 4})
    ends = [ended(worker) for worker in workers]
    assert [code for code, _ in ends] == [2, 2]
    assert all("shard-3 is missing" in last_line(err)[0] for _, err in ends)
    assert "process 1 of 2" in last_line(ends[0][1])[0]


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, settings, one, cache):
    train(Toy(), tmp_path, replace(settings, steps=4), one)
    worker = start(tmp_path, settings, cache, devices=8, use=1, most_bytes=1500)
    code, err = ended(worker)
    assert code == 2 and "the checkpoint of step 4 is intact" in last_line(err)[0], err[-2000:]
    assert train(Toy(), tmp_path, settings, one).finished


def test_who_cannot_join_stops(tmp_path, settings, cache, monkeypatch):
    monkeypatch.setenv("RAGDIFF_JOIN_SECONDS", "2")
    worker = start(
        tmp_path, settings, cache, devices=1, processes={"coordinator": "localhost:9", "num": 2, "id": 1}
    )
    code, err = ended(worker)
    assert code != 0 and not (tmp_path / "config.json").exists()


def test_a_second_run_in_the_same_workdir_is_refused(tmp_path, settings, one):
    with locked(tmp_path), pytest.raises(UserError, match="another run"):
        train(Toy(), tmp_path, settings, one)


def test_a_file_system_without_locks_trains_and_says_so(tmp_path, settings, one, monkeypatch, caplog):
    def none(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    assert train(Toy(), tmp_path, replace(settings, steps=1), one).finished
    assert "can't be locked" in caplog.text
