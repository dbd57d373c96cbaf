"""LPIPS (Zhang et al. 2018, arXiv 1801.03924), version 0.1: pictures [b,h,w,3] twice in, a distance [b] out.

AlexNet or VGG-16 as torchvision has them, cut after the last tapped ReLU: five taps, each pixel's channels to unit
length, squared differences weighted by learned non-negative numbers, means over places, summed.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Net = Literal["alex", "vgg"]
Params = Mapping[str, Array]
# What the authors' ScalingLayer takes off pictures in [-1, 1].
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


@dataclasses.dataclass(frozen=True)
class Conv:
    """torchvision's `features.{index}`: a convolution with ReLU; `pool`: the max pooling before it; `tap`: kept."""

    index: int
    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    pool: int = 0
    tap: bool = False


_VGG = ((0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256), (14, 256, 256))
_VGG += ((17, 256, 512), (19, 512, 512), (21, 512, 512), (24, 512, 512), (26, 512, 512), (28, 512, 512))
LAYERS: Mapping[str, tuple[Conv, ...]] = {
    "alex": (
        Conv(0, 3, 64, kernel=11, stride=4, tap=True),
        Conv(3, 64, 192, kernel=5, pool=3, tap=True),
        Conv(6, 192, 384, pool=3, tap=True),
        Conv(8, 384, 256, tap=True),
        Conv(10, 256, 256, tap=True),
    ),
    "vgg": tuple(
        Conv(index, inputs, outputs, pool=2 if index in (5, 10, 17, 24) else 0, tap=index in (2, 7, 14, 21, 28))
        for index, inputs, outputs in _VGG
    ),
}
LEAST_SIDE = {"alex": 35, "vgg": 16}
"""Pixels a side below which the last tap has no place left."""


def shapes(net: Net) -> dict[str, tuple[int, ...]]:
    """The tensors of the two public files, by their names and in torch's layout."""
    found: dict[str, tuple[int, ...]] = {}
    for layer in LAYERS[net]:
        found[f"features.{layer.index}.weight"] = (layer.outputs, layer.inputs, layer.kernel, layer.kernel)
        found[f"features.{layer.index}.bias"] = (layer.outputs,)
    for number, layer in enumerate(layer for layer in LAYERS[net] if layer.tap):
        found[f"lin{number}.model.1.weight"] = (1, layer.outputs, 1, 1)
    return found


def lpips(net: Net, params: Params, a: Float[Array, "b h w 3"], b: Float[Array, "b h w 3"]) -> Float[Array, " b"]:
    """The distance of each pair of pictures in [-1, 1]; `params` as `shapes` says. Raises ValueError if too small."""
    if min(a.shape[1:3]) < LEAST_SIDE[net]:
        raise ValueError(
            f"pictures of {a.shape[1]} x {a.shape[2]} pixels; LPIPS ({net}) needs {LEAST_SIDE[net]} a side"
        )
    x = (jnp.concatenate([a, b]) - jnp.array(_SHIFT)) / jnp.array(_SCALE)
    total, number = jnp.zeros(a.shape[0], jnp.float32), 0
    for layer in LAYERS[net]:
        if layer.pool:
            window = (1, layer.pool, layer.pool, 1)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, (1, 2, 2, 1), "VALID")
        around = 2 if layer.kernel > 3 else 1  # torchvision's padding: 2 for 11 and for 5, 1 for 3
        x = jax.lax.conv_general_dilated(
            x,
            params[f"features.{layer.index}.weight"],
            (layer.stride, layer.stride),
            [(around, around)] * 2,
            dimension_numbers=("NHWC", "OIHW", "NHWC"),
            precision="highest",
        )
        x = jax.nn.relu(x + params[f"features.{layer.index}.bias"])
        if layer.tap:
            unit = x / (jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True)) + 1e-10)
            first, second = jnp.split(unit, 2)
            weights = params[f"lin{number}.model.1.weight"].reshape(-1)
            total += jnp.mean(jnp.sum((first - second) ** 2 * weights, axis=-1), axis=(1, 2))
            number += 1
    return total
