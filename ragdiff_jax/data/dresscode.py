"""Dress Code, with the captions of Dress Code Multimodal, from its own folders; nothing is downloaded.

SOURCE/
  fine_captions.json  coarse_captions.json                       (Multimodal; {"048392": ["white tee", ...]})
  {upper_body,lower_body,dresses}/
    train_pairs.txt  test_pairs_paired.txt  test_pairs_unpaired.txt     (person.jpg garment.jpg)
    images/ID_0.jpg (person)  images/ID_1.jpg (garment)
    keypoints/ID_2.json (18 rows in a 384x512 frame)   label_maps/ID_4.png (ATR's 18 labels)
    cleaned_inshop_imgs/ID_1_cleaned.jpg                         (not in the public release)
"""

import os
from collections.abc import Iterable
from pathlib import Path

from ragdiff_jax.data.inpainting_masks import CATEGORIES
from ragdiff_jax.data.person_layout import (
    SPLITS,
    PersonRow,
    Prepared,
    Rows,
    check_choices,
    read_chunks,
    read_listed,
    read_pairs,
)
from ragdiff_jax.errors import UserError

FRAME = (512, 384)  # height and width that the keypoints' numbers are pixels of
EXPECTED = (
    "{upper_body,lower_body,dresses}/ with train_pairs.txt, test_pairs_paired.txt, test_pairs_unpaired.txt, "
    "images/ID_0.jpg and ID_1.jpg, keypoints/ID_2.json, label_maps/ID_4.png; beside them fine_captions.json and "
    "coarse_captions.json"
)
_PAIRS = {
    "train": "train_pairs.txt",
    "test": "test_pairs_paired.txt",
    "test_unpaired": "test_pairs_unpaired.txt",
}
_COLUMNS = (r"(\d+)_0\.jpg", r"(\d+)_1\.jpg")


def dresscode_rows(
    source: str | os.PathLike,
    *,
    splits: Iterable[str] = SPLITS,
    categories: Iterable[str] = CATEGORIES,
    garments: str = "images",
    captions: bool = True,
    exclude: str | os.PathLike | None = None,
) -> Rows:
    """The rows of Dress Code's pair files, in their order, category after category.

    A garment's chunks are those of `coarse_captions.json`, or of `fine_captions.json` where it has at least three, as
    in the released code. Of an unpaired row they are the new garment's.

    Args:
      source: the folder.
      garments: "images", the pictures of the public release, or "cleaned", those on white that the released results
        used.
      captions: read the captions, and leave out garments without; otherwise all rows, and no captions.
      exclude: a list of files to leave out (`person_layout.read_listed`).
    Raises:
      UserError: a source that is no folder, an unknown choice, bad caption files. Missing files and bad lines are in
        the result's `problems`, until its `done` raises them.
    """
    source = Path(source)
    if not source.is_dir():
        raise UserError(f"{source}: no such folder; name the folder of Dress Code ({EXPECTED})")
    splits, categories = check_choices("split", splits, SPLITS), check_choices("category", categories, CATEGORIES)
    if garments not in ("images", "cleaned"):
        raise UserError(f"garments {garments!r} is unknown; use images or cleaned")
    chunks = {}
    if captions:
        fine = read_chunks(source / "fine_captions.json")
        chunks = {key: value for key, value in fine.items() if len(value) >= 3}
        chunks |= read_chunks(source / "coarse_captions.json")
    rows = Rows(source, read_listed(exclude))
    for split in splits:
        for category in categories:
            folder = source / category
            for person, garment in read_pairs(folder / _PAIRS[split], _COLUMNS, rows.problems, source):
                worn, shown = person[1], garment[1]
                picture = (
                    f"cleaned_inshop_imgs/{shown}_1_cleaned.jpg" if garments == "cleaned" else f"images/{garment[0]}"
                )
                row = PersonRow(
                    id=f"{category}/{worn}" if worn == shown else f"{category}/{worn}-{shown}",
                    garment_id=f"{category}/{shown}",
                    category=category,
                    person=folder / "images" / person[0],
                    garment=folder / picture,
                    label_map=folder / "label_maps" / f"{worn}_4.png",
                    keypoints=folder / "keypoints" / f"{worn}_2.json",
                    chunks=chunks.get(shown, ()),
                )
                rows.take(split, row, captioned=captions)
    return rows


def prepare_dresscode(
    source: str | os.PathLike,
    data_dir: str | os.PathLike,
    *,
    splits: Iterable[str] = SPLITS,
    categories: Iterable[str] = CATEGORIES,
    garments: str = "images",
    captions: bool = True,
    exclude: str | os.PathLike | None = None,
    same_pictures: bool = False,
    height: int | None = None,
) -> Prepared:
    """Dress Code as a TFDS data set of person records in `data_dir`; `TfdsPersons` reads it.

    Arguments as of `dresscode_rows`, and:
      same_pictures: leave out people whose picture came before (`same_pictures.drop_same_pictures`).
      height: store pictures at most this high (JPEG, quality 95); None: the files as they are.
    Raises:
      UserError: everything that is missing or damaged, in one line.
    """
    found = dresscode_rows(
        source, splits=splits, categories=categories, garments=garments, captions=captions, exclude=exclude
    )
    from ragdiff_jax.data.person_dataset import DressCode, prepare_rows

    name = "_".join((*categories, garments, *(() if captions else ("uncaptioned",))))
    return prepare_rows(
        DressCode,
        found,
        EXPECTED,
        data_dir,
        name=name,
        same_pictures=same_pictures,
        frame=FRAME,
        label_scheme="dresscode",
        height=height,
    )
