"""What is in the compiled step: constraints, places, gradients of the trainable tree alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import Toy, replace

from ragdiff_jax.parallel import make_mesh, mesh_context, partition, shard_batch
from ragdiff_jax.training.loop import initial_state, make_plan
from ragdiff_jax.training.state import learning_rate_schedule, make_optimizer, optimizer_shardings
from ragdiff_jax.training.step import jit_step


def abstract_batch(mesh, rows=8):
    return shard_batch(mesh, {"x": np.zeros((rows, 8, 8, 3), np.float32)})


def test_constraints_on_activations_are_in_the_lowered_step(settings):
    mesh = make_mesh(data=2, fsdp=4)
    plan = make_plan(Toy(), settings, mesh)
    step = jit_step(Toy(), settings, mesh, plan.state)
    arguments = (plan.state, plan.frozen, {"scale": jnp.float32(0.5)}, abstract_batch(mesh))
    with mesh_context(mesh):
        inside = step.lower(*arguments).as_text().count("sharding_constraint")
    jax.clear_caches()
    with mesh_context(mesh, rules=()):
        without = (
            jit_step(Toy(), settings, mesh, plan.state)
            .lower(*arguments)
            .as_text()
            .count("sharding_constraint")
        )
    assert inside >= without + 2


def test_state_lies_where_the_rules_say(settings):
    mesh = make_mesh(data=2, fsdp=4)
    plan = make_plan(Toy(), settings, mesh)
    state, frozen = initial_state(Toy(), settings, plan)
    places = jax.tree.map(
        lambda x, target: x.sharding.is_equivalent_to(target.sharding, x.ndim), state, plan.state
    )
    assert all(jax.tree.leaves(places))
    kernel = state.params["head"]["kernel"]
    assert kernel.addressable_shards[0].data.size * 4 == kernel.size
    moment = state.opt_state[1].mu["head"]["kernel"]
    assert moment.addressable_shards[0].data.size * 4 == moment.size
    # 3 output channels: the 16 input channels are split instead.
    assert state.params["narrow"]["kernel"].sharding.spec[2] == "fsdp"
    assert frozen["backbone"]["kernel"].addressable_shards[0].data.shape == (3, 3, 3, 4)


def test_factored_moments_are_split_along_their_largest_axis():
    mesh = make_mesh(data=2, fsdp=4)
    params = {"w": jax.ShapeDtypeStruct((256, 512), jnp.float32)}
    shardings = {"w": jax.sharding.NamedSharding(mesh, jax.P("fsdp"))}
    factored = jax.eval_shape(optax.scale_by_factored_rms().init, params)
    placed = optimizer_shardings(factored, shardings, params, mesh)
    assert placed.v_row["w"].spec == placed.v_col["w"].spec == jax.P("fsdp")
    assert placed.count.spec == jax.P()


def test_frozen_parts_are_kept_in_their_dtype(settings, one):
    plan = make_plan(Toy(), replace(settings, frozen_dtype="bfloat16"), one)
    state, frozen = initial_state(Toy(), replace(settings, frozen_dtype="bfloat16"), plan)
    assert {x.dtype for x in jax.tree.leaves(frozen)} == {jnp.dtype(jnp.bfloat16)}
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype(jnp.float32)}
    assert set(state.params) == {"head", "narrow"} and set(frozen) == {"backbone"}

    class Kept(Toy):
        exact = "^backbone/"

    plan = make_plan(Kept(), replace(settings, frozen_dtype="bfloat16"), one)
    assert {x.dtype for x in jax.tree.leaves(plan.frozen)} == {jnp.dtype(jnp.float32)}


def test_norms_and_biases_do_not_decay(settings):
    params, _ = partition({"a": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2), "scale": jnp.ones(2)}}, "a")
    optimizer = make_optimizer(replace(settings, weight_decay=0.5))
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    assert float(updates["a"]["kernel"][0, 0]) == 0.5
    assert not updates["a"]["bias"].any() and not updates["a"]["scale"].any()


def test_gradients_are_clipped_by_their_norm(settings):
    optimizer = make_optimizer(replace(settings, clip_norm=1.0, weight_decay=0.0))
    params = {"kernel": jnp.ones((3, 4))}
    _, state = optimizer.update({"kernel": jnp.full((3, 4), 1e3)}, optimizer.init(params), params)
    (moment,) = [one.mu["kernel"] for one in jax.tree.leaves(state, is_leaf=_moments) if _moments(one)]
    assert float(jnp.linalg.norm(moment)) == pytest.approx(1 - settings.beta1, rel=1e-4)


def _moments(node):
    return hasattr(node, "mu")


@pytest.mark.parametrize(
    "schedule, values", [("constant", [0.2, 0.6, 1.0, 1.0, 1.0]), ("cosine", [0.2, 0.6, 1.0, 0.5, 0.0]),
     ("linear", [0.2, 0.6, 1.0, 0.5, 0.0])],  # fmt: skip
)
def test_learning_rate(settings, schedule, values):
    settings = replace(settings, learning_rate=1.0, warmup=4, steps=12, schedule=schedule)
    rate = learning_rate_schedule(settings)
    np.testing.assert_allclose([rate(t) for t in (0, 2, 4, 8, 12)], values, atol=1e-6)
