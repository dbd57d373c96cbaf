"""`ragdiff memory remove | verify | compact | export | neighbours`: what needs no flat-lays."""

import argparse
from pathlib import Path

from ragdiff_jax.cli.errors import Report
from ragdiff_jax.cli.inputs import add_json, at_least, model_folder, prepare_out, remember_compilations
from ragdiff_jax.errors import UserError


def add_change_verbs(verbs: argparse._SubParsersAction) -> None:
    """Adds the five verbs to `ragdiff memory`."""
    remove = _verb(verbs, "remove", run_remove, "take garments out")
    remove.add_argument("ids", nargs="+", metavar="ID", help="of garments; `memory export` lists them")
    _verb(verbs, "verify", run_verify, "read every file and compare it with its hash")
    _verb(verbs, "compact", run_compact, "merge all segments, delete what was removed from the disk")
    export = _verb(verbs, "export", run_export, "plain files: embeddings.npy, items.jsonl, pictures by id")
    export.add_argument("--out", required=True, type=Path, metavar="DIR", help="a folder, not there yet")
    near = _verb(verbs, "neighbours", run_neighbours, "the nearest garments of each photo of a data set, as one file")
    near.add_argument("--dataset", required=True, type=Path, metavar="DIR", help="pairs; a photo's own is left out")
    near.add_argument("--split", default="train", help="split of --dataset (default %(default)s)")
    near.add_argument("--out", required=True, type=Path, metavar="FILE", help="the table (.npz)")
    near.add_argument("-k", type=at_least(1), default=8, help="neighbours a photo (default %(default)s)")
    near.add_argument("--model", type=Path, metavar="DIR", help="model folder or finished workdir (default: shipped)")


def _verb(verbs, name: str, run, help: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=help)
    parser.add_argument("--memory", required=True, type=Path, metavar="DIR", help="folder of the memory")
    add_json(parser)
    parser.set_defaults(run=run)
    return parser


def say_memory(memory, report: Report) -> None:
    """What `info` knows of the memory."""
    info = memory.info()
    report.result(info, "\n".join(f"{name}: {value}" for name, value in info.items()))


def run_remove(arguments: argparse.Namespace, report: Report) -> None:
    from ragdiff_jax.retrieval.memory import Memory

    memory = Memory.open(arguments.memory)
    memory.remove(arguments.ids)
    say_memory(memory, report)


def run_verify(arguments: argparse.Namespace, report: Report) -> None:
    from ragdiff_jax.retrieval.memory import Memory

    memory = Memory.open(arguments.memory)
    memory.verify()
    say_memory(memory, report)


def run_compact(arguments: argparse.Namespace, report: Report) -> None:
    from ragdiff_jax.retrieval.memory import Memory

    memory = Memory.open(arguments.memory)
    memory.compact()
    say_memory(memory, report)


def run_export(arguments: argparse.Namespace, report: Report) -> None:
    from ragdiff_jax.retrieval.exporting import export_memory
    from ragdiff_jax.retrieval.memory import Memory

    memory = Memory.open(arguments.memory)
    with report.progress(len(memory), "garment") as bar:
        export_memory(memory, arguments.out, bar.update)
    record = {"memory": str(arguments.memory), "folder": str(arguments.out), "count": len(memory)}
    report.result(record, f"{arguments.out}: {len(memory)} garments")


def run_neighbours(arguments: argparse.Namespace, report: Report) -> None:
    if arguments.out.suffix != ".npz":
        raise UserError(f"--out {arguments.out}: the table is a .npz file; name it so")
    prepare_out(arguments.out.parent)
    remember_compilations(report)
    from ragdiff_jax.data.folder import open_pairs
    from ragdiff_jax.pipelines.neighbours import neighbours_of_pairs
    from ragdiff_jax.retrieval.memory import Memory

    memory = Memory.open(arguments.memory)
    source = open_pairs(arguments.dataset, arguments.split)
    with report.progress(len(source), "photo") as bar:
        table, choice = neighbours_of_pairs(
            model_folder(arguments.model), memory, source, arguments.k, step=bar.update
        )
    table.save(arguments.out)
    record = {
        "table": str(arguments.out),
        "photos": len(table.ids),
        "k": arguments.k,
        "search": choice,
        "generation": table.generation,
        "mean_cosine": float(table.cosines.mean()),
    }
    report.result(record, f"{arguments.out}: {arguments.k} neighbours of {len(table.ids)} photos (search {choice})")
