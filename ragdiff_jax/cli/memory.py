"""Memories of flat-lays: what the model retrieves shapes from.

  ragdiff memory build --out memory --flats flatlays/ --attributes flatlays.jsonl
  ragdiff memory build --out memory --dataset stgarment --select 4000     # curated, with a report
  ragdiff memory add --memory memory --flats more/        # refuses ids that are there; update replaces them
  ragdiff memory remove --memory memory old-1 old-2
  ragdiff memory verify --memory memory                   # every file against its hash
  ragdiff memory compact --memory memory                  # one segment, nothing removed left on the disk
  ragdiff memory export --memory memory --out plain/
  ragdiff memory neighbours --memory memory --dataset stgarment --out neighbours.npz
  ragdiff memory info --memory memory --json
  ragdiff memory build --out garments --dataset people --model EDITOR     # of a Fashion-RAG model: found by text

A change is one new generation: readers see the old memory or the new one.
--flats is a folder of pictures on a plain background; masks/NAME.png in it, if there, is NAME's silhouette.
A picture that can't be read or used, or whose name holds what isn't printable, is reported and left out.
"""

import argparse
import itertools
from pathlib import Path

from ragdiff_jax.cli.errors import Report
from ragdiff_jax.cli.inputs import (
    add_json,
    at_least,
    model_folder,
    prepare_out,
    read_descriptions,
    remember_compilations,
    shipped,
)
from ragdiff_jax.cli.memory_changes import add_change_verbs, say_memory
from ragdiff_jax.cli.memory_curation import add_curation, curator, pool_rows
from ragdiff_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    build = verbs.add_parser("build", help="a new memory")
    build.add_argument("--out", required=True, type=Path, metavar="DIR", help="the memory, not there yet")
    _add_sources(build)
    add_curation(build)
    build.set_defaults(run=run_build)
    add = verbs.add_parser("add", help="more flat-lays into a memory")
    add.add_argument("--memory", required=True, type=Path, metavar="DIR", help="folder of the memory")
    _add_sources(add)
    add.set_defaults(run=run_add)
    update = verbs.add_parser("update", help="flat-lays in the place of those with the same ids, and new ones")
    update.add_argument("--memory", required=True, type=Path, metavar="DIR", help="folder of the memory")
    _add_sources(update)
    update.set_defaults(run=run_update)
    add_change_verbs(verbs)
    info = verbs.add_parser("info", help="what a memory holds")
    info.add_argument("--memory", type=Path, metavar="DIR", help="default: the shipped one")
    add_json(info)
    info.set_defaults(run=run_info)


def _add_sources(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--flats", type=Path, metavar="DIR", help="folder of flat-lay pictures")
    source.add_argument("--dataset", type=Path, metavar="DIR", help="pairs (people, for a Fashion-RAG model)")
    parser.add_argument("--split", default="train", help="split of --dataset (default %(default)s)")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="the first N flat-lays only (default: all)")
    parser.add_argument("--attributes", type=Path, metavar="FILE", help="JSONL: a line a picture of --flats")
    parser.add_argument("--model", type=Path, metavar="DIR", help="model folder or finished workdir (default: shipped)")
    parser.add_argument(
        "--size", type=at_least(16), help="pixels a side, where the model doesn't say (a structure_net stage)"
    )
    add_json(parser)


def run_build(arguments: argparse.Namespace, report: Report) -> None:
    if arguments.out.exists():
        raise UserError(f"{arguments.out}: is there already; use `ragdiff memory add`, or another --out")
    prepare_out(arguments.out.parent)
    total, flats = _flats(arguments, report)
    builder = _builder(arguments, report)
    with report.progress(total, "flat-lay") as bar:
        chooser = curator(arguments, report)
        memory = builder.build(
            arguments.out, _counted(flats, bar), lambda name, error: report.error(error, name), choose=chooser
        )
    say_memory(memory, report)


def run_update(arguments: argparse.Namespace, report: Report) -> None:
    run_add(arguments, report, replace=True)


def run_add(arguments: argparse.Namespace, report: Report, *, replace: bool = False) -> None:
    from ragdiff_jax.retrieval.memory import Memory

    memory = Memory.open(arguments.memory)
    total, flats = _flats(arguments, report)
    builder = _builder(arguments, report)
    with report.progress(total, "flat-lay") as bar:
        builder.add(memory, _counted(flats, bar), lambda name, error: report.error(error, name), replace=replace)
    say_memory(memory, report)


def run_info(arguments: argparse.Namespace, report: Report) -> None:
    from ragdiff_jax.retrieval.memory import Memory

    say_memory(Memory.open(arguments.memory or shipped("memory")), report)


def _builder(arguments: argparse.Namespace, report: Report):
    from ragdiff_jax.pipelines.memory_builder import MemoryBuilder

    remember_compilations(report)
    folder = model_folder(arguments.model)
    if not _edits(arguments):
        return MemoryBuilder.from_folder(folder, size=arguments.size)
    from ragdiff_jax.pipelines.garment_database import GarmentMemoryBuilder
    from ragdiff_jax.weights.fashion_folder import load_fashion, read_fashion

    model = read_fashion(folder)
    if arguments.size not in (None, model.image_encoder.image_size):
        raise UserError(f"--size {arguments.size}: the model's garments have {model.image_encoder.image_size} pixels")
    return GarmentMemoryBuilder(model, load_fashion(model, folder))


def _edits(arguments: argparse.Namespace) -> bool:
    """Whether the memory is one of garments for `ragdiff edit`: its model says so."""
    from ragdiff_jax.weights.fashion_folder import FASHION
    from ragdiff_jax.weights.folder import read_model_json

    return read_model_json(model_folder(arguments.model)).system == FASHION


def _flats(arguments: argparse.Namespace, report: Report):
    """(how many, the flat-lays): pictures that cannot be read are reported and left out."""
    from ragdiff_jax.pipelines.memory_builder import flat_lays_of_folder, flat_lays_of_pairs, left_out, pictures_in

    def on_error(name, error):
        report.error(error, name)

    if arguments.flats is not None:
        pictures = pictures_in(arguments.flats)[: arguments.limit]
        described = read_descriptions(arguments.attributes, pictures, "flats")

        def attributes(path):
            return described.of(path).attributes

        def category(path):
            named = described.records.get(path.name)
            return (named.attributes if named else {}).get("Category", "unknown")

        rows = pool_rows(arguments, [category(path) for path in pictures])
        return len(rows), flat_lays_of_folder(arguments.flats, attributes, on_error, rows)
    if arguments.attributes is not None:
        raise UserError("--attributes goes with --flats: the records of --dataset have their own")
    if _edits(arguments):
        from ragdiff_jax.data.person_folder import open_persons
        from ragdiff_jax.pipelines.garment_database import garments_of_people

        people = open_persons(arguments.dataset, arguments.split)
        if getattr(arguments, "select", None) is not None:
            raise UserError("--select chooses among flat-lays by structure; leave it out for a Fashion-RAG model")
        count = min(len(people), arguments.limit or len(people))
        return count, itertools.islice(garments_of_people(people, arguments.split, on_error), count)
    from ragdiff_jax.data.folder import open_pairs

    source = open_pairs(arguments.dataset, arguments.split)
    count = min(len(source), arguments.limit or len(source))
    if getattr(arguments, "select", None) is None:
        return count, flat_lays_of_pairs(source, rows=range(count), on_error=on_error)
    readable, categories = [], []
    for row in range(count):
        with left_out(f"record {row}", on_error):
            categories.append(source[row].flat_attributes.get("Category", "unknown"))
            readable.append(row)
    rows = [readable[place] for place in pool_rows(arguments, categories)]
    return len(rows), flat_lays_of_pairs(source, rows=rows, on_error=on_error)


def _counted(flats, bar):
    for flat in flats:
        yield flat
        bar.update()
