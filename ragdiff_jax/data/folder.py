"""Users' own pairs: a folder of pictures becomes the same records as the ArrayRecord files.

    photos/x.jpg   flats/x.png   attributes.jsonl (optional)
    masks/x.png (optional: of the flat-lay)   photo_masks/x.png (optional: of the garment in the photo)

Pictures belong together by their name without ending. In `attributes.jsonl`, `image` is the path within the
folder ("photos/x.jpg", "flats/x.png"): each picture has its own attributes, the caption is the photo's, and a
flat-lay's line may name another pair as its `structure_partner`.
"""

import hashlib
import os
from collections.abc import Mapping, Set
from pathlib import Path

from ragdiff_jax.data.attributes import read_attributes
from ragdiff_jax.data.images import SUFFIXES, one_line
from ragdiff_jax.data.records import PairRecord, PairSource, TfdsPairs, prepared_folder, record_from_fields
from ragdiff_jax.errors import UserError

SHARES = {"train": 0.9, "validation": 0.05, "test": 0.05}
_LISTED = 100  # problems named in one error


class FolderPairs:
    """The pairs of a folder, or of one split of it, in the order of their names.

    A pair's split is decided by a hash of its name and `shares` alone: adding pairs never moves another one.
    Raises `UserError` that lists every mismatch: a picture without its other half, two pictures of one name,
    a file that is no picture, a line of `attributes.jsonl` about no picture.
    """

    def __init__(
        self, folder: str | os.PathLike, split: str | None = None, shares: Mapping[str, float] | None = None
    ):
        self.folder, shares = Path(folder), dict(shares or SHARES)
        if split is not None and split not in shares:
            raise UserError(f"{one_line(folder)}: has no split {split!r}; it has {', '.join(shares)}")
        problems: list[str] = []
        photos, flats = (self._pictures(name, problems, needed=True) for name in ("photos", "flats"))
        masks, photo_masks = (self._pictures(name, problems, needed=False) for name in ("masks", "photo_masks"))
        problems += [
            f"photos/{photos[stem]} has no flat-lay" for stem in sorted(photos.keys() - flats.keys())
        ]
        problems += [f"flats/{flats[stem]} has no photo" for stem in sorted(flats.keys() - photos.keys())]
        for name, of_name in (("masks", masks), ("photo_masks", photo_masks)):
            strays = sorted(of_name.keys() - photos.keys())
            problems += [f"{name}/{of_name[stem]} belongs to no pair" for stem in strays]
        file = self.folder / "attributes.jsonl"
        lines = read_attributes(file) if file.exists() else {}
        known = {f"photos/{name}" for name in photos.values()} | {f"flats/{name}" for name in flats.values()}
        problems += [
            f"attributes.jsonl describes {image!r}, which isn't there"
            for image in lines
            if image not in known
        ]
        for image, line in lines.items():
            partner = line.get("structure_partner")
            if partner is not None and not (isinstance(partner, str) and partner in flats):
                problems.append(
                    f"attributes.jsonl gives {image!r} the partner {partner!r}, which isn't there"
                )
        if problems:
            rest = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
            raise UserError(f"{one_line(folder)}: pairs don't match: {'; '.join(problems[:_LISTED])}{rest}")
        self._photos, self._flats, self._masks, self._lines = photos, flats, masks, lines
        self._photo_masks = photo_masks
        self._splits = {stem: split_of(stem, shares) for stem in sorted(photos)}
        self._stems = [stem for stem, own in self._splits.items() if split in (None, own)]
        if not self._stems:
            where = f"split {split!r}" if photos else "photos/"
            raise UserError(f"{one_line(folder)}: {where} holds no pairs; add pictures to photos/ and flats/")

    def _pictures(self, name: str, problems: list[str], *, needed: bool) -> dict[str, str]:
        """Stem -> file name of the pictures in a subfolder; hidden files and Thumbs.db are passed over."""
        place, found = self.folder / name, {}
        if not place.is_dir():
            if needed:
                raise UserError(f"{one_line(place)}: no such folder; pairs need photos/ and flats/")
            return found
        for entry in sorted(os.listdir(place)):
            path = Path(entry)
            if entry.startswith(".") or entry == "Thumbs.db":
                continue
            if path.suffix.lower() not in SUFFIXES or (place / entry).is_dir():
                problems.append(f"{name}/{one_line(entry)} is not a picture ({', '.join(SUFFIXES)})")
            elif path.stem in found:
                problems.append(f"{name}/{one_line(entry)} has the name of {found[path.stem]}")
            else:
                found[path.stem] = entry
        return found

    @property
    def ids(self) -> list[str]:
        return self._stems

    @property
    def names(self) -> Set[str]:
        """The ids of all splits."""
        return self._splits.keys()

    def __len__(self) -> int:
        return len(self._stems)

    def __getitem__(self, row: int) -> PairRecord:
        stem = self._stems[row]
        photo, flat, mask = (
            f"photos/{self._photos[stem]}",
            f"flats/{self._flats[stem]}",
            self._masks.get(stem),
        )
        in_photo = self._photo_masks.get(stem)
        of_photo, of_flat = self._lines.get(photo, {}), self._lines.get(flat, {})
        attributes = {"photo": of_photo.get("attributes") or {}, "flat": of_flat.get("attributes") or {}}
        return record_from_fields(
            {
                "id": stem,
                "photo": self._read(photo),
                "flat": self._read(flat),
                "mask": self._read(f"masks/{mask}") if mask else None,
                "photo_mask": self._read(f"photo_masks/{in_photo}") if in_photo else None,
                "photo_attributes": attributes["photo"],
                "flat_attributes": attributes["flat"],
                "caption": of_photo.get("caption") or "",
                "category": attributes["flat"].get("Category") or attributes["photo"].get("Category") or "",
                "structure_partner": of_flat.get("structure_partner"),
                "split": self._splits[stem],
            }
        )

    def _read(self, name):
        return read_bytes(self.folder / name, "pair")


def read_bytes(path: Path, kind: str) -> bytes:
    """The bytes of one picture of a `kind` ("pair", "person"). Raises `UserError` if there are none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{one_line(path)}: cannot be read ({error.strerror}); check the file") from error
    if not data:
        raise UserError(f"{one_line(path)}: is empty (0 bytes); copy it again or remove the {kind}")
    return data


def open_pairs(folder: str | os.PathLike, split: str) -> PairSource:
    """A split of the pairs in `folder`: a prepared data set (`prepared_folder`) or users' pictures
    (`photos/`), of which `all` takes every one.

    Raises `UserError` when the folder is neither, or holds several data sets.
    """
    folder = Path(folder)
    if (folder / "photos").is_dir():
        return FolderPairs(folder, None if split == "all" else split)
    if prepared := prepared_folder(folder):
        return TfdsPairs(prepared, split)
    raise UserError(
        f"{one_line(folder)}: holds neither photos/ and flats/ nor a prepared data set; check the path"
    )


def split_of(stem: str, shares: Mapping[str, float]) -> str:
    """The split of a name: a hash of the name against `shares`, whatever else the folder holds."""
    place = (
        int.from_bytes(hashlib.sha256(stem.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64
    )
    total = sum(shares.values())
    for name, share in shares.items():
        place -= share / total
        if place < 0:
            return name
    return name
