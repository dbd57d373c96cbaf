"""Two folders of pictures that belong together by name, checked whole before any long work."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from ragdiff_jax.data.images import (
    decode_image,
    image_size,
    load_image,
    one_line,
    picture_files,
    square,
)
from ragdiff_jax.data.silhouettes import flat_mask, square_flat
from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation.alignment import Box
from ragdiff_jax.evaluation.edits import Edit, read_edits
from ragdiff_jax.retrieval.storage import sha256

_BESIDE = ("_landmark", "_panel", "_mask")
SHOWN = 20  # complaints that one error lists; the rest is counted
_TOGETHER = 64
PROTOCOL = "square-white-bicubic/1"
"""How a picture comes to the measured size: scaled undistorted by its longer side, padded with white."""

Flats = tuple[UInt8[np.ndarray, "b s s 3"], Bool[np.ndarray, "b s s"]]


@dataclasses.dataclass(frozen=True)
class FolderPairs:
    """Pairs by name: `names` sorted, a true and a generated file each; `split_hash` over names and true files."""

    names: tuple[str, ...]
    real: tuple[Path, ...]
    fake: tuple[Path, ...]
    real_hash: str
    fake_hash: str
    boxes: Mapping[str, Box]  # logos, in pixels of the true file's upright picture
    shapes: Mapping[str, tuple[int, int]]  # (height, width) of that
    edits: Mapping[str, Edit] = dataclasses.field(default_factory=dict)
    edits_hash: str = ""

    @property
    def asked(self) -> dict[str, str]:
        """SHA-256 over what the metrics of logos and of edits look for: {`boxes`, `words`}, those that there are."""
        found = {}
        if self.boxes:
            found["boxes"] = hashlib.sha256(json.dumps(sorted(self.boxes.items())).encode()).hexdigest()
        if self.edits:
            # What was retrieved is a model's own doing, and may differ between two that are compared.
            found["words"] = _hash_of_edits(self.edits, retrieved=False)
        return found

    def __len__(self) -> int:
        return len(self.names)

    def read(self, rows: Sequence[int], size: int) -> tuple[UInt8[np.ndarray, "b s s 3"], UInt8[np.ndarray, "b s s 3"]]:
        """(true, generated) pictures of some pairs at `size`."""
        real, fake = ([square(load_image(files[row]), size) for row in rows] for files in (self.real, self.fake))
        return np.stack(real), np.stack(fake)

    def read_flats(self, rows: Sequence[int], size: int) -> tuple[Flats, Flats]:
        """`read`, each with the silhouettes."""
        read = ([square_flat(load_image(files[row]), size) for row in rows] for files in (self.real, self.fake))
        real, fake = (tuple(np.stack(rows) for rows in zip(*of, strict=True)) for of in read)
        return real, fake

    def box(self, row: int, size: int) -> Box | None:
        """The logo's box in the pair's picture at `size`, at least a pixel wide and high; None if it has none."""
        name = self.names[row]
        if name not in self.boxes:
            return None
        height, width = self.shapes[name]
        scale, (top, left, bottom, right) = size / max(height, width), self.boxes[name]
        down, across = (size - round(height * scale)) / 2, (size - round(width * scale)) / 2
        top, left = min(size - 1, int(top * scale + down)), min(size - 1, int(left * scale + across))
        bottom, right = (min(size, round(bottom * scale + down)), min(size, round(right * scale + across)))
        return top, left, max(bottom, top + 1), max(right, left + 1)


def open_folders(
    real: Path,
    fake: Path,
    *,
    masks: bool,
    boxes: Path | None = None,
    edits: Path | None = None,
    step: Callable[[], None] = lambda: None,
) -> FolderPairs:
    """Every picture of both folders, each decoded once to know that it can be.

    `masks`: the true pictures must show a garment on a plain background. `boxes`: JSONL, a line a true picture:
    {"image": name, "box": [top, left, bottom, right]}. `edits`: as `edits.read_edits` says. `step` is called after
    each pair.

    Raises `UserError` that lists all that is wrong: names without a partner, unreadable pictures, empty silhouettes.
    """
    wrong: list[str] = []
    ours, theirs = (_pictures(folder, wrong) for folder in (real, fake))
    wrong += [
        f"{one_line(ours[name])}: no picture of this name in {one_line(fake)}" for name in ours if name not in theirs
    ]
    wrong += [
        f"{one_line(theirs[name])}: no picture of this name in {one_line(real)}" for name in theirs if name not in ours
    ]
    names = sorted(set(ours) & set(theirs))
    if not names and not wrong:
        wrong.append(f"{one_line(real)} and {one_line(fake)}: hold no pictures")

    def check(name: str) -> tuple[list[str], bytes, bytes, tuple[int, int]]:
        found, digests, shape = [], [], (1, 1)
        for file, is_true in ((ours[name], True), (theirs[name], False)):
            try:
                data = file.read_bytes()
                picture = load_image(file) if not data else decode_image(data, one_line(file))
            except OSError as error:
                found.append(f"{one_line(file)}: cannot be read ({error.strerror})")
                data = b""
            except UserError as error:
                found.append(str(error))
            else:
                if is_true:
                    shape = image_size(data, one_line(file))  # a large picture is decoded smaller
                    if masks and not flat_mask(picture).any():
                        found.append(f"{one_line(file)}: no garment stands out from its background: an empty mask")
            digests.append(hashlib.sha256(data).digest())
            step()
        return found, *digests, shape

    hashes, shapes = [hashlib.sha256(), hashlib.sha256()], {}
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(names), _TOGETHER):
            part = names[start : start + _TOGETHER]
            for name, (found, first, second, shape) in zip(part, pool.map(check, part), strict=True):
                wrong += found
                shapes[name] = shape
                for digest, own in zip(hashes, (first, second), strict=True):
                    digest.update(os.fsencode(name) + b"\0" + own)
    logos = _boxes(boxes, shapes, wrong) if boxes is not None else {}
    fakes = {name: theirs[name] for name in names}
    asked = read_edits(edits, fakes, wrong) if edits is not None else {}
    if wrong:
        rest = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise UserError(f"{len(wrong)} things are wrong: {'; '.join(wrong[:SHOWN])}{rest}; mend or remove them")
    return FolderPairs(
        names=tuple(names),
        real=tuple(ours[name] for name in names),
        fake=tuple(theirs[name] for name in names),
        real_hash=hashes[0].hexdigest(),
        fake_hash=hashes[1].hexdigest(),
        boxes=logos,
        shapes=shapes,
        edits=asked,
        edits_hash=_hash_of_edits(asked),
    )


def _hash_of_edits(edits: Mapping[str, Edit], *, retrieved: bool = True) -> str:
    digest = hashlib.sha256()
    for name, edit in sorted(edits.items()):
        digest.update(json.dumps([name, edit.caption, edit.lower]).encode())
        for file in (edit.mask, *(edit.retrieved if retrieved else ())):
            digest.update(b"-" if file is None else bytes.fromhex(sha256(file)))
    return digest.hexdigest()


def pictures(folder: Path) -> dict[str, Path]:
    """{name without ending: file} of a folder's pictures. Raises `UserError` for no folder or two of one name."""
    wrong: list[str] = []
    found = _pictures(folder, wrong)
    if wrong:
        raise UserError(f"{'; '.join(wrong[:SHOWN])}; rename one of each")
    return found


def _pictures(folder: Path, wrong: list[str]) -> dict[str, Path]:
    """{name without ending: file}, without panels, landmarks and masks of a picture that is there too."""
    if not folder.is_dir():
        raise UserError(f"{one_line(folder)}: no such folder; check the path")
    found: dict[str, Path] = {}
    for file in picture_files(folder):
        if file.stem in found:
            wrong.append(f"{one_line(file)}: the same name as {found[file.stem].name}")
        found[file.stem] = file
    # `generate` and `edit` lay these beside their pictures.
    return {name: file for name, file in found.items() if not any(_base(name, end) in found for end in _BESIDE)}


def _base(name: str, end: str) -> str | None:
    return name.removesuffix(end) if name.endswith(end) else None


def _boxes(path: Path, shapes: Mapping[str, tuple[int, int]], wrong: list[str]) -> dict[str, Box]:
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeError) as error:
        raise UserError(f"{one_line(path)}: cannot be read ({error}); --boxes names a JSONL file") from error
    found: dict[str, Box] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            name, (top, left, bottom, right) = Path(record["image"]).stem, map(int, record["box"])
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            wrong.append(f'{one_line(path)}:{number}: not {{"image": NAME, "box": [top, left, bottom, right]}}')
            continue
        height, width = shapes.get(name, (0, 0))
        if name not in shapes:
            wrong.append(f"{one_line(path)}:{number}: {name}: no such pair")
        elif name in found:
            wrong.append(f"{one_line(path)}:{number}: {name}: stands twice")
        elif not (0 <= top < bottom <= height and 0 <= left < right <= width):
            wrong.append(f"{one_line(path)}:{number}: {name}: the box does not lie in {width} x {height} pixels")
        else:
            found[name] = (top, left, bottom, right)
    return found
