"""Logical axis names -> mesh axes: one table, and the one function that applies it to a parameter.

Networks name the axes of their parameters (`embed`, `mlp`, `conv_out`, ...) and of a few activations
(`act_batch`, ...); only this table knows what the names mean on a mesh.
"""

import logging
import math
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

logger = logging.getLogger(__name__)

Rules = Sequence[tuple[str, str | tuple[str, ...] | None]]

# In order of precedence. A mesh axis is given away once in a tensor, so a later line is a second choice: conv_out takes
# fsdp where conv_in (4 channels of a latent) could not. A name without a line is not split.
# conv_in first: a TPU lays a kernel's gradient out with conv_out along its 128 lanes, and sums it whole, at twice the
# bytes, where a piece isn't whole tiles of these; conv_in lies along the tiles' 16 rows (docs/pods.md).
RULES: Rules = (
    ("act_batch", ("data", "fsdp")),
    ("act_heads", "tensor"),
    ("act_mlp", "tensor"),
    ("embed", "fsdp"),
    ("conv_in", "fsdp"),
    ("conv_out", "fsdp"),
    ("mlp", "tensor"),
    ("heads", "tensor"),
    ("vocab", "tensor"),
    ("mlp", "fsdp"),
    ("heads", "fsdp"),
)


def resolve(
    names: Sequence[str | None],
    shape: Sequence[int],
    mesh: Mesh | Mapping[str, int],
    rules: Rules = RULES,
    *,
    log: bool = True,
) -> PartitionSpec:
    """The partition of a tensor whose axes have the logical `names`.

    A mesh axis that doesn't divide the dimension, or that the tensor already uses, is dropped for that
    dimension (and logged, if `log`, when that leaves the dimension whole).

    Args:
        names: one logical name (or None) for each dimension.
        shape: the tensor's shape.
        mesh: a mesh, or its axis sizes.
        rules: pairs of logical name and mesh axes, in order of precedence.
    """
    sizes = mesh if isinstance(mesh, Mapping) else mesh.shape
    if len(names) != len(shape):
        raise ValueError(f"{len(names)} axis names {tuple(names)} for shape {tuple(shape)}")
    chosen: list[str | tuple[str, ...] | None] = [None] * len(shape)
    used: set[str] = set()
    indivisible: dict[int, str | tuple[str, ...]] = {}
    for name, target in rules:
        if target is None:
            continue
        axes = (target,) if isinstance(target, str) else tuple(target)
        parts = math.prod(sizes[axis] for axis in axes)
        if parts == 1:
            continue
        for dim, dim_name in enumerate(names):
            if dim_name != name or chosen[dim] is not None or used.intersection(axes):
                continue
            if shape[dim] % parts:
                indivisible[dim] = target
                continue
            chosen[dim] = target
            used.update(axes)
    for dim, target in indivisible.items():
        if log and chosen[dim] is None:
            logger.info(
                "axis %s of %s (%s): %d does not divide by %s, left whole",
                dim, tuple(shape), names[dim], shape[dim], {a: sizes[a] for a in jax.tree.leaves(target)},
            )  # fmt: skip
    return PartitionSpec(*chosen)


def _is_box(x) -> bool:
    return isinstance(x, nn.meta.AxisMetadata)


def unboxed(tree):
    """The tree without its axis names. Not inside the mesh context: there Flax would constrain the leaves."""
    return nn.meta.unbox(tree)


def shardings_for(boxed, mesh: Mesh, rules: Rules = RULES):
    """`NamedSharding` for each parameter of a boxed abstract tree (`jax.eval_shape` of a Flax init).

    A leaf without axis names is replicated. The result has the structure of `unboxed(boxed)`.
    """

    def one(leaf):
        if _is_box(leaf):
            return NamedSharding(mesh, resolve(leaf.names, leaf.value.shape, mesh, rules))
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree.map(one, boxed, is_leaf=_is_box)
