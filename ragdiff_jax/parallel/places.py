"""What the networks' wishes about axes (`ragdiff_jax.axes`) mean on a mesh."""

import dataclasses

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ragdiff_jax.axes import Names
from ragdiff_jax.parallel.rules import Rules, resolve

STORED = "fsdp"
"""The mesh axis that splits parameters for storage alone: no product is computed in pieces along it."""


@dataclasses.dataclass(frozen=True)
class MeshPlaces:
    """`axes.Places` of one mesh and rule table."""

    mesh: Mesh
    rules: Rules

    def constrain(self, x: jax.Array, names: Names) -> jax.Array:
        spec = resolve(names, x.shape, self.mesh, self.rules, log=False)
        if not any(spec):
            return x  # a batch that doesn't divide, or one device: the compiler decides
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec))

    def gathered(self, weight: jax.Array, names: Names) -> jax.Array:
        split = resolve(names, weight.shape, self.mesh, self.rules, log=False)
        if STORED not in split:
            return weight
        whole = PartitionSpec(*(None if axis == STORED else axis for axis in split))
        return _gather(weight, NamedSharding(self.mesh, whole), NamedSharding(self.mesh, split))


def _gather(weight: jax.Array, whole: NamedSharding, split: NamedSharding) -> jax.Array:
    """An all-gather whose gradient is a reduce-scatter.

    The transposed constraint would ask for the whole sum of the gradient on every device first.
    """

    @jax.custom_vjp
    def gather(weight):
        # Pinned in pieces first: else the compiler gathers the fp32 weight and casts it behind.
        weight = jax.lax.with_sharding_constraint(weight, split)
        return jax.lax.with_sharding_constraint(weight, whole)

    gather.defvjp(
        lambda weight: (gather(weight), None),
        lambda _, gradient: (jax.lax.with_sharding_constraint(gradient, split),),
    )
    return gather(weight)
