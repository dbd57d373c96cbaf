"""Linear least squares of convolutions from sums that are streamed over the data.

All that a least squares fit needs of its rows c = [inputs | targets | 1] is G = sum of c^T c: a matrix of the columns'
number, whatever the number of rows. It is summed on the mesh in fp32, each batch by one matrix product and the batches
with Kahan's compensation (the sum of a thousand batches loses no more digits than that of one), and solved on the host
in float64.
"""

import functools
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.sparse.linalg
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import on_host

TAPS = 9
SHOWN_RIDGE = 1e-5  # of the solutions that the step line shows
SHOWN_STEPS = 64


def patches(x: Float[Array, "b h w c"]) -> Float[Array, "b h w p"]:
    """Each pixel's 3x3 neighbourhood, zeros outside; p = 9c in the order of a kernel [3, 3, c, f] seen as [9c, f]."""
    h, w = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return jnp.concatenate([padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)], axis=-1)


def tap_shares(height: int, width: int) -> Float[np.ndarray, " t"]:
    """The share of the pixels whose neighbour at each of the nine taps lies inside the picture."""
    rows = np.array([height - 1, height, height - 1]) / height
    columns = np.array([width - 1, width, width - 1]) / width
    return np.outer(rows, columns).reshape(-1)


def zero_sums(columns: int) -> dict[str, Array]:
    """The sums of no rows: `gram` and what its additions have lost, both [columns, columns]."""
    zeros = jnp.zeros((columns, columns), jnp.float32)
    return {"gram": zeros, "lost": zeros}


def add_rows(sums: Mapping[str, Array], columns: Float[Array, "*rows k"]) -> dict[str, Array]:
    """`sums` with G of these rows added; rows split over a mesh are summed over it."""
    columns = columns.astype(jnp.float32)
    rows = columns.reshape(-1, columns.shape[-1])
    new = jnp.matmul(rows.T, rows, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)
    new = new - sums["lost"]
    gram = sums["gram"] + new
    return {"gram": gram, "lost": (gram - sums["gram"]) - new}


def total(sums: Mapping[str, Any]) -> Float[np.ndarray, "k k"]:
    """G in float64 on the host, without the rounding of its additions."""
    gram = on_host(sums["gram"]).astype(np.float64) - on_host(sums["lost"]).astype(np.float64)
    return (gram + gram.T) / 2


def solve(normal: Any, moments: Any, penalty: Any, start: Any, xp: ModuleType = np) -> Any:
    """The W of least |X W - Y|^2 + sum of penalty * (W - start)^2, from X^T X = `normal` and X^T Y = `moments`.

    Args:
      normal: [p, p]; moments, start: [p, f]; penalty: [p], of each row of W.
      xp: numpy (float64, Cholesky), or jax.numpy inside jit: 64 conjugate gradient steps from `start`, enough to show
        how the fit comes along, and finite where fp32 could not factor the matrix.

    Raises UserError (numpy only) when the rows don't determine W.
    """
    matrix = normal + xp.diag(penalty)
    right = moments + penalty[:, None] * start
    if xp is jnp:
        times = functools.partial(jnp.matmul, matrix, precision=jax.lax.Precision.HIGHEST)
        scale = 1 / jnp.diagonal(matrix)[:, None]
        return jax.scipy.sparse.linalg.cg(times, right, x0=start, maxiter=SHOWN_STEPS, M=lambda r: scale * r)[0]
    try:
        return scipy.linalg.cho_solve(scipy.linalg.cho_factor(matrix, lower=True), right)
    except (scipy.linalg.LinAlgError, ValueError) as error:
        raise UserError(
            f"the sums don't determine the {len(matrix)} inputs of the convolution ({error}); "
            "raise model.ridge or train.steps"
        ) from error


def ridge_penalty(normal: Any, ridge: float, xp: ModuleType = np) -> Any:
    """`ridge` times the mean of the diagonal, for each of the p rows of W, and none for the last one, the bias.

    No less than 1e-6, so that sums of no rows give `start`.
    """
    inputs = len(normal) - 1
    mean = xp.mean(xp.diagonal(normal)[:inputs])
    return xp.where(xp.arange(inputs + 1) < inputs, ridge * mean, 0.0) + 1e-6


def as_matrix(convolution: Mapping[str, Any], xp: ModuleType = np) -> Any:
    """Kernel [3, 3, c, f] and bias [f] as one matrix [9c + 1, f]; float64 in numpy."""
    kernel, bias = convolution["kernel"], convolution["bias"]
    if xp is np:
        kernel, bias = on_host(kernel).astype(np.float64), on_host(bias).astype(np.float64)
    return xp.concatenate([kernel.reshape(-1, kernel.shape[-1]), bias[None]])


def as_convolution(matrix: Float[np.ndarray, "p f"]) -> dict[str, np.ndarray]:
    """The inverse of `as_matrix`, in fp32."""
    kernel = matrix[:-1].reshape(3, 3, -1, matrix.shape[-1])
    return {"kernel": kernel.astype(np.float32), "bias": matrix[-1].astype(np.float32)}
