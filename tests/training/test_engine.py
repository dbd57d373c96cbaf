"""Optimizers, averages, places and reports: what a pod run adds to the loop."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import Toy, exported, lines, losses, replace

from ragdiff_jax.axes import gathered
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.layers import Conv, Dense
from ragdiff_jax.parallel import make_mesh, mesh_context
from ragdiff_jax.parallel.chips import Chip
from ragdiff_jax.training import TrainSettings, metrics, train
from ragdiff_jax.training.checkpoint import Checkpoints
from ragdiff_jax.training.loop import initial_state, make_plan
from ragdiff_jax.training.startup import check_replicated
from ragdiff_jax.training.state import make_optimizer
from ragdiff_jax.training.step import update_average


def test_weights_are_gathered_in_the_computation_dtype_and_gradients_scattered():
    mesh = make_mesh(data=2, fsdp=4)
    module = Dense(16, dtype=jnp.bfloat16, use_bias=False)
    kernel = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=jax.NamedSharding(mesh, jax.P("fsdp")))
    x = jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=jax.NamedSharding(mesh, jax.P(("data", "fsdp"))))

    def loss(kernel, x):
        return jnp.square(module.apply({"params": {"kernel": kernel}}, x).astype(jnp.float32)).sum()

    with mesh_context(mesh):
        lowered = jax.jit(jax.grad(loss), out_shardings=kernel.sharding).lower(kernel, x)
    text = lowered.as_text()
    # Pinned in pieces, gathered, its gradient in pieces, and the layer's output by rows, forward and backward.
    assert text.count("sharding_constraint") >= 5
    compiled = lowered.compile().as_text()
    gathers = [line for line in compiled.splitlines() if " all-gather(" in line or " all-gather-start(" in line]
    # A CPU computes bfloat16 in fp32, and casts before: what matters is that only the weight is gathered, once.
    assert len(gathers) == 1 and "[8,16]" in gathers[0]
    assert "all-to-all" not in compiled and "collective-permute" not in compiled


def test_a_constraint_that_does_not_divide_is_left_out():
    mesh = make_mesh(fsdp=8, data=1)
    with mesh_context(mesh):
        out = jax.eval_shape(lambda x: Conv(6).init_with_output(jax.random.key(0), x)[0], jnp.zeros((3, 4, 4, 5)))
    assert out.shape == (3, 4, 4, 6)
    assert gathered(jnp.ones((8, 8)), ("embed", "mlp")).shape == (8, 8)  # outside of a mesh: itself


@pytest.mark.parametrize("optimizer, kept", [("adamw", 2.0), ("muon", 1.6), ("adafactor", 1.1)])
def test_optimizers_learn(tmp_path, settings, one, optimizer, kept):
    settings = replace(settings, optimizer=optimizer, ema_decay=0.0, steps=20)
    train(Toy(noise=0.0), tmp_path, settings, one)
    found = losses(tmp_path)
    assert found[20] < 0.7 * found[1]
    state = make_plan(Toy(), settings, one).state
    count = sum(x.size for x in jax.tree.leaves(state.params))
    # The toy is too narrow to be factored: Adafactor keeps one number a parameter where Adam keeps two.
    assert sum(x.size for x in jax.tree.leaves(state.opt_state)) <= kept * count + 8


def test_muon_turns_each_kernel_s_gradient_into_one_of_equal_strength_in_all_directions():
    rng = np.random.default_rng(0)
    shapes = {"dense": (24, 8), "conv": (3, 3, 4, 8), "stack": (2, 24, 8)}
    params = {name: {"kernel": jnp.ones(shape), "bias": jnp.ones(8)} for name, shape in shapes.items()}
    params["adapter"] = {"to_k": jnp.ones((2, 24, 8)), "bias": jnp.ones(8)}  # the EP-Adapter's, without a module
    grads = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * 1e-3, jnp.float32), params)
    grads["dense"]["kernel"] = grads["dense"]["kernel"].at[:, 0].multiply(50.0)
    settings = TrainSettings(steps=2, batch_size=8, optimizer="muon", weight_decay=0.0)
    optimizer = make_optimizer(settings)
    updates = jax.jit(lambda grads: optimizer.update(grads, optimizer.init(params), params)[0])(grads)
    updates, grads = jax.tree.map(np.asarray, (updates, grads))
    matrices = [updates["dense"]["kernel"], updates["conv"]["kernel"].reshape(36, 8), *updates["stack"]["kernel"]]
    matrices += [*updates["adapter"]["to_k"]]
    for matrix in matrices:  # five steps of Newton and Schulz bring the singular values to about 0.7 to 1.2
        strengths = np.linalg.svd(np.asarray(matrix), compute_uv=False) / (0.2 * math.sqrt(max(matrix.shape)))
        assert 0.5 < strengths.min() and strengths.max() < 1.4
    for name, of in updates.items():  # along the gradient, which the step subtracts; Adam's part too
        kernel = "to_k" if name == "adapter" else "kernel"
        assert (of[kernel] * grads[name][kernel]).sum() > 0
        np.testing.assert_array_equal(np.sign(of["bias"]), np.sign(grads[name]["bias"]))


def test_decay_pulls_at_matrices_and_tables_alone():
    names = ("kernel", "embedding", "table", "to_k", "to_v", "bias", "scale")
    params = {name: jnp.ones((3, 4)) for name in names}
    optimizer = make_optimizer(TrainSettings(steps=2, batch_size=8, weight_decay=0.1))
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    assert {name for name in names if updates[name].any()} == set(names[:5])


def test_rates_by_path(tmp_path, settings, one):
    rates = (("^head/", 0.0), ("kernel", 0.5))
    train(Toy(), tmp_path / "run", replace(settings, steps=2, learning_rates=rates, ema_decay=0.0), one)
    start = jax.jit(Toy().init)(jax.random.key(0))
    after = exported(tmp_path / "run")
    np.testing.assert_array_equal(after["head.kernel"], start["head"]["kernel"].value)
    assert not np.array_equal(after["narrow.kernel"], start["narrow"]["kernel"].value)
    with pytest.raises(UserError, match="'unet' finds no trained parameter"):
        train(Toy(), tmp_path / "none", replace(settings, learning_rates=(("unet", 2.0),)), one)


def test_an_average_in_bfloat16_moves_although_its_steps_are_small(settings):
    settings = replace(settings, ema_decay=0.999, ema_dtype="bfloat16")
    ema, params = {"w": jnp.zeros(4096, jnp.bfloat16) + 1}, {"w": jnp.full(4096, 1.5)}
    move = jax.jit(lambda ema, step: update_average(settings, ema, params, step, jax.random.key(step)))
    for step in range(10_000, 10_100):
        ema = move(ema, jnp.int32(step))
    expected = 1.5 - 0.5 * 0.999**100
    assert float(ema["w"].astype(jnp.float32).mean()) == pytest.approx(expected, abs=2e-3)
    sparse = replace(settings, ema_dtype="float32", ema_every=10)
    wide, few = {"w": jnp.ones(4)}, {"w": params["w"][:4]}
    move = jax.jit(lambda wide, step: update_average(sparse, wide, few, step, jax.random.key(0)))
    for step in range(10_000, 10_100):
        wide = move(wide, jnp.int32(step))
    np.testing.assert_allclose(wide["w"], expected, rtol=1e-5)


def test_the_average_may_lie_over_data_too(settings):
    mesh = make_mesh(data=2, fsdp=4)
    plan = make_plan(Toy(), replace(settings, ema_spread=True), mesh)
    kernel = plan.state.ema["head"]["kernel"]
    assert np.prod(kernel.sharding.shard_shape(kernel.shape)) * 8 == kernel.size
    state, _ = initial_state(Toy(), replace(settings, ema_spread=True), plan)
    assert state.ema["head"]["kernel"].sharding == kernel.sharding


def test_too_much_kept_whole_is_refused(settings, monkeypatch):
    monkeypatch.setattr("ragdiff_jax.training.startup._SMALL", 0)
    plan = make_plan(Toy(), settings, make_mesh(data=1, fsdp=8))
    with pytest.raises(UserError, match=r"lie whole on every device .*narrow/bias.* divides by none of {'fsdp': 8}"):
        check_replicated(plan, replace(settings, replicated_limit=0.0))
    check_replicated(plan, replace(settings, replicated_limit=1.0))
    check_replicated(make_plan(Toy(), settings, make_mesh(data=8)), settings)  # nothing is meant to be split


def test_a_checkpoint_in_another_dtype_and_without_its_optimizer(tmp_path, settings, one):
    train(Toy(), tmp_path, settings, one)
    checkpoints = Checkpoints(tmp_path / "checkpoints", one)
    target = make_plan(Toy(), settings, one).state
    _, state = checkpoints.restore(target)
    half = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=x.sharding), target.params)
    params = checkpoints.restore_params(half)
    for whole, small in zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(whole.astype(jnp.bfloat16), small)
    checkpoints.close()


def test_what_a_run_says_and_measures(tmp_path, settings, one, capsys, monkeypatch):
    monkeypatch.setattr(metrics, "chip_of", lambda kind: Chip("toy", (), 1e9, 1, 1.0, 1.0))
    settings = replace(settings, evaluators=("head",), evaluate_every=5)
    train(Toy(), tmp_path, settings, one, profile=2)
    said = capsys.readouterr().err
    assert "mesh: one device (1 x cpu, 1 processes); 8 rows at a time" in said
    assert "trained head: 0.001544 M float32, 6.03 KiB a device (100 % whole)" in said
    assert "on a device:" in said and "encodings: made in each step" in said
    assert "TFLOP/s" in said and "MFU" in said
    assert [line["step"] for line in lines(tmp_path) if "head/size" in line] == [5, 10]
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert json.loads((tmp_path / "flops.json").read_text())["flops_per_sample"] > 0
    with pytest.raises(UserError, match="evaluators: 'fid' is none of head"):
        train(Toy(), tmp_path, replace(settings, evaluators=("fid",)), one)
