"""What a compiled program sends between devices, read from its HLO.

A collective in the body of a loop counts as often as the loop runs. What the networks asked for (`axes.gathered`) is
told from what the compiler added on its own by the name scope that `places.py` gives it.
"""

import math
import re
from collections import defaultdict
from dataclasses import dataclass

from ragdiff_jax.parallel.places import GATHER_SCOPE, REDUCE_SCOPE

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4}
_BYTES |= {"f64": 8, "s64": 8, "u64": 8, "s4": 0.5, "u4": 0.5, "f8e4m3fn": 1, "f8e5m2": 1, "c64": 8}
_SHAPE = re.compile(r"\b([a-z]+[0-9a-z]*)\[([0-9,]*)\]")
_HEADER = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\((.*)$")
_CALLS = re.compile(r"\b(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count[^0-9]*"?n"?[^0-9]*(\d+)')
_NAME = re.compile(r'op_name="([^"]*)"')


@dataclass(frozen=True)
class Collective:
    """One kind of traffic of a step. `bytes` leave each device in all `count` runs of it together.

    `purpose`: `weights` (gathered for use), `gradients` (summed back), or `other`.
    """

    kind: str
    purpose: str
    count: int
    bytes: int


def collectives(hlo: str) -> list[Collective]:
    """The collectives of a compiled module's text (`compiled.as_text()`), the costliest first."""
    calls, found, entry = _parse(hlo)
    runs: dict[str, int] = defaultdict(int)
    _count_runs(entry, 1, calls, runs)
    total: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0.0])
    for computation, kind, purpose, size in found:
        total[kind, purpose][0] += runs[computation]
        total[kind, purpose][1] += runs[computation] * size
    rows = [Collective(kind, purpose, int(n), int(size)) for (kind, purpose), (n, size) in total.items() if n]
    return sorted(rows, key=lambda row: -row.bytes)


def _parse(hlo: str):
    """({computation: [(called, times)]}, [(computation, kind, purpose, bytes)], name of the entry)."""
    calls: dict[str, list[tuple[str, int]]] = defaultdict(list)
    found, entry, current = [], "", ""
    for line in hlo.splitlines():
        if not line.startswith(" "):
            if (header := _HEADER.match(line)) is not None:
                current = header[1]
                entry = current if line.startswith("ENTRY") else entry
            continue
        trips = int(match[1]) if (match := _TRIPS.search(line)) else 1
        for role, name in _CALLS.findall(line):
            calls[current].append((name, trips if role in ("body", "condition") else 1))
        for names in _BRANCHES.findall(line):
            calls[current] += [(name.strip().lstrip("%"), 1) for name in names.split(",")]
        if (match := _COLLECTIVE.search(line)) is not None:
            kind = match[2]
            size = _sent(kind, _size(match[1], kind, bool(match[3])), _group(line))
            found.append((current, kind, _purpose(kind, line), size))
    return calls, found, entry


def _count_runs(name: str, times: int, calls, runs) -> None:
    runs[name] += times
    for called, often in calls.get(name, ()):
        _count_runs(called, times * often, calls, runs)


def _size(shape: str, kind: str, start: bool) -> float:
    """Bytes of a collective's result."""
    sizes = []
    for dtype, dims in _SHAPE.findall(shape):
        if dtype in _BYTES:
            sizes.append(_BYTES[dtype] * math.prod(int(d) for d in dims.split(",") if d))
    if start and kind in ("all-gather", "collective-permute"):  # (operands, results, context)
        sizes = [size for size in sizes if size > 4]
        sizes = sizes[len(sizes) // 2 :]
    return sum(sizes)


def _group(line: str) -> int:
    """Devices that one collective joins."""
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]", line):
        return int(match[2])
    if match := re.search(r"replica_groups=\{\{([0-9,]*)\}", line):
        return match[1].count(",") + 1
    return 2


def _sent(kind: str, size: float, group: int) -> float:
    """Bytes that leave a device, of a result of `size` bytes, by ring algorithms."""
    share = (group - 1) / group
    if kind == "all-reduce":
        return 2 * size * share
    if kind == "reduce-scatter":
        return size * (group - 1)
    return size if kind == "collective-permute" else size * share


def _purpose(kind: str, line: str) -> str:
    name = match[1] if (match := _NAME.search(line)) else ""
    if REDUCE_SCOPE in name or (kind in ("reduce-scatter", "all-reduce") and "transpose(" in name):
        return "gradients"
    return "weights" if GATHER_SCOPE in name and kind == "all-gather" else "other"
