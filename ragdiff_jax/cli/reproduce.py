"""The two papers' claims in the small: which of them hold for these weights, beside the papers' own numbers.

  ragdiff reproduce --list
  ragdiff reproduce --out out/claims --no-training
  ragdiff reproduce --out out/claims --budget day --seeds 3
  ragdiff reproduce --out out/claims --only R-T7 F-Nr-kid

Each claim is two columns of numbers of the same samples and a threshold, fixed before running: it holds, doesn't, or is
undecided, by paired bootstrap. Drawn garments and people that no training saw are made as needed. What is measured is
kept in OUT/measured under a fingerprint of models, data and budget, so that the same call goes on where it stopped.
Claims that need no training come first; for the others variants of --stem are trained by `ragdiff train` on configs of
--configs, all equally long, and kept in OUT/variants. Writes claims.json, claims.md and claims.html.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ragdiff_jax.cli.edit import editor_folder
from ragdiff_jax.cli.errors import INTERRUPTED, Report
from ragdiff_jax.cli.inputs import add_json, at_least, model_folder, prepare_out, remember_compilations, shipped
from ragdiff_jax.errors import UserError

# Fields of the budget that may be set by themselves: flag, field, what it is.
_OWN = (
    ("--photos", "photos", "held-out photos"),
    ("--people", "people", "held-out people"),
    ("--steps", "steps", "sampling steps"),
    ("--train-steps", "train_steps", "steps of every variant's training"),
    ("--scratch-steps", "scratch_steps", "steps of what is trained from nothing, the autoencoders"),
    ("--train-pairs", "train_pairs", "drawn garments that variants train on"),
    ("--batch", "batch", "pictures at a time"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help="where all of it goes; the same again goes on")
    parser.add_argument("--list", action="store_true", help="print the claims, their tests and thresholds; run nothing")
    parser.add_argument(
        "--only", nargs="+", metavar="CLAIM", help="these claims: ids, beginnings of ids, or patterns with *"
    )
    parser.add_argument(
        "--budget", default="hour", metavar="NAME", help="smoke, hour or day: samples and steps (default %(default)s)"
    )
    for flag, _, what in _OWN:
        parser.add_argument(flag, type=at_least(1), metavar="N", help=f"{what} (default: the budget's)")
    parser.add_argument("--no-training", action="store_true", help="leave out what needs trained variants")
    parser.add_argument(
        "--stem", type=Path, metavar="DIR", help="RAGDiffusion that is measured and trained on from (default: shipped)"
    )
    parser.add_argument("--memory", type=Path, metavar="DIR", help="its memory of flat-lays (default: the shipped one)")
    parser.add_argument("--editor", type=Path, metavar="DIR", help="Fashion-RAG that is measured (default: shipped)")
    parser.add_argument(
        "--tower", type=Path, metavar="DIR", help="a `clip` stage's model that measures edits (default: the editor's)"
    )
    parser.add_argument(
        "--configs", type=Path, metavar="DIR", help="folder of the variants' configs (default: configs)"
    )
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="S", help="the first seed (default %(default)s)")
    parser.add_argument("--seeds", type=at_least(1), default=1, metavar="N", help="how many (default %(default)s)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, report: Report) -> None:
    from ragdiff_jax.evaluation.claims.catalogue import CLAIMS
    from ragdiff_jax.evaluation.claims.claim import chosen

    claims = chosen(CLAIMS, arguments.only)
    if arguments.list:
        return _list(claims, report)
    if arguments.out is None:
        raise UserError("reproduce needs --out DIR, or --list (see ragdiff reproduce --help)")
    budget = _budget(arguments)
    stem, editor = model_folder(arguments.stem), editor_folder(arguments.editor)
    prepare_out(arguments.out)
    remember_compilations(report)
    import jax

    from ragdiff_jax.data.images import write_atomic
    from ragdiff_jax.evaluation.claims.measures import needs_training
    from ragdiff_jax.evaluation.claims.page import page
    from ragdiff_jax.evaluation.claims.report import as_json, claim_record, improvement, markdown, results_record
    from ragdiff_jax.evaluation.claims.runner import Runner, needed
    from ragdiff_jax.evaluation.claims.world import World
    from ragdiff_jax.retrieval import Memory
    from ragdiff_jax.weights.model_folder import load_structure_net, structure_fingerprint

    memory = arguments.memory or shipped("memory")
    Memory.open(memory, structure_fingerprint(*load_structure_net(stem)))  # one line now, not after an hour
    measures = needed(claims)
    total = len(measures) * arguments.seeds
    with report.progress(total, "measurement") as bar:
        world = World(
            out=arguments.out,
            stem=stem,
            memory=memory,
            editor=editor,
            tower=None if arguments.tower is None else model_folder(arguments.tower),
            budget=budget,
            configs=_configs(arguments.configs),
            trainer=None if arguments.no_training else train,
        )
        seeds = range(arguments.seed, arguments.seed + arguments.seeds)
        runner = Runner(
            world,
            seeds,
            begin=lambda name, seed: bar.set_postfix_str(f"{name}, seed {seed}"),
            end=lambda name, seed: bar.update(),
        )
        judged = []
        device = f"{jax.devices()[0].device_kind} x {jax.device_count()}"

        def step(claim, finding) -> None:
            judged.append((claim, finding))
            record = results_record(world, judged, seeds, device)
            write_atomic(arguments.out / "claims.json", as_json(record))
            row = claim_record(claim, finding)
            report.result(row, f"{claim.id:24} {_said(row, improvement)}")

        runner.run(claims, step)
    record = results_record(world, judged, seeds, device)
    found = {name: [kept for seed in seeds if (kept := runner.kept(name, seed))] for name in measures}
    places = {name: arguments.out / f"claims.{name}" for name in ("json", "md", "html")}
    write_atomic(places["md"], markdown(record).encode())
    write_atomic(places["html"], page(record, found).encode())
    trained = sum(any(needs_training(name) for name in claim.measures) for claim in claims)
    summary = {"results": str(places["json"]), "page": str(places["html"]), "needed_training": trained}
    line = ", ".join(f"{count} {name}" for name, count in record["counts"].items())
    report.result(summary | record["counts"], f"{line}\nall numbers: {places['json']}   to read: {places['html']}")


def train(config: str, workdir: Path, settings: Mapping[str, Any]) -> None:
    """`ragdiff train` in a process of its own, whose memory goes with it; what it says goes to stderr.

    Raises `UserError` with its last line where it fails, and KeyboardInterrupt where it was interrupted.
    """
    command = [sys.executable, "-m", "ragdiff_jax.cli.main", "train", "--config", config, "--workdir", str(workdir)]
    command += [f"--set={key}={value}" for key, value in settings.items()]
    last = "no reason given"
    with subprocess.Popen(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        try:
            for line in process.stderr:
                sys.stderr.write(line)
                last = line.strip() or last
        except KeyboardInterrupt:  # the training has heard it too: it saves its state, and we wait for that
            for line in process.stderr:
                sys.stderr.write(line)
            raise
    if process.returncode == INTERRUPTED:
        raise KeyboardInterrupt
    if process.returncode:
        raise UserError(f"{last.removeprefix('ragdiff: ')} (exit code {process.returncode})")


def _list(claims, report: Report) -> None:
    from ragdiff_jax.evaluation.claims.measures import needs_training
    from ragdiff_jax.evaluation.claims.report import claim_record

    for claim in claims:
        trained = any(needs_training(name) for name in claim.measures)
        numbers = "; ".join(f"{name}: {value}" for name, value in claim.numbers.items())
        text = f"{claim.id}  ({claim.where}{', needs training' if trained else ''})\n    {claim.says}"
        text += f"\n    test: {claim.test}" + (f"\n    paper: {numbers}" if numbers else "")
        report.result(claim_record(claim) | {"needs_training": trained}, text)


def _budget(arguments: argparse.Namespace):
    import dataclasses

    from ragdiff_jax.evaluation.claims.budget import BUDGETS

    if arguments.budget not in BUDGETS:
        raise UserError(f"--budget {arguments.budget}: choose one of {', '.join(BUDGETS)}")
    own = {field: getattr(arguments, field) for _, field, _ in _OWN if getattr(arguments, field) is not None}
    try:
        return dataclasses.replace(BUDGETS[arguments.budget], **own)
    except UserError as error:
        raise UserError(f"--{str(error).replace('_', '-', 1)}") from error


def _configs(given: Path | None) -> Path:
    """The folder of configs: the one named, `configs` here, or that of the checkout this package is in."""
    if given is not None:
        if not given.is_dir():
            raise UserError(f"--configs {given}: no such folder; name the repository's configs/")
        return given
    here = Path("configs")
    return here if here.is_dir() else Path(__file__).parents[2] / "configs"


def _said(row: dict[str, Any], improvement) -> str:
    found = row["found"]
    if found["verdict"] == "not run":
        return f"not run: {found['reason']}"
    share = " %" if row["relative"] else ""
    limit = f"{100 * row['threshold'] if row['relative'] else row['threshold']:g}{share}"
    return f"{found['verdict']:13} {improvement(row)}, threshold {limit}"
