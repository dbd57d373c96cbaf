"""Twenty steps of RAGDiffusion agree whatever the mesh: retrieval, SLLE, every network and the optimizer in them."""

import numpy as np
import pytest
import rag_world
from test_processes import finish, pair, start
from toy import losses

from ragdiff_jax.training import TrainSettings

SETTINGS = TrainSettings(steps=20, batch_size=8, learning_rate=1e-4, checkpoint_seconds=0.0)


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
    assert list(found) == list(range(1, 21))
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)


# data 8 and fsdp 8 are in benchmarks/meshes.py: a program of eight devices takes half a minute to compile.
def test_eight_devices(world, on_one, cache, tmp_path):
    mesh = {"data": 2, "fsdp": 2, "tensor": 2}
    finish(start(tmp_path, SETTINGS, cache, devices=8, mesh=mesh, world=str(world)))
    agree(losses(tmp_path), on_one)


def test_two_processes_of_four_devices(world, on_one, cache, tmp_path):
    workers = pair(tmp_path, SETTINGS, cache, devices=4, mesh={"fsdp": 4}, world=str(world))
    assert [finish(worker)["step"] for worker in workers] == [20, 20]
    agree(losses(tmp_path), on_one)
