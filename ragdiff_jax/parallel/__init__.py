"""Mesh, partition rules, processes: the only room that knows on how many devices the rest runs."""

from ragdiff_jax.parallel.arrays import (
    batch_sharding,
    batch_shards,
    divided_rows,
    filled,
    on_host,
    own_places,
    replicated,
    shard_batch,
)
from ragdiff_jax.parallel.compiling import compiler_options
from ragdiff_jax.parallel.mesh import AXES, make_mesh, mesh_context
from ragdiff_jax.parallel.partition import flatten, merge, partition
from ragdiff_jax.parallel.processes import (
    agree,
    barrier,
    enable_compilation_cache,
    found_cluster,
    from_first_process,
    initialize_processes,
    join_processes,
    preempted,
    same_everywhere,
)
from ragdiff_jax.parallel.rules import RULES, resolve, shardings_for, unboxed
from ragdiff_jax.parallel.watch import ending_as_one

__all__ = [
    "AXES",
    "RULES",
    "agree",
    "barrier",
    "batch_sharding",
    "batch_shards",
    "compiler_options",
    "divided_rows",
    "enable_compilation_cache",
    "ending_as_one",
    "filled",
    "flatten",
    "found_cluster",
    "from_first_process",
    "initialize_processes",
    "join_processes",
    "make_mesh",
    "merge",
    "mesh_context",
    "on_host",
    "own_places",
    "partition",
    "preempted",
    "replicated",
    "resolve",
    "same_everywhere",
    "shard_batch",
    "shardings_for",
    "unboxed",
]
