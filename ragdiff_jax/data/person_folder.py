"""Users' own people: a folder of pictures becomes the same records as the ArrayRecord files.

    people/x.jpg   garments/x.jpg   people.jsonl
    label_maps/x.png, masks/x.png, keypoints/x.json (each optional)

Files belong together by their name without ending. `people.jsonl` has a line a person:
`{"image": "people/x.jpg", "category": "upper_body", "caption": "red knit top", "chunks": ["red top", "knit"]}`;
only image and category are needed. Keypoints are OpenPose's JSON of the very picture.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from ragdiff_jax.data.folder import SHARES, read_bytes, split_of
from ragdiff_jax.data.images import SUFFIXES, encode_grey, image_size, one_line
from ragdiff_jax.data.inpainting_masks import CATEGORIES
from ragdiff_jax.data.label_maps import decode_labels
from ragdiff_jax.data.person_records import NO_KEYPOINTS, PersonRecord, PersonSource, TfdsPersons, person_from_fields
from ragdiff_jax.data.pose import read_keypoints
from ragdiff_jax.data.records import prepared_folder
from ragdiff_jax.errors import UserError

_LISTED = 100  # problems named in one error
_PARTS = {"people": SUFFIXES, "garments": SUFFIXES, "masks": SUFFIXES, "label_maps": (".png",), "keypoints": (".json",)}
_KEYS = {"image", "category", "caption", "chunks"}


class FolderPersons:
    """The people of a folder, or of one split of it, in the order of their names.

    A person's split is decided by a hash of its name and `shares` alone. `label_scheme` is the key of
    `label_maps.SCHEMES` in whose ids the label maps are. Raises `UserError` that lists every mismatch: a person
    without garment or line, a file of no person, two files of one name, an unknown category, a wrong line.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        split: str | None = None,
        shares: Mapping[str, float] | None = None,
        *,
        label_scheme: str = "dresscode",
    ):
        self.folder, self.label_scheme = Path(folder), label_scheme
        shares = dict(shares or SHARES)
        if split is not None and split not in shares:
            raise UserError(f"{one_line(folder)}: has no split {split!r}; it has {', '.join(shares)}")
        problems: list[str] = []
        self._files = {part: self._list(part, problems) for part in _PARTS}
        people, garments = self._files["people"], self._files["garments"]
        self._lines = self._read_lines(problems)
        problems += [f"people/{people[stem]} has no garment" for stem in sorted(people.keys() - garments.keys())]
        problems += [
            f"people/{name} has no line in people.jsonl"
            for name in sorted(people.values())
            if f"people/{name}" not in self._lines
        ]
        for part, files in self._files.items():
            problems += [f"{part}/{files[stem]} belongs to no person" for stem in sorted(files.keys() - people.keys())]
        if problems:
            rest = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
            raise UserError(f"{one_line(folder)}: people don't match: {'; '.join(problems[:_LISTED])}{rest}")
        self._splits = {stem: split_of(stem, shares) for stem in sorted(people)}
        self._stems = [stem for stem, own in self._splits.items() if split in (None, own)]
        if not self._stems:
            where = f"split {split!r}" if people else "people/"
            raise UserError(f"{one_line(folder)}: {where} holds nobody; add pictures to people/ and garments/")

    def _list(self, part, problems) -> dict[str, str]:
        """Stem -> file name in a subfolder; hidden files and Thumbs.db are passed over."""
        place, found = self.folder / part, {}
        if not place.is_dir():
            if part in ("people", "garments"):
                raise UserError(f"{one_line(place)}: no such folder; people need people/, garments/ and people.jsonl")
            return found
        for entry in sorted(os.listdir(place)):
            path = Path(entry)
            if entry.startswith(".") or entry == "Thumbs.db":
                continue
            if path.suffix.lower() not in _PARTS[part] or (place / entry).is_dir():
                problems.append(f"{part}/{one_line(entry)} is not one of {', '.join(_PARTS[part])}")
            elif path.stem in found:
                problems.append(f"{part}/{one_line(entry)} has the name of {found[path.stem]}")
            else:
                found[path.stem] = entry
        return found

    def _read_lines(self, problems) -> dict[str, dict]:
        file, lines = self.folder / "people.jsonl", {}
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{one_line(file)}: cannot be read ({' '.join(str(error).split())[:80]}); write a line a person, "
                '{"image": "people/x.jpg", "category": "upper_body"}'
            ) from error
        known = {f"people/{name}" for name in self._files["people"].values()}
        for number, raw in enumerate(text.split("\n"), 1):
            if not raw.strip():
                continue
            where = f"people.jsonl line {number}"
            try:
                line = json.loads(raw)
            except (ValueError, RecursionError):
                problems.append(f"{where} is not JSON")
                continue
            if not isinstance(line, dict) or not isinstance(line.get("image"), str) or line.keys() - _KEYS:
                problems.append(f"{where} is not an object of {', '.join(sorted(_KEYS))}")
            elif line["image"] in lines:
                problems.append(f"{where} describes {line['image']!r} again")
            elif line["image"] not in known:
                problems.append(f"{where} describes {line['image']!r}, which isn't there")
            else:
                lines[line["image"]] = line
                if line.get("category") not in CATEGORIES:
                    problems.append(
                        f"{where} has the category {line.get('category')!r}, not one of {', '.join(CATEGORIES)}"
                    )
        return lines

    def __len__(self) -> int:
        return len(self._stems)

    def __getitem__(self, row: int) -> PersonRecord:
        stem = self._stems[row]
        files = {part: f"{part}/{found[stem]}" for part, found in self._files.items() if stem in found}
        person, line = self._read(files["people"]), self._lines[files["people"]]
        labels = keypoints = None
        if "label_maps" in files:
            data, name = self._read(files["label_maps"]), one_line(self.folder / files["label_maps"])
            labels = encode_grey(decode_labels(data, self.label_scheme, name))
        if "keypoints" in files:
            keypoints = read_keypoints(self.folder / files["keypoints"], image_size(person, files["people"]))
        return person_from_fields(
            {
                "id": stem,
                "person": person,
                "garment": self._read(files["garments"]),
                "category": line["category"],
                "mask": self._read(files["masks"]) if "masks" in files else None,
                "keypoints": NO_KEYPOINTS if keypoints is None else keypoints,
                "label_map": labels,
                "caption": line.get("caption") or "",
                "chunks": line.get("chunks") or (),
                "split": self._splits[stem],
            }
        )

    def _read(self, name):
        return read_bytes(self.folder / name, "person")


def open_persons(folder: str | os.PathLike, split: str, *, label_scheme: str = "dresscode") -> PersonSource:
    """A split of the people in `folder`: a prepared data set (`prepared_folder`) or users' pictures (`people/`).

    Raises `UserError` when the folder is neither, or holds several data sets.
    """
    folder = Path(folder)
    if (folder / "people").is_dir():
        return FolderPersons(folder, split, label_scheme=label_scheme)
    if prepared := prepared_folder(folder):
        return TfdsPersons(prepared, split)
    raise UserError(f"{one_line(folder)}: holds neither people/ and garments/ nor a prepared data set; check the path")
