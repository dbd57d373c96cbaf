"""The device mesh and the context in which a step is traced."""

import contextlib
from collections.abc import Iterator, Sequence

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from ragdiff_jax.axes import placed_by
from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel.places import MeshPlaces
from ragdiff_jax.parallel.rules import RULES, Rules

AXES = ("data", "fsdp", "tensor")
"""`data` repeats the parameters, `fsdp` splits parameters and batch, `tensor` splits wide layers."""


def make_mesh(
    data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh with the axes `data`, `fsdp`, `tensor`; one of the sizes may be -1, which fills up the devices.

    Where the devices are of several TPU slices, `data` goes over the slow network between these, the rest stays inside.
    GPUs lie host after host, so that `tensor` stays inside of one where it divides its cards, and `fsdp` after it.

    Raises:
        UserError: the sizes don't multiply to the number of devices, or `data` doesn't divide by the TPU slices.
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
    return Mesh(_arranged(tuple(sizes.values()), devices, asked), AXES, axis_types=(AxisType.Auto,) * 3)


def _arranged(shape: tuple[int, ...], devices: list[jax.Device], asked: str) -> np.ndarray:
    """The devices [data, fsdp, tensor], neighbours on the network beside each other."""
    slices = len({getattr(device, "slice_index", None) or 0 for device in devices})
    if slices == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    if devices[0].platform != "tpu":  # each host is a slice to XLA there, and a mesh may well cross them
        return np.array(sorted(devices, key=lambda device: (device.slice_index, device.id))).reshape(shape)
    data, *inner = shape
    if data % slices:
        raise UserError(f"mesh {asked}: data={data} must be a multiple of the {slices} slices")
    return mesh_utils.create_hybrid_device_mesh(
        (data // slices, *inner), (slices, 1, 1), devices, allow_split_physical_axes=True
    )


@contextlib.contextmanager
def mesh_context(mesh: Mesh, rules: Rules = RULES) -> Iterator[Mesh]:
    """Enter `mesh`, so that the networks' logical constraints on activations take effect.

    Both those of `ragdiff_jax.axes` and Linen's own, which under the old `with mesh:` silently do nothing. With
    `rules=()` there are no constraints: right for batches that don't divide over the mesh (a handful of samples).
    """
    places = MeshPlaces(mesh, rules) if rules and mesh.size > 1 else None
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules), placed_by(places):
        yield mesh
