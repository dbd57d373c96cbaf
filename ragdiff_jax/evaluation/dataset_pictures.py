"""The true pictures of a data set's split as a folder, so that generated ones can be held against them by name."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from ragdiff_jax.data.folder import open_pairs
from ragdiff_jax.data.images import one_line, picture_ending, write_atomic
from ragdiff_jax.data.person_folder import open_persons
from ragdiff_jax.data.records import prepared_folder
from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation.twins import twin_groups


def is_dataset(folder: Path) -> bool:
    """A prepared data set, not a folder of pictures."""
    return prepared_folder(folder) is not None


def dataset_pictures(dataset: Path, split: str, task: str, out: Path) -> tuple[Path, dict[str, str]]:
    """(a folder in `out` that holds a split's true pictures, {picture's name: the group of structure twins it is of}).

    `ID.png` or as they are encoded: for the task `generation` the flat-lays, for `editing` the people. What is there
    already is not written again; the folder's name has a hash of the records, so that another data set's are never
    mixed in. In an id a `-` stands for each `/` (Dress Code's `upper_body/000123`).

    Raises `UserError` for a split that there isn't, an id that is no file's name, and two that are one.
    """
    found = list(_records(dataset, split, task))
    taken, digest = set(), hashlib.sha256()
    for name, picture, _ in found:
        if Path(name).name != name or name.startswith("."):
            raise UserError(f"{one_line(dataset)}: record {name!r}: its id can't be a file's name; give it another")
        if name in taken:
            raise UserError(f"{one_line(dataset)}: two records would be the file {name!r}; give one another id")
        taken.add(name)
        digest.update(name.encode() + b"\0" + hashlib.sha256(picture).digest())
    folder = out / f"real-{split}-{digest.hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture, _ in found:
        file = folder / (name + picture_ending(picture))
        if not file.is_file():
            write_atomic(file, picture)
    names = [name for name, _, _ in found]
    return folder, dict(zip(names, twin_groups(names, [partner for *_, partner in found]), strict=True))


def _records(dataset: Path, split: str, task: str) -> Iterator[tuple[str, bytes, str | None]]:
    """(name, picture, its structure partner's name) of each."""
    if task == "generation":
        pairs = open_pairs(dataset, split)
        for record in map(pairs.__getitem__, range(len(pairs))):
            yield _name(record.id), record.flat, record.structure_partner and _name(record.structure_partner)
    else:
        people = open_persons(dataset, split)
        for record in map(people.__getitem__, range(len(people))):
            yield _name(record.id), record.person, None


def _name(id: str) -> str:
    return id.replace("/", "-")
