"""The device mesh and the context in which a step is traced."""

import contextlib
from collections.abc import Iterator, Sequence

import flax.linen as nn
import jax
from jax.sharding import AxisType, Mesh

from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel.rules import RULES, Rules

AXES = ("data", "fsdp", "tensor")
"""`data` repeats the parameters, `fsdp` splits parameters and batch, `tensor` splits wide layers."""


def make_mesh(
    data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh with the axes `data`, `fsdp`, `tensor`; one of the sizes may be -1, which fills up the devices.

    Raises:
        UserError: the sizes don't multiply to the number of devices.
    """
    devices = list(devices) if devices is not None else jax.devices()
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    asked = ", ".join(f"{name}={size}" for name, size in sizes.items())
    free = [name for name, size in sizes.items() if size == -1]
    if len(free) > 1 or any(size < 1 and size != -1 for size in sizes.values()):
        raise UserError(f"mesh {asked}: sizes are positive, and at most one is -1 (fill up)")
    known = 1
    for size in sizes.values():
        known *= size if size != -1 else 1
    if free:
        if len(devices) % known:
            raise UserError(
                f"mesh {asked}: {known} does not divide the {len(devices)} devices; choose sizes that do"
            )
        sizes[free[0]] = len(devices) // known
    elif known != len(devices):
        raise UserError(
            f"mesh {asked} needs {known} devices, there are {len(devices)}; set one size to -1 to fill up"
        )
    # Auto: XLA propagates shardings. Under jax's default (Explicit) stock Flax convolutions are refused.
    return jax.make_mesh(tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


@contextlib.contextmanager
def mesh_context(mesh: Mesh, rules: Rules = RULES) -> Iterator[Mesh]:
    """Enter `mesh`, so that the networks' logical constraints on activations take effect.

    Under the old `with mesh:` they silently do nothing. With `rules=()` there are no constraints: right for
    batches that don't divide over the mesh (a handful of sample pictures).
    """
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
        yield mesh
