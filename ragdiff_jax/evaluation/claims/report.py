"""What was found as JSON and Markdown: every claim with the paper's numbers beside ours."""

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ragdiff_jax.evaluation.bootstrap import LEVEL, RESAMPLES
from ragdiff_jax.evaluation.claims.claim import Claim
from ragdiff_jax.evaluation.claims.runner import Judged
from ragdiff_jax.evaluation.claims.verdict import VERDICTS, Finding
from ragdiff_jax.evaluation.claims.world import World
from ragdiff_jax.version import __version__

SCHEMA = 1
PAPERS = {"R": "RAGDiffusion", "F": "Fashion-RAG", "ours": "Remedies of ours"}


def claim_record(claim: Claim, finding: Finding | None = None) -> dict[str, Any]:
    """A claim as JSON, with what was found of it."""
    record = {
        "id": claim.id,
        "paper": claim.paper,
        "where": claim.where,
        "says": claim.says,
        "paper_numbers": dict(claim.numbers),
        "a": claim.a,
        "b": claim.b,
        "better": claim.better,
        "threshold": claim.threshold,
        "relative": claim.relative,
        "note": claim.note,
    }
    return record if finding is None else record | {"found": dataclasses.asdict(finding)}


def results_record(world: World, judged: Sequence[Judged], seeds: Sequence[int], device: str) -> dict[str, Any]:
    """All of it, with what it was measured on."""
    inputs = {
        "stem": [str(world.stem), world.fingerprint("stem")],
        "memory": [str(world.memory_path), world.fingerprint("memory")],
        "editor": [str(world.editor), world.fingerprint("editor")],
    }
    if world.tower is not None:
        inputs["tower"] = [str(world.tower), world.fingerprint("tower")]
    return {
        "schema": SCHEMA,
        "date": time.strftime("%Y-%m-%d"),
        "version": __version__,
        "device": device,
        "inputs": {name: {"folder": folder, "sha256": sha} for name, (folder, sha) in inputs.items()},
        "data": world.drawn,
        "budget": dataclasses.asdict(world.budget),
        "seeds": list(seeds),
        "bootstrap": {"resamples": RESAMPLES, "level": LEVEL},
        "counts": counts(judged),
        "claims": [claim_record(claim, finding) for claim, finding in judged],
    }


def counts(judged: Sequence[Judged]) -> dict[str, int]:
    """How many have each verdict."""
    found = Counter(finding.verdict for _, finding in judged)
    return {verdict: found[verdict] for verdict in VERDICTS}


def markdown(record: dict[str, Any]) -> str:
    """A results record to read."""
    found, budget = record["counts"], record["budget"]
    lines = [
        "# The papers' claims in the small",
        "",
        f"{sum(found.values())} claims: " + ", ".join(f"{count} {name}" for name, count in found.items()) + ".",
        "",
        f"Measured {record['date']} on {record['device']}, version {record['version']}, "
        f"seeds {', '.join(map(str, record['seeds']))}; {', '.join(f'{k} {v}' for k, v in budget.items())}; "
        f"data: {record['data']}.",
        *(f"{name}: `{one['folder']}`, {one['sha256'][:12]}." for name, one in record["inputs"].items()),
        "",
        "Improvement: of the first column over the second in the claim's direction, with its 95 % interval of the "
        "paired bootstrap. A claim holds if the interval lies above its threshold, which was fixed before, doesn't "
        "if it lies below, and is undecided else. One in forty true differences of nothing looks like either.",
    ]
    for paper, name in PAPERS.items():
        rows = [row for row in record["claims"] if row["paper"] == paper]
        if rows:
            lines += ["", f"## {name}", "", _line(_HEAD), _line(["---"] * len(_HEAD)), *map(_row, rows)]
    notes = [(row["id"], row["note"]) for row in record["claims"] if row["note"]]
    lines += ["", "## Notes", "", *(f"- {id}: {note}" for id, note in notes)]
    return "\n".join(lines) + "\n"


_HEAD = ("claim", "where", "says", "paper", "ours, first and second", "improvement", "threshold", "verdict")


def _row(row: dict[str, Any]) -> str:
    found = row["found"]
    paper = "; ".join(f"{name}: {value}" for name, value in row["paper_numbers"].items()) or "-"
    verdict = f"**{found['verdict']}**"
    ours, change = "-", "-"
    if found["verdict"] == "not run":
        verdict += f": {found['reason']}"
    else:
        ours, change = f"{found['mean_a']:.4g}, {found['mean_b']:.4g}", improvement(row)
    return _line([row["id"], row["where"], row["says"], paper, ours, change, _threshold(row), verdict])


def improvement(row: dict[str, Any]) -> str:
    """The improvement of a claim's record with its interval."""
    found, scale, unit = row["found"], *((100, " %") if row["relative"] else (1, ""))
    low, middle, high = (found[name] * scale for name in ("low", "improvement", "high"))
    return f"{middle:+.3g}{unit} [{low:+.3g}, {high:+.3g}]"


def _threshold(row: dict[str, Any]) -> str:
    return f"{100 * row['threshold']:g} %" if row["relative"] else f"{row['threshold']:g}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


def as_json(record: dict[str, Any]) -> bytes:
    return json.dumps(record, indent=1).encode()
