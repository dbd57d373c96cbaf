"""What a run says before its first step: what is trained, what is split how, what lies on a device."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import flatten
from ragdiff_jax.parallel.memory import held_on_device, replicated_bytes
from ragdiff_jax.training.settings import TrainSettings

MIB = 2**20
_SMALL = 64 * MIB


def size(count: int | float) -> str:
    """`1.2 GiB`, `340 MiB`, `12 KiB`."""
    for unit, factor in (("GiB", 2**30), ("MiB", MIB), ("KiB", 2**10)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"


def check_replicated(plan: Any, settings: TrainSettings) -> None:
    """Refuse a run that keeps too much whole on every device.

    Raises:
        UserError: where `fsdp` or `tensor` splits, more than `replicated_limit` of the bytes aren't split.
    """
    if plan.mesh.shape["fsdp"] * plan.mesh.shape["tensor"] == 1:
        return
    whole, everything, largest = replicated_bytes((plan.state, plan.frozen))
    if whole <= max(_SMALL, settings.replicated_limit * everything):
        return
    mesh = {axis: n for axis, n in plan.mesh.shape.items() if n > 1}
    raise UserError(
        f"{size(whole)} of {size(everything)} lie whole on every device ({whole / everything:.1%}; replicated_limit "
        f"is {settings.replicated_limit:.1%}): {largest} divides by none of {mesh}; choose sizes that divide it "
        "(fsdp at most 64 for SDXL), or raise train.replicated_limit"
    )


def report(plan: Any, settings: TrainSettings, constants: Any) -> list[str]:
    """Lines: a part each, then what lies on a device."""
    mesh = " x ".join(f"{axis} {n}" for axis, n in plan.mesh.shape.items() if n > 1) or "one device"
    kind = plan.mesh.devices.flat[0].device_kind
    rows = settings.batch_size // settings.accumulate
    lines = [
        f"mesh: {mesh} ({plan.mesh.size} x {kind}, {jax.process_count()} processes); {rows} rows at a time"
        + (f", {settings.accumulate} times a step" if settings.accumulate > 1 else "")
    ]
    for name, tree in (("trained", plan.state.params), ("frozen", plan.frozen)):
        lines += [f"{name} {line}" for line in _parts(tree)]
    state = plan.state
    held = {
        "parameters": (state.params, plan.frozen),
        settings.optimizer: state.opt_state,
        "average": state.ema,
        "constants": constants,
    }
    on_device = {name: held_on_device(tree) for name, tree in held.items()}
    whole, everything, _ = replicated_bytes((state, plan.frozen))
    share = f", {whole / everything:.2%} of the state whole on each" if plan.mesh.size > 1 else ""
    parts = ", ".join(f"{name} {size(n)}" for name, n in on_device.items() if n)
    lines.append(f"on a device: {size(sum(on_device.values()))} ({parts}){share}")
    return lines


def _parts(tree: Mapping[str, Any]) -> list[str]:
    lines = []
    for part, leaves in tree.items():
        found = list(flatten(leaves)) if isinstance(leaves, Mapping) else [("", leaves)]
        count = sum(int(np.prod(leaf.shape)) for _, leaf in found)
        ways: dict[str, int] = defaultdict(int)
        for _, leaf in found:
            axes = sorted({axis for entry in leaf.sharding.spec for axis in _axes(entry)})
            ways["+".join(axes) or "whole"] += int(np.prod(leaf.shape))
        most_first = sorted(ways.items(), key=lambda item: -item[1])
        how = ", ".join(f"{100 * n / max(1, count):.3g} % {way}" for way, n in most_first)
        dtypes = "/".join(sorted({leaf.dtype.name for _, leaf in found}))
        lines.append(f"{part}: {count / 1e6:.4g} M {dtypes}, {size(held_on_device(leaves))} a device ({how})")
    return lines


def _axes(entry: Any) -> tuple[str, ...]:
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)
