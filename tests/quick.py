"""Compiling is what the tests of whole networks wait for: most of XLA's time goes into optimising what runs once."""

import functools

import jax

OPTIONS = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}

quick_jit = functools.partial(jax.jit, compiler_options=OPTIONS)
