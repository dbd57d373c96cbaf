"""The true pictures of a data set's split as a folder, so that generated ones can be held against them by name."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from ragdiff_jax.data.folder import open_pairs
from ragdiff_jax.data.images import one_line, picture_ending, write_atomic
from ragdiff_jax.data.person_folder import open_persons
from ragdiff_jax.data.records import prepared_folder
from ragdiff_jax.errors import UserError


def is_dataset(folder: Path) -> bool:
    """A prepared data set, not a folder of pictures."""
    return prepared_folder(folder) is not None


def dataset_pictures(dataset: Path, split: str, task: str, out: Path) -> Path:
    """A folder in `out` that holds a split's true pictures, `ID.png` or as they are encoded: for the task `generation`
    the flat-lays, for `editing` the people. What is there already is not written again; the folder's name has a hash of
    the records, so that another data set's are never mixed in. In an id a `-` stands for each `/` (Dress Code's
    `upper_body/000123`).

    Raises `UserError` for a split that there isn't, an id that is no file's name, and two that are one.
    """
    records, digest = list(_records(dataset, split, task)), hashlib.sha256()
    taken = set()
    for name, picture in records:
        if Path(name).name != name or name.startswith("."):
            raise UserError(f"{one_line(dataset)}: record {name!r}: its id can't be a file's name; give it another")
        if name in taken:
            raise UserError(f"{one_line(dataset)}: two records would be the file {name!r}; give one another id")
        taken.add(name)
        digest.update(name.encode() + b"\0" + hashlib.sha256(picture).digest())
    folder = out / f"real-{split}-{digest.hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in records:
        file = folder / (name + picture_ending(picture))
        if not file.is_file():
            write_atomic(file, picture)
    return folder


def _records(dataset: Path, split: str, task: str) -> Iterator[tuple[str, bytes]]:
    if task == "generation":
        pairs = open_pairs(dataset, split)
        yield from ((record.id.replace("/", "-"), record.flat) for record in map(pairs.__getitem__, range(len(pairs))))
    else:
        people = open_persons(dataset, split)
        records = map(people.__getitem__, range(len(people)))
        yield from ((record.id.replace("/", "-"), record.person) for record in records)
