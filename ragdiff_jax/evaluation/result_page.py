"""An evaluation to read: Markdown, and one HTML file with plots and the worst, median and best pictures in it."""

import base64
import html
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

from ragdiff_jax.data.images import encode_jpeg
from ragdiff_jax.evaluation.pair_scores import UPWARDS
from ragdiff_jax.evaluation.result_file import Results

ROWS = 4  # pictures each of worst, median and best
_BINS = 30
_ORDER = ("ssim_aligned", "ssim", "ms_ssim")  # the first that was measured sorts the pictures

Reader = Callable[[int], tuple[UInt8[np.ndarray, "s s 3"], UInt8[np.ndarray, "s s 3"]]]


def markdown(results: Results) -> str:
    """The numbers as a table, with what they were measured on."""
    record = results.record
    lines = [
        f"# Evaluation: {record['task']}",
        "",
        f"{record['n']} pairs at {record['size']} px.",
        f"True pictures: `{record['real']}`; generated: `{record['fake']}`.",
        f"Split {record['split_sha256'][:12]}, filter {record['filter']}, resizing {record['resize']}.",
        "",
        "| metric | value | 95 % interval | better | pairs | protocol |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in record["metrics"].items():
        lines.append(
            f"| {name} | {row['value']:.5g} | [{row['low']:.5g}, {row['high']:.5g}] | {row['better']} | {row['n']} "
            f"| `{row['protocol']}` |"
        )
    lines += ["", *(f"- {note}" for note in record["notes"])]
    return "\n".join(lines).rstrip() + "\n"


def page(results: Results, read: Reader) -> str:
    """Self-contained HTML. `read`: a pair's row -> (true, generated) picture."""
    record = results.record
    rows = "".join(
        f"<tr><td>{html.escape(name)}<td>{row['value']:.5g}<td>[{row['low']:.5g}, {row['high']:.5g}]"
        f"<td>{row['better']}<td>{row['n']}<td><code>{html.escape(row['protocol'])}</code>"
        for name, row in record["metrics"].items()
    )
    # KID's are pseudo-values, which say nothing of one picture.
    shown = {name: values for name, values in results.columns.items() if not name.startswith("kid")}
    plots = "".join(_histogram(name, values[~np.isnan(values)]) for name, values in shown.items())
    facts = "".join(
        f"<li>{html.escape(name)}: {html.escape(str(record[name]))}"
        for name in ("real", "fake", "n", "size", "resize", "filter", "split_sha256", "fake_sha256", "seeds")
    )
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in record["notes"])
    return (
        f"<!doctype html><meta charset=utf-8><title>Evaluation: {record['task']}</title><style>{STYLE}</style>"
        f"<h1>Evaluation: {record['task']}</h1><table><tr><th>metric<th>value<th>95 % interval<th>better<th>pairs"
        f"<th>protocol{rows}</table>{notes}<h2>Distributions</h2>{plots}{_examples(results, read)}"
        f"<h2>Measured on</h2><ul>{facts}</ul>"
    )


def _examples(results: Results, read: Reader) -> str:
    name = next((name for name in _ORDER if name in results.columns), None)
    if name is None:
        return ""
    values = results.columns[name]
    order = np.argsort(values if UPWARDS[name] else -values, kind="stable")
    middle = max(0, len(order) // 2 - ROWS // 2)
    groups = {"Worst": order[:ROWS], "Median": order[middle : middle + ROWS], "Best": order[::-1][:ROWS]}
    found = []
    for title, rows in groups.items():
        cells = ""
        for row in rows:
            pictures = "".join(f'<img src="{_inline(picture)}">' for picture in read(int(row)))
            text = f"{html.escape(results.names[row])}: {values[row]:.4g}"
            cells += f"<figure>{pictures}<figcaption>{text}</figcaption></figure>"
        found.append(f"<h2>{title} by {name} (true, generated)</h2><div>{cells}</div>")
    return "".join(found)


def _inline(picture: UInt8[np.ndarray, "s s 3"]) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(picture)).decode()}"


def _histogram(name: str, values: Float[np.ndarray, " n"]) -> str:
    if not len(values):
        return ""
    counts, edges = np.histogram(values, bins=_BINS)
    bars = "".join(
        f'<rect x="{10 * i}" y="{100 - 100 * count / counts.max():.1f}" width="9" '
        f'height="{100 * count / counts.max():.1f}"><title>{edges[i]:.4g} to {edges[i + 1]:.4g}: {count}</title></rect>'
        for i, count in enumerate(counts)
    )
    return (
        f'<figure><svg viewBox="0 0 {10 * _BINS} 100" width="300" height="100">{bars}</svg><figcaption>'
        f"{html.escape(name)}: {edges[0]:.4g} to {edges[-1]:.4g}</figcaption></figure>"
    )


STYLE = (
    "body{font:15px sans-serif;max-width:1100px;margin:2em auto;color:#28282c}td,th{padding:.3em .8em;text-align:left;"
    "border-bottom:1px solid #ddd}figure{display:inline-block;margin:.5em}img{width:128px;margin-right:2px}"
    "rect{fill:#2862a0}figcaption{font-size:12px}"
)
