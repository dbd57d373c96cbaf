"""Layers that were written for the CPU, timed beside the library's own: GroupNorm and attention.

    python benchmarks/layers.py            prints one JSON object a line: milliseconds, median of 9 runs after a warm-up
"""

import functools
import json
import statistics
import time

import flax.linen as nn
import jax
import jax.numpy as jnp

from ragdiff_jax.models.attention import reference_attention
from ragdiff_jax.models.layers import GroupNorm


def milliseconds(function, *arguments, runs: int = 9) -> float:
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(1e3 * (time.perf_counter() - start))
    return round(statistics.median(times), 2)


def measure(name: str, function, *arguments) -> None:
    forward = jax.jit(function)
    every = tuple(range(len(arguments)))
    backward = jax.jit(jax.grad(lambda *a: jnp.square(function(*a)).sum(), argnums=every))
    record = {
        "name": name,
        "forward": milliseconds(forward, *arguments),
        "gradient": milliseconds(backward, *arguments),
    }
    print(json.dumps(record), flush=True)


def joined(query, key, value, reference_key, reference_value):
    """The textbook form: keys side by side, jax.nn's attention with key lengths."""
    key = jnp.concatenate([key, reference_key], axis=1)
    value = jnp.concatenate([value, reference_value], axis=1)
    lengths = jnp.full(query.shape[:1], key.shape[1])
    return jax.nn.dot_product_attention(query, key, value, key_value_seq_lengths=lengths, implementation="xla")


def main() -> None:
    x = jax.random.normal(jax.random.key(0), (8, 64, 64, 16))
    norms = {"GroupNorm flax": nn.GroupNorm(4, use_fast_variance=False), "GroupNorm ours": GroupNorm(4)}
    for name, module in norms.items():
        params = nn.meta.unbox(module.init(jax.random.key(0), x))
        measure(name, module.apply, params, x)
    parts = [jax.random.normal(jax.random.key(i), (16, 256, 2, 24)) for i in range(5)]
    measure("reference attention joined", joined, *parts)
    measure("reference attention ours", functools.partial(reference_attention, gate=jnp.ones(16)), *parts)


if __name__ == "__main__":
    main()
