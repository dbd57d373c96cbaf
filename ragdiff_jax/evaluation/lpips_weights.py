"""LPIPS' two public files: torchvision's network, and the authors' five learned weightings."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from ragdiff_jax.errors import UserError
from ragdiff_jax.models.lpips import Net, shapes
from ragdiff_jax.weights.checkpoints import open_tensors
from ragdiff_jax.weights.sources import whole


@dataclasses.dataclass(frozen=True)
class LpipsWeights:
    """What `models.lpips.lpips` takes, and the SHA-256 over its tensors, which the protocol id begins with."""

    net: Net
    params: dict[str, np.ndarray]
    sha256: str


def load_lpips(net: Net, network: Path, weightings: Path) -> LpipsWeights:
    """From e.g. torchvision's alexnet file and LPIPS 0.1's alex.pth (safetensors, or torch's format since 1.6).

    Raises `UserError` for a file that isn't there or damaged, and naming a tensor that is missing or of another shape.
    """
    params, digest = {}, hashlib.sha256()
    sources = {"features": (network, open_tensors(network)), "lin": (weightings, open_tensors(weightings))}
    for name, shape in shapes(net).items():
        file, source = sources["lin" if name.startswith("lin") else "features"]
        found = source.shapes.get(name)
        if found is None or tuple(found) != shape:
            what = "isn't there" if found is None else f"is {tuple(found)}"
            raise UserError(f"{file}: {name} {what}, LPIPS ({net}) needs {shape}; name the file of that network")
        params[name] = np.asarray(source.read(name, whole(shape)), np.float32)
        digest.update(name.encode() + params[name].tobytes())
    return LpipsWeights(net=net, params=params, sha256=digest.hexdigest())
