"""The report as one HTML file: intervals against thresholds, curves, the sheets of pictures."""

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ragdiff_jax.data.images import encode_jpeg
from ragdiff_jax.evaluation.bootstrap import mean_interval
from ragdiff_jax.evaluation.claims.report import PAPERS, improvement
from ragdiff_jax.evaluation.claims.store import Measured
from ragdiff_jax.evaluation.result_page import STYLE

COLOURS = {"holds": "#3c8c50", "doesn't hold": "#c84628", "undecided": "#be8c1e", "not run": "#aaaab0"}
# Title, and the points: what stands below, and `MEASURE:COLUMN`.
CURVES: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    *(
        (f"Retrieved silhouette, {title}, over the memory's size", tuple(
            (size, f"retrieval:exact/{size}/{score}") for size in ("quarter", "half", "whole")
        ))
        for score, title in (("iou", "IoU"), ("top1", "top-1"), ("top5", "top-5"))
    ),
    ("Chosen silhouette, IoU, over K", tuple((f"K={k}", f"retrieval:exact/K={k}/landmark_iou") for k in (1, 2, 4, 8))),
    ("Rebuilt embedding, cosine, over K", tuple((f"K={k}", f"retrieval:exact/K={k}/rebuilt") for k in (1, 2, 4, 8))),
    *(
        (f"Flat-lays, {score}, over K", (
            ("K=1", f"pictures/K=1:{score}"), ("K=4", f"pictures/usual:{score}"), ("K=8", f"pictures/K=8:{score}")
        ))
        for score in ("ssim_aligned", "kid_random")
    ),
    *(
        (f"Edits, {title}, over N_r", tuple((str(n), f"edits/N={n}:{score}") for n in range(4)))
        for score, title in (("kid_tower", "KID x 1000"), ("first", "CLIP-I"), ("text", "CLIP-T"))
    ),
    *(
        (f"Edits, {title}, over wrong garments of three", (
            ("0", f"edits/N=3:{score}"), *((str(n), f"edits/wrong={n}:{score}") for n in (1, 2, 3))
        ))
        for score, title in (("first", "CLIP-I"), ("text", "CLIP-T"))
    ),
)  # fmt: skip


def page(record: dict[str, Any], measured: Mapping[str, Sequence[Measured]]) -> str:
    """Self-contained HTML of a results record; `measured`: {measure: under each seed}."""
    counts = ", ".join(f"{count} {name}" for name, count in record["counts"].items())
    parts = [
        "<!doctype html><meta charset=utf-8><title>The papers' claims in the small</title>"
        f"<style>{STYLE}{_OWN}</style><h1>The papers' claims in the small</h1><p>{counts}.</p>"
        "<p>Bars: the improvement's 95 % interval of the paired bootstrap, grey line: the threshold, fixed before.</p>"
    ]
    for paper, name in PAPERS.items():
        rows = [row for row in record["claims"] if row["paper"] == paper]
        if rows:
            head = "<tr><th>claim<th>says<th>paper<th>ours<th>improvement<th><th>verdict"
            parts.append(f"<h2>{name}</h2><table>{head}{''.join(map(_row, rows))}</table>")
    curves = [drawn for title, points in CURVES if (drawn := _curve(title, points, measured))]
    if curves:
        parts.append("<h2>Curves</h2>" + "".join(curves))
    sheets = [(name, seeds[0].sheet) for name, seeds in measured.items() if seeds and seeds[0].sheet is not None]
    if sheets:
        parts.append("<h2>Pictures</h2>" + "".join(_sheet(*one) for one in sheets))
    facts = "".join(
        f"<li>{html.escape(name)}: {html.escape(str(record[name]))}"
        for name in ("date", "version", "device", "data", "budget", "seeds", "bootstrap", "inputs")
    )
    return "".join(parts) + f"<h2>Measured on</h2><ul>{facts}</ul>"


def _row(row: dict[str, Any]) -> str:
    found, says = row["found"], html.escape(row["says"])
    note = f"<br><small>{html.escape(row['note'])}</small>" if row["note"] else ""
    paper = html.escape("; ".join(f"{name}: {value}" for name, value in row["paper_numbers"].items()))
    ours = change = plot = ""
    if found["verdict"] != "not run":
        ours, change, plot = f"{found['mean_a']:.4g}<br>{found['mean_b']:.4g}", improvement(row), _interval(row)
    reason = f"<br><small>{html.escape(found['reason'])}</small>" if found["reason"] else ""
    colour = COLOURS[found["verdict"]]
    return (
        f"<tr><td title=\"{html.escape(str(row['a']))} against {html.escape(str(row['b']))}\">{html.escape(row['id'])}"
        f"<br><small>{html.escape(row['where'])}</small><td>{says}{note}<td>{paper}<td>{ours}<td>{change}<td>{plot}"
        f'<td style="color:{colour}">{found["verdict"]}{reason}'
    )


def _interval(row: dict[str, Any]) -> str:
    """The interval on a scale of its own, which zero and the threshold are on."""
    found, wide = row["found"], 160
    marks = [found["low"], found["high"], row["threshold"], 0.0]
    low, span = min(marks), max(max(marks) - min(marks), 1e-12)

    def at(x: float) -> float:
        return 6 + (x - low) / span * (wide - 12)

    colour = COLOURS[found["verdict"]]
    return (
        f'<svg viewBox="0 0 {wide} 20" width="{wide}" height="20"><line x1="{at(row["threshold"]):.1f}" y1="1" '
        f'x2="{at(row["threshold"]):.1f}" y2="19" stroke="#888" stroke-width="2"/><line x1="{at(found["low"]):.1f}" '
        f'y1="10" x2="{at(found["high"]):.1f}" y2="10" stroke="{colour}" stroke-width="4"/><circle '
        f'cx="{at(found["improvement"]):.1f}" cy="10" r="5" fill="{colour}"/></svg>'
    )


def _curve(title: str, points: Sequence[tuple[str, str]], measured: Mapping[str, Sequence[Measured]]) -> str:
    """Means with their intervals; empty where a point wasn't measured."""
    found = []
    for name, side in points:
        seeds = measured.get(side.partition(":")[0])
        if not seeds:
            return ""
        rows, groups = (np.concatenate(part) for part in zip(*((s.column(side), s.groups) for s in seeds), strict=True))
        interval = mean_interval(rows, seed=0, groups=groups, resamples=2000)
        found.append((name, interval))
    low, high = min(i.low for _, i in found), max(i.high for _, i in found)
    span, wide, tall = max(high - low, 1e-12), 300, 120
    xs = [30 + place * (wide - 60) / max(1, len(found) - 1) for place in range(len(found))]

    def at(y: float) -> float:
        return 10 + (high - y) / span * (tall - 40)

    line = " ".join(f"{x:.1f},{at(interval.estimate):.1f}" for x, (_, interval) in zip(xs, found, strict=True))
    dots = "".join(
        f'<line x1="{x:.1f}" y1="{at(i.low):.1f}" x2="{x:.1f}" y2="{at(i.high):.1f}" stroke="#2862a0"/><circle '
        f'cx="{x:.1f}" cy="{at(i.estimate):.1f}" r="3" fill="#2862a0"><title>{i.estimate:.4g} [{i.low:.4g}, '
        f'{i.high:.4g}]</title></circle><text x="{x:.1f}" y="{tall - 14}" font-size="10" text-anchor="middle">'
        f"{html.escape(name)}</text><text x=\"{x:.1f}\" y=\"{tall - 2}\" font-size=\"9\" fill=\"#666\" "
        f'text-anchor="middle">{i.estimate:.3g}</text>'
        for x, (name, i) in zip(xs, found, strict=True)
    )
    return (
        f'<figure><svg viewBox="0 0 {wide} {tall}" width="{wide}" height="{tall}"><polyline points="{line}" '
        f'fill="none" stroke="#2862a0" stroke-width="2"/>{dots}</svg><figcaption>{html.escape(title)}</figcaption>'
        "</figure>"
    )


def _sheet(name: str, sheet: UInt8[np.ndarray, "h w 3"]) -> str:
    picture = base64.b64encode(encode_jpeg(sheet, quality=80)).decode()
    return f'<details><summary>{html.escape(name)}</summary><img src="data:image/jpeg;base64,{picture}"></details>'


_OWN = "details img{width:auto;max-width:100%}td{vertical-align:top}"
