"""What the sections of benchmarks/fashion_rag share: the people of an arguments' call, sheets, tables."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ragdiff_jax.data.images import save_image
from ragdiff_jax.data.person_folder import open_persons
from ragdiff_jax.evaluation.bootstrap import difference_interval, mean_interval
from ragdiff_jax.evaluation.claims.people import People
from ragdiff_jax.evaluation.claims.tower import Tower
from ragdiff_jax.pipelines.edit import PersonEditor


class World:
    """Held-out people, the database that they retrieve from, the tower that measures, steps and place of a call."""

    def __init__(self, arguments: argparse.Namespace):
        editor = PersonEditor.from_folders(arguments.model, arguments.memory, batch_size=arguments.batch, window=0.0)
        records = []
        for split in arguments.split.split(","):
            source = open_persons(arguments.people, split)
            records += [source[row] for row in range(len(source))]
        self.of = People.of(editor, Tower.open(arguments.tower), records[: arguments.count])
        self.steps: int = arguments.steps
        self.out: Path = arguments.out

    def __getattr__(self, name: str) -> Any:
        return getattr(self.of, name)  # the people's own: editor, database, records, scores, ...

    def edit(self, people, editor: PersonEditor | None = None, **options):
        """All edited with the same noise, by another editor if given."""
        return self.of.edit(people, editor, steps=self.steps, **options)

    def sheet(self, name: str, columns: Mapping[str, Any]) -> None:
        """The first people, one a row, a column each."""
        save_image(self.out / f"{name}.png", self.of.sheet(columns, count=12))


def table(rows: Mapping[str, Mapping[str, np.ndarray]], against: str) -> dict[str, Any]:
    """Means with 95 % intervals, and paired differences to the row `against`."""
    found = {}
    for name, scores in rows.items():
        found[name] = {
            score: {
                "mean": _numbers(mean_interval(np.asarray(values, np.float64), seed=0)),
                f"minus {against}": _numbers(
                    difference_interval(
                        np.asarray(values, np.float64), np.asarray(rows[against][score], np.float64), seed=0
                    )
                ),
            }
            for score, values in scores.items()
        }
    return found


def _numbers(interval) -> list[float]:
    return [round(interval.estimate, 4), round(interval.low, 4), round(interval.high, 4)]
