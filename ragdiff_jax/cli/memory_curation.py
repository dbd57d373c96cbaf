"""What `ragdiff memory build` says of curation, and the step that chooses (R 9.4)."""

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any

from ragdiff_jax.cli.errors import Report
from ragdiff_jax.cli.inputs import at_least
from ragdiff_jax.errors import UserError


def add_curation(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "curation (R 9.4)",
        "with --select: balanced categories, DBSCAN's outliers out, those kept that represent the others best",
    )
    group.add_argument("--select", type=at_least(2), metavar="N", help="garments that the memory keeps (default: all)")
    group.add_argument("--pool", type=at_least(2), metavar="N", help="encoded, balanced by category (default: 4 N)")
    group.add_argument(
        "--outliers", type=at_least(0, float), default=0.02, metavar="SHARE", help="that is noise (default %(default)s)"
    )
    group.add_argument("--eps", type=at_least(0, float), help="DBSCAN's cosine distance (default: follows --outliers)")
    group.add_argument("--min-samples", type=at_least(1), default=5, metavar="N", help="DBSCAN's (default %(default)s)")
    group.add_argument("--seed", type=at_least(0), default=0, help="of what is drawn (default %(default)s)")


def pool_rows(arguments: argparse.Namespace, categories: Sequence[str]):
    """The rows to encode, all of them without --select."""
    from ragdiff_jax.retrieval.curation import balanced

    if getattr(arguments, "select", None) is None:
        return range(len(categories))
    if not arguments.outliers < 1:
        raise UserError(f"--outliers {arguments.outliers}: must be below 1")
    pool = arguments.pool or 4 * arguments.select
    if arguments.select > min(pool, len(categories)):
        raise UserError(f"--select {arguments.select}: there are {min(pool, len(categories))} flat-lays to choose from")
    if arguments.min_samples > min(pool, len(categories)):
        raise UserError(f"--min-samples {arguments.min_samples}: more than the flat-lays to choose from; give fewer")
    return balanced(categories, pool, arguments.seed)


def curator(arguments: argparse.Namespace, report: Report) -> Callable[[list], list] | None:
    """Chooses among encoded items and writes OUT.curation.json beside the memory; None without --select."""
    if arguments.select is None:
        return None

    def choose(items: list[Any]) -> list[Any]:
        import numpy as np

        from ragdiff_jax.data.images import write_atomic
        from ragdiff_jax.retrieval.curation import curate

        vectors = np.stack([np.asarray(item.embedding, np.float32) for item in items])
        found = curate(
            vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
            [item.metadata.get("attributes", {}).get("Category", "unknown") for item in items],
            [item.id for item in items],
            arguments.select,
            outliers=arguments.outliers,
            eps=arguments.eps,
            min_samples=arguments.min_samples,
        )
        file = arguments.out.with_name(f"{arguments.out.name}.curation.json")
        write_atomic(file, json.dumps(found.report | {"seed": arguments.seed}, indent=1, ensure_ascii=False).encode())
        numbers = found.report
        nearest = numbers["nearest_cosine"]
        report.note(
            f"ragdiff: {file}: of {numbers['encoded']} encoded {len(numbers['outliers'])} were outliers and "
            f"{numbers['represented']} are represented by those kept; nearest cosine {nearest['before']} -> "
            f"{nearest['kept']}"
        )
        return [items[row] for row in found.kept]

    return choose
