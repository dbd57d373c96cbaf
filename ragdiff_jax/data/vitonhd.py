"""VITON-HD from its own folders, as its authors and HR-VITON's release have them; nothing is downloaded.

SOURCE/
  train_pairs.txt  test_pairs.txt        (person.jpg garment.jpg; the first column twice is the paired setting)
  captions.json                          (Multimodal; {"03191": ["white tee", ...]}, optional)
  {train,test}/
    image/ID_00.jpg  cloth/ID_00.jpg
    image-parse-v3/ID_00.png             (or image-parse/)
    openpose_json/ID_00_keypoints.json   (or openpose-json/; BODY-25 in a 768x1024 frame)
"""

import os
from collections.abc import Iterable
from pathlib import Path

from ragdiff_jax.data.images import one_line
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

FRAME = (1024, 768)  # height and width that the keypoints' numbers are pixels of
EXPECTED = (
    "train_pairs.txt, test_pairs.txt, {train,test}/ with image/ID_00.jpg, cloth/ID_00.jpg, image-parse-v3/ID_00.png "
    "(or image-parse/), openpose_json/ID_00_keypoints.json (or openpose-json/)"
)
_LABELS, _POSES = ("image-parse-v3", "image-parse"), ("openpose_json", "openpose-json")
_COLUMNS = (r"(\d+)_00\.jpg", r"(\d+)_00\.jpg")


def vitonhd_rows(
    source: str | os.PathLike,
    *,
    splits: Iterable[str] = SPLITS,
    captions: str | os.PathLike | None = None,
    exclude: str | os.PathLike | None = None,
) -> Rows:
    """The rows of VITON-HD's pair files, in their order; all are `upper_body`.

    "train" and "test" are paired: the first column names person and garment. "test_unpaired" takes both columns.

    Args:
      source: the folder.
      captions: a file of noun chunks by the garment's number; garments without are left out. None: no captions.
      exclude: a list of files to leave out, e.g. TryOffDiff's (`person_layout.read_listed`).
    Raises:
      UserError: as `dresscode.dresscode_rows`.
    """
    source = Path(source)
    if not source.is_dir():
        raise UserError(f"{one_line(source)}: no such folder; name the folder of VITON-HD ({EXPECTED})")
    splits = check_choices("split", splits, SPLITS)
    chunks = {} if captions is None else read_chunks(captions)
    rows = Rows(source, read_listed(exclude))
    for split in splits:
        phase = split.removesuffix("_unpaired")
        folder = source / phase
        labels, poses = (_existing(folder, names) for names in (_LABELS, _POSES))
        for person, garment in read_pairs(source / f"{phase}_pairs.txt", _COLUMNS, rows.problems, source):
            worn, shown = person[1], garment[1] if split == "test_unpaired" else person[1]
            row = PersonRow(
                id=worn if worn == shown else f"{worn}-{shown}",
                garment_id=shown,
                category="upper_body",
                person=folder / "image" / f"{worn}_00.jpg",
                garment=folder / "cloth" / f"{shown}_00.jpg",
                label_map=labels / f"{worn}_00.png",
                keypoints=poses / f"{worn}_00_keypoints.json",
                chunks=chunks.get(shown, ()),
            )
            rows.take(split, row, captioned=captions is not None)
    return rows


def _existing(folder, names):
    """The folder of the first name that is there; the first where none is, so that the error names it."""
    return next((folder / name for name in names if (folder / name).is_dir()), folder / names[0])


def prepare_vitonhd(
    source: str | os.PathLike,
    data_dir: str | os.PathLike,
    *,
    splits: Iterable[str] = SPLITS,
    captions: str | os.PathLike | None = None,
    exclude: str | os.PathLike | None = None,
    same_pictures: bool = False,
    height: int | None = None,
) -> Prepared:
    """VITON-HD as a TFDS data set of person records in `data_dir`; `TfdsPersons` reads it.

    Arguments as of `vitonhd_rows`, `same_pictures`, `height` and errors as of `dresscode.prepare_dresscode`.
    """
    found = vitonhd_rows(source, splits=splits, captions=captions, exclude=exclude)
    from ragdiff_jax.data.person_dataset import VitonHd, prepare_rows

    return prepare_rows(
        VitonHd,
        found,
        EXPECTED,
        data_dir,
        name="captioned" if captions else "uncaptioned",
        same_pictures=same_pictures,
        frame=FRAME,
        label_scheme="vitonhd",
        height=height,
    )
