"""What is measured and drawn between steps is the same on any mesh, whatever number of rows it has."""

import jax
import numpy as np
import pytest
import rag_world

from ragdiff_jax.parallel import make_mesh, mesh_context, replicated

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def objective(tmp_path_factory):
    base = tmp_path_factory.mktemp("rag")
    rag_world.write(base)
    return lambda: rag_world.objective(base, examples=3, sample_steps=2)


def on(mesh, objective, ask):
    """`ask(objective, params, constants)` as the loop asks it, which enters the mesh without rules."""
    params = jax.device_put(rag_world.params(), replicated(mesh))
    constants = objective.prepared(params, objective.constants(mesh), mesh)
    with mesh_context(mesh, rules=()):
        return ask(objective, params, constants)


def test_three_rows_on_two_devices_are_measured_as_on_one_and_drawn(objective):
    one, two = (make_mesh(devices=jax.devices()[:count]) for count in (1, 2))
    single = on(one, objective(), lambda objective, *given: objective.validation(*given, KEY))
    double, sheet = on(two, objective(), lambda own, *given: (own.validation(*given, KEY), own.sample(*given, KEY)))
    assert single.keys() == double.keys() and len(set(single.values())) > 3
    np.testing.assert_allclose(list(double.values()), list(single.values()), rtol=1e-4)
    assert sheet["generated"].shape == (3 * 32, 4 * 32, 3)
