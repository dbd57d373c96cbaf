"""DISTS (Ding, Ma, Wang, Simoncelli 2020, arXiv 2004.07728): pictures [b,h,w,3] twice in, a distance [b] out.

VGG-16 as torchvision has it, cut after each stage's last ReLU, with L2 pooling by a Hann window instead of maxima; of
the picture and the five stages the means (texture) and covariances (structure) of each channel, weighted by learned
numbers.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ragdiff_jax.models.lpips import LAYERS

WIDTHS = (3, 64, 128, 256, 512, 512)
LEAST_SIDE = 16
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_C1 = _C2 = 1e-6
Params = Mapping[str, Array]


def shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of the two public files, by their names and in torch's layout."""
    found: dict[str, tuple[int, ...]] = {}
    for layer in LAYERS["vgg"]:
        found[f"features.{layer.index}.weight"] = (layer.outputs, layer.inputs, layer.kernel, layer.kernel)
        found[f"features.{layer.index}.bias"] = (layer.outputs,)
    return found | {name: (1, sum(WIDTHS), 1, 1) for name in ("alpha", "beta")}


def dists(params: Params, a: Float[Array, "b h w 3"], b: Float[Array, "b h w 3"]) -> Float[Array, " b"]:
    """The distance of each pair of pictures in [0, 1], in [0, 1] or so; `params` as `shapes` says.

    At the pictures' own size; the authors' command first brings the shorter side to 256. Raises ValueError below 16.
    """
    if min(a.shape[1:3]) < LEAST_SIDE:
        raise ValueError(f"pictures of {a.shape[1]} x {a.shape[2]} pixels; DISTS needs {LEAST_SIDE} a side")
    taps = _stages(params, jnp.concatenate([a, b]))
    # The alphas weigh the means, the betas the covariances; all together are one.
    alpha, beta = (params[name].reshape(-1).astype(jnp.float32) for name in ("alpha", "beta"))
    whole, same, start = alpha.sum() + beta.sum(), jnp.zeros(a.shape[0], jnp.float32), 0
    for width, tap in zip(WIDTHS, taps, strict=True):
        x, y = jnp.split(tap, 2)
        mean_x, mean_y = (z.mean(axis=(1, 2), keepdims=True) for z in (x, y))
        var_x, var_y = ((z - mean).__pow__(2).mean(axis=(1, 2)) for z, mean in ((x, mean_x), (y, mean_y)))
        cov = ((x - mean_x) * (y - mean_y)).mean(axis=(1, 2))
        mean_x, mean_y = mean_x[:, 0, 0], mean_y[:, 0, 0]
        texture = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
        structure = (2 * cov + _C2) / (var_x + var_y + _C2)
        part = slice(start, start + width)
        same += texture @ alpha[part] + structure @ beta[part]
        start += width
    return 1 - same / whole


def _stages(params: Params, pictures: Array) -> list[Array]:
    found, x = [pictures], (pictures - jnp.array(_MEAN)) / jnp.array(_STD)
    for layer in LAYERS["vgg"]:
        if layer.pool:
            x = _l2_pool(x)
        x = jax.lax.conv_general_dilated(
            x,
            params[f"features.{layer.index}.weight"],
            (1, 1),
            [(1, 1), (1, 1)],
            dimension_numbers=("NHWC", "OIHW", "NHWC"),
            precision="highest",
        )
        x = jax.nn.relu(x + params[f"features.{layer.index}.bias"])
        if layer.tap:
            found.append(x)
    return found


def _l2_pool(x: Array) -> Array:
    """The root of the squares' weighted mean at every other place; zeros around."""
    window = (0.25, 0.5, 0.25)
    x = jnp.pad(x * x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for axis in (1, 2):
        places = (x.shape[axis] - 3) // 2 + 1
        x = sum(
            weight * jax.lax.slice_in_dim(x, at, at + 2 * places - 1, stride=2, axis=axis)
            for at, weight in enumerate(window)
        )
    return jnp.sqrt(x + 1e-12)
