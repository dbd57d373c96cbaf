"""`ragdiff data partners`: structure partners by Canny edges (R 3.1)."""

import argparse
from pathlib import Path

from ragdiff_jax.cli.errors import Report
from ragdiff_jax.cli.inputs import add_json, at_least, prepare_out
from ragdiff_jax.errors import UserError


def add_partner_verb(verbs: argparse._SubParsersAction) -> None:
    """Adds `partners` to `ragdiff data`."""
    parser = verbs.add_parser("partners", help="for each garment the one of like edges and other colours")
    parser.add_argument("--dataset", required=True, type=Path, metavar="DIR", help="pairs: prepared, or a folder")
    parser.add_argument("--split", default="train", help="split of it (default %(default)s)")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="JSONL, for data.partners of a config")
    parser.add_argument(
        "--least-difference",
        type=at_least(0, float),
        default=0.5,
        metavar="X",
        help="of colours: 0 the same, 1 none shared (default %(default)s)",
    )
    parser.add_argument(
        "--candidates", type=at_least(1), default=32, help="nearest by edges looked at (default %(default)s)"
    )
    parser.add_argument("--same-category", action="store_true", help="partners within a category alone")
    parser.add_argument("--processes", type=at_least(1), default=1, help="that find edges (default %(default)s)")
    add_json(parser)
    parser.set_defaults(run=run_partners)


def run_partners(arguments: argparse.Namespace, report: Report) -> None:
    if arguments.least_difference > 1:
        raise UserError(f"--least-difference {arguments.least_difference}: must be at most 1")
    from ragdiff_jax.data.folder import open_pairs
    from ragdiff_jax.data.images import write_atomic
    from ragdiff_jax.pipelines.structure_partners import find_partners

    if arguments.out.is_dir():
        raise UserError(f"--out {arguments.out}: is a folder; name a file, such as {arguments.out / 'partners.jsonl'}")
    prepare_out(arguments.out.parent)
    count = len(open_pairs(arguments.dataset, arguments.split))
    with report.progress(2 * count, "garment") as bar:
        found = list(
            find_partners(
                arguments.dataset,
                arguments.split,
                least_difference=arguments.least_difference,
                candidates=arguments.candidates,
                same_category=arguments.same_category,
                processes=arguments.processes,
                described=bar.update,
                searched=bar.update,
            )
        )
    write_atomic(arguments.out, "".join(partner.line() + "\n" for partner in found).encode())
    some = [partner for partner in found if partner.partner is not None]
    record = {
        "file": str(arguments.out),
        "garments": count,
        "with_partner": len(some),
        "mean_similarity": sum(p.similarity for p in some) / max(1, len(some)),
    }
    report.result(record, f"{arguments.out}: {len(some)} of {count} garments have a partner")
