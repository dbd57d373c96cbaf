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
    """What predicts attributes: the CLIP of --clip, or the model's own; None, with a note, where there is none."""
    from ragdiff_jax.weights.folder import read_model_json
    from ragdiff_jax.weights.model_folder import IMAGE_ENCODER, load_zero_shot

    if arguments.clip is not None:
        return load_zero_shot(model_folder(arguments.clip))
    if IMAGE_ENCODER in read_model_json(folder).parts:
        return load_zero_shot(folder)
    report.note(f"ragdiff: {folder}: has no image_encoder, no attributes are predicted; --clip names one")
    return None
