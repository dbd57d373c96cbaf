"""The two ends of a user study (R Fig. 4): `evaluate study` and `evaluate scores`."""

import argparse
import json
from pathlib import Path

from ragdiff_jax.cli.errors import Report
from ragdiff_jax.cli.inputs import add_json, at_least, prepare_out
from ragdiff_jax.errors import UserError


def add_study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--photos", required=True, type=Path, metavar="DIR", help="the photos of garments")
    parser.add_argument(
        "--method", action="append", required=True, metavar="NAME=DIR", help="its pictures of the same names; repeat"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="gets study.html and key.json")
    parser.add_argument("--size", type=at_least(16), default=384, metavar="PX", help="shown at (default %(default)s)")
    parser.add_argument(
        "--limit", type=at_least(1), default=200, metavar="N", help="photos (default %(default)s, as R)"
    )
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="S", help="of the choice and the orders")
    add_json(parser)
    parser.set_defaults(run=run_study)


def add_scores(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key", type=Path, metavar="KEY", help="the study's key.json")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="participants' scores.json")
    parser.add_argument(
        "--seed", type=at_least(0), default=0, metavar="S", help="of the bootstrap (default %(default)s)"
    )
    add_json(parser)
    parser.set_defaults(run=run_scores)


def run_study(arguments: argparse.Namespace, report: Report) -> None:
    import numpy as np

    from ragdiff_jax.data.images import write_atomic
    from ragdiff_jax.evaluation.folder_pairs import pictures
    from ragdiff_jax.evaluation.user_study import build_study

    methods = {}
    for given in arguments.method:
        name, sign, folder = given.partition("=")
        if not sign or not name or name in methods:
            raise UserError(f"--method {given}: give NAME=DIR, each name once")
        methods[name] = pictures(Path(folder))
    photos = pictures(arguments.photos)
    names = sorted(photos)
    if len(names) > arguments.limit:
        chosen = np.random.default_rng(arguments.seed).choice(len(names), arguments.limit, replace=False)
        photos = {names[row]: photos[names[row]] for row in chosen}
    prepare_out(arguments.out)
    page, key = build_study(photos, methods, size=arguments.size, seed=arguments.seed)
    files = arguments.out / "study.html", arguments.out / "key.json"
    write_atomic(files[0], page.encode())
    write_atomic(files[1], json.dumps(key, indent=1).encode())
    record = {"page": str(files[0]), "key": str(files[1]), "photos": len(photos), "methods": sorted(methods)}
    report.result(record, f"{files[0]}: send it to participants\n{files[1]}: keep it, it says which method is which")


def run_scores(arguments: argparse.Namespace, report: Report) -> None:
    from ragdiff_jax.evaluation.user_study import SCHEMA, read_scores

    try:
        key = json.loads(arguments.key.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{arguments.key}: cannot be read ({error}); name the study's key.json") from error
    is_key = isinstance(key, dict) and isinstance(key.get("tasks"), list) and isinstance(key.get("study"), str)
    if not is_key or key.get("schema") != SCHEMA:
        raise UserError(f"{arguments.key}: is not the key of a study; name the study's key.json")
    table = read_scores(key, arguments.files, seed=arguments.seed)
    lines = [
        f"{method:16} {question:10} {row['mean']:.2f} [{row['low']:.2f}, {row['high']:.2f}], median {row['median']:g}, "
        f"quartiles {row['quartiles'][0]:g} to {row['quartiles'][1]:g}, {row['outliers']} outliers"
        for method, questions in table.items()
        for question, row in questions.items()
    ]
    report.result({"participants": len(arguments.files), "methods": table}, "\n".join(lines))
