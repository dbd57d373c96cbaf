"""Retrieval by RAGDiffusion's protocol (4.1, Table 4): top-1 and top-5 accuracy and IoU of retrieved silhouettes.

  ragdiff evaluate retrieval --dataset data --split test --memory memory --sizes 1000 2000 4000 8000 -k 4 8 --out out
  ragdiff evaluate retrieval --dataset data --memory curated --against all --out out

Writes results.json, table.md and retrieval.png: for each size of the database and each K the scores with attributes
unknown, predicted (if the model has a CLIP) and exact, between chance and the best that the database holds. A smaller
database is a random part of --memory, drawn anew for each of --seeds. `landmark` is the silhouette that serving
chooses by the model's own rule; its way is how far from chance to the best in the database it goes.
--against: paired differences to that memory, or, if it is larger, to random parts of it as large as --memory.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from ragdiff_jax.cli.errors import Report
from ragdiff_jax.cli.inputs import (
    add_json,
    at_least,
    model_folder,
    prepare_out,
    remember_compilations,
)
from ragdiff_jax.cli.retrieval_inputs import add_retrieval_arguments, find_predictor, open_retrieval

# Of the largest database, on the command's one line.
HEADLINE = (
    *("top1", "top5", "iou", "landmark_top1", "landmark_top5", "landmark_iou"),
    *("top1_way", "iou_way", "landmark_iou_way"),
)


def add_verb(verbs: argparse._SubParsersAction, formatter: Any) -> None:
    """Adds `retrieval` to `ragdiff evaluate`."""
    parser = verbs.add_parser(
        "retrieval", help="which silhouettes are found", description=__doc__, formatter_class=formatter
    )
    add_retrieval_arguments(parser)
    parser.add_argument("--limit", type=at_least(2), default=2000, metavar="N", help="photos (default %(default)s)")
    parser.add_argument(
        "--sizes", type=at_least(6), nargs="+", metavar="N", help="of the database (default: the whole memory)"
    )
    parser.add_argument("-k", type=at_least(1), nargs="+", default=[4], help="neighbours of SLLE (default 4)")
    parser.add_argument("--seeds", type=at_least(1), default=3, metavar="N", help="parts of each size (default 3)")
    parser.add_argument("--against", type=Path, metavar="DIR", help="another memory to compare with")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, report: Report) -> None:
    prepare_out(arguments.out)
    folder = model_folder(arguments.model)
    remember_compilations(report)
    from ragdiff_jax.data.images import save_image, write_atomic
    from ragdiff_jax.evaluation.analyze import Analysis, read_pairs
    from ragdiff_jax.evaluation.protocol import check_protocol, compare_memories, draw_protocol, run_protocol
    from ragdiff_jax.retrieval import LandmarkRule, Memory
    from ragdiff_jax.weights.folder import read_model_json

    source, config, params, memory = open_retrieval(arguments, folder)
    other = None if arguments.against is None else Memory.open(arguments.against, memory.fingerprint)
    predictor = find_predictor(arguments, folder, report)
    sizes, neighbours, seeds = sorted(set(arguments.sizes or [len(memory)])), sorted(set(arguments.k)), arguments.seeds
    check_protocol(memory, sizes, neighbours, other)
    count, knowledge = min(arguments.limit, len(source)), 2 if predictor is None else 3
    rule = dataclasses.replace(LandmarkRule.of(read_model_json(folder).settings), k=max(neighbours))
    size = memory.manifest.landmark_size[0]
    with report.progress((1 + knowledge) * count + len(sizes) * len(neighbours) * seeds, "step") as bar:
        pairs = read_pairs(source, arguments.limit, size, bar.update)
        analysis = Analysis(config, params, memory, pairs, predictor, rule=rule, step=bar.update)
        table = run_protocol(analysis, sizes, neighbours, range(seeds), bar.update)
    served = "unknown" if predictor is None else "predicted"
    results = {
        "model": str(folder),
        "memory": str(memory.path),
        "dataset": str(arguments.dataset),
        "split": arguments.split,
        "photos": count,
        "retrieval": table,
    }
    if other is not None:
        results["against"] = compare_memories(analysis, other, served, neighbours[0], range(seeds))
    file, picture = arguments.out / "results.json", arguments.out / "retrieval.png"
    write_atomic(file, json.dumps(results, indent=1).encode())
    text = table_of(table)
    write_atomic(arguments.out / "table.md", text.encode())
    save_image(picture, draw_protocol(table))
    last = table[-1]
    headline = {name: last[served][name] for name in HEADLINE}
    record = {"results": str(file), "picture": str(picture), "photos": count, "memory": last["memory"], "k": last["k"]}
    record |= {"attributes": served, **headline}
    if other is not None:
        record["against"] = results["against"]["iou"]
        text += "\n" + against_line(results["against"])
    report.result(record, f"{text}\nall numbers: {file}")


def table_of(table: list[dict]) -> str:
    """Table 4 as Markdown: a line for each size, K and knowledge."""
    titles = ["database", "K", "attributes", "top-1", "top-5", "IoU"]
    titles += ["landmark top-1", "one of those offered", "landmark IoU", "its way"]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for row in table:
        for knowledge, scores in row.items():
            if not isinstance(scores, dict):
                continue
            cells = [f"{scores['top1']:.1%}", f"{scores['top5']:.1%}", f"{scores['iou']:.3f}"]
            has = "landmark_iou" in scores
            cells += [f"{scores[name]:.1%}" if has else "" for name in ("landmark_top1", "landmark_top5")]
            cells.append(f"{scores['landmark_iou']:.3f}" if has else "")
            way = scores.get("landmark_iou_way")
            cells.append("" if way is None else f"{way:.0%}")
            lines.append(f"| {row['memory']} | {row['k']} | {knowledge} | {' | '.join(cells)} |")
    return "\n".join(lines)


def against_line(found: dict) -> str:
    """The paired difference of IoU in a line."""
    iou = found["iou"]
    low, high = iou["difference_95"]
    return (
        f"against {found['garments']} of {found['other']}, attributes {found['attributes']}: "
        f"IoU {iou['memory']:.3f} and {iou['other']:.3f}, "
        f"difference {iou['difference']:+.3f} (95 %: {low:+.3f} to {high:+.3f})"
    )
