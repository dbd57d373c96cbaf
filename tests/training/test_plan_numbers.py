"""What a plan says of memory and time, on eight devices that are here: each number from its parts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import Toy

from ragdiff_jax.parallel import make_mesh
from ragdiff_jax.parallel.chips import chip_of
from ragdiff_jax.training import TrainSettings, plan


@dataclasses.dataclass(frozen=True)
class Planned(Toy):
    def abstract_constants(self, mesh, memory_rows):
        return {"scale": jax.ShapeDtypeStruct((), jnp.float32, sharding=jax.NamedSharding(mesh, jax.P()))}


def test_a_plan_adds_up():
    chip, mesh = chip_of("TPU v5 lite"), make_mesh(data=2, fsdp=4)
    settings = TrainSettings(steps=10, batch_size=16, ema_decay=0.9)
    found = plan.plan_step(Planned(), settings, mesh, chip, topology="x", memory_rows=0)
    whole = plan.make_plan(Toy(), settings, mesh)
    trained = sum(np.prod(x.sharding.shard_shape(x.shape)) * 4 for x in jax.tree.leaves(whole.state.params))
    held = found.bytes_per_chip
    assert held["ema"] == trained and held["params"] > trained
    assert held["optimizer"] == pytest.approx(2 * trained, abs=8)  # two moments and a counter
    assert found.seconds["network"] == sum(row.bytes for row in found.collectives) / chip.link_bandwidth > 0
    assert found.seconds["compute"] == pytest.approx(found.executed_flops_per_sample * 16 / 8 / chip.flops)
    assert found.as_dict()["samples_per_second"] == pytest.approx(16 / max(found.seconds.values()))
