"""What retrieval does with a set of pairs: numbers and pictures.

  ragdiff analyze --dataset pairs --out out
  ragdiff analyze --dataset data/1.0.0 --memory memory --model runs/structure_net --sizes 256 1024 --out out

Writes analysis.json (all numbers), similarity.png (cosines of photos with their own flat-lay, with others' and with the
memory), tsne.png (both towers in one plane) and neighbours.png (photo, neighbours, blended and chosen landmark, truth):
each for attributes unknown, predicted (if there is a CLIP for it) and exact.
"""

import argparse
import json
from pathlib import Path

from ragdiff_jax.cli.errors import Report
from ragdiff_jax.cli.inputs import (
    add_json,
    at_least,
    model_folder,
    prepare_out,
    remember_compilations,
)
from ragdiff_jax.cli.retrieval_inputs import add_retrieval_arguments, find_predictor, open_retrieval
from ragdiff_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_retrieval_arguments(parser)
    parser.add_argument("--limit", type=at_least(2), default=400, metavar="N", help="pairs (default %(default)s)")
    parser.add_argument(
        "--sizes", type=at_least(6), nargs="+", metavar="N", help="random parts of the memory (default: the whole)"
    )
    parser.add_argument(
        "--pairs", type=at_least(0), default=200, metavar="N", help="pairs in the t-SNE, 0: none (default %(default)s)"
    )
    parser.add_argument(
        "--rows", type=at_least(1), default=12, metavar="N", help="photos in neighbours.png (default %(default)s)"
    )
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="S", help="of t-SNE and parts of the memory")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, report: Report) -> None:
    prepare_out(arguments.out)
    folder = model_folder(arguments.model)
    remember_compilations(report)
    from ragdiff_jax.data.images import save_image, write_atomic
    from ragdiff_jax.evaluation.analyze import Analysis, read_pairs, said_and_right
    from ragdiff_jax.evaluation.similarity import require_tsne
    from ragdiff_jax.retrieval import LandmarkRule
    from ragdiff_jax.weights.folder import read_model_json

    if arguments.pairs:
        require_tsne()
    source, config, params, memory = open_retrieval(arguments, folder)
    sizes = arguments.sizes or [len(memory)]
    if max(sizes) > len(memory):
        raise UserError(f"--sizes {max(sizes)}: the memory holds {len(memory)} garments; give at most that")
    rule = LandmarkRule.of(read_model_json(folder).settings)
    predictor = find_predictor(arguments, folder, report)
    size, count = memory.manifest.landmark_size[0], min(arguments.limit, len(source))
    knowledge = 2 if predictor is None else 3
    with report.progress((1 + knowledge) * count, "photo") as bar:
        pairs = read_pairs(source, arguments.limit, size, bar.update)
        analysis = Analysis(config, params, memory, pairs, predictor, rule=rule, step=bar.update)
    record = {
        "model": str(folder),
        "memory": str(memory.path),
        "dataset": str(arguments.dataset),
        "split": arguments.split,
        "photos": count,
        "seed": arguments.seed,
        "retrieval": analysis.retrieval(sizes, arguments.seed),
    }
    numbers = dict(record)
    pictures = []

    def keep(name: str, found, picture) -> None:
        numbers[name] = found
        pictures.append(str(arguments.out / f"{name}.png"))
        save_image(pictures[-1], picture)

    if predictor is not None:
        numbers["predicted_attributes"] = said_and_right(analysis.attribute_ids["predicted"], pairs.photo_ids)
    keep("similarity", *analysis.similarity())
    keep("neighbours", *analysis.neighbours(arguments.rows, "unknown" if predictor is None else "predicted"))
    if arguments.pairs:
        keep("tsne", *analysis.tsne(max(2, arguments.pairs), arguments.seed))
    file = arguments.out / "analysis.json"
    write_atomic(file, json.dumps(numbers, indent=1).encode())
    report.result(record | {"analysis": str(file), "pictures": pictures}, _table(record, file))


def _table(record: dict, file: Path) -> str:
    lines = []
    for part in record["retrieval"]:
        titles = "top-1   top-5   IoU   landmark: IoU, right, one of those offered right"
        lines.append(f"{record['photos']} photos, memory of {part['memory']}:   {titles}")
        for name, scores in part.items():
            if name != "memory":
                landmark = "-"
                if "landmark_iou" in scores:
                    shares = (f"{scores[score]:.1%}" for score in ("landmark_top1", "landmark_top5"))
                    landmark = "  ".join((f"{scores['landmark_iou']:.3f}", *shares))
                lines.append(
                    f"  {name:10} {scores['top1']:7.1%} {scores['top5']:7.1%}  {scores['iou']:.3f}  {landmark}"
                )
    return "\n".join([*lines, f"all numbers: {file}"])
