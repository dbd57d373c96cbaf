"""Does a claim hold? The paired bootstrap's interval of the improvement against the threshold."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from ragdiff_jax.evaluation.bootstrap import RESAMPLES, bootstrap
from ragdiff_jax.evaluation.claims.claim import Claim
from ragdiff_jax.evaluation.claims.store import Measured

Verdict = Literal["holds", "doesn't hold", "undecided", "not run"]
VERDICTS: tuple[Verdict, ...] = ("holds", "doesn't hold", "undecided", "not run")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found of a claim.

    `improvement` with its 95 % interval (`low`, `high`) is a's over b in the claim's direction, relative where the
    claim is; `by_seed` the same of each seed. `mean_a`, `mean_b`: the columns' means; `n`: samples; `reason`: why it
    wasn't run, else empty.
    """

    verdict: Verdict
    improvement: float | None = None
    low: float | None = None
    high: float | None = None
    mean_a: float | None = None
    mean_b: float | None = None
    n: int = 0
    by_seed: tuple[float, ...] = ()
    reason: str = ""


def not_run(reason: str) -> Finding:
    return Finding(verdict="not run", reason=reason)


def judge(
    claim: Claim,
    a: Sequence[Measured],
    b: Sequence[Measured] | None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Finding:
    """`a`, `b`: what was measured under each seed; b None where the claim compares with a number.

    Rows are paired by place, and those of one group, also under several seeds, are drawn together. It holds if the
    whole interval lies above the threshold, and doesn't if it lies below; and with several seeds only if each one's
    improvement lies on that side. Raises ValueError for columns that are not of the same samples.
    """
    sign = 1.0 if claim.better == "higher" else -1.0
    parts = []
    for number, ours in enumerate(a):
        left = ours.column(claim.a)
        right = np.full(len(left), float(claim.b)) if b is None else b[number].column(str(claim.b))
        if b is not None and (len(left) != len(right) or (ours.groups != b[number].groups).any()):
            raise ValueError(f"{claim.id}: {claim.a} and {claim.b} were measured on different samples")
        parts.append(np.stack([left, right], axis=1).astype(np.float64))

    def improvement(means: Float[np.ndarray, "r 2"]) -> Float[np.ndarray, " r"]:
        gain = sign * (means[:, 0] - means[:, 1])
        return gain / np.maximum(np.abs(means[:, 1]), 1e-12) if claim.relative else gain

    rows, groups = np.concatenate(parts), np.concatenate([one.groups for one in a])
    found = bootstrap(rows, improvement, seed=seed, groups=groups, resamples=resamples)
    by_seed = tuple(float(improvement(part.mean(axis=0)[None])[0]) for part in parts)
    verdict: Verdict = "undecided"
    if found.low > claim.threshold and min(by_seed) > claim.threshold:
        verdict = "holds"
    elif found.high < claim.threshold and max(by_seed) < claim.threshold:
        verdict = "doesn't hold"
    means = rows.mean(axis=0)
    return Finding(
        verdict=verdict,
        improvement=found.estimate,
        low=found.low,
        high=found.high,
        mean_a=float(means[0]),
        mean_b=float(means[1]),
        n=len(parts[0]),
        by_seed=by_seed,
    )
