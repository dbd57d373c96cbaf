"""What a compiled program sends between devices and why, read from its HLO.

A collective in the body of a loop counts as often as the loop runs. Why is told from evidence alone: shapes (that of a
weight, whole or a piece?), JAX's path of the operation, of what made its operand or takes its result, and whether an
operand is a piece laid into zeros, the sum of which is a gather. What has no such evidence is `unexplained`.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

from ragdiff_jax.parallel.hlo import CUT, SENT, Instruction, Program, parse

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4}
_BYTES |= {"f64": 8, "s64": 8, "u64": 8, "s4": 0.5, "u4": 0.5, "f8e4m3fn": 1, "f8e5m2": 1, "c64": 8}
_SHAPE = re.compile(r"\b([a-z]+[0-9a-z]*)\[([0-9,]*)\]")
_FUSED_SCATTER = "all-reduce-scatter"
"""A TPU's reduce-scatter: a fused computation of this name, in its text a sum of the whole and a slice."""


@dataclass(frozen=True)
class Collective:
    """One kind of traffic of a step. `bytes` leave each device in all `count` runs of it together.

    Attributes:
      purpose: `weights` (gathered for use), `gradients` (of weights, summed), `activations` (anything else of the
        networks and of the loss), `optimizer` (outside the derivative), `scalars` (loss, metrics, norms: one number
        each), or `unexplained`.
      source: JAX's path of the operation that sends most of it, where it is known.
    """

    kind: str
    purpose: str
    count: int
    bytes: int
    source: str = ""


def collectives(hlo: str, weights: Iterable[Any] = (), trained: bool = True) -> list[Collective]:
    """The collectives of a compiled module's text (`compiled.as_text()`), the costliest first.

    `weights`: the parameters, arrays or `ShapeDtypeStruct`s with shardings. Without `trained` there are no gradients
    and no optimizer.
    """
    program, shapes = Program(hlo), _weight_shapes(weights)
    total: dict[tuple[str, str], list[Any]] = defaultdict(lambda: [0, 0.0, {}])
    for computation, found in _found(program):
        kind, group = found.opcode.removesuffix("-start"), _group(found.line, program.devices)
        fused = computation.startswith(_FUSED_SCATTER) and kind == "all-reduce"
        kind = "reduce-scatter" if fused else kind
        sizes: dict[str, float] = defaultdict(float)
        for position, (dims, size) in enumerate(_results(found.shape, kind, found.opcode.endswith("-start"))):
            evidence = _evidence(program, computation, found, position, dims, group)
            purpose = "scalars" if not _key(dims) else _purpose(kind, computation, evidence, shapes, trained)
            sent = _sent(kind, size / group if fused else size, group) * program.runs[computation]
            sizes[purpose] += sent
            sources = total[kind, purpose][2]
            sources[evidence.name] = sources.get(evidence.name, 0) + sent
        for purpose, size in sizes.items():
            total[kind, purpose][0] += program.runs[computation]
            total[kind, purpose][1] += size
    rows = [
        Collective(kind, purpose, int(n), int(size), max(sources, key=sources.get, default=""))
        for (kind, purpose), (n, size, sources) in total.items()
        if n
    ]
    return sorted(rows, key=lambda row: -row.bytes)


def _found(program: Program) -> Iterator[tuple[str, Instruction]]:
    for computation, line in program.lines():
        if any(kind in line for kind in KINDS) and (found := parse(line)) is not None:
            if found.opcode.removesuffix("-start") in KINDS:
                yield computation, found


def _weight_shapes(weights: Iterable[Any]) -> set[tuple[int, ...]]:
    """Shapes of the weights, whole and in pieces along any of their mesh axes, of one layer of a stack too."""
    shapes = set()
    for leaf in weights:
        sizes, spec = leaf.sharding.mesh.shape, tuple(leaf.sharding.spec) + (None,) * leaf.ndim
        split = [axis for axis in range(leaf.ndim) if spec[axis] is not None]
        for some in (chosen for n in range(len(split) + 1) for chosen in combinations(split, n)):
            shape = list(leaf.shape)
            for axis in some:
                names = spec[axis] if isinstance(spec[axis], tuple) else (spec[axis],)
                shape[axis] //= math.prod(sizes[name] for name in names)
            shapes |= {_key(shape), _key(shape[1:])}
    return shapes - {()}


def _key(shape: Iterable[int]) -> tuple[int, ...]:
    """Axes in any order, without ones: the compiler turns and squeezes."""
    return tuple(sorted(size for size in shape if size > 1))


class _Evidence(NamedTuple):
    """Of one of the arrays that a collective sends.

    Attributes:
      name: JAX's path, its own or that of what made it; empty where there is none.
      shapes: its own and, if it was padded or cut, those before.
      laid_into_zeros: whether what is sent is a piece among zeros, so that the sum gathers.
    """

    name: str
    shapes: set[tuple[int, ...]]
    laid_into_zeros: bool


def _evidence(
    program: Program, computation: str, found: Instruction, position: int, dims: tuple[int, ...], group: int
) -> _Evidence:
    operand = found.operands[position] if position < len(found.operands) else (found.operands or ("",))[0]
    origin = program.origin(computation, operand)
    # Several collectives joined have the path of the first; the elements taken out of the tuple have their own.
    own = found.op_name if len(found.operands) == 1 else ""
    if not own and len(found.operands) > 1:
        users = program.users(computation, found.name)
        own = next((user.op_name for user in users if re.search(rf"index={position}\b", user.line)), "")
    if not own and computation in program.callers:
        caller, fusion = program.callers[computation]
        own = program.instructions(caller)[fusion].op_name
    made_by = next((part.op_name for part in origin if part.op_name), "")

    sent = next((i for i, part in enumerate(origin) if part.opcode in SENT), len(origin))
    laid = any(part.opcode == "dynamic-update-slice" for part in origin[:sent])
    cut = next((i for i, part in enumerate(origin) if part.opcode in CUT), len(origin))
    shapes = {_key(dims)}
    if len(rest := [size for size in dims if size > 1]) > 2 and group in rest:  # its pieces along an axis of their own
        rest.remove(group)
        shapes.add(_key(rest))
    before = {_key(array) for part in origin[cut + 1 :] for array, _ in _results(part.shape, part.opcode, False)}
    return _Evidence(own or made_by, shapes | before, laid)


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


def _group(line: str, devices: int) -> int:
    """Devices that one collective joins; all of them where nothing is said."""
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]", line):
        return int(match[2])
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        # 'a':(2)4 is a part of an axis, of size 4.
        return math.prod(int(part or sizes[axis]) for axis, part in re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", match[2]))
    if match := re.search(r"replica_groups=\{\{([0-9,]*)\}", line):
        return match[1].count(",") + 1
    return devices


def _sent(kind: str, size: int | float, group: int) -> int | float:
    """Bytes that leave a device, of a result of `size` bytes, by ring algorithms."""
    share = (group - 1) / group
    if kind == "all-reduce":
        return 2 * size * share
    if kind == "reduce-scatter":
        return size * (group - 1)
    return size if kind == "collective-permute" else size * share


def _purpose(kind: str, computation: str, found: _Evidence, weights: set[tuple[int, ...]], trained: bool) -> str:
    """Why an array of more than one number crosses."""
    # What is rematerialised belongs to the forward pass.
    backward = trained and "transpose(" in found.name and "rematted_computation" not in found.name
    if found.shapes & weights:
        if kind == "all-gather" or found.laid_into_zeros:
            return "weights"
        ring = re.search(r"windowed_dot_general_body_(ag|rs)", computation)
        if kind == "collective-permute" and ring is not None:  # a weight's pieces or partial sums go round
            return "gradients" if ring[1] == "rs" else "weights"
        if backward:
            return "gradients"
        if kind == "collective-permute" and found.name:
            return "weights"
    if not found.name:
        return "unexplained"
    return "activations" if backward or "jvp(" in found.name or not trained else "optimizer"
