"""From the files of Dress Code or VITON-HD to a TFDS data set of person records, without TensorFlow.

`dresscode.py` and `vitonhd.py` know the layouts and give rows; this reads the rows' files, checks them and writes.
Importing this module imports TFDS; import it where it is used.
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds
import tqdm

from ragdiff_jax.data.images import decode_image, encode_grey, encode_jpeg, image_size, resize
from ragdiff_jax.data.in_order import InOrderBuilder
from ragdiff_jax.data.label_maps import decode_labels, resize_labels
from ragdiff_jax.data.person_layout import PersonRow, Prepared, Rows, raise_problems
from ragdiff_jax.data.person_records import PersonRecord, person_features, person_from_fields, person_to_example
from ragdiff_jax.data.pose import parse_keypoints
from ragdiff_jax.data.same_pictures import drop_same_pictures
from ragdiff_jax.data.synth_dataset import quiet_tfds
from ragdiff_jax.errors import UserError


@dataclasses.dataclass
class PersonConfig(tfds.core.BuilderConfig):
    """What is written: rows a split; the frame (height, width) of the keypoints' numbers, None for the person's own;
    the label maps' scheme; the height of stored pictures, None for the files as they are.
    """

    rows: Mapping[str, Sequence[PersonRow]] = dataclasses.field(default_factory=dict)
    frame: tuple[int, int] | None = None
    label_scheme: str = "dresscode"
    height: int | None = None


class _Persons(InOrderBuilder, skip_registration=True):
    """Records of `person_records.person_features`."""

    VERSION = tfds.core.Version("1.0.0")
    TEXT: ClassVar[str] = ""

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.TEXT,
            features=person_features(),
            disable_shuffling=True,  # rows are in the order of the pair files; Grain shuffles
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        self.problems: list[str] = []
        rows = self.builder_config.rows
        return {split: self._examples(split, split == list(rows)[-1]) for split in rows}

    def _examples(self, split: str, last: bool) -> Iterator[tuple[int, dict]]:
        config = self.builder_config
        rows = config.rows[split]
        for number, row in enumerate(tqdm.tqdm(rows, desc=f"reading {split}", unit=" people", disable=None)):
            try:
                record = read_row(
                    row, split, frame=config.frame, label_scheme=config.label_scheme, height=config.height
                )
            except UserError as error:
                self.problems.append(str(error))  # the rest is still read: all that is wrong is told at once
                continue
            yield number, person_to_example(record)
        if last and self.problems:
            raise UserError("damaged files")  # `prepare_rows` tells which


class DressCode(_Persons):
    """Dress Code (Morelli et al. 2022), with the Multimodal captions where asked for."""

    TEXT = "People and in-shop garments of Dress Code: label maps, keypoints, captions."


class VitonHd(_Persons):
    """VITON-HD (Choi et al. 2021)."""

    TEXT = "People and in-shop tops of VITON-HD: label maps, keypoints, captions."


def read_row(
    row: PersonRow,
    split: str,
    *,
    frame: tuple[int, int] | None,
    label_scheme: str,
    height: int | None = None,
) -> PersonRecord:
    """The record of a row; pictures higher than `height` are stored smaller, as JPEG.

    Every file is decoded, so that a damaged one is found now. Raises `UserError` that names the file.
    """
    person, garment, labels, joints = (_bytes(path) for path in (row.person, row.garment, row.label_map, row.keypoints))
    person, size = _shrunk(person, height, str(row.person))
    garment, _ = _shrunk(garment, height, str(row.garment))
    ids = decode_labels(labels, label_scheme, str(row.label_map))
    if abs(ids.shape[0] * size[1] - ids.shape[1] * size[0]) > max(*ids.shape, *size):
        raise UserError(
            f"{row.label_map}: is {ids.shape[1]}x{ids.shape[0]}, its person {size[1]}x{size[0]}; copy both again"
        )
    if ids.shape != size:
        ids = resize_labels(ids, size)
    return person_from_fields(
        {
            "id": row.id,
            "garment_id": row.garment_id,
            "person": person,
            "garment": garment,
            "category": row.category,
            "keypoints": parse_keypoints(joints, size, frame=frame, name=str(row.keypoints)),
            "label_map": encode_grey(ids),
            "caption": ", ".join(row.chunks),
            "chunks": row.chunks,
            "split": split,
        }
    )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the file") from error


def _state(path: Path) -> tuple[str, int, int]:
    """Name, size and time: of files that were replaced another data set is made."""
    try:
        status = path.stat()
    except OSError:  # told when it is read
        return path.name, 0, 0
    return path.name, status.st_size, status.st_mtime_ns


def _shrunk(data, height, name):
    """The bytes to store, and the picture's size (height, width) in them."""
    size = image_size(data, name)
    if height is None or size[0] <= height:
        decode_image(data, name, max_side=64)  # reads it to its end, quickly
        return data, size
    size = height, max(1, round(size[1] * height / size[0]))
    return encode_jpeg(resize(decode_image(data, name, max_side=max(size)), size), quality=95), size


def prepare_rows(
    builder: Callable[..., _Persons],
    found: Rows,
    expected: str,
    data_dir: str | os.PathLike,
    *,
    name: str,
    same_pictures: bool,
    frame: tuple[int, int] | None,
    label_scheme: str,
    height: int | None,
) -> Prepared:
    """Writes the rows that a layout found into `data_dir` (once: a finished set of the same rows is found again).

    TFDS writes into a folder marked incomplete and renames it at the end, so an interrupted run leaves no half data
    set. Shows a progress bar. Raises `UserError` that lists every missing file (`expected` tells the layout) or every
    damaged one, and for a `data_dir` that can't be written.
    """
    if height is not None and height < 16:
        raise UserError(f"height {height} is too small for a person; use at least 16")
    rows, left_out = found.done(expected), found.left_out
    if same_pictures:
        rows, gone = drop_same_pictures(rows)
        left_out = left_out + gone
    text = repr([(split, row.id, row.chunks, *map(_state, row.files)) for split, own in rows.items() for row in own])
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    config = PersonConfig(
        name=f"{name}_{height or 'full'}_{digest}",
        rows=rows,
        frame=frame,
        label_scheme=label_scheme,
        height=height,
    )
    made = None
    try:
        with quiet_tfds():
            made = builder(data_dir=str(data_dir), config=config, file_format="array_record")
            made.download_and_prepare()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{data_dir}: the data set can't be written ({reason}); choose another folder") from error
    except Exception:
        raise_problems("the data set", getattr(made, "problems", []))
        raise
    return Prepared(
        folder=Path(made.data_dir),
        counts={split: len(own) for split, own in rows.items()},
        left_out=dict(left_out),
    )
