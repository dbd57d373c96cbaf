"""Does a run fit, and how fast is it at most: its train (or generate) step, compiled for a machine that isn't there.

  ragdiff plan --config configs/ragdiffusion/sdxl.py --topology v5p:2x2x2
  ragdiff plan --config configs/ragdiffusion/sdxl.py --topology v6e:4x4 --search
  ragdiff plan --config configs/ragdiffusion/sdxl.py --topology v6e:2x2 --mesh fsdp=4 --batch 4 --step generate

Needs libtpu (pip install libtpu) and no TPU; with --topology gpu it compiles for the cards of this machine. No data
and no weights need to be here. The default is the compiler's quickest effort; --exact is what the machine will do.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from ragdiff_jax.cli.errors import Report
from ragdiff_jax.cli.inputs import add_json, trace_undisturbed
from ragdiff_jax.cli.train import apply_settings, fill_train, read_config
from ragdiff_jax.errors import UserError

GIB = 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]", help="as for train")
    where = "v5e:8x8, v5p:2x2x2, v6e:4x4 ..., or gpu (this machine's)"
    parser.add_argument("--topology", required=True, metavar="CHIP:AxBxC", help=where)
    parser.add_argument("--step", choices=("train", "generate"), default="train", help="what is compiled")
    parser.add_argument("--slices", type=int, default=1, metavar="N", help="that many of them, joined by the data axis")
    parser.add_argument("--mesh", metavar="AXIS=N,...", help="e.g. data=-1,fsdp=8 in place of the config's mesh")
    parser.add_argument("--batch", type=int, metavar="N", help="global batch in place of the config's")
    parser.add_argument("--memory", type=int, default=8192, metavar="N", help="garments in the memory (default 8192)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a field of the config")
    parser.add_argument("--exact", action="store_true", help="the compiler's full effort, several times slower")
    parser.add_argument("--search", action="store_true", help="try meshes, batches and remat, and recommend one")
    parser.add_argument("--tries", type=int, default=6, metavar="N", help="programs that --search compiles at most")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, report: Report) -> None:
    config = read_config(arguments.config)
    for name in ("slices", "memory", "tries"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name} {getattr(arguments, name)}: must be at least 1")
    if arguments.topology != "gpu":
        _look_for_no_tpu()
    trace_undisturbed()
    fill_train(config)
    apply_settings(config, arguments.set)
    from ragdiff_jax.parallel import make_mesh
    from ragdiff_jax.training import plan
    from ragdiff_jax.training.settings import TrainSettings

    fields = dict(config["train"]) | ({} if arguments.batch is None else {"batch_size": arguments.batch})
    settings = TrainSettings(**fields)
    with _quiet_start():
        devices, chip = plan.target_devices(arguments.topology, arguments.slices)
    drawing = arguments.step == "generate"
    if drawing and arguments.search:
        raise UserError("--search looks for a way to train; leave --step generate or --search away")
    if arguments.mesh and arguments.search:
        raise UserError("--search tries meshes of its own; leave --mesh or --search away")
    objective = plan.abstract_objective(config, wrap=not drawing)
    if absent := plan.absent_parts(config):
        report.note(f"not here, so as the preset has them: {', '.join(absent)}")
    name = arguments.topology + (f" x {arguments.slices}" if arguments.slices > 1 else "")
    common: dict[str, Any] = dict(topology=name, memory_rows=arguments.memory, exact=arguments.exact)
    if arguments.search:
        tried = []
        for found in plan.search(
            objective, settings, devices, chip, fixed_batch=arguments.batch, tries=arguments.tries, **common
        ):
            tried.append(found)
            report.note(_line(found))
        best = plan.recommended(tried)
        if best is None:
            raise UserError(f"nothing that was tried fits {name}; take more chips, or remat=block and a smaller batch")
    else:
        mesh = make_mesh(**(_mesh(arguments.mesh) if arguments.mesh else dict(config["mesh"])), devices=devices)
        best = (plan.plan_generation if drawing else plan.plan_step)(objective, settings, mesh, chip, **common)
    report.result(best.as_dict(), describe(best))


def _mesh(text: str) -> dict[str, int]:
    sizes = {}
    for item in text.split(","):
        axis, _, size = item.partition("=")
        try:
            number = int(size)
        except ValueError:
            number = 0
        if axis.strip() not in ("data", "fsdp", "tensor") or not (number > 0 or number == -1):
            raise UserError(f"--mesh {text}: write e.g. data=-1,fsdp=8,tensor=1")
        sizes[axis.strip()] = number
    # What isn't named is 1, and `data` fills up.
    return {"data": -1 if -1 not in sizes.values() else 1} | sizes


def _line(found: Any) -> str:
    mesh = " ".join(f"{axis}={n}" for axis, n in found.mesh.items())
    held = found.bytes_per_chip
    return (
        f"tried {mesh} batch {found.global_batch} remat {found.remat}: {held['peak'] / GIB:.1f} of "
        f"{held['hbm'] / GIB:.0f} GiB, {'fits' if found.fits else 'does not fit'}, at most "
        f"{found.global_batch / found.step_seconds:.3g} samples/s ({found.compile_seconds:.0f} s to compile)"
    )


def describe(found: Any) -> str:
    """The report for a person."""
    held, chip, drawing = found.bytes_per_chip, found.chip, found.step == "generate"
    mesh = " ".join(f"{axis}={n}" for axis, n in found.mesh.items())
    lines = [
        f"{found.topology}: {found.chips} x {chip.name}, mesh {mesh}, global batch {found.global_batch} "
        f"({found.global_batch / found.chips:g} a chip), " + ("generate" if drawing else f"remat {found.remat}"),
        f"  fits: {'yes' if found.fits else 'NO'}, {held['peak'] / GIB:.2f} of {held['hbm'] / GIB:.1f} GiB a chip ("
        + ", ".join(f"{part} {held[part] / GIB:.2f}" for part in held if part not in ("peak", "hbm"))
        + f"); {100 * found.replicated_share:.2f} % of the state lies whole on each",
        f"  a sample: {found.flops_per_sample / 1e12:.3g} TFLOP, {found.executed_flops_per_sample / 1e12:.3g} with "
        "what remat runs again",
    ]
    for row in found.collectives:
        line = f"  sends {row.bytes / 1e6:>10.1f} MB a chip and step: {row.count} {row.kind} of {row.purpose}"
        lines.append(line + (f" ({row.source})" if row.source and row.purpose in ("activations", "optimizer") else ""))
    lines.append(f"  neither weights nor gradients: {100 * found.other_share:.2g} % of the bytes sent")
    if hint := _narrower(found):
        lines.append(f"  {hint}")
    seconds = ", ".join(f"{name} {1e3 * value:.3g} ms" for name, value in found.seconds.items())
    half = 2 * found.step_seconds
    least = f"a step takes at least {1e3 * found.step_seconds:.3g} ms ({seconds}): at most "
    least += f"{found.global_batch / found.step_seconds:.4g} samples/s"
    if found.step == "train":
        least += f", {found.steps} steps in {found.steps * found.step_seconds / 3600:.3g} h; at half the peak "
        least += f"{found.steps * half / 3600:.3g} h"
    lines += [f"  {least}", f"  compiled in {found.compile_seconds:.0f} s, not run"]
    return "\n".join(lines)


def _look_for_no_tpu() -> None:
    """The TPU's compiler without a TPU; before jax wakes up and looks for devices."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # the compiler alone: no chip to quarrel about


def _narrower(found: Any) -> str:
    """What to try where a TPU sums whole what it should gather and scatter, at twice the bytes (docs/pods.md)."""
    purposes = ("weights", "gradients")
    whole = sum(row.bytes for row in found.collectives if row.kind == "all-reduce" and row.purpose in purposes)
    chips, widest = found.mesh["data"] * found.mesh["fsdp"], 16
    if whole <= sum(row.bytes for row in found.collectives) / 2 or found.mesh["fsdp"] <= widest or chips % widest:
        return ""
    return (
        f"over fsdp={found.mesh['fsdp']} the compiler sums whole what it gathers and scatters over fewer chips: "
        f"try --mesh data={chips // widest},fsdp={widest},tensor={found.mesh['tensor']}"
    )


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """libtpu complains on stderr that this is no TPU machine; that is the point here."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
