"""Mesh, rules, batches, partition."""

import inspect
import logging
import os
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax._src.clusters import ClusterEnv
from jax.sharding import AxisType, PartitionSpec

from ragdiff_jax.errors import UserError
from ragdiff_jax.models.layers import Conv, Dense
from ragdiff_jax.parallel import (
    flatten,
    initialize_processes,
    make_mesh,
    merge,
    partition,
    resolve,
    shard_batch,
    shardings_for,
    unboxed,
)
from ragdiff_jax.parallel.mesh import _arranged

SIZES = {"data": 2, "fsdp": 4, "tensor": 1}


def test_mesh_fills_up_and_is_auto():
    mesh = make_mesh(fsdp=4)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 4, "tensor": 1}
    assert mesh.axis_types == (AxisType.Auto,) * 3
    assert dict(make_mesh(devices=jax.devices()[:1]).shape) == {"data": 1, "fsdp": 1, "tensor": 1}


@pytest.mark.parametrize(
    "sizes, words",
    [
        ({"fsdp": 3}, "3 does not divide the 8 devices"),
        ({"data": 2, "fsdp": 2}, "needs 4 devices, there are 8"),
        ({"data": -1, "fsdp": -1}, "at most one is -1"),
        ({"tensor": 0}, "sizes are positive"),
    ],
)
def test_mesh_sizes_that_do_not_fit(sizes, words):
    with pytest.raises(UserError, match=words):
        make_mesh(**sizes)


def fakes(platform, hosts, each):
    """Devices as a cluster shows them: every host is a slice, on GPUs too."""
    devices = [
        types.SimpleNamespace(platform=platform, slice_index=host, id=host * each + card)
        for host in range(hosts)
        for card in range(each)
    ]
    return devices[::-1]


def test_a_gpu_mesh_crosses_hosts_and_keeps_neighbours_together():
    arranged = inspect.unwrap(_arranged)  # whose types want devices that are there
    found = arranged((1, 8, 2), fakes("gpu", 2, 8), "")
    assert found.shape == (1, 8, 2) and [card.id for card in found.ravel()] == list(range(16))
    assert all(row[0].slice_index == row[1].slice_index for row in found[0])
    with pytest.raises(UserError, match="must be a multiple of the 2 slices"):
        arranged((1, 16, 1), fakes("tpu", 2, 8), "data=1")


@pytest.mark.parametrize(
    "names, shape, spec",
    [
        (("embed", "mlp"), (8, 16), ("fsdp", None)),
        (("mlp", "embed"), (16, 8), (None, "fsdp")),
        (("embed", "mlp"), (6, 16), (None, "fsdp")),  # embed doesn't divide: the wide axis takes fsdp
        (("embed", "embed"), (8, 8), ("fsdp", None)),  # fsdp is given away once
        ((None, None, "conv_in", "conv_out"), (3, 3, 6, 320), (None, None, None, "fsdp")),
        ((None, None, "conv_in", "conv_out"), (3, 3, 320, 640), (None, None, "fsdp", None)),
        (("layers", "embed", "heads"), (10, 8, 16), (None, "fsdp", None)),
        (("norm",), (8,), (None,)),
        (("act_batch", None), (8, 3), (("data", "fsdp"), None)),
        (("act_batch", None), (4, 3), (None, None)),
    ],
)
def test_resolve(names, shape, spec):
    assert resolve(names, shape, SIZES) == PartitionSpec(*spec)


def test_tensor_axis_splits_the_wide_side():
    sizes = {"data": 1, "fsdp": 2, "tensor": 4}
    assert resolve(("embed", "heads"), (8, 16), sizes) == PartitionSpec("fsdp", "tensor")


def test_a_dropped_axis_is_logged(caplog):
    with caplog.at_level(logging.INFO):
        resolve((None, None, "conv_in", "conv_out"), (3, 3, 3, 6), SIZES)
    assert "conv_out" in caplog.text and "does not divide" in caplog.text


def test_parameters_land_in_their_shards():
    mesh = make_mesh(fsdp=4)

    def init(key):
        return {
            "dense": Dense(16).init(key, jnp.zeros((1, 8)))["params"],
            "conv": Conv(4).init(key, jnp.zeros((1, 4, 4, 3)))["params"],
            "plain": jnp.zeros(5),
        }

    boxed = jax.eval_shape(init, jax.random.key(0))
    shardings = shardings_for(boxed, mesh)
    params = jax.jit(lambda key: unboxed(init(key)), out_shardings=shardings)(jax.random.key(0))
    assert params["dense"]["kernel"].addressable_shards[0].data.shape == (2, 16)
    assert params["conv"]["kernel"].addressable_shards[0].data.shape == (3, 3, 3, 1)
    assert params["plain"].sharding.is_fully_replicated


def test_batches_are_cut_by_rows():
    mesh = make_mesh(fsdp=4)
    batch = shard_batch(mesh, {"x": np.arange(16.0).reshape(8, 2), "t": np.int32(3)})
    assert batch["x"].addressable_shards[0].data.shape == (1, 2)
    np.testing.assert_array_equal(batch["x"], np.arange(16.0).reshape(8, 2))
    assert batch["t"].sharding.is_fully_replicated
    with pytest.raises(UserError, match="multiple of 8"):
        shard_batch(mesh, {"x": np.zeros((6, 2))})
    with pytest.raises(UserError, match="'x' has 8 rows; this process holds 16 of a batch's 16"):
        shard_batch(mesh, {"x": np.zeros((8, 2))}, rows=16)
    with pytest.raises(UserError, match="'id'"):
        shard_batch(mesh, {"id": np.array(["a"] * 8)})


trees = st.recursive(
    st.integers(),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3),
    max_leaves=8,
).filter(lambda tree: isinstance(tree, dict))


@settings(deadline=None)
@given(trees, st.sampled_from(["a", "^a/", "b$", "c|d", "."]))
def test_merge_undoes_partition(tree, regex):
    try:
        matched, rest = partition(tree, regex)
    except UserError:
        return
    assert merge(matched, rest) == tree == merge(rest, matched)
    paths = [set(dict(flatten(part))) for part in (matched, rest)]
    assert not paths[0] & paths[1]


def test_partition_says_what_there_is():
    params = {"main": {"kernel": 1}, "vae": {"kernel": 2}}
    with pytest.raises(UserError, match="no parameter matches 'unet'; the top-level parts are: main, vae"):
        partition(params, "unet")
    with pytest.raises(UserError, match="not a regular expression"):
        partition(params, "(")
    with pytest.raises(ValueError, match="kernel"):
        merge(params, {"main": {"kernel": 3}})


def test_processes_need_all_three_or_none():
    with pytest.raises(UserError, match="give all three"):
        initialize_processes(coordinator="localhost:1234")


SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[1-4]", "SLURM_NTASKS": "4", "SLURM_PROCID": "2"}
OMPI = {"OMPI_MCA_orte_hnp_uri": "4096.0;tcp://10.0.0.1:1", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2"}


@pytest.mark.parametrize(
    "found, cards",
    [
        (SLURM | {"SLURM_LOCALID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "4"}, []),
        (SLURM | {"SLURM_LOCALID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "1"}, [2]),
        (OMPI | {"OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, []),
        (OMPI | {"OMPI_COMM_WORLD_LOCAL_RANK": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, [2]),
    ],
)
def test_a_task_alone_on_its_node_has_all_its_cards(monkeypatch, found, cards):
    for name in [name for name in os.environ if name.startswith(("SLURM_", "OMPI_"))]:
        monkeypatch.delenv(name)
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    given = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: given.update(arguments))
    initialize_processes()
    # What the installed jax makes of it: an empty list is kept and hides nothing.
    *process, shown = ClusterEnv.auto_detect_unset_distributed_params(
        None, None, None, given.get("local_device_ids"), None, 1
    )
    assert process[1:] == [4, 2] and shown == cards
