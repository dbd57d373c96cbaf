"""Settings and meshes that the tests of the loop share."""

import jax
import pytest

from ragdiff_jax.parallel import enable_compilation_cache, make_mesh
from ragdiff_jax.training import TrainSettings


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A folder of compiled programs for this session: nearly every test trains the same toy."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _compiled_once(cache):
    enable_compilation_cache(cache)
    yield
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture
def settings():
    """Ten fast steps."""
    return TrainSettings(
        steps=10, batch_size=8, learning_rate=1e-2, ema_decay=0.9, checkpoint_seconds=0.0, log_every=5, keep=3
    )


@pytest.fixture
def one():
    """A mesh of one device: what most tests need."""
    return make_mesh(devices=jax.devices()[:1])
