"""`ragdiff train` as a command: its line, what it refuses, how it ends when it is interrupted."""

import json
from types import SimpleNamespace

import jax
import pytest
from toy import Toy

from ragdiff_jax.cli.main import main
from ragdiff_jax.training import builders, from_config

CONFIG = """
from ml_collections import ConfigDict

def get_config():
    train = {"steps": 2, "batch_size": 8, "checkpoint_seconds": 0.0}
    data = {"image_size": 8, "folder": "none"}
    return ConfigDict(
        {"objective": "toy", "data": data, "model": {"noise": 0.0}, "mesh": {"data": -1}, "train": train}
    )
"""


@pytest.fixture
def call(tmp_path, monkeypatch):
    cache = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("RAGDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(builders.PERSON_BUILDERS, "toy", lambda model, data: Toy(**model))
    (tmp_path / "config.py").write_text(CONFIG)
    yield ["train", "--config", str(tmp_path / "config.py"), "--workdir", str(tmp_path / "run"), "--json"]
    jax.config.update("jax_compilation_cache_dir", cache)


def test_a_run_says_where_its_model_is_and_refuses_another_model(call, tmp_path, capfd):
    assert main([*call, "--set", "train.steps=1"]) == 0
    run = str(tmp_path / "run")
    line = {"workdir": run, "step": 1, "finished": True, "model": f"{run}/model"}
    assert json.loads(capfd.readouterr().out) == line
    assert main([*call, "--set", "model.noise=0.5"]) == 2
    out, err = capfd.readouterr()
    assert "model.noise" in err.splitlines()[-1] and json.loads(out)["error"]


def test_ctrl_c_saves_and_exits_with_130(call, monkeypatch, capfd):
    stopped = SimpleNamespace(step=7, finished=False, model=None, stopped_by="SIGINT")
    monkeypatch.setattr(from_config, "run", lambda *arguments, **named: stopped)
    assert main(call) == 130
    assert json.loads(capfd.readouterr().out)["finished"] is False
