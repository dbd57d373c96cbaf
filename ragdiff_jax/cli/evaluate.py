"""Numbers that can be compared: generated pictures beside the true ones, and what retrieval finds.

  ragdiff evaluate generation --real flats --fake out --size 256 --out eval
  ragdiff evaluate editing --real people --fake edited --out eval
  ragdiff evaluate generation --real data/synth_garments/NAME/VERSION --split test --fake out --out eval
  ragdiff evaluate retrieval --dataset pairs --sizes 1000 2000 4000 -k 4 8 --out eval
  ragdiff evaluate generation --real flats --fake out --networks metrics/inception metrics/lpips --out eval
  ragdiff evaluate compare eval_a eval_b
  ragdiff evaluate study --photos photos --method ours=a --method theirs=b --out study

FID, LPIPS, DISTS and CLIP's numbers need networks that `ragdiff weights import` makes of their public files; what has
none is not measured. Pictures belong together by their names. Everything is looked at before the long work starts, and
what is done stays done: the same call goes on where it stopped. Several hosts share the pairs; --out, which they must
all see, holds what each has done.
"""

import argparse
from pathlib import Path

from ragdiff_jax.cli import evaluate_retrieval, study
from ragdiff_jax.cli.errors import Parser, Report
from ragdiff_jax.cli.inputs import add_json, at_least, model_folder, prepare_out, remember_compilations
from ragdiff_jax.cli.processes import add_processes, join
from ragdiff_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    tasks = parser.add_subparsers(dest="task", required=True, metavar="WHAT", parser_class=Parser)
    for task, help in (
        ("generation", "flat-lays beside the true ones, aligned as R 11.1 and unaligned"),
        ("editing", "edited people beside the originals"),
    ):
        _add_folders(tasks.add_parser(task, help=help, description=f"Measures {help}."), task)
    both = tasks.add_parser(
        "compare",
        help="paired differences of two evaluations",
        description="Paired differences B - A with 95 % bootstrap intervals; refuses results of different protocols.",
    )
    both.add_argument("a", type=Path, metavar="A", help="folder of an evaluation")
    both.add_argument("b", type=Path, metavar="B", help="folder of another one, of the same true pictures")
    both.add_argument("--seed", type=at_least(0), default=0, metavar="S", help="of the bootstrap (default %(default)s)")
    add_json(both)
    both.set_defaults(run=run_compare)
    evaluate_retrieval.add_verb(tasks, parser.formatter_class)
    for name, add, help in (
        ("study", study.add_study, "an anonymised page that collects scores of 1 to 10"),
        ("scores", study.add_scores, "what participants' files of scores say"),
    ):
        add(tasks.add_parser(name, help=help, description=f"A user study as R Fig. 4: {help}."))


def _add_folders(parser: argparse.ArgumentParser, task: str) -> None:
    parser.add_argument(
        "--real", required=True, type=Path, metavar="DIR", help="the true pictures, or a prepared data set"
    )
    parser.add_argument("--split", default="test", help="of a data set, whose ids name pictures (default %(default)s)")
    parser.add_argument("--fake", required=True, type=Path, metavar="DIR", help="the generated ones, of the same names")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where results go, made if missing")
    parser.add_argument(
        "--size", type=at_least(16), default=256, metavar="PX", help="measured at (default %(default)s)"
    )
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help="only these (default: all that can be measured)")
    if task == "generation":
        parser.add_argument(
            "--boxes",
            type=Path,
            metavar="FILE",
            help='logos: JSONL, a line a true picture, {"image": NAME, "box": [top, left, bottom, right]}',
        )
    parser.add_argument(
        "--lpips",
        nargs=3,
        action="append",
        default=[],
        metavar=("NET", "NETWORK", "WEIGHTINGS"),
        help="LPIPS: alex or vgg, torchvision's file of that network, and the authors' file of version 0.1; may repeat",
    )
    parser.add_argument(
        "--networks",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="of `weights import`: inception (fid, kid), lpips-alex, lpips-vgg, dists, clip-vision (clip_fid, clip_i), "
        "clip-text with its tokenizer (clip_t)",
    )
    parser.add_argument(
        "--edits",
        type=Path,
        metavar="FILE",
        help='for clip_t and clip_i: JSONL, a line a picture, {"image": NAME, "caption": TEXT, "mask": FILE, '
        '"category": NAME, "retrieved": [FILE, ...]}',
    )
    parser.add_argument("--model", type=Path, metavar="DIR", help="that generated them: its fingerprint is recorded")
    parser.add_argument("--memory", type=Path, metavar="DIR", help="that it retrieved from, recorded as well")
    parser.add_argument("--memory-split", metavar="NAME", help="of the data set that the memory was made of, recorded")
    parser.add_argument("--generation-seed", type=int, metavar="S", help="the pictures' own seed, recorded")
    parser.add_argument("--filter", default="none", metavar="NAME", help="how the pairs were chosen, recorded")
    parser.add_argument(
        "--batch", type=at_least(1), default=16, metavar="N", help="pairs at once (default %(default)s)"
    )
    parser.add_argument(
        "--seed", type=at_least(0), default=0, metavar="S", help="of the bootstrap (default %(default)s)"
    )
    add_processes(parser)
    add_json(parser)
    parser.set_defaults(run=run, boxes=None)


def run(arguments: argparse.Namespace, report: Report) -> None:
    first = join(arguments)
    from ragdiff_jax.evaluation.lpips_weights import load_lpips
    from ragdiff_jax.evaluation.networks import load_networks
    from ragdiff_jax.evaluation.pair_scores import FEWEST, NEEDS, NETS, PairScores, chosen_metrics, needs_masks

    task, size = arguments.task, arguments.size
    nets = [given[0] for given in arguments.lpips]
    if len(set(nets)) < len(nets) or not set(nets) <= set(NETS):
        raise UserError(f"--lpips {' '.join(nets)}: the networks are {' and '.join(NETS)}, each at most once")
    made_by = _made_by(arguments)
    weights = [load_lpips(net, Path(network), Path(weightings)) for net, network, weightings in arguments.lpips]
    networks = load_networks(arguments.networks, weights)
    nets = [given.net for given in networks.lpips]
    nets += [name for name in ("inception", "dists", "vision", "text") if getattr(networks, name) is not None]
    with_edits = arguments.edits is not None
    metrics = chosen_metrics(task, size, arguments.metrics, arguments.boxes is not None, nets, with_edits)
    prepare_out(arguments.out)
    remember_compilations(report)
    import jax

    from ragdiff_jax.data.images import write_atomic
    from ragdiff_jax.evaluation import folder_pairs
    from ragdiff_jax.evaluation.dataset_pictures import dataset_pictures, is_dataset
    from ragdiff_jax.evaluation.pair_run import run_pairs
    from ragdiff_jax.evaluation.result_file import FILE, write_results
    from ragdiff_jax.evaluation.result_page import markdown, page
    from ragdiff_jax.models.lpips import LEAST_SIDE
    from ragdiff_jax.parallel import make_mesh

    for net in set(NETS) & set(nets):
        if size < LEAST_SIDE[net]:
            raise UserError(f"--size {size}: LPIPS ({net}) needs {LEAST_SIDE[net]} or more")
    real, groups = arguments.real, {}
    if is_dataset(real):
        real, groups = dataset_pictures(real, arguments.split, task, arguments.out)
    pairs = folder_pairs.open_folders(
        real, arguments.fake, masks=needs_masks(metrics), boxes=arguments.boxes, edits=arguments.edits
    )
    most = max((len(edit.retrieved) for edit in pairs.edits.values()), default=0)
    scores = PairScores(metrics, make_mesh(devices=jax.local_devices()), arguments.batch, networks, most)
    tied = tuple(groups[name] for name in pairs.names) if groups else None
    with report.progress(len(pairs) if first else 0, "pair") as bar:
        columns, sets = run_pairs(pairs, scores, size, arguments.out, bar.update, tied)
    if not first:
        return
    absent = [name for name, needs in NEEDS.items() if not set(needs) <= set(nets)]
    notes = [f"Not measured, their networks' weights aren't here: {', '.join(absent)}."] if absent else []
    if not with_edits and len(absent) < len(NEEDS):
        notes.append("Not measured without --edits: clip_t, clip_i.")
    missing = [name for name in metrics if name in FEWEST and name not in columns and name not in sets]
    if missing:
        fewest = ", ".join(f"{name} ({FEWEST[name]})" for name in missing)
        notes.append(f"Not measured, too few pairs (the fewest in brackets): {fewest}.")
    record = {
        "task": task,
        "real": str(arguments.real) + (f":{arguments.split}" if real != arguments.real else ""),
        "fake": str(arguments.fake),
        "n": len(pairs),
        "size": size,
        "resize": folder_pairs.PROTOCOL,
        "filter": arguments.filter,
        "split_sha256": pairs.real_hash,
        "fake_sha256": pairs.fake_hash,
        "asked_sha256": pairs.asked,
        "seeds": {"bootstrap": arguments.seed, "generation": arguments.generation_seed},
        **made_by,
        "notes": notes,
    }
    results = write_results(arguments.out, record, pairs.names, columns, scores.protocols, sets, tied)
    write_atomic(arguments.out / "results.md", markdown(results).encode(errors="backslashreplace"))

    def read(row: int):
        real, fake = pairs.read([row], size)
        return real[0], fake[0]

    write_atomic(arguments.out / "results.html", page(results, read).encode(errors="backslashreplace"))
    numbers = {name: row["value"] for name, row in results.record["metrics"].items()}
    report.result({"results": str(arguments.out / FILE), "n": len(pairs), **numbers}, markdown(results).rstrip())


def _made_by(arguments: argparse.Namespace) -> dict[str, str | None]:
    """Fingerprints of the model and the memory that were named. Raises `UserError` for a folder that is none."""
    from ragdiff_jax.evaluation.fingerprints import folder_fingerprint, memory_fingerprint

    model, memory = arguments.model, arguments.memory
    return {
        "model": None if model is None else folder_fingerprint(model_folder(model)),
        "memory": None if memory is None else memory_fingerprint(memory),
        "memory_split": arguments.memory_split,
    }


def run_compare(arguments: argparse.Namespace, report: Report) -> None:
    from ragdiff_jax.evaluation.compare import compare, comparison_table
    from ragdiff_jax.evaluation.result_file import read_results

    found = compare(read_results(arguments.a), read_results(arguments.b), seed=arguments.seed)
    report.result({"a": str(arguments.a), "b": str(arguments.b), "metrics": found}, comparison_table(found))
