"""The useful operations of a step: what MFU and the roofline are reckoned with."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ragdiff_jax.data.images import write_atomic
from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import merge, partition, unboxed
from ragdiff_jax.parallel.flops import count_flops
from ragdiff_jax.training.objective import Objective, Summing
from ragdiff_jax.version import __version__


def sample_flops(objective: Objective, abstract_constants: Any, rows: int, params: Any = None) -> float:
    """Useful operations of one sample's forward and backward pass in a batch of `rows`, counted from the trace.

    What rematerialisation would run again doesn't count. `params`: their shapes, if known already.
    """
    objective = objective.without_remat()
    if params is None:
        params = unboxed(jax.eval_shape(objective.init, jax.random.key(0)))
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    batch = objective.abstract_batch(rows)
    key = jax.random.key(0)
    if isinstance(objective, Summing):
        counted = count_flops(objective.add, params, abstract_constants, batch, key)
    else:
        trainable, frozen = partition(params, objective.trainable)

        def loss(trainable, frozen, constants, batch, average):
            teacher = {"average": merge(average, frozen)} if objective.wants_average else {}
            rows, _ = objective.loss(merge(trainable, frozen), constants, batch, key, **teacher)
            return rows.astype(jnp.float32).mean()

        counted = count_flops(jax.value_and_grad(loss), trainable, frozen, abstract_constants, batch, trainable)
    return sum(counted.values()) / rows


def known_flops(
    workdir: Path, objective: Objective, constants: Any, rows: int, config: dict[str, Any]
) -> float | None:
    """`sample_flops` of a run, kept in its `flops.json`: the trace of a large model takes half a minute.

    None for an objective that doesn't say what its batches look like, or has a loop of unknown length.
    """
    if jax.process_index() != 0:
        return None
    path = workdir / "flops.json"
    try:
        batch = {name: (x.shape[1:], str(x.dtype)) for name, x in objective.abstract_batch(rows).items()}
    except UserError:
        return None
    told = json.dumps([config["objective"], batch, __version__], sort_keys=True)
    mark = hashlib.sha256(told.encode()).hexdigest()[:16]
    try:
        kept = json.loads(path.read_text())
        if kept["objective"] == mark:
            return kept["flops_per_sample"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or cut off: counted anew
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), constants)
    try:
        flops = sample_flops(objective, abstract, rows)
    except (UserError, ValueError):
        return None
    write_atomic(path, json.dumps({"objective": mark, "flops_per_sample": flops}).encode())
    return flops
