"""What a run would need on a machine that isn't there: the very train step, compiled for it.

Nothing is allocated and no data, weights or memory need to be at hand: parts come from the config's folders where these
exist, else the preset's architecture stands in. Memory and collectives are the compiler's; times are a roofline.
"""

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ragdiff_jax.data.pipeline import PairShapes
from ragdiff_jax.data.tokenizer import Tokenizer
from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import batch_sharding, batch_shards, make_mesh, mesh_context
from ragdiff_jax.parallel.chips import CHIPS, Chip, chip_of
from ragdiff_jax.parallel.collectives import Collective, collectives
from ragdiff_jax.parallel.flops import flops_of
from ragdiff_jax.parallel.memory import held_on_device, replicated_bytes
from ragdiff_jax.training.flops import sample_flops
from ragdiff_jax.training.loop import Plan, make_plan
from ragdiff_jax.training.objective import Objective
from ragdiff_jax.training.settings import TrainSettings
from ragdiff_jax.training.step import check_rows, jit_step

TEXT_LENGTH = 77
SHIPPED_TOKENIZER = Path(__file__).parents[1] / "assets" / "tiny" / "tokenizer"
HEADROOM = 0.92
"""Of a chip's memory what a step may take: the rest is the runtime's and fragments."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What a step takes on each chip (bytes) and at most gives.

    Attributes:
      bytes_per_chip: `params` (trained and frozen), `optimizer`, `ema`, `constants` (a memory), `activations`, `peak`,
        `hbm`.
      replicated_share: of parameters, optimizer and EMA, what every chip holds whole.
      flops_per_sample: useful operations, forward and backward; `executed_flops_per_sample` with rematerialisation.
      seconds: `compute`, `memory` (state read and written once; to generate, parameters read in each of the sampler's
        steps), `network` of a step, each at the chip's peak.
      steps: of the whole run. `step`: `train` or `generate`.
    """

    topology: str
    chip: Chip
    mesh: dict[str, int]
    global_batch: int
    remat: str
    bytes_per_chip: dict[str, int]
    replicated_share: float
    flops_per_sample: float
    executed_flops_per_sample: float
    collectives: list[Collective]
    seconds: dict[str, float]
    steps: int
    compile_seconds: float
    step: str = "train"

    @property
    def fits(self) -> bool:
        return self.bytes_per_chip["peak"] <= HEADROOM * self.bytes_per_chip["hbm"]

    @property
    def chips(self) -> int:
        return int(np.prod(list(self.mesh.values())))

    @property
    def step_seconds(self) -> float:
        """The least: compute, memory and network at their peaks, all overlapped."""
        return max(self.seconds.values())

    @property
    def other_share(self) -> float:
        """Of the bytes that leave a chip, what is neither a gather of weights nor a sum of gradients."""
        other = sum(row.bytes for row in self.collectives if row.purpose not in ("weights", "gradients"))
        return other / max(1, sum(row.bytes for row in self.collectives))

    def as_dict(self) -> dict[str, Any]:
        """The `--json` line (docs/contracts.md)."""
        return {
            "step": self.step,
            "topology": self.topology,
            "chips": self.chips,
            "mesh": self.mesh,
            "global_batch": self.global_batch,
            "remat": self.remat,
            "bytes_per_chip": self.bytes_per_chip,
            "replicated_share": self.replicated_share,
            "fits": self.fits,
            "model_tflop_per_sample": self.flops_per_sample / 1e12,
            "executed_tflop_per_sample": self.executed_flops_per_sample / 1e12,
            "collectives": [dataclasses.asdict(row) for row in self.collectives],
            "other_share": self.other_share,
            "roofline_seconds": self.seconds,
            "roofline_seconds_per_step": self.step_seconds,
            "samples_per_second": self.global_batch / self.step_seconds,
            "schedule_hours": self.steps * self.step_seconds / 3600,
            "compile_seconds": self.compile_seconds,
        }


def target_devices(topology: str, slices: int = 1) -> tuple[Sequence[jax.Device], Chip]:
    """The devices of `v5p:4x4x4` (compile only), or with `gpu` those of this machine.

    Raises:
        UserError: no such chip or topology, libtpu isn't installed, or there is no GPU.
    """
    if topology == "gpu":
        devices = jax.devices()
        chip = chip_of(devices[0].device_kind)
        if devices[0].platform != "gpu" or chip is None:
            raise UserError(f"--topology gpu: this machine has {devices[0].device_kind}; name a TPU topology")
        return devices, chip
    name, _, shape = topology.partition(":")
    known = {chip.name: chip for chip in CHIPS if chip.topology}
    if name not in known or not shape:
        raise UserError(f"--topology {topology}: write CHIP:AxB or CHIP:AxBxC, with a chip of {', '.join(known)}")
    from jax.experimental import topologies

    chip = known[name]
    arguments = {"num_slices": slices} if slices > 1 else {}
    try:
        described = topologies.get_topology_desc(
            platform="tpu", topology_name=f"{chip.topology}:{shape}", **arguments
        )
    except Exception as error:
        text = str(error).strip().splitlines()[0]
        if "not installed" in text:
            raise UserError("planning for a TPU needs its compiler: pip install libtpu (no TPU needed)") from error
        raise UserError(f"--topology {topology}: {text}") from error
    return described.devices, chip


def absent_parts(config: Any) -> list[str]:
    """The parts whose folder isn't here."""
    parts = config["model"].get("parts", {})
    return [part for part, folder in parts.items() if folder and not os.path.isdir(folder)]


def abstract_objective(config: Any, wrap: bool = True) -> Objective:
    """The objective of a config, over data that needn't be here; without `wrap` no kept encodings and adapters."""
    from ragdiff_jax.training.builders import SHAPE_BUILDERS
    from ragdiff_jax.training.from_config import builder_of, check_image_size, wrapped

    model = dict(config["model"])
    if "parts" in model:
        absent = set(absent_parts(config))
        model["parts"] = {part: "" if part in absent else folder for part, folder in model["parts"].items()}
    for name in ("tokenizer", "tokenizer_2", "tokenizers"):
        if model.get(name):
            model[name] = _tokenizers(model[name])
    if config["objective"] in SHAPE_BUILDERS:
        length = len(Tokenizer.from_folder(model["tokenizer"]).encode([""])[0])
        objective = SHAPE_BUILDERS[config["objective"]](model, length)
    else:
        check_image_size(config)
        pairs = PairShapes(config["data"]["image_size"], TEXT_LENGTH, count=config["train"]["batch_size"])
        objective = builder_of(config)(model, pairs=pairs)
    return wrapped(objective, config) if wrap else objective


def _tokenizers(folders: Any) -> Any:
    """Any vocabulary gives ids of the same shape."""
    if isinstance(folders, str):
        return folders if os.path.isdir(folders) else str(SHIPPED_TOKENIZER)
    return tuple(_tokenizers(folder) for folder in folders)


def plan_step(
    objective: Objective,
    settings: TrainSettings,
    mesh: Mesh,
    chip: Chip,
    *,
    topology: str,
    memory_rows: int,
    exact: bool = False,
    flops: float | None = None,
) -> Report:
    """Compiles the train step for `mesh` and says what it takes.

    Args:
        objective, settings: of the run.
        mesh: of devices that needn't be here.
        chip: what they are.
        topology: how the report calls it.
        memory_rows: garments in the memory that training retrieves from.
        exact: the compiler's default effort, which the machine will use; else its quickest, whose memory is the same
            within a per cent or so.
        flops: `sample_flops`, if they are known already.
    """
    abstract = make_plan(objective, settings, mesh)
    constants = objective.abstract_constants(mesh, memory_rows)
    batch = _placed_batch(objective, settings, mesh)
    useful = sample_flops(objective, constants, settings.batch_size, abstract.params) if flops is None else flops
    step = jit_step(objective, settings, mesh, abstract.state)
    compiled, flops_of_all, took = _compiled(step, (abstract.state, abstract.frozen, constants, batch), mesh, exact)
    executed = flops_of_all / settings.batch_size
    held = held_bytes(abstract, constants)
    state = (abstract.state, abstract.frozen)
    measured = _measured(compiled, held, state, (abstract.state.params, abstract.frozen), mesh, chip)
    rows = settings.batch_size / mesh.size
    # What is trained is read and written; the rest is read.
    passed = held["params"] + held_on_device(abstract.state.params) + 2 * (held["optimizer"] + held["ema"])
    seconds = {
        "compute": executed * rows / chip.flops,
        "memory": passed / chip.memory_bandwidth,
        "network": sum(row.bytes for row in measured["collectives"]) / chip.link_bandwidth,
    }
    return Report(
        topology=topology,
        chip=chip,
        mesh=dict(mesh.shape),
        global_batch=settings.batch_size,
        remat=_remat(objective),
        flops_per_sample=useful,
        executed_flops_per_sample=executed,
        seconds=seconds,
        steps=settings.steps,
        compile_seconds=took,
        **measured,
    )


def plan_generation(
    objective: Objective,
    settings: TrainSettings,
    mesh: Mesh,
    chip: Chip,
    *,
    topology: str,
    memory_rows: int,
    exact: bool = False,
) -> Report:
    """`plan_step` of drawing `settings.batch_size` pictures: conditions, all of the sampler's steps, the decoder.

    Parameters lie in `settings.frozen_dtype`. Raises UserError where the objective draws none, or the batch doesn't
    divide.
    """
    settings = dataclasses.replace(settings, accumulate=1)  # drawing knows no micro-batches
    check_rows(settings, mesh)
    abstract = make_plan(objective, settings, mesh)
    dtype = jnp.dtype(settings.frozen_dtype)
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype, sharding=x.sharding), abstract.params)
    constants = objective.abstract_constants(mesh, memory_rows)
    batch = _placed_batch(objective, settings, mesh)
    step = jax.jit(
        lambda params, constants, batch: objective.generate(params, constants, batch, jax.random.key(settings.seed)),
        out_shardings=batch_sharding(mesh),
    )
    compiled, flops_of_all, took = _compiled(step, (params, constants, batch), mesh, exact)
    flops = flops_of_all / settings.batch_size
    held = {"params": held_on_device(params), "optimizer": 0, "ema": 0, "constants": held_on_device(constants)}
    measured = _measured(compiled, held, params, params, mesh, chip, trained=False)
    seconds = {
        "compute": flops * settings.batch_size / mesh.size / chip.flops,
        "memory": getattr(objective, "sample_steps", 1) * held["params"] / chip.memory_bandwidth,
        "network": sum(row.bytes for row in measured["collectives"]) / chip.link_bandwidth,
    }
    return Report(
        topology=topology,
        chip=chip,
        mesh=dict(mesh.shape),
        global_batch=settings.batch_size,
        remat="none",
        flops_per_sample=flops,
        executed_flops_per_sample=flops,
        seconds=seconds,
        steps=1,
        compile_seconds=took,
        step="generate",
        **measured,
    )


def _placed_batch(objective: Objective, settings: TrainSettings, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=batch_sharding(mesh))
        for name, x in objective.abstract_batch(settings.batch_size).items()
    }


def _compiled(step: Any, arguments: tuple, mesh: Mesh, exact: bool) -> tuple[Any, int, float]:
    """(the compiled step, operations of its whole trace, seconds): traced once, for both."""
    began = time.monotonic()
    with mesh_context(mesh):
        traced = step.trace(*arguments)
        lowered = traced.lower()
    flops = sum(flops_of(traced.jaxpr).values())
    with _effort("UNKNOWN" if exact else "O0"):
        compiled = lowered.compile()
    return compiled, flops, time.monotonic() - began


def _measured(
    compiled: Any, held: dict[str, int], state: Any, weights: Any, mesh: Mesh, chip: Chip, *, trained: bool = True
) -> dict[str, Any]:
    """What the compiled program says: bytes a chip, collectives, what of `state` lies whole on each."""
    memory = compiled.memory_analysis()
    peak = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )
    whole, everything, _ = replicated_bytes(state)
    return {
        "bytes_per_chip": {
            **held,
            "activations": max(0, peak - sum(held.values())),
            "peak": peak,
            "hbm": chip.memory,
        },
        "replicated_share": whole / everything if mesh.shape["fsdp"] * mesh.shape["tensor"] > 1 else 0.0,
        "collectives": collectives(compiled.as_text(), jax.tree.leaves(weights), trained),
    }


@contextlib.contextmanager
def _effort(level: str) -> Iterator[None]:
    old = jax.config.jax_optimization_level
    jax.config.update("jax_optimization_level", level)
    try:
        yield
    finally:
        jax.config.update("jax_optimization_level", old)


def _remat(objective: Any) -> str:
    while hasattr(objective, "base"):
        objective = objective.base
    if hasattr(objective, "model"):
        return objective.model.remat
    return str(getattr(objective, "remat", "none"))


def search(
    objective: Objective,
    settings: TrainSettings,
    devices: Sequence[jax.Device],
    chip: Chip,
    *,
    topology: str,
    memory_rows: int,
    exact: bool,
    fixed_batch: int | None,
    tries: int,
) -> Iterator[Report]:
    """Compiles up to `tries` programs and yields their reports; `recommended` picks one.

    For each way of rematerialisation: the narrowest `fsdp` whose state leaves room (more of it is more traffic), a row
    a chip, then as many rows as that program's memory foretells, and fewer if it foretold too many.
    """
    left = tries
    if fixed_batch and fixed_batch % len(devices):
        raise UserError(f"--batch {fixed_batch}: --search gives each of {len(devices)} chips as many rows; a multiple")
    for mode, candidate in objective.remat_modes().items():
        constants = candidate.abstract_constants(make_mesh(devices=devices), memory_rows)
        flops = sample_flops(candidate, constants, fixed_batch or len(devices))

        def compiled(mesh, rows, candidate=candidate, flops=flops, mode=mode) -> Report:
            changed = dataclasses.replace(settings, batch_size=rows, accumulate=1)
            names = dict(topology=topology, memory_rows=memory_rows, exact=exact, flops=flops)
            return dataclasses.replace(plan_step(candidate, changed, mesh, chip, **names), remat=mode)

        found = None
        for fsdp in _fsdp_sizes(len(devices)):
            mesh = make_mesh(fsdp=fsdp, devices=devices)
            rows = fixed_batch or mesh.size
            state = make_plan(candidate, dataclasses.replace(settings, batch_size=rows, accumulate=1), mesh)
            if rows % batch_shards(mesh) or sum(held_bytes(state, constants).values()) > 0.75 * chip.memory:
                continue
            if not left:
                return
            left -= 1
            found = compiled(mesh, rows)
            yield found
            if found.fits:
                break
        if found is None or not found.fits or fixed_batch:
            continue
        per_row = max(1, found.bytes_per_chip["activations"])
        room = HEADROOM * chip.memory - found.bytes_per_chip["peak"] + per_row
        rows = 2 ** int(math.log2(min(room // per_row, MOST_ROWS)))
        while rows > 1 and left:
            left -= 1
            found = compiled(mesh, rows * mesh.size)
            yield found
            if found.fits:
                break
            rows //= 2


MOST_ROWS = 64


def _fsdp_sizes(chips: int) -> list[int]:
    """Powers of two up to 64, which divide SDXL's widths, and into the machine."""
    return [size for size in (1, 2, 4, 8, 16, 32, 64) if size <= chips and chips % size == 0]


def recommended(tried: Sequence[Report]) -> Report | None:
    """Of those that fit the one with the most samples a second, the traffic not hidden behind the arithmetic."""
    fitting = [found for found in tried if found.fits]
    return max(fitting, key=lambda found: found.global_batch / sum(found.seconds.values()), default=None)


def held_bytes(plan: Plan, constants: Any) -> dict[str, int]:
    """Bytes a chip of what lies on it between steps."""
    return {
        "params": held_on_device((plan.state.params, plan.frozen)),
        "optimizer": held_on_device(plan.state.opt_state),
        "ema": held_on_device(plan.state.ema),
        "constants": held_on_device(constants),
    }
