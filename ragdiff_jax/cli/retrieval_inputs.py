"""What `analyze` and `evaluate retrieval` are given: pairs, a model's towers, a memory, what predicts attributes."""

import argparse
from pathlib import Path
from typing import Any

from ragdiff_jax.cli.errors import Report
from ragdiff_jax.cli.inputs import add_model_arguments, model_folder, shipped


def add_retrieval_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --dataset, --split, --out, --model, --memory and --clip."""
    parser.add_argument("--dataset", required=True, type=Path, metavar="DIR", help="a prepared data set, or pairs")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where results go, made if missing")
    parser.add_argument("--split", default="test", help="split of --dataset (default %(default)s)")
    add_model_arguments(parser)
    parser.add_argument(
        "--clip", type=Path, metavar="DIR", help="model folder with text and image encoder (default: that of --model)"
    )


def open_retrieval(arguments: argparse.Namespace, folder: Path) -> tuple[Any, Any, Any, Any]:
    """(the pairs, StructureNet's config and parameters of the model `folder`, the memory of that encoder)."""
    from ragdiff_jax.data.folder import open_pairs
    from ragdiff_jax.retrieval import Memory
    from ragdiff_jax.weights.model_folder import load_structure_net, structure_fingerprint

    source = open_pairs(arguments.dataset, arguments.split)
    config, params = load_structure_net(folder)
    memory = Memory.open(arguments.memory or shipped("memory"), structure_fingerprint(config, params))
    return source, config, params, memory


def find_predictor(arguments: argparse.Namespace, folder: Path, report: Report):
    """What predicts attributes: the model of --clip, or the model itself; None, with a note, where it can't."""
    from ragdiff_jax.weights.model_folder import can_predict, load_predictor

    if arguments.clip is not None:
        return load_predictor(model_folder(arguments.clip))
    if can_predict(folder):
        return load_predictor(folder)
    report.note(f"ragdiff: {folder}: predicts no attributes; --clip names a model that does")
    return None
