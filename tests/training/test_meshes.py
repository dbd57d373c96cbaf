"""Twenty steps of RAGDiffusion agree whatever the mesh: retrieval, SLLE, every network and the optimizer in them."""

import jax
import numpy as np
import pytest
import rag_world
from test_processes import finish, pair
from toy import losses, replace

from ragdiff_jax.parallel import make_mesh
from ragdiff_jax.training import TrainSettings, train

SETTINGS = TrainSettings(steps=20, batch_size=8, learning_rate=1e-4, checkpoint_seconds=0.0, ema_decay=0.9)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    base = tmp_path_factory.mktemp("rag")
    rag_world.write(base)
    return base


@pytest.fixture(scope="module")
def on_one(world, cache):
    train(rag_world.objective(world), world / "one", SETTINGS, make_mesh(devices=jax.devices()[:1]))
    return losses(world / "one")


def agree(found, expected):
    assert list(found) == list(range(1, 21))
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)


@pytest.mark.parametrize("mesh", [{"data": 8}, {"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}], ids=str)
def test_eight_devices(world, on_one, mesh, tmp_path):
    # What a small network can't split would be refused.
    train(rag_world.objective(world), tmp_path, replace(SETTINGS, replicated_limit=1.0), make_mesh(**mesh))
    agree(losses(tmp_path), on_one)


def test_two_processes_of_four_devices(world, on_one, cache, tmp_path):
    workers = pair(tmp_path, SETTINGS, cache, devices=4, mesh={"fsdp": 4}, world=str(world))
    assert [finish(worker)["step"] for worker in workers] == [20, 20]
    agree(losses(tmp_path), on_one)
