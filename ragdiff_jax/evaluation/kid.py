"""Kernel Inception Distance (Binkowski, Sutherland, Arbel, Gretton 2018, arXiv 1801.01401), on any features.

The squared maximum mean discrepancy with the kernel (x.y/d + 1)^3, unbiased: it can be below zero, and its
expectation doesn't depend on the number of pictures. It is a small difference of large sums, so they are float64 on
the host; the features, which cost a thousand times more, come from the devices.
"""

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Num, UInt8

from ragdiff_jax.evaluation.random_features import PROTOCOL as RANDOM_FEATURES
from ragdiff_jax.evaluation.random_features import random_feature_extractor

ROWS = 1024  # kernel rows held at a time
RANDOM_KID = f"kid/full/{RANDOM_FEATURES}"
"""Protocol id of `random_feature_kid`."""

Features = Num[np.ndarray, "n d"]


def kid(real: Features, fake: Num[np.ndarray, "m e"]) -> float:
    """The unbiased estimate over all pairs, which the usual mean over random subsets estimates in turn.

    Raises ValueError for fewer than two rows, another width or numbers that aren't finite.
    """
    real, fake = _checked(real, fake)
    n, m = len(real), len(fake)
    within_real, within_fake, to_fake, _, _ = _sums(real, fake)
    return float(within_real.sum() / (n * (n - 1)) + within_fake.sum() / (m * (m - 1)) - 2 * to_fake.sum() / (n * m))


def kid_of_pairs(real: Features, fake: Features) -> Float[np.ndarray, " n"]:
    """Jackknife pseudo-values, one a pair; their mean is the KID of the pairs, and they may be bootstrapped.

    Row i of both belongs to one garment, and n >= 3. The kernel between the two pictures of one pair is left out
    (Gretton et al. 2012, Lemma 6): those aren't independent and would make KID too small.
    """
    real, fake = _checked(real, fake)
    n = len(real)
    if len(fake) != n or n < 3:
        raise ValueError(f"pairs need equally many rows, three or more; got {n} and {len(fake)}")
    within_real, within_fake, to_fake, to_real, own = _sums(real, fake)
    rows = within_real + within_fake - (to_fake - own) - (to_real - own)
    # A U-statistic without row i: sums over the other rows, less what they shared with i.
    without = (rows.sum() - 2 * rows) / ((n - 1) * (n - 2))
    return n * rows.sum() / (n * (n - 1)) - (n - 1) * without


def random_feature_kid(
    real: UInt8[np.ndarray, "n h w 3"], fake: UInt8[np.ndarray, "m h w 3"], mesh: Mesh | None = None
) -> float:
    """`kid` of uint8 pictures [n,h,w,3] and [m,h,w,3] on the features of `random_features`; protocol `RANDOM_KID`.

    Deterministic and without weights to fetch: for tests, small worlds and comparisons within one study.
    """
    features = random_feature_extractor(mesh)
    return kid(features(real), features(fake))


def _checked(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"features of {real.shape[1]} and {fake.shape[1]} numbers can't be compared")
    for name, rows in (("real", real), ("generated", fake)):
        if len(rows) < 2:
            raise ValueError(f"KID of {len(rows)} {name} pictures; at least 2 are needed")
        if not np.isfinite(rows).all():
            raise ValueError(f"features of {int((~np.isfinite(rows)).any(axis=1).sum())} {name} pictures aren't finite")
    return np.asarray(real, np.float64), np.asarray(fake, np.float64)


def _sums(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, ...]:
    """Kernel sums: each real row with the other real ones [n], each fake with the other fakes [m], each real with all
    fakes [n], each fake with all real ones [m]; and the kernel of row i with row i [min(n, m)]."""

    def rows(a, b):
        for start in range(0, len(a), ROWS):
            yield start, (a[start : start + ROWS] @ b.T / a.shape[1] + 1) ** 3

    def within(a):
        sums = np.concatenate([part.sum(axis=1) for _, part in rows(a, a)])
        return sums - ((a * a).sum(axis=1) / a.shape[1] + 1) ** 3

    forth, back = [], np.zeros(len(fake))
    for _, part in rows(real, fake):
        forth.append(part.sum(axis=1))
        back += part.sum(axis=0)
    pairs = min(len(real), len(fake))
    own = ((real[:pairs] * fake[:pairs]).sum(axis=1) / real.shape[1] + 1) ** 3
    return within(real), within(fake), np.concatenate(forth), back, own
