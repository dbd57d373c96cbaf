"""One small model and memory for all tests of the command, and a way to run it."""

import json

import jax
import pytest
from small_model import small_world

from ragdiff_jax.cli.main import main


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """What one call has compiled, the next one loads, as on a user's machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAGDIFF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", autouse=True)
def no_cache_afterwards(cache):
    """The command turns JAX's cache on for its whole process; tests of other rooms don't expect it."""
    yield
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture(scope="session")
def world(tmp_path_factory, cache):
    """(model folder, memory, folder of its flat-lays)."""
    base = tmp_path_factory.getbasetemp() / "world"
    base.mkdir(exist_ok=True)
    return small_world(base)


@pytest.fixture
def ragdiff(capfd):
    """Runs the command in this process: (exit code, lines of stdout, lines of stderr)."""

    def run(*argv):
        capfd.readouterr()
        try:
            code = main([str(part) for part in argv])
        except SystemExit as stop:
            code = stop.code
        printed = capfd.readouterr()
        out, err = printed.out.splitlines(), printed.err.splitlines()
        if "slow_operation_alarm" in printed.err:  # XLA's own words on a machine that is busy with other work
            err = [line for line in err if line.startswith("ragdiff:")]
        if "--json" in argv:
            out = [json.loads(line) for line in out]
        return code, out, err

    return run


@pytest.fixture
def with_world(ragdiff, world):
    """`ragdiff` with the small model and memory."""
    model, memory, _ = world
    return lambda *argv: ragdiff(*argv, "--model", model, "--memory", memory)
