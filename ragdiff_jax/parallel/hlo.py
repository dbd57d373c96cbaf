"""The text of a compiled program (`compiled.as_text()`), as far as its collectives need it: who calls whom how often,
and what an operand was made by.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

_HEADER = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_OPERAND = re.compile(r"%([\w.\-]+)")
_CALLS = re.compile(r"\b(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_CALLING = ("calls=", "to_apply=", "body=", "condition=", "_computation=")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_NAME = re.compile(r'op_name="([^"]*)"')
_TRIPS = re.compile(r'known_trip_count[^0-9]*"?n"?[^0-9]*(\d+)')
_INDEX = re.compile(r"index=(\d+)")
_PARTITIONS = re.compile(r"num_partitions=(\d+)")
_PASSED_ON = ("bitcast", "copy", "convert", "reshape", "transpose", "copy-done", "optimization-barrier")
CUT = ("pad", "slice", "dynamic-slice", "concatenate")
"""What a TPU does to an array whose pieces aren't whole tiles, before and behind a collective."""
SENT = ("all-reduce", "collective-permute", "collective-permute-start", "collective-permute-done")


class Instruction(NamedTuple):
    """One line: `%name = shape opcode(operands), ...`."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    line: str

    @property
    def op_name(self) -> str:
        """JAX's path of the operation, `jit(step)/transpose(jvp(UNet))/.../dot_general`; empty if XLA made it up."""
        match = _NAME.search(self.line)
        return match[1] if match else ""

    def called(self, role: str) -> str:
        return dict(_CALLS.findall(self.line)).get(role, "")


class Program:
    """Computations by name, and how often each runs in one call of the program."""

    def __init__(self, text: str):
        self.entry = ""
        self.devices = int(match[1]) if (match := _PARTITIONS.search(text, 0, 100_000)) else 1
        self._lines: dict[str, list[str]] = defaultdict(list)
        self._parsed: dict[str, dict[str, Instruction]] = {}
        current = ""
        # Lazily: a large program has a gigabyte of text, most of it the backend's settings, which are dropped here.
        for match in re.finditer(r"[^\n]+", text):
            line = match[0]
            if not line.startswith(" "):
                if (header := _HEADER.match(line)) is not None:
                    current = header[1]
                    self.entry = current if line.startswith("ENTRY") else self.entry
            else:
                self._lines[current].append(line if " while(" in line else line.split(", backend_config=", 1)[0])

    def lines(self) -> Iterator[tuple[str, str]]:
        """(computation, line) of the whole program."""
        for computation, lines in self._lines.items():
            for line in lines:
                yield computation, line

    def instructions(self, computation: str) -> dict[str, Instruction]:
        """By name, in their order."""
        if computation not in self._parsed:
            parsed = (parse(line) for line in self._lines.get(computation, ()))
            self._parsed[computation] = {found.name: found for found in parsed if found is not None}
        return self._parsed[computation]

    def root(self, computation: str) -> Instruction | None:
        """What it returns."""
        for line in reversed(self._lines.get(computation, ())):
            if line.lstrip().startswith("ROOT "):
                return parse(line)
        return None

    @cached_property
    def runs(self) -> dict[str, int]:
        """How often each computation runs; both branches of a condition count."""
        found: dict[str, int] = defaultdict(int)

        def count(name: str, times: int) -> None:
            found[name] += times
            for called, often in self._calls.get(name, ()):
                count(called, times * often)

        count(self.entry, 1)
        return found

    @cached_property
    def callers(self) -> dict[str, tuple[str, str]]:
        """(computation, instruction) that calls a fused computation."""
        found = {}
        for computation, line in self.lines():
            if " fusion(" in line and (match := re.search(r"calls=%?([\w.\-]+)", line)) is not None:
                found[match[1]] = (computation, line.split(" = ", 1)[0].split()[-1].lstrip("%"))
        return found

    @cached_property
    def _calls(self) -> dict[str, list[tuple[str, int]]]:
        calls: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for computation, line in self.lines():
            if "branch_computations=" in line:
                for names in _BRANCHES.findall(line):
                    calls[computation] += [(name.strip().lstrip("%"), 1) for name in names.split(",")]
            # A plain search for a word first: nearly all lines have none.
            if not any(word in line for word in _CALLING):
                continue
            called = _CALLS.findall(line)
            times = self._trips(computation, line) if " while(" in line else 1
            calls[computation] += [(name, times if role in ("body", "condition") else 1) for role, name in called]
        return calls

    def _trips(self, computation: str, line: str) -> int:
        """How often a loop runs: as the compiler notes it, else from `i < limit` and the step of `i` in the body.

        A TPU's text has no note, and its rings of neighbours' sends take two steps a run.
        """
        if match := _TRIPS.search(line):
            return int(match[1])
        loop = parse(line)
        if loop is None or (compared := self.root(loop.called("condition"))) is None:
            return 1
        inside, body = self.instructions(loop.called("condition")), loop.called("body")
        limit = max((value for found in inside.values() if (value := _number(found)) is not None), default=1)
        taken = [_INDEX.search(inside[name].line) for name in compared.operands if name in inside]
        index = next((int(match[1]) for match in taken if match), None)
        root = self.root(body)
        if index is None or root is None or index >= len(root.operands):
            return limit
        counter = self._behind(body, root.operands[index])
        step = 1
        if counter is not None and counter.opcode == "add":
            numbers = [self._constant(body, name, computation, loop) for name in counter.operands]
            step = next((number for number in numbers if number), 1)
        begun = self._initial(computation, loop, index) or 0
        return max(0, math.ceil((limit - begun) / step))

    def _initial(self, computation: str, loop: Instruction, index: int) -> int | None:
        """The number that a loop's state starts with, where it is one."""
        start = self._behind(computation, loop.operands[0]) if loop.operands else None
        if start is None or start.opcode != "tuple" or index >= len(start.operands):
            return None
        value = self._behind(computation, start.operands[index])
        return _number(value) if value else None

    def _constant(self, body: str, name: str, computation: str, loop: Instruction) -> int | None:
        """A number in a loop's body, written there or carried in from outside."""
        value = self._behind(body, name)
        if value is not None and value.opcode == "get-tuple-element" and (match := _INDEX.search(value.line)):
            return self._initial(computation, loop, int(match[1]))
        return _number(value) if value else None

    def _behind(self, computation: str, name: str) -> Instruction | None:
        """What made a value, copies and changes of layout left out."""
        found = self.instructions(computation).get(name)
        while found is not None and found.opcode in _PASSED_ON and found.operands:
            found = self.instructions(computation).get(found.operands[0])
        return found

    def origin(self, computation: str, name: str) -> list[Instruction]:
        """What made a value, the nearest first, until something is computed.

        Goes on through copies, tuples, cuts, collectives, and fusions (into what their root is, and on at the operand
        that a fusion's parameter stands for).
        """
        chain: list[Instruction] = []
        inside: list[tuple[str, Instruction]] = []  # fusions entered: where they stand
        found = self.instructions(computation).get(name)
        while found is not None and len(chain) < 32:
            chain.append(found)
            if found.opcode == "fusion":
                inside.append((computation, found))
                computation = found.called("calls")
                found = self._output(computation, chain)
                continue
            if found.opcode == "parameter" and (inside or computation in self.callers):
                position = int(re.search(r"parameter\((\d+)\)", found.line)[1])
                if inside:
                    computation, fusion = inside.pop()
                else:
                    computation, caller = self.callers[computation]
                    fusion = self.instructions(computation)[caller]
                name = fusion.operands[position]
            elif found.opcode in (*_PASSED_ON, *CUT, *SENT, "get-tuple-element") and found.operands:
                name = found.operands[0]
            else:
                break
            found = self.instructions(computation).get(name)
        return chain

    def _output(self, called: str, chain: list[Instruction]) -> Instruction | None:
        """The root of a fusion, or the part of it that the element before it in `chain` takes."""
        root = self.root(called)
        if root is not None and root.opcode == "tuple" and len(chain) > 1:
            taken = _INDEX.search(chain[-2].line) if chain[-2].opcode == "get-tuple-element" else None
            return self.instructions(called).get(root.operands[int(taken[1])]) if taken else root
        return root

    def users(self, computation: str, name: str) -> Iterator[Instruction]:
        """Elements taken out of a tuple."""
        for found in self.instructions(computation).values():
            if found.opcode == "get-tuple-element" and found.operands == (name,):
                yield found


def parse(line: str) -> Instruction | None:
    match = _INSTRUCTION.match(line)
    if match is None:
        return None
    return Instruction(match[1], match[2], match[3], tuple(_OPERAND.findall(match[4].split("), ", 1)[0])), line)


def _number(found: Instruction) -> int | None:
    """The value of a whole number's constant."""
    match = re.search(r" [su]32\[\]\S* constant\((\d+)\)", found.line)
    return int(match[1]) if match else None
