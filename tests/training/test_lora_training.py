"""Adapters train in the place of the parameters: the base stays bit for bit, what is exported is merged and alone."""

import dataclasses

import jax
import numpy as np
import pytest
from toy import Toy

from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import make_mesh
from ragdiff_jax.training import TrainSettings, train
from ragdiff_jax.training.encoded import EncodedObjective
from ragdiff_jax.training.loop import initial_state, make_plan
from ragdiff_jax.training.lora import LoRAObjective
from ragdiff_jax.weights import load_part, save_part
from ragdiff_jax.weights.lora_file import open_lora
from ragdiff_jax.weights.sources import whole


@dataclasses.dataclass(frozen=True)
class Nested(Toy):
    """The toy as a system's part `net`, which exports what it is given, so that the test can see it."""

    def init(self, key):
        return {"net": super().init(key)}

    def restore_parts(self, params):
        return params

    def loss(self, params, constants, batch, key):
        return super().loss(params["net"], constants, batch, key)

    def export(self, params, directory):
        save_part(directory / "net", {}, params["net"])


SETTINGS = TrainSettings(steps=3, batch_size=8, learning_rate=0.05, ema_decay=0.5, log_every=1)
TARGETS = "net/(head|backbone)/kernel$"
LORA = LoRAObjective(base=Nested(), rank=2, alpha=4.0, targets=TARGETS, also="^net/narrow/")


def test_only_the_adapters_and_what_else_was_asked_for_train(tmp_path):
    mesh = make_mesh(data=2, fsdp=4)
    plan = make_plan(LORA, SETTINGS, mesh)
    assert set(plan.state.params) == {"lora", "net"} and set(plan.state.params["net"]) == {"narrow"}
    assert set(plan.frozen["net"]) == {"backbone", "head"}
    assert plan.state.params["lora"]["net"]["head"]["lora_A"]["kernel"].shape == (192, 2)
    state, frozen = initial_state(LORA, SETTINGS, plan)
    result = train(LORA, tmp_path / "run", SETTINGS, mesh=mesh)
    base = jax.device_get(frozen["net"] | state.params["net"])
    model = load_part(result.model / "net", jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), base))
    np.testing.assert_array_equal(model["head"]["bias"], base["head"]["bias"])
    assert np.abs(model["narrow"]["kernel"] - base["narrow"]["kernel"]).max() > 0
    file = open_lora(result.model / "lora")
    assert set(file.parts) == {"net"} and set(file.parts["net"]) == {"head", "backbone"}
    for module, adapter in file.parts["net"].items():
        a, b = (file.source.read(name, whole(file.source.shapes[name])) for name in (adapter.a, adapter.b))
        assert adapter.scale == 2.0 and np.abs(b).max() > 0
        delta = (b.reshape(b.shape[:2]) @ a.reshape(2, -1)).reshape(b.shape[0], *a.shape[1:])
        delta = delta.T if module == "head" else delta.transpose(2, 3, 1, 0)
        np.testing.assert_allclose(model[module]["kernel"], base[module]["kernel"] + 2.0 * delta, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("targets", "also"), [("structure_net/head/", ""), ("other/head", "^structure_net/")])
def test_a_part_whose_encodings_are_kept_is_not_trained(targets, also):
    class Encodes(Nested):
        encode = parts = None

        def init(self, key):
            tree = super().init(key)
            return {"structure_net": tree["net"], "other": tree["net"]}

    kept = EncodedObjective(base=Encodes(), folder="nowhere")
    lora = dataclasses.replace(LORA, base=kept, targets=targets, also=also)
    with pytest.raises(UserError, match=r"lora.targets=.*: match structure_net, which no step runs"):
        make_plan(lora, SETTINGS, make_mesh(data=-1))


def test_a_run_resumes_only_with_the_same_adapters_and_another_may_start_from_them(tmp_path):
    mesh = make_mesh(data=-1)
    short = dataclasses.replace(SETTINGS, steps=1)
    train(LORA, tmp_path / "run", short, mesh=mesh)
    with pytest.raises(UserError, match=r"alpha=4.0 \(now 8.0\)"):
        train(dataclasses.replace(LORA, alpha=8.0), tmp_path / "run", SETTINGS, mesh=mesh)
    more = dataclasses.replace(LORA, start=str(tmp_path / "run" / "model" / "lora"), alpha=1.0)
    state, _ = initial_state(more, short, make_plan(more, short, mesh))
    file = open_lora(more.start)
    b = file.source.read(file.parts["net"]["head"].b, (slice(0, 8), slice(0, 2)))
    # B takes up the other alpha: the product stays what it was.
    np.testing.assert_allclose(state.params["lora"]["net"]["head"]["lora_B"]["kernel"], 4.0 * b.T, rtol=1e-6)
