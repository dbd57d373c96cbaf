"""Eight steps of RAGDiffusion agree whatever the mesh: retrieval, SLLE, every network and the optimizer in them."""

import numpy as np
import pytest
import rag_world
from test_processes import finish, pair, start
from toy import losses

from ragdiff_jax.training import TrainSettings

SETTINGS = TrainSettings(steps=8, batch_size=8, learning_rate=1e-4, checkpoint_seconds=0.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    base = tmp_path_factory.mktemp("rag")
    rag_world.write(base)
    return base


@pytest.fixture(scope="module")
def on_one(world, cache):
    finish(start(world / "one", SETTINGS, cache, devices=1, world=str(world)))
    return losses(world / "one")


def agree(found, expected):
    assert list(found) == list(range(1, 9))
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)


def test_two_processes_of_four_devices(world, on_one, cache, tmp_path):
    mesh = {"data": 2, "fsdp": 2, "tensor": 2}
    workers = pair(tmp_path, SETTINGS, cache, devices=4, mesh=mesh, world=str(world))
    assert [finish(worker)["step"] for worker in workers] == [8, 8]
    agree(losses(tmp_path), on_one)
