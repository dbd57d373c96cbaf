"""What crosses devices and why: small programs compiled for eight, and lines as a TPU's compiler writes them."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ragdiff_jax.models.layers import Dense, GroupNorm
from ragdiff_jax.parallel import batch_sharding, make_mesh, mesh_context, shardings_for, unboxed
from ragdiff_jax.parallel.collectives import collectives

WIDE, NARROW = 48, 24


def placed(shape, spec, mesh, dtype="float32"):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*spec)))


def compiled(function, *arguments, mesh, **options):
    with mesh_context(mesh):
        return jax.jit(function, **options).lower(*arguments).compile().as_text()


def sent(text, weights=(), **options):
    """Bytes by purpose."""
    found = {}
    for row in collectives(text, jax.tree.leaves(weights), **options):
        found[row.purpose] = found.get(row.purpose, 0) + row.bytes
    return found


class Two(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = jnp.tanh(Dense(WIDE, name="up")(x))
        return x + Dense(NARROW, axes=("mlp", "embed"), name="down")(y)


def train_step(mesh):
    """(text, weights) of a step with fsdp: loss, gradient, its norm, and an update with a mean over the stored axis."""
    net = Two()
    boxed = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, NARROW)))
    places = shardings_for(boxed, mesh)
    abstract = jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), unboxed(boxed), places
    )
    batch = jax.ShapeDtypeStruct((16, NARROW), "float32", sharding=batch_sharding(mesh))

    def step(params, x):
        loss, gradient = jax.value_and_grad(lambda p: jnp.square(net.apply(p, x)).mean())(params)
        norm = jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(gradient)))
        # As Adafactor does: a column's mean, of a matrix whose rows are spread over the devices.
        columns = jnp.square(gradient["params"]["up"]["kernel"]).mean(0)
        params = jax.tree.map(lambda p, g: p - 0.1 * g / norm, params, gradient)
        return params, (loss, norm, columns)

    return compiled(step, abstract, batch, mesh=mesh, out_shardings=(places, None)), abstract


def test_a_step_gathers_weights_and_sums_gradients_and_nothing_else_of_size():
    text, weights = train_step(make_mesh(fsdp=8))
    found = sent(text, weights)
    assert set(found) == {"weights", "gradients", "scalars", "optimizer"}
    kernels, biases = 2 * NARROW * WIDE * 4, (NARROW + WIDE) * 4
    # Each weight is gathered once (the products' backward passes share it), less a device's own eighth.
    assert found["weights"] == pytest.approx(7 / 8 * (kernels + biases), rel=0.01)
    # A CPU sums gradients whole, at twice the bytes.
    assert found["gradients"] == pytest.approx(2 * 7 / 8 * (kernels + biases), rel=0.01)
    assert found["optimizer"] == pytest.approx(2 * 7 / 8 * WIDE * 4, rel=0.01)
    assert found["scalars"] < 100


def test_without_names_a_sum_is_unexplained_and_a_gather_of_a_weight_is_not():
    text, weights = train_step(make_mesh(fsdp=8))
    found = sent(re.sub(r", metadata=\{[^}]*\}", "", text), weights)
    assert found["weights"] > 0 and found["unexplained"] > 0 and "gradients" not in found


def test_sums_over_a_split_axis_are_activations_even_where_their_shape_is_a_weights():
    mesh = make_mesh(fsdp=8)
    weight = placed((32, 32), ("fsdp", None), mesh)
    rows = placed((32, 32), (None, "fsdp"), mesh)

    def loss(weight, x):
        return jnp.square(x @ weight).mean()  # contracted over the axis that is split: [32, 32] partial sums

    text = compiled(jax.value_and_grad(loss), weight, rows, mesh=mesh)
    assert sent(text, weight)["activations"] >= 2 * 7 / 8 * 32 * 32 * 4
    (row,) = [row for row in collectives(text, [weight]) if row.purpose == "activations"]
    assert "dot_general" in row.source
    # To draw a picture nothing is derived: the same product is an activation's there too.
    text = compiled(lambda weight, x: x @ weight, weight, rows, mesh=mesh, out_shardings=None)
    assert set(sent(text, weight, trained=False)) == {"activations"}


def test_statistics_of_split_pictures_are_activations():
    mesh = make_mesh(fsdp=8)
    pictures = placed((2, 16, 4, 32), (None, "fsdp"), mesh)
    layer = GroupNorm(groups=4)
    weights = jax.tree.map(
        lambda x: placed(x.shape, (None,), mesh),
        unboxed(jax.eval_shape(layer.init, jax.random.key(0), jnp.zeros((1, 2, 2, 32)))),
    )
    text = compiled(
        jax.value_and_grad(lambda params, x: jnp.cos(layer.apply(params, x)).mean()), weights, pictures, mesh=mesh
    )
    found = sent(text, weights)
    assert found["activations"] > 0
    # The bias' gradient; the scale's comes of sums a picture, [2, 32], that the pictures' own gradient needs as well.
    assert found["gradients"] == pytest.approx(2 * 7 / 8 * 32 * 4, rel=0.01)
    assert "unexplained" not in found and "weights" not in found


def stack(axis):
    """Ten layers' kernels [8, 4], split over four devices along `axis`."""
    mesh = make_mesh(fsdp=4, devices=jax.devices()[:4])
    return placed((10, 8, 4), ["fsdp" if i == axis else None for i in range(3)], mesh)


LOOP = """HloModule step, num_partitions=4
%body (p: (s32[], bf16[8,4])) -> (s32[], bf16[8,4]) {
  %ag = bf16[8,4]{1,0} all-gather(%w), replica_groups=[1,4]<=[4], dimensions={0}
  %rs = f32[2,4]{1,0} reduce-scatter(%g), replica_groups={{0,1,2,3}}, metadata={op_name="jit(s)/transpose(jvp(N))/dot"}
}

%cond (p: (s32[], bf16[8,4])) -> pred[] {
  %limit = s32[]{:T(128)} constant(10)
  ROOT %lt = pred[] compare(%i, %limit), direction=LT
}

ENTRY %main (x: bf16[2,4]) -> f32[] {
  %w1 = (s32[], bf16[8,4]) while(%t), condition=%cond, body=%body
  %p = (f32[16,3]{1,0}, f32[16,3]{1,0}, u32[], u32[]) collective-permute-start(%y), source_target_pairs={{0,1}}
  %ar = f32[] all-reduce(%l), replica_groups=mesh['axis_0'=2,'axis_1'=2] {'axis_1'}, to_apply=%add
  %all = f32[] all-reduce(%l), replica_groups={}, to_apply=%add
}
"""


def counted(text, weights):
    return {(row.kind, row.purpose): (row.count, row.bytes) for row in collectives(text, weights)}


def test_collectives_are_counted_as_often_as_their_loop_runs():
    assert counted(LOOP, [stack(axis=1)]) == {
        ("all-gather", "weights"): (10, 10 * 64 * 3 // 4),
        ("reduce-scatter", "gradients"): (10, 10 * 32 * 3),
        ("collective-permute", "unexplained"): (1, 192),
        ("all-reduce", "scalars"): (2, 4 + 6),  # of two devices, and of all four
    }


RING = """HloModule step, num_partitions=4
%windowed_dot_general_body_rs (p: (bf16[8,1], u32[])) -> (bf16[8,1], u32[]) {
  %p = (bf16[8,1]{1,0}, u32[]{:T(128)}) parameter(0)
  %two = u32[]{:T(128)} constant(2)
  %i = u32[]{:T(128)} get-tuple-element(%p), index=1
  %part = bf16[8,1]{1,0} get-tuple-element(%p), index=0
  %there = bf16[8,1]{1,0} collective-permute(%part), source_target_pairs={{0,1},{1,2},{2,3},{3,0}}
  %back = bf16[8,1]{1,0} collective-permute(%part), source_target_pairs={{1,0},{2,1},{3,2},{0,3}}
  %next = u32[]{:T(128)} add(%i, %two)
  ROOT %t = (bf16[8,1]{1,0}, u32[]{:T(128)}) tuple(%there, %next)
}

%cond (p: (bf16[8,1], u32[])) -> pred[] {
  %p = (bf16[8,1]{1,0}, u32[]{:T(128)}) parameter(0)
  %limit = u32[]{:T(128)} constant(4)
  %i = u32[]{:T(128)} get-tuple-element(%p), index=1
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

ENTRY %main (x: bf16[8,1]) -> f32[] {
  %w = (bf16[8,1]{1,0}, u32[]{:T(128)}) while(%t), condition=%cond, body=%windowed_dot_general_body_rs
}
"""


def test_a_ring_that_takes_two_steps_a_run():
    assert counted(RING, [stack(axis=2)]) == {("collective-permute", "gradients"): (2 * 2, 2 * 2 * 8 * 2)}


TPU = """HloModule step, num_partitions=8
%all-reduce-scatter.1 (input: bf16[8,4]) -> bf16[8,2] {
  %input = bf16[8,4]{1,0} parameter(0)
  %zero = bf16[] constant(0)
  %pad.1 = bf16[8,8]{0,1:T(8,128)(2,1)} pad(%input, %zero), padding=0_0x0_4
  %all-reduce.9 = bf16[8,8]{0,1:T(8,128)(2,1)} all-reduce(%pad.1), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %piece = bf16[8,2]{0,1:T(8,128)(2,1)} dynamic-slice(%all-reduce.9, %zero, %id), dynamic_slice_sizes={8,2}
}

ENTRY %main (x: bf16[2,4]) -> f32[] {
  %g = bf16[8,4]{1,0} fusion(%x), kind=kOutput, calls=%products
  %scatter = bf16[8,2]{0,1:T(8,128)(2,1)} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.1, \
metadata={op_name="jit(step)/transpose(jvp(Net))/up/dot_general"}
  %halo = bf16[8,2]{0,1:T(8,128)(2,1)} collective-permute(%scatter), source_target_pairs={{1,0},{2,1},{3,2}}
  %zeros = bf16[8,4]{1,0} broadcast(%zero)
  %laid = bf16[8,4]{1,0} dynamic-update-slice(%zeros, %w, %id, %zero)
  %sum = bf16[8,4]{1,0} all-reduce(%laid), \
replica_groups=mesh['axis_0'=2,'axis_1'=4], device_ids=([2,4]T(1,0)) {'axis_1'}, to_apply=%add
}
"""


def test_what_a_tpu_writes():
    """A scatter is a fusion of a sum of the whole, padded; what mends the padding; a gather as a sum with zeros."""
    assert counted(TPU, [stack(axis=2)]) == {
        ("reduce-scatter", "gradients"): (1, 8 * 8 * 2 * 3 // 4),
        ("collective-permute", "gradients"): (1, 8 * 2 * 2),
        ("all-reduce", "weights"): (1, 2 * 8 * 4 * 2 * 3 // 4),
    }
