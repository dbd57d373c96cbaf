"""What a compiled program sends between devices, read from its HLO.

A collective in the body of a loop counts as often as the loop runs. Weights and their gradients are told from
activations by their shapes, whole or one device's piece.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4}
_BYTES |= {"f64": 8, "s64": 8, "u64": 8, "s4": 0.5, "u4": 0.5, "f8e4m3fn": 1, "f8e5m2": 1, "c64": 8}
_SHAPE = re.compile(r"\b([a-z]+[0-9a-z]*)\[([0-9,]*)\]")
_HEADER = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\((.*)$")
_CALLS = re.compile(r"\b(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_CALLING = ("calls=", "to_apply=", "body=", "condition=", "_computation=")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_LIMIT = re.compile(r"= [su]32\[\]\S* constant\((\d+)\)")
_NAME = re.compile(r'op_name="([^"]*)"')
_TRIPS = re.compile(r'known_trip_count[^0-9]*"?n"?[^0-9]*(\d+)')


@dataclass(frozen=True)
class Collective:
    """One kind of traffic of a step. `bytes` leave each device in all `count` runs of it together.

    `purpose`: `weights` (gathered for use), `gradients` (summed back), or `other`.
    """

    kind: str
    purpose: str
    count: int
    bytes: int


def collectives(hlo: str, weights: Iterable[Any] = (), trained: bool = True) -> list[Collective]:
    """The collectives of a compiled module's text (`compiled.as_text()`), the costliest first.

    `weights`: the parameters, arrays or `ShapeDtypeStruct`s with shardings. Without `trained` there are no gradients.
    """
    shapes = _weight_shapes(weights)
    calls, found, entry = _parse(hlo)
    runs: dict[str, int] = defaultdict(int)
    _count_runs(entry, 1, calls, runs)
    total: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0.0])
    for computation, kind, results, group, name in found:
        sizes: dict[str, float] = defaultdict(float)
        for dims, size in results:
            purpose = _purpose(kind, dims, shapes, name)
            sizes["weights" if purpose == "gradients" and not trained else purpose] += _sent(kind, size, group)
        for purpose, size in sizes.items():
            total[kind, purpose][0] += runs[computation]
            total[kind, purpose][1] += runs[computation] * size
    rows = [Collective(kind, purpose, int(n), int(size)) for (kind, purpose), (n, size) in total.items() if n]
    return sorted(rows, key=lambda row: -row.bytes)


def _weight_shapes(weights: Iterable[Any]) -> set[tuple[int, ...]]:
    """Shapes of the weights, whole and in pieces, of one layer of a stack too; axes in any order, without ones."""
    shapes = set()
    for leaf in weights:
        for shape in (leaf.shape, leaf.sharding.shard_shape(leaf.shape)):
            shapes |= {_key(shape), _key(shape[1:])}
    return shapes - {()}


def _key(shape: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(size for size in shape if size > 1))


def _parse(hlo: str):
    """({computation: [(called, times)]}, [(computation, kind, [(shape, bytes)], group, name)], name of the entry)."""
    calls: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    found, entry, current = [], "", ""
    limits: dict[str, int] = {}  # of a loop's condition, i < limit: a TPU's text has no known_trip_count
    for line in hlo.splitlines():
        if not line.startswith(" "):
            if (header := _HEADER.match(line)) is not None:
                current = header[1]
                entry = current if line.startswith("ENTRY") else entry
            continue
        # A plain search for a word first: a large program has a gigabyte of lines, nearly all without one.
        if " constant(" in line and (match := _LIMIT.search(line)):
            limits[current] = max(limits.get(current, 0), int(match[1]))
        called = dict(_CALLS.findall(line)) if any(word in line for word in _CALLING) else {}
        trips: Any = 1
        if "body" in called:
            trips = int(match[1]) if (match := _TRIPS.search(line)) else called.get("condition", 1)
        for role, name in called.items():
            calls[current].append((name, trips if role in ("body", "condition") else 1))
        for names in _BRANCHES.findall(line) if "branch_computations=" in line else ():
            calls[current] += [(name.strip().lstrip("%"), 1) for name in names.split(",")]
        if any(kind in line for kind in KINDS) and (match := _COLLECTIVE.search(line)) is not None:
            name = named[1] if (named := _NAME.search(line)) else ""
            found.append((current, match[2], _results(match[1], match[2], bool(match[3])), _group(line), name))
    counted = {
        caller: [(name, limits.get(times, 1) if isinstance(times, str) else times) for name, times in callees]
        for caller, callees in calls.items()
    }
    return counted, found, entry


def _count_runs(name: str, times: int, calls, runs) -> None:
    runs[name] += times
    for called, often in calls.get(name, ()):
        _count_runs(called, times * often, calls, runs)


def _results(shape: str, kind: str, start: bool) -> list[tuple[tuple[int, ...], int | float]]:
    """(shape, bytes) of each array that a collective gives."""
    arrays = []
    for dtype, dims in _SHAPE.findall(shape):
        if dtype in _BYTES:
            sizes = tuple(int(d) for d in dims.split(",") if d)
            arrays.append((sizes, _BYTES[dtype] * math.prod(sizes)))
    if start and kind in ("all-gather", "collective-permute"):  # (operands, results, context)
        arrays = [array for array in arrays if array[0]]
        arrays = arrays[len(arrays) // 2 :]
    return arrays


def _group(line: str) -> int:
    """Devices that one collective joins."""
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]", line):
        return int(match[2])
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", match[2]))
    if match := re.search(r"replica_groups=\{\{([0-9,]*)\}", line):
        return match[1].count(",") + 1
    return 2


def _sent(kind: str, size: int | float, group: int) -> int | float:
    """Bytes that leave a device, of a result of `size` bytes, by ring algorithms."""
    share = (group - 1) / group
    if kind == "all-reduce":
        return 2 * size * share
    if kind == "reduce-scatter":
        return size * (group - 1)
    return size if kind == "collective-permute" else size * share


def _purpose(kind: str, shape: tuple[int, ...], weights: set[tuple[int, ...]], name: str) -> str:
    """`weights` or `gradients` for what has a weight's shape, told apart by whether the backward pass makes it."""
    if _key(shape) not in weights:
        return "other"
    if kind == "all-gather":
        return "weights"
    # A TPU gathers narrow pieces by a sum with zeros; what is rematerialised belongs to the forward pass.
    forward = kind == "all-reduce" and name and ("transpose(" not in name or "rematted_computation" in name)
    return "weights" if forward else "gradients"
