"""The Inception-v3 of FID: pixels [b,299,299,3] in, its 2048 pooled features [b,2048] out.

Tensors by the names and layout of pytorch-fid's file (torchvision's `inception_v3`, TensorFlow's weights of 2015). It
isn't torchvision's network: average pools leave the padding out, and the last block pools by maximum (Szegedy et al.
2015, arXiv 1512.00567, as FID's authors ran it, arXiv 1706.08500).
"""

import dataclasses
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SIDE, DIMENSIONS = 299, 2048
EPSILON = 1e-3
Params = Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution without bias, batch normalisation with stored moments, ReLU."""

    name: str
    inputs: int
    outputs: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: tuple[int, int] = (0, 0)


def _square(name: str, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> Conv:
    return Conv(name, inputs, outputs, (kernel, kernel), stride, (padding, padding))


def _wide(name: str, inputs: int, outputs: int, side: int) -> Conv:
    return Conv(name, inputs, outputs, (1, side), 1, (0, side // 2))


def _high(name: str, inputs: int, outputs: int, side: int) -> Conv:
    return Conv(name, inputs, outputs, (side, 1), 1, (side // 2, 0))


STEM = (
    _square("Conv2d_1a_3x3", 3, 32, 3, 2),
    _square("Conv2d_2a_3x3", 32, 32, 3),
    _square("Conv2d_2b_3x3", 32, 64, 3, 1, 1),
    "max",
    _square("Conv2d_3b_1x1", 64, 80, 1),
    _square("Conv2d_4a_3x3", 80, 192, 3),
    "max",
)


def _a(block: str, inputs: int, pooled: int):
    return (
        (Conv(f"{block}.branch1x1", inputs, 64),),
        (Conv(f"{block}.branch5x5_1", inputs, 48), _square(f"{block}.branch5x5_2", 48, 64, 5, 1, 2)),
        (
            Conv(f"{block}.branch3x3dbl_1", inputs, 64),
            _square(f"{block}.branch3x3dbl_2", 64, 96, 3, 1, 1),
            _square(f"{block}.branch3x3dbl_3", 96, 96, 3, 1, 1),
        ),
        ("mean", Conv(f"{block}.branch_pool", inputs, pooled)),
    )


def _c(block: str, width: int):
    return (
        (Conv(f"{block}.branch1x1", 768, 192),),
        (
            Conv(f"{block}.branch7x7_1", 768, width),
            _wide(f"{block}.branch7x7_2", width, width, 7),
            _high(f"{block}.branch7x7_3", width, 192, 7),
        ),
        (
            Conv(f"{block}.branch7x7dbl_1", 768, width),
            _high(f"{block}.branch7x7dbl_2", width, width, 7),
            _wide(f"{block}.branch7x7dbl_3", width, width, 7),
            _high(f"{block}.branch7x7dbl_4", width, width, 7),
            _wide(f"{block}.branch7x7dbl_5", width, 192, 7),
        ),
        ("mean", Conv(f"{block}.branch_pool", 768, 192)),
    )


def _e(block: str, inputs: int, pool: str):
    # A tuple inside a branch: side by side.
    return (
        (Conv(f"{block}.branch1x1", inputs, 320),),
        (
            Conv(f"{block}.branch3x3_1", inputs, 384),
            (_wide(f"{block}.branch3x3_2a", 384, 384, 3), _high(f"{block}.branch3x3_2b", 384, 384, 3)),
        ),
        (
            Conv(f"{block}.branch3x3dbl_1", inputs, 448),
            _square(f"{block}.branch3x3dbl_2", 448, 384, 3, 1, 1),
            (_wide(f"{block}.branch3x3dbl_3a", 384, 384, 3), _high(f"{block}.branch3x3dbl_3b", 384, 384, 3)),
        ),
        (pool, Conv(f"{block}.branch_pool", inputs, 192)),
    )


BLOCKS = (
    _a("Mixed_5b", 192, 32),
    _a("Mixed_5c", 256, 64),
    _a("Mixed_5d", 288, 64),
    (
        (_square("Mixed_6a.branch3x3", 288, 384, 3, 2),),
        (
            Conv("Mixed_6a.branch3x3dbl_1", 288, 64),
            _square("Mixed_6a.branch3x3dbl_2", 64, 96, 3, 1, 1),
            _square("Mixed_6a.branch3x3dbl_3", 96, 96, 3, 2),
        ),
        ("max",),
    ),
    _c("Mixed_6b", 128),
    _c("Mixed_6c", 160),
    _c("Mixed_6d", 160),
    _c("Mixed_6e", 192),
    (
        (Conv("Mixed_7a.branch3x3_1", 768, 192), _square("Mixed_7a.branch3x3_2", 192, 320, 3, 2)),
        (
            Conv("Mixed_7a.branch7x7x3_1", 768, 192),
            _wide("Mixed_7a.branch7x7x3_2", 192, 192, 7),
            _high("Mixed_7a.branch7x7x3_3", 192, 192, 7),
            _square("Mixed_7a.branch7x7x3_4", 192, 192, 3, 2),
        ),
        ("max",),
    ),
    _e("Mixed_7b", 1280, "mean"),
    _e("Mixed_7c", 2048, "max-same"),
)


def _convolutions(step) -> Iterator[Conv]:
    if isinstance(step, Conv):
        yield step
    elif not isinstance(step, str):
        for inner in step:
            yield from _convolutions(inner)


def shapes() -> dict[str, tuple[int, ...]]:
    """The tensors by their names and in torch's layout; the file's classifier `fc` isn't needed."""
    found: dict[str, tuple[int, ...]] = {}
    for layer in _convolutions((STEM, BLOCKS)):
        found[f"{layer.name}.conv.weight"] = (layer.outputs, layer.inputs, *layer.kernel)
        for name in ("weight", "bias", "running_mean", "running_var"):
            found[f"{layer.name}.bn.{name}"] = (layer.outputs,)
    return found


def inception(params: Params, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
    """Features of pixels in [-1, 1], 299 a side for FID (75 or more are possible); `params` as `shapes` says."""
    return jnp.mean(_sequence(params, (*STEM, *(_Side(block) for block in BLOCKS)), pixels), axis=(1, 2))


@dataclasses.dataclass(frozen=True)
class _Side:
    branches: tuple


def _sequence(params: Params, steps, x: Array) -> Array:
    for step in steps:
        if isinstance(step, Conv):
            x = _convolve(params, step, x)
        elif isinstance(step, str):
            x = _pool(step, x)
        elif isinstance(step, _Side):
            x = jnp.concatenate([_sequence(params, branch, x) for branch in step.branches], axis=-1)
        else:
            x = jnp.concatenate([_convolve(params, layer, x) for layer in step], axis=-1)
    return x


def _convolve(params: Params, layer: Conv, x: Array) -> Array:
    scale = params[f"{layer.name}.bn.weight"] * jax.lax.rsqrt(params[f"{layer.name}.bn.running_var"] + EPSILON)
    bias = params[f"{layer.name}.bn.bias"] - params[f"{layer.name}.bn.running_mean"] * scale
    x = jax.lax.conv_general_dilated(
        x,
        params[f"{layer.name}.conv.weight"] * scale[:, None, None, None],
        (layer.stride, layer.stride),
        [(side, side) for side in layer.padding],
        dimension_numbers=("NHWC", "OIHW", "NHWC"),
        precision="highest",
    )
    return jax.nn.relu(x + bias)


def _pool(kind: str, x: Array) -> Array:
    """`max`: 3x3, stride 2; `mean`, `max-same`: 3x3, stride 1, as many places, the padding left out."""
    if kind == "max":
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")
    if kind == "max-same":
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")

    def sums(values):
        return jax.lax.reduce_window(values, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")

    return sums(x) / sums(jnp.ones((1, *x.shape[1:3], 1), x.dtype))
