"""A program to be timed: a jitted function and the shapes it takes, compiled without an array; then arrays, a clock."""

import contextlib
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ragdiff_jax.parallel.flops import count_flops

Record = dict[str, Any]
DEVIATION = 0.02


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """Attributes:
    function: jitted; lowered with `arguments`, `jax.ShapeDtypeStruct` leaves.
    counted: the same function with attention that can be looked into, for the count of operations; its `arguments`
      are the same.
    context: what it is traced in (a mesh's, or nothing).
    """

    function: Any
    arguments: tuple
    counted: Callable
    context: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext

    def compile(self) -> Any:
        with self.context():
            return self.function.lower(*self.arguments).compile()

    def flops(self) -> dict[str, int]:
        with self.context():
            return count_flops(self.counted, *self.arguments)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """Attributes:
    group: what `--only` names.
    name: of the record.
    programs: by name; compiled before `measure`.
    measure: what was measured: the fields of the record, with `seconds` and `flops` where they make a rate.
    seconds: a guess of what measuring takes, so that a budget is kept.
    """

    group: str
    name: str
    programs: Mapping[str, Program]
    measure: Callable[["Run"], Record]
    seconds: float = 3.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What a measurement is given: the compiled programs, their operations, and how often and how long it may run."""

    compiled: Mapping[str, Any]
    flops: Mapping[str, int]
    programs: Mapping[str, Program]
    fill: Callable[[Any], Any]
    repeats: int
    deadline: float

    def arrays(self, name: str) -> tuple:
        return self.fill(self.programs[name].arguments)

    def seconds(self, call: Callable[[], Any]) -> float:
        """Median of the repeats after a warm-up; the deadline cuts the repeats, but for the first."""
        jax.block_until_ready(call())
        times = []
        while not times or (len(times) < self.repeats and time.monotonic() < self.deadline):
            start = time.perf_counter()
            jax.block_until_ready(call())
            times.append(time.perf_counter() - start)
        return statistics.median(times)


class Filler:
    """Numbers for a tree of shapes, made on the device leaf by leaf: one small program for each distinct shape."""

    def __init__(self):
        self._compiled: dict[tuple, Any] = {}

    def shapes(self, tree: Any) -> set[tuple]:
        return {(leaf.shape, jnp.dtype(leaf.dtype)) for leaf in jax.tree.leaves(tree)}

    def compile(self, shape: tuple[int, ...], dtype: Any) -> None:
        if (shape, dtype) not in self._compiled:
            number = jax.ShapeDtypeStruct((), jnp.float32)
            seed = jax.ShapeDtypeStruct((), jnp.uint32)
            lowered = _numbers.lower(seed, number, number, shape=shape, dtype=dtype)
            self._compiled[shape, dtype] = lowered.compile()

    def __call__(self, tree: Any) -> Any:
        leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
        out = []
        for index, (path, leaf) in enumerate(leaves):
            self.compile(leaf.shape, jnp.dtype(leaf.dtype))
            mean, deviation = _statistics(jax.tree_util.keystr(path), leaf)
            make = self._compiled[leaf.shape, jnp.dtype(leaf.dtype)]
            array = make(np.uint32(index), np.float32(mean), np.float32(deviation))
            out.append(array if leaf.sharding is None else jax.device_put(array, leaf.sharding))
        return jax.tree.unflatten(structure, out)


def _statistics(path: str, leaf: Any) -> tuple[float, float]:
    """(mean, deviation): small weights, norms near one, pictures of noise, and a fresh optimizer."""
    if leaf.dtype == jnp.uint8:
        return 127.0, 60.0
    if leaf.dtype == jnp.bool_:
        return 0.0, 1.0
    if "opt_state" in path or not jnp.issubdtype(leaf.dtype, jnp.floating):
        return 0.0, 0.0
    if path.endswith("['scale']"):
        return 1.0, 0.0
    return 0.0, 1.0 if leaf.ndim == 0 else DEVIATION


@functools.partial(jax.jit, static_argnames=("shape", "dtype"))
def _numbers(seed, mean, deviation, *, shape, dtype):
    """Uniform numbers, a hash of their place: one fused kernel, where a generator would be a kernel of its own."""
    size = int(np.prod(shape))
    x = jax.lax.iota(jnp.uint32, size) * jnp.uint32(2654435761) + seed * jnp.uint32(40503)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    unit = (x ^ (x >> 16)).astype(jnp.float32) / 2.0**32
    x = mean + deviation * np.sqrt(12.0) * (unit - 0.5)
    return (x > 0 if dtype == jnp.bool_ else x.astype(dtype)).reshape(shape)


def gib(count: float) -> float:
    return round(count / 2**30, 2)


def device_bytes(compiled: Any) -> int:
    """Bytes that a program takes while it runs, arguments and results included; 0 where the backend doesn't say."""
    found = compiled.memory_analysis()
    if found is None:
        return 0
    return (
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        + found.temp_size_in_bytes
        - found.alias_size_in_bytes
        + found.generated_code_size_in_bytes
    )


def rates(seconds: float, flops: float, peak: float | None) -> Record:
    """TFLOP and TFLOP/s, and the share of the measured peak where there is one."""
    speed = flops / seconds / 1e12
    record = {"tflop": round(flops / 1e12, 4), "tflops": round(speed, 2)}
    return record | ({"share": round(speed / peak, 3)} if peak else {})
