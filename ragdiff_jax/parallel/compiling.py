"""What XLA is told for large programs on CPUs."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

# XLA's newer library for CPUs keeps dot products alone. Its convolutions of large pictures take twice the time of the
# older ones (benchmarks/metrics.py), and a program with hundreds of its sums is read back from the compilation cache in
# quadratic time: 14 s of a restart in place of 8 (benchmarks/engine.py restart). Steps take as long either way.
_ON_CPUS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}


def compiler_options(mesh: Mesh | None = None) -> dict[str, str] | None:
    """For `jax.jit` on a mesh (None: one device of this process): None but on CPUs, and there if this XLA doesn't know
    them.
    """
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    return _known() if platform == "cpu" else None


@functools.cache
def _known() -> dict[str, str] | None:
    try:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            jax.jit(jnp.negative, compiler_options=_ON_CPUS).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return None
    return _ON_CPUS
