"""`ragdiff plan`, for TPUs that aren't there: skipped where libtpu isn't installed, but for what needs no compiler."""

import importlib.util
import json

import jax
import pytest

from ragdiff_jax.cli.main import main
from ragdiff_jax.parallel.chips import chip_of

libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="compiles for a TPU: pip install libtpu")
TINY = ["plan", "--config", "configs/structure_net/tiny.py", "--json"]


def plan(capsys, *arguments):
    code = main([*TINY, *arguments])
    out, err = capsys.readouterr()
    return code, [json.loads(line) for line in out.splitlines()], err


@libtpu
def test_a_step_for_eight_chips(capsys):
    code, (found,), _ = plan(
        capsys, "--topology", "v5e:2x4", "--mesh", "fsdp=8,data=1", "--batch", "16", "--memory", "64"
    )
    assert code == 0 and found["fits"] and found["chips"] == 8 and found["global_batch"] == 16
    held = found["bytes_per_chip"]
    assert held["hbm"] == 16 * 2**30 and 0 < held["params"] < held["peak"]
    # Adam holds two numbers a trained parameter, split as these are.
    assert held["optimizer"] == pytest.approx(2 * held["params"], rel=0.05)
    sent = {row["purpose"]: 0 for row in found["collectives"]}
    for row in found["collectives"]:
        sent[row["purpose"]] += row["bytes"]
    # Pure FSDP: weights are gathered and gradients summed; the contrastive loss gathers its few embeddings.
    assert found["other_share"] < 0.05 and "unexplained" not in sent
    assert sent["weights"] > 0 and sent["gradients"] > 0
    assert found["samples_per_second"] == pytest.approx(16 / found["roofline_seconds_per_step"])


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--topology", "v9:2x2"], "chip of v5e, v5p, v6e"),
        (["--topology", "v5e"], "CHIP:AxB"),
        (["--topology", "gpu"], "name a TPU topology"),
        (["--topology", "v5e:2x4", "--mesh", "fdsp=8"], "write e.g. data=-1"),
        (["--topology", "v5e:2x4", "--tries", "0"], "--tries 0"),
        (["--topology", "v5e:2x4", "--set", "train.batchsize=3"], "train.batch_size"),
    ],
)
def test_what_can_not_be_planned(capsys, arguments, words):
    if "fdsp" in str(arguments) and importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu comes first")
    code, _, err = plan(capsys, *arguments)
    assert code == 2 and words in err and len(err.strip().splitlines()) == 1


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is here")
def test_without_the_compiler_it_says_how_to_get_it(capsys):
    code, _, err = plan(capsys, "--topology", "v5e:2x4")
    assert code == 2 and "pip install libtpu" in err


def test_chips_by_the_name_that_jax_gives_them():
    names = {"TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v6 lite": "v6e", "NVIDIA H200": "H200", "cpu": None}
    names |= {"NVIDIA L4": "L4", "NVIDIA L40": "L40", "NVIDIA L40S": "L40S"}
    assert {kind: getattr(chip_of(kind), "name", None) for kind in names} == names


def test_a_person_is_told_what_crosses_and_of_a_narrower_mesh():
    from ragdiff_jax.cli.plan import describe
    from ragdiff_jax.parallel.collectives import Collective
    from ragdiff_jax.training.plan import Report

    chip = chip_of("TPU v5 lite")
    held = {"params": 1, "optimizer": 2, "ema": 1, "constants": 0, "activations": 4, "peak": 8, "hbm": chip.memory}

    def text(fsdp, *rows):
        return describe(
            Report(
                topology="v5e:8x8", chip=chip, mesh={"data": 64 // fsdp, "fsdp": fsdp, "tensor": 1}, global_batch=64,
                remat="block", bytes_per_chip=held, replicated_share=0.0, flops_per_sample=1.0,
                executed_flops_per_sample=1.0, collectives=list(rows), seconds={"compute": 1.0}, steps=1,
                compile_seconds=1.0,
            )
        )  # fmt: skip

    summed = Collective("all-reduce", "gradients", 1, 750)
    other = Collective("all-reduce", "activations", 1, 250, "jit(step)/jvp(UNet)/norm/reduce_sum")
    assert "25 % of the bytes" in text(64, summed, other) and "UNet)/norm/reduce_sum" in text(64, summed, other)
    assert "--mesh data=4,fsdp=16" in text(64, summed, other)
    assert "--mesh" not in text(16, summed, other)
    assert "--mesh" not in text(64, Collective("reduce-scatter", "gradients", 1, 750), other)


def test_the_search_fills_the_chips_and_takes_the_fastest(monkeypatch):
    from ragdiff_jax.parallel import make_mesh
    from ragdiff_jax.training import TrainSettings, plan

    chip = chip_of("TPU v5 lite")
    tried = []

    def compiled(objective, settings, mesh, chip, *, flops, **names):
        rows = settings.batch_size // mesh.size
        activations = int(rows * (1.0 if objective == "block" else 3.0) * 1e9)
        held = {"params": 10**9, "optimizer": 2 * 10**9, "ema": 0, "constants": 0}
        tried.append((objective, mesh.shape["fsdp"], settings.batch_size))
        return plan.Report(
            topology="x", chip=chip, mesh=dict(mesh.shape), global_batch=settings.batch_size, remat="",
            bytes_per_chip={**held, "activations": activations, "peak": 3 * 10**9 + activations, "hbm": chip.memory},
            replicated_share=0.0, flops_per_sample=1.0, executed_flops_per_sample=1.0, collectives=[],
            seconds={"compute": rows * (0.4 if objective == "block" else 0.3), "network": 0.5}, steps=1,
            compile_seconds=1.0,
        )  # fmt: skip

    class Modes:
        def remat_modes(self):
            return {"block": Named("block"), "none": Named("none")}

    class Named(str):
        def abstract_constants(self, mesh, rows):
            return {}

    monkeypatch.setattr(plan, "plan_step", compiled)
    monkeypatch.setattr(plan, "sample_flops", lambda *a: 1.0)
    monkeypatch.setattr(plan, "make_plan", lambda objective, settings, mesh: mesh.shape["fsdp"])
    # The state fits from fsdp=4 on.
    monkeypatch.setattr(plan, "held_bytes", lambda fsdp, constants: {"params": 48 * 10**9 // fsdp})
    arguments = dict(topology="x", memory_rows=8, exact=False, fixed_batch=None)
    settings = TrainSettings(steps=1, batch_size=8)
    search = plan.search.__wrapped__ if hasattr(plan.search, "__wrapped__") else plan.search
    found = list(search(Modes(), settings, jax.devices(), chip, tries=6, **arguments))
    assert tried == [("block", 4, 8), ("block", 4, 64), ("none", 4, 8), ("none", 4, 32)]
    # 8 rows a chip in 3.7 s, or 4 in 1.7 s: the network's share decides.
    assert plan.recommended(found).global_batch == 32
    assert len(list(search(Modes(), settings, jax.devices(), chip, tries=1, **arguments))) == 1
    assert dict(make_mesh(fsdp=4).shape)["data"] == 2


def test_a_stage_whose_people_and_parts_are_not_here_has_its_steps():
    """Traced, not compiled: the loss of Fashion-RAG, and its pictures."""
    from ragdiff_jax.cli.train import fill_train, read_config
    from ragdiff_jax.parallel import unboxed
    from ragdiff_jax.training import plan

    config = read_config("configs/fashion_rag/tiny.py:inversion")
    fill_train(config)
    objective = plan.abstract_objective(config)
    params = unboxed(jax.eval_shape(objective.init, jax.random.key(0)))
    batch = objective.abstract_batch(4)
    losses, _ = jax.eval_shape(objective.loss, params, {}, batch, jax.random.key(0))
    pictures = jax.eval_shape(objective.generate, params, {}, batch, jax.random.key(0))
    assert losses.shape == (4,) and pictures.shape == batch["person"].shape
