"""Percentile bootstrap intervals of means, differences and shares (Efron, Tibshirani 1993, 13.3)."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Shaped

RESAMPLES, LEVEL = 10_000, 0.95
_AT_A_TIME = 500  # resamples drawn together

Values = Float[np.ndarray, " n"]
# What belongs together and is drawn together, one name or number a sample; None: each sample alone.
Groups = Shaped[np.ndarray, " n"] | None


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate and its percentile interval."""

    estimate: float
    low: float
    high: float


def bootstrap(
    columns: Float[np.ndarray, "n c"],
    statistic: Callable[[Float[np.ndarray, "r c"]], Float[np.ndarray, " r"]],
    *,
    seed: int,
    groups: Groups = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """The interval of a statistic of the columns' means; a resample takes whole rows, so that the columns stay paired.

    `statistic`: rows of means [r, c] -> one number each [r]. `groups`: rows of one group (twins, the trials of one
    photo) are drawn together; where they depend on one another, rows drawn alone would give too narrow an interval.
    """
    columns = np.asarray(columns, np.float64)
    names = np.arange(len(columns)) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    sizes = np.bincount(names).astype(np.float64)
    sums = np.stack([np.bincount(names, weights=column) for column in columns.T], axis=1)
    rng, found = np.random.default_rng(seed), []
    for start in range(0, resamples, _AT_A_TIME):
        count = min(_AT_A_TIME, resamples - start)
        times = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=count).astype(np.float64)
        found.append(statistic(times @ sums / (times @ sizes)[:, None]))
    low, high = np.quantile(np.concatenate(found), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(columns.mean(axis=0)[None])[0]), float(low), float(high))


def mean_interval(values: Values, *, seed: int, groups: Groups = None, **options) -> Interval:
    """Of the mean of `values`, e.g. of a share where they are 0 and 1. `options` as `bootstrap`'s."""
    return bootstrap(values[:, None], lambda means: means[:, 0], seed=seed, groups=groups, **options)


def difference_interval(a: Values, b: Values, *, seed: int, groups: Groups = None, **options) -> Interval:
    """Of mean(a) - mean(b), where a[i] and b[i] are of one sample."""
    return mean_interval(a - b, seed=seed, groups=groups, **options)


def way_interval(
    values: Values, floor: Values, ceiling: Values, *, seed: int, groups: Groups = None, **options
) -> Interval:
    """Of (mean(values) - mean(floor)) / (mean(ceiling) - mean(floor)): how far from the one to the other."""
    columns = np.stack([values, floor, ceiling], axis=1)

    def way(means):
        way = means[:, 2] - means[:, 1]
        return np.divide(means[:, 0] - means[:, 1], way, out=np.zeros_like(way), where=way != 0)

    return bootstrap(columns, way, seed=seed, groups=groups, **options)
