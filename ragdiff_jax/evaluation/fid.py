"""Frechet distances between features (Heusel et al. 2017, arXiv 1706.08500), and how pictures come to the network.

float64 on the host, as the covariances' root needs it; the features come from the devices.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num, UInt8

GROUPS = 20
"""Of the delete-a-group jackknife, by which FID's intervals are found (Shao, Tu 1995, 2.3)."""

Features = Num[np.ndarray, "n d"]


def clean_resize(pictures: UInt8[Array, "b h w 3"], side: int) -> Float[Array, "b s s 3"]:
    """clean-fid's: bicubic, antialiased, in floating point, cut to [0, 255] (Parmar, Zhang, Zhu 2022, 2104.11222)."""
    x = pictures.astype(jnp.float32)
    if x.shape[1:3] != (side, side):
        x = jax.image.resize(x, (x.shape[0], side, side, 3), "cubic", antialias=True, precision="highest")
    return jnp.clip(x, 0.0, 255.0)


def fid(real: Features, fake: Num[np.ndarray, "m e"]) -> float:
    """The distance of two sets of features, at least two rows each. Raises ValueError for what can't be compared.

    The trace of the covariances' root is the sum of singular values of a product, which is exact where there are
    fewer pictures than numbers and a root by `sqrtm` is not.
    """
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"features of {real.shape[1]} and {fake.shape[1]} numbers can't be compared")
    for name, rows in (("real", real), ("generated", fake)):
        if len(rows) < 2:
            raise ValueError(f"FID of {len(rows)} {name} pictures; at least 2 are needed")
        if not np.isfinite(rows).all():
            raise ValueError(f"features of {int((~np.isfinite(rows)).any(axis=1).sum())} {name} pictures aren't finite")
    centred, mean, total = [], [], 0.0
    for rows in (np.asarray(real, np.float64), np.asarray(fake, np.float64)):
        mean.append(rows.mean(axis=0))
        rows = (rows - mean[-1]) / np.sqrt(len(rows) - 1)
        total += float((rows * rows).sum())
        if len(rows) > rows.shape[1]:  # R of QR has the same covariance
            rows = np.linalg.qr(rows, mode="r")
        centred.append(rows)
    shared = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    return float(((mean[0] - mean[1]) ** 2).sum() + total - 2 * shared)


def fid_without_groups(
    real: Features, fake: Features, groups: int = GROUPS, twins: Sequence[str] | None = None
) -> Float[np.ndarray, " g"]:
    """FID of the pairs without each group in turn; row i of both is one pair, group i modulo `groups`.

    `twins`: a name that structure twins share, one a pair: these are left out together, or what a pair says again by
    its twin would count as news.

    Where there are more pictures than numbers, covariances without a group follow from sums over each group, so that
    all pictures are gone through once and not once a group.
    """
    numbers = np.arange(len(real)) if twins is None else np.unique(np.asarray(twins), return_inverse=True)[1]
    count = min(groups, len(real) // 2, int(numbers.max()) + 1)
    place = numbers % count
    if len(real) - np.bincount(place).max() > real.shape[1]:
        try:
            return _by_sums(real, fake, place, count)
        except np.linalg.LinAlgError:
            pass  # a number that never varies: the rows know how
    return np.array([fid(real[place != group], fake[place != group]) for group in range(count)])


def _by_sums(real: Features, fake: Features, place: Int[np.ndarray, " n"], count: int) -> Float[np.ndarray, " g"]:
    """Raises LinAlgError for a covariance that has no Cholesky factor."""
    centre = np.asarray(real, np.float64).mean(axis=0)  # of both, so that differences of sums don't cancel
    first, second = (_without(np.asarray(rows, np.float64) - centre, place, count) for rows in (real, fake))
    found = []
    for (mean, covariance), (other_mean, other) in zip(first, second, strict=True):
        factors = np.linalg.cholesky(covariance), np.linalg.cholesky(other)
        shared = np.linalg.svd(factors[0].T @ factors[1], compute_uv=False).sum()
        found.append(((mean - other_mean) ** 2).sum() + np.trace(covariance) + np.trace(other) - 2 * shared)
    return np.array(found)


def _without(rows: Features, place: Int[np.ndarray, " n"], count: int):
    """(mean, covariance) of all rows but those of each group, one after another."""
    parts = [rows[place == group] for group in range(count)]
    products, sums = [part.T @ part for part in parts], [part.sum(axis=0) for part in parts]
    whole, total = sum(products), sum(sums)
    for part, product, own in zip(parts, products, sums, strict=True):
        left = len(rows) - len(part)
        mean = (total - own) / left
        yield mean, (whole - product - left * np.outer(mean, mean)) / (left - 1)


def jackknife_error(without: Float[np.ndarray, " g"]) -> float:
    """The standard error that values without each of g groups say."""
    return float(np.sqrt((len(without) - 1) / len(without) * ((without - without.mean()) ** 2).sum()))
