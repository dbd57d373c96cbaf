"""What reading Dress Code's and VITON-HD's folders shares: rows, pair files, captions, what is left out and why."""

import dataclasses
import functools
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ragdiff_jax.data.images import one_line
from ragdiff_jax.errors import UserError

SPLITS = ("train", "test", "test_unpaired")
_LISTED = 100  # problems named in one error


@dataclasses.dataclass(frozen=True, kw_only=True)
class PersonRow:
    """The files of one person with one garment, and the noun chunks of the garment's caption."""

    id: str
    garment_id: str
    category: str
    person: Path
    garment: Path
    label_map: Path
    keypoints: Path
    chunks: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        return self.person, self.garment, self.label_map, self.keypoints


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """A written data set: its folder, the records of each split, and how many rows were left out for which reason."""

    folder: Path
    counts: Mapping[str, int]
    left_out: Mapping[str, int]


class Rows:
    """Collects a layout's rows, what is wrong with its files, and what is left out.

    Problems are only noted, until `done` raises them together.
    """

    def __init__(self, source: str | os.PathLike, listed: Mapping[str, frozenset[str]]):
        self.source, self._listed = Path(source), listed
        self.problems: list[str] = []
        self.left_out: Counter[str] = Counter()
        self.rows: dict[str, list[PersonRow]] = {}
        self._seen: set[tuple[str, str]] = set()
        self._names = functools.lru_cache(maxsize=None)(_names)

    def take(self, split: str, row: PersonRow, *, captioned: bool) -> None:
        """Adds a row whose files are there, unless it is a known one to leave out.

        Left out are a person who comes a second time (as the released code does), a picture on the list of
        duplicates and leaks, and with `captioned` a garment without caption.
        """
        listed = self._listed.get(split.removesuffix("_unpaired"), frozenset())
        if (split, row.person.name) in self._seen:
            self.left_out["repeated"] += 1
        elif {row.person.name, row.garment.name} & listed:
            self.left_out["listed"] += 1
        elif captioned and not row.chunks:
            self.left_out["without caption"] += 1
        else:
            self._seen.add((split, row.person.name))
            missing = [
                path
                for path in row.files
                if path.name not in self._names(path.parent)
            ]
            self.problems += [f"{path.relative_to(self.source)} is missing" for path in missing]
            self.rows.setdefault(split, []).append(row)

    def done(self, expected: str) -> dict[str, list[PersonRow]]:
        """The rows of every split. Raises `UserError` with all problems, and for a split without rows."""
        raise_problems(f"{one_line(self.source)}: does not hold the data set (expected: {expected})", self.problems)
        if not self.rows or not all(self.rows.values()):
            raise UserError(f"{one_line(self.source)}: a split has no people left; leave out less ({self.left_out})")
        return self.rows


def raise_problems(about: str, problems: Sequence[str]) -> None:
    """One `UserError` of one line that lists the problems (the first hundred), if there are any."""
    if problems:
        rest = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise UserError(f"{about}: {'; '.join(problems[:_LISTED])}{rest}")


def _names(folder: Path) -> frozenset[str]:
    return frozenset(os.listdir(folder)) if folder.is_dir() else frozenset()


def check_choices(what: str, values: Iterable[str], known: Sequence[str]) -> tuple[str, ...]:
    """The values, each once. Raises `UserError` for none and for an unknown one."""
    values = tuple(dict.fromkeys(values))
    if unknown := [value for value in values if value not in known]:
        raise UserError(f"{what} {unknown[0]!r} is unknown; use some of {', '.join(known)}")
    if not values:
        raise UserError(f"no {what} is given; use some of {', '.join(known)}")
    return values


def read_pairs(
    file: Path, patterns: Sequence[str], problems: list[str], source: Path
) -> list[tuple[re.Match[str], ...]]:
    """The lines of a pair file, columns between blanks or tabs, each matched with its pattern.

    A missing file and lines of another form are noted in `problems`.
    """
    where = file.relative_to(source)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        problems.append(f"{where} {reason}")
        return []
    pairs = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        columns = line.split()
        matches = tuple(
            match for pattern, text in zip(patterns, columns, strict=False) if (match := re.fullmatch(pattern, text))
        )
        if len(columns) == len(patterns) == len(matches):
            pairs.append(matches)
        else:
            problems.append(f"{where} line {number} is {one_line(line.strip()[:60])!r}, not a pair")
    if not pairs and not problems:
        problems.append(f"{where} has no pairs")
    return pairs


def read_chunks(file: str | os.PathLike) -> dict[str, tuple[str, ...]]:
    """A caption file, {garment id: its noun chunks}. Raises `UserError` for another content."""
    name = one_line(file)
    try:
        found = json.loads(Path(file).read_bytes())
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror}); give the caption file, or ask for none") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: is not JSON ({str(error)[:80]}); copy it again") from None
    if isinstance(found, dict):
        wrong = [
            key for key, value in found.items()
            if not isinstance(value, list) or not all(isinstance(chunk, str) for chunk in value)
        ]  # fmt: skip
        if not wrong:
            return {key: tuple(value) for key, value in found.items()}
        raise UserError(f"{name}: the captions of {wrong[0]!r} are no list of texts; copy the file again")
    raise UserError(f"{name}: holds no captions by garment id; copy the file again")


def read_listed(file: str | os.PathLike | None) -> dict[str, frozenset[str]]:
    """File names to leave out of each split, from JSON of the layout in which TryOffDiff publishes VITON-HD's
    duplicates and leaks: {"train": {"duplicates": [...]}, "test": {"duplicates": [...], "leaked": [...]}}.

    Raises `UserError` for another content; None is an empty list.
    """
    if file is None:
        return {}
    name = one_line(file)
    try:
        found = json.loads(Path(file).read_bytes())
        return {
            split: frozenset(_text(entry) for names in kinds.values() for entry in _list(names))
            for split, kinds in found.items()
        }
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror}); check the path") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{name}: is no list of files to leave out ({str(error)[:60]}); "
            'write {"train": {"duplicates": ["00001_00.jpg"]}}'
        ) from None


def _list(value):
    if not isinstance(value, list):
        raise TypeError("names are no list")
    return value


def _text(value):
    if not isinstance(value, str):
        raise TypeError("a name is no text")
    return value
