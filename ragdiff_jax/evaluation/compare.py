"""Two evaluations of the same pairs: paired differences with intervals, or a refusal."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation.bootstrap import difference_interval
from ragdiff_jax.evaluation.fid import jackknife_error
from ragdiff_jax.evaluation.pair_scores import LOGO, UPWARDS, WORDS
from ragdiff_jax.evaluation.result_file import Results, Z

FEWEST = 6  # pairs, twins counted once: five of one sign come by chance in one case of 16
# Of the metrics that look for something in the pictures: what, and the flag that says it.
_ASKED = dict.fromkeys(LOGO, ("boxes", "--boxes")) | dict.fromkeys(WORDS, ("words", "masks or words in --edits"))
_SAME = ("task", "size", "resize", "filter", "split_sha256")


def compare(a: Results, b: Results, *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """{metric: a, b, difference b - a, low, high, n, verdict}; verdict: `b better`, `a better` or `undecided`.

    Decided is what a 95 % interval of the paired difference leaves zero out of, for 6 pairs or more; structure twins
    are drawn together and count as one, where either of the results knows of them. Metrics that only one of them has
    are left out.

    Raises `UserError` where the results can't be compared: other task, size, pairs, resizing, filter, protocol, boxes
    of logos, or masks and words of edits.
    """
    for field in _SAME:
        if a.record.get(field) != b.record.get(field):
            raise UserError(
                f"results of different {field} can't be compared: {a.record.get(field)!r} and {b.record.get(field)!r}"
            )
    if a.names != b.names:
        raise UserError("results of different pairs can't be compared; evaluate both on the same true pictures")
    shared = [name for name in a.record["metrics"] if name in b.record["metrics"]]
    if not shared:
        raise UserError("the results share no metric; evaluate both with the same --metrics")
    for name in shared:
        first, second = (results.record["metrics"][name]["protocol"] for results in (a, b))
        if first != second:
            raise UserError(
                f"{name}: measured by different protocols, {first} and {second}; evaluate one of them again"
            )
        asked, what = _ASKED.get(name, (None, None))
        first, second = (results.record.get("asked_sha256", {}).get(asked) for results in (a, b))
        if first != second:
            raise UserError(f"{name}: measured with different {what}; evaluate one of them again with the other's")
    groups = np.array(a.groups or b.groups or a.names)
    found = {}
    for name in shared:
        rows = a.record["metrics"][name], b.record["metrics"][name]
        if "without" in rows[0]:
            if (a.groups is None) != (b.groups is None):
                raise UserError(
                    f"{name}: one result knows of structure twins, the other doesn't, so that its groups are others; "
                    "evaluate both with the data set as --real, or both with its pictures"
                )
            found[name] = _of_sets(name, *rows)
            continue
        x, y = a.columns[name], b.columns[name]
        both = ~(np.isnan(x) | np.isnan(y))
        if not both.any():
            continue
        interval = difference_interval(y[both], x[both], seed=seed, groups=groups[both])
        enough = len(np.unique(groups[both])) >= FEWEST
        found[name] = {
            "a": float(x[both].mean()),
            "b": float(y[both].mean()),
            "difference": interval.estimate,
            "low": interval.low,
            "high": interval.high,
            "n": int(both.sum()),
            "verdict": _verdict(name, interval.low, interval.high) if enough else "undecided",
        }
    return found


def _of_sets(name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Of a metric of all pairs: the groups left out are the same pairs in both, so that the jackknife is paired."""
    difference = b["value"] - a["value"]
    error = Z * jackknife_error(np.array(b["without"]) - np.array(a["without"]))
    low, high = difference - error, difference + error
    found = {"a": a["value"], "b": b["value"], "difference": difference, "low": low, "high": high, "n": a["n"]}
    return found | {"verdict": _verdict(name, low, high)}


def _verdict(name: str, low: float, high: float) -> str:
    if not UPWARDS[name]:
        low, high = -high, -low
    return "b better" if low > 0 else "a better" if high < 0 else "undecided"


def comparison_table(found: dict[str, dict[str, Any]]) -> str:
    """For a person, as Markdown."""
    lines = ["| metric | A | B | B - A [95 %] | pairs | |", "|---|---|---|---|---|---|"]
    for name, row in found.items():
        interval = f"{row['difference']:+.4g} [{row['low']:+.4g}, {row['high']:+.4g}]"
        lines.append(f"| {name} | {row['a']:.4g} | {row['b']:.4g} | {interval} | {row['n']} | {row['verdict']} |")
    return "\n".join(lines)
