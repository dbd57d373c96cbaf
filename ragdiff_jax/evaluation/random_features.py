"""Features of pictures from a fixed network with random weights: a yardstick that needs no download.

Random convolutions tell distributions of pictures apart without having learned anything (Naeem et al. 2020, arXiv
2002.09797, 4.2). Distances on them are comparable with each other only, never with distances on Inception's
features: their protocol id says so.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from ragdiff_jax.data.pixels import to_float
from ragdiff_jax.evaluation.batches import Batched

SIDE = 64
WIDTHS = (32, 64, 128, 256)
DIMENSIONS = 2 * sum(WIDTHS)
PROTOCOL = "random-conv-960/1"
"""Names the network, its weights' seed 0 and its resizing; another of them is another number."""


def random_network(seed: int = 0) -> list[dict[str, Float[np.ndarray, "..."]]]:
    """Weights of the four 3x3 convolutions: He normal kernels [3,3,in,out], biases of deviation 0.1.

    From numpy's legacy generator, whose streams never change.
    """
    rng, layers, inputs = np.random.RandomState(seed), [], 3
    for width in WIDTHS:
        kernel = rng.standard_normal((3, 3, inputs, width)) * np.sqrt(2 / (9 * inputs))
        layers.append({"kernel": np.float32(kernel), "bias": np.float32(0.1 * rng.standard_normal(width))})
        inputs = width
    return layers


def random_features(params: Any, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b d"]:
    """Mean and deviation over all places of every channel of every layer, [b, 960]; pure, of any picture size."""
    x = to_float(images)
    if x.shape[1:3] != (SIDE, SIDE):
        x = jax.image.resize(x, (x.shape[0], SIDE, SIDE, 3), "linear", antialias=True)
    found = []
    for layer in params:
        x = jax.lax.conv_general_dilated(
            x, layer["kernel"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
        )
        x = jax.nn.relu(x + layer["bias"])
        found += [x.mean(axis=(1, 2)), jnp.sqrt(x.var(axis=(1, 2)) + 1e-6)]
    return jnp.concatenate(found, axis=-1)


def random_feature_extractor(mesh: Mesh | None = None, *, batch: int = 64, seed: int = 0) -> Batched:
    """uint8 pictures [n,h,w,3] of one size -> float32 [n, 960], over the mesh; `seed` 0 is the protocol's."""
    return Batched(random_features, random_network(seed), mesh, batch)
