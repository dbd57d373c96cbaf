"""Three steps of RAGDiffusion agree whatever the mesh: retrieval, SLLE, every network and the optimizer in them."""

import numpy as np
import pytest
import rag_world
from test_processes import finish, pair
from toy import losses

from ragdiff_jax.training import TrainSettings, train

SETTINGS = TrainSettings(steps=3, batch_size=8, learning_rate=1e-4, checkpoint_seconds=0.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    base = tmp_path_factory.mktemp("rag")
    rag_world.write(base)
    return base


# data 8, fsdp 8 and one process of eight devices are in benchmarks/meshes.py: each takes a minute to trace and compile.
def test_two_processes_of_four_devices_train_like_one(world, one, cache, tmp_path, monkeypatch):
    mesh = {"data": 2, "fsdp": 2, "tensor": 2}
    workers = pair(tmp_path / "two", SETTINGS, cache, devices=4, mesh=mesh, world=str(world))
    alone = rag_world.objective(world)
    monkeypatch.setattr(type(alone), "export", lambda *_: None)  # the two write a model; here it's the losses alone
    train(alone, tmp_path / "one", SETTINGS, one)
    assert [finish(worker)["step"] for worker in workers] == [3, 3]
    found, expected = losses(tmp_path / "two"), losses(tmp_path / "one")
    assert list(found) == list(range(1, 4))
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)
