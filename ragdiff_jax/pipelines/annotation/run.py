"""One run over many pictures: several at once, one JSONL line each, resumed where it stopped.

A line is written when its picture is done, in one write; a line that a killed run left half is cut off. A picture that
failed has no line, is reported, and is tried again by the next run. Many that fail in a row end a run only where the
annotator is gone: pictures that it refuses may well lie side by side, and come first when a run is resumed.
"""

import concurrent.futures
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from ragdiff_jax.data.answers import Answer, Kind
from ragdiff_jax.data.folder import open_pairs
from ragdiff_jax.data.images import decode_image, load_image, one_line, picture_files, resize
from ragdiff_jax.data.records import prepared_folder
from ragdiff_jax.errors import UserError

MAX_SIDE = 768  # pixels of what is sent
STOP_AFTER = 8  # pictures in a row without an answer: is the annotator gone?
_LINE = b'{"image": "'  # how each of ours begins


@runtime_checkable
class Annotator(Protocol):
    """Says what a picture shows. `name` stands in each line."""

    name: str

    def annotate(self, image: UInt8[np.ndarray, "h w 3"], kind: Kind) -> Answer: ...


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture to annotate: its name in the lines, what it is, and how to read it."""

    name: str
    kind: Kind
    read: Callable[[], UInt8[np.ndarray, "h w 3"]]


def pictures_of(source: Path, split: str, kind: str, *, limit: int | None = None) -> list[Picture]:
    """The pictures of a folder of pictures (`kind` photo or flat), or both sides of pairs (`kind` both, or one).

    `limit`: the first so many alone; a data set's other records are not read. Names are those of `attributes.jsonl`:
    photos/x.jpg and flats/x.png of pairs, else the file's own. Raises `UserError` for a folder of neither.
    """
    folder, kinds = Path(source), ("photo", "flat") if kind == "both" else (kind,)
    if (folder / "photos").is_dir():
        places = [(f"{name}s", name) for name in kinds]
        return [
            Picture(f"{place}/{path.name}", name, lambda path=path: load_image(path, max_side=MAX_SIDE))
            for place, name in places
            for path in _files(folder / place)
        ][:limit]
    if prepared_folder(folder):
        records = open_pairs(folder, split)

        def reader(row, name):
            record = records[row]
            return decode_image(getattr(record, name), f"{name} of record {record.id}", max_side=MAX_SIDE)

        rows = range(len(records))[:limit]
        ids = [records[row].id for row in rows]  # a record is read whole for its id: once for both its pictures
        return [
            Picture(f"{name}s/{ids[row]}", name, lambda row=row, name=name: reader(row, name))
            for name in kinds
            for row in rows
        ][:limit]
    if kind == "both":
        raise UserError(f"{one_line(folder)}: has no photos/; say what its pictures are: --kind photo or --kind flat")
    return [
        Picture(path.name, kind, lambda path=path: load_image(path, max_side=MAX_SIDE))
        for path in _files(folder)[:limit]
    ]


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{one_line(folder)}: no such folder; check --source")
    found = picture_files(folder)
    if not found:
        raise UserError(f"{one_line(folder)}: holds no pictures")
    return found


def names_done(out: Path) -> set[str]:
    """The pictures that have a line. Of a last line without its end, a whole one gets its end and one that was cut off
    is removed. Raises `UserError` for a file of anything else, which stays as it is.
    """
    if not out.exists():
        return set()
    try:
        content = out.read_bytes()
        end = content.rfind(b"\n") + 1
        lines = content[:end].decode("utf-8").split("\n")  # splitlines would cut at U+2028 too, which JSON has as it is
        done, last = {json.loads(line)["image"] for line in lines if line.strip()}, content[end:]
        if not last:
            return done
        try:
            done.add(json.loads(last)["image"])
        except (ValueError, KeyError, TypeError):
            if not _LINE.startswith(last[: len(_LINE)]):
                raise
            with open(out, "r+b") as file:
                file.truncate(end)
        else:
            with open(out, "ab") as file:
                file.write(b"\n")
        return done
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{one_line(out)}: is not lines of an earlier run ({error}); choose another --out") from error


def annotate_all(
    annotator: Annotator,
    pictures: Sequence[Picture],
    out: Path,
    *,
    concurrency: int = 8,
    on_error: Callable[[str, UserError], None],
    on_done: Callable[[dict], None] = lambda line: None,
) -> int:
    """Writes a line for each picture that has none yet; returns how many came.

    `on_error` is told of pictures without an answer, `on_done` of each line. Raises `UserError` when the annotator
    answers nothing any more, not even about a picture that it has answered before (where there is none, one that is
    still to come); what was written stays, and the same call goes on.
    """
    done = names_done(out)
    todo = [picture for picture in pictures if picture.name not in done]
    answered = next((picture for picture in pictures if picture.name in done), None)
    tried: set[str] = set()
    count, in_a_row, why = 0, 0, ""

    def stop_if_gone() -> None:
        nonlocal answered
        others = [picture for picture in reversed(todo) if picture.name not in tried]
        for picture in others if answered is None else [answered]:
            found, asked = _ask(annotator, picture)
            if isinstance(found, Answer):
                answered = picture
                return
            if asked:
                break
        if not count:
            raise UserError(f"{in_a_row} pictures and no answer: {why}")
        raise UserError(f"stopped after {in_a_row} pictures without an answer; run again to go on")

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"{one_line(out)}: can't be written ({error.strerror}); choose another --out") from error
    try:
        for picture, found, asked in _answers(annotator, todo, concurrency):
            tried.add(picture.name)
            if isinstance(found, UserError):
                on_error(picture.name, found)
                if asked:  # one that can't be read says nothing of the annotator
                    in_a_row, why = in_a_row + 1, str(found)
                    if in_a_row == STOP_AFTER:
                        stop_if_gone()
                        in_a_row = 0
                continue
            in_a_row, answered = 0, picture
            line = {"image": picture.name, "attributes": found.attributes, "annotator": annotator.name}
            if picture.kind == "photo":
                line["caption"] = found.caption
            if found.invalid:
                line["invalid"] = found.invalid
            try:
                content = json.dumps(line, ensure_ascii=False).encode() + b"\n"
            except UnicodeEncodeError:  # a file's name of other bytes, or half a surrogate pair in an answer
                content = json.dumps(line).encode() + b"\n"
            try:
                os.write(descriptor, content)
            except OSError as error:
                raise UserError(f"{one_line(out)}: can't be written ({error.strerror}); run again to go on") from error
            count += 1
            on_done(line)
        if in_a_row and not count:
            stop_if_gone()
    finally:
        os.close(descriptor)
    return count


def _ask(annotator: Annotator, picture: Picture) -> tuple[Answer | UserError, bool]:
    """What came of a picture, and whether the annotator was asked at all."""
    asked = False
    try:
        image = picture.read()
        if max(image.shape[:2]) > MAX_SIDE:
            scale = MAX_SIDE / max(image.shape[:2])
            image = resize(image, tuple(max(1, round(side * scale)) for side in image.shape[:2]))
        asked = True
        return annotator.annotate(image, picture.kind), asked
    except UserError as error:
        return error, asked


def _answers(
    annotator: Annotator, todo: Sequence[Picture], concurrency: int
) -> Iterator[tuple[Picture, Answer | UserError, bool]]:
    """As they come; never more than `concurrency` under way, so that stopping loses little."""
    waiting, rest = {}, iter(todo)
    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        try:
            while True:
                while len(waiting) < concurrency and (picture := next(rest, None)) is not None:
                    waiting[pool.submit(_ask, annotator, picture)] = picture
                if not waiting:
                    return
                finished, _ = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in finished:
                    yield waiting.pop(future), *future.result()
        finally:
            for future in waiting:
                future.cancel()
