"""Settings and meshes that the tests of the loop share."""

import jax
import pytest

from ragdiff_jax.parallel import make_mesh
from ragdiff_jax.training import TrainSettings


@pytest.fixture
def settings():
    """Ten fast steps."""
    return TrainSettings(
        steps=10, batch_size=8, learning_rate=1e-2, ema_decay=0.9, checkpoint_seconds=0, log_every=5, keep=3
    )


@pytest.fixture
def one():
    """A mesh of one device: what most tests need."""
    return make_mesh(devices=jax.devices()[:1])
