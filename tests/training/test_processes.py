"""Runs in processes of their own: killed, stopped, and two that train as one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from toy import Toy, exported, lines, losses, replace

from ragdiff_jax.errors import UserError
from ragdiff_jax.training import TrainSettings, train
from ragdiff_jax.training.workdir import locked

WORKER = Path(__file__).with_name("worker.py")
ROOT = Path(__file__).parents[2]


def start(workdir, settings: TrainSettings, cache, **arguments):
    arguments = {**arguments, "workdir": str(workdir), "cache": str(cache)}
    arguments["settings"] = settings.as_dict()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, str(WORKER), json.dumps(arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.strip().splitlines()[-1])


def wait_for(condition, process, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            pytest.fail(f"the worker did not get there:\n{process.communicate()[1][-3000:]}")
        time.sleep(0.02)


def test_killed_and_stopped_and_resumed(tmp_path, settings, one, cache):
    settings = replace(settings, steps=20, checkpoint_every=4, keep=2)
    train(Toy(), tmp_path / "whole", settings, one)
    cut = tmp_path / "cut"

    def lines_written(at_least):
        metrics = cut / "metrics.jsonl"
        return lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= at_least

    process = start(cut, settings, cache, toy={"slow": 0.1}, devices=8, use=1)
    wait_for(lines_written(7), process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL

    process = start(cut, settings, cache, toy={"slow": 0.1}, devices=8, use=1)
    wait_for(lines_written(11), process)
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
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    workers = [
        start(
            tmp_path / "two",
            settings,
            cache,
            devices=2,
            mesh={"fsdp": 2},
            processes={"coordinator": f"localhost:{port}", "num": 2, "id": rank},
        )
        for rank in range(2)
    ]
    assert [finish(worker) for worker in workers] == [{"step": 3, "finished": True}] * 2
    single, double = losses(tmp_path / "one"), losses(tmp_path / "two")
    np.testing.assert_allclose(list(double.values()), list(single.values()), rtol=1e-5)
    # What two processes saved, one process goes on with.
    settings = replace(settings, steps=4)
    assert train(Toy(), tmp_path / "two", settings, one).finished


def test_a_second_run_in_the_same_workdir_is_refused(tmp_path, settings, one):
    with locked(tmp_path), pytest.raises(UserError, match="another run"):
        train(Toy(), tmp_path, settings, one)
