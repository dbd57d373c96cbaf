"""One pair of training data: a garment photo, its standard flat-lay, and what is known of them.

The same record comes out of ArrayRecord files (TFDS's, without TensorFlow) and of users' folders.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ragdiff_jax.errors import UserError

INFO = "dataset_info.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairRecord:
    """A photo and its flat-lay as encoded image bytes.

    `mask` is a 1-bit PNG of the flat-lay's silhouette or None, `photo_mask` one of the garment's visible pixels in the
    photo or None; the attribute dicts map names to values (Table
    6), each from its own picture alone; `caption` is of the photo alone; `structure_partner` is the id of
    another record whose flat-lay has the same structure in another texture, or None. Built from untrusted
    values by `record_from_fields`.
    """

    id: str
    photo: bytes
    flat: bytes
    mask: bytes | None = None
    photo_mask: bytes | None = None
    photo_attributes: dict[str, str] = dataclasses.field(default_factory=dict)
    flat_attributes: dict[str, str] = dataclasses.field(default_factory=dict)
    caption: str = ""
    category: str = ""
    structure_partner: str | None = None
    split: str = "train"


_FIELDS = {
    "id": ((str,), True),
    "photo": ((bytes,), True),
    "flat": ((bytes,), True),
    "mask": ((bytes, type(None)), False),
    "photo_mask": ((bytes, type(None)), False),
    "photo_attributes": ((dict,), False),
    "flat_attributes": ((dict,), False),
    "caption": ((str,), False),
    "category": ((str,), False),
    "structure_partner": ((str, type(None)), False),
    "split": ((str,), True),
}


@runtime_checkable
class PairSource(Protocol):
    """Random access to the records of one split; rows are stable, row numbers are the data's identity in
    training.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> PairRecord: ...


def record_ids(source: PairSource) -> list[str]:
    """The id of each row: as the source's `ids` says, where it knows them without a look at pictures, or read."""
    ids = getattr(source, "ids", None)
    return list(ids) if ids is not None else [source[row].id for row in range(len(source))]


def record_from_fields(fields: dict[str, Any]) -> PairRecord:
    """A record from a plain dict.

    Raises `UserError` that names the record and the field: missing, unknown, empty, or of the wrong type.
    """
    name = fields.get("id", "?")
    known = {field.name for field in dataclasses.fields(PairRecord)}
    if unknown := sorted(set(fields) - known):
        raise UserError(
            f"record {name!r}: unknown field {unknown[0]!r}; the fields are {', '.join(sorted(known))}"
        )
    if missing := [field for field in ("id", "photo", "flat") if field not in fields]:
        raise UserError(
            f"record {name!r}: field {missing[0]} is missing; every pair needs id, photo and flat"
        )
    for field, (types, required) in _FIELDS.items():
        if field not in fields:
            continue
        value = fields[field]
        if not isinstance(value, types):
            wanted = " or ".join("nothing" if t is type(None) else t.__name__ for t in types)
            raise UserError(f"record {name!r}: field {field} is {type(value).__name__}; it must be {wanted}")
        if required and not value:
            raise UserError(f"record {name!r}: field {field} is empty; give it a value")
    for field in ("photo_attributes", "flat_attributes"):
        for key, value in fields.get(field, {}).items():
            if not isinstance(key, str) or not isinstance(value, str):
                raise UserError(
                    f"record {name!r}: {field} {key!r}: {value!r} is not text; write it as a string"
                )
    return PairRecord(**fields)


def pair_features():
    """The TFDS features of a record: encoded bytes and text only, so that no TensorFlow is needed to write or
    read.
    """
    import numpy as np
    import tensorflow_datasets as tfds

    blob = tfds.features.Scalar(dtype=np.object_)
    text = tfds.features.Text()
    return tfds.features.FeaturesDict(
        {
            "id": text,
            "photo": blob,
            "flat": blob,
            "mask": blob,
            "photo_mask": blob,
            "photo_attributes": text,
            "flat_attributes": text,
            "caption": text,
            "category": text,
            "structure_partner": text,
            "split": text,
        }
    )


def to_example(record: PairRecord) -> dict[str, str | bytes]:
    """A record as the values of `pair_features`: attributes as JSON, absent as empty."""
    fields = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    for name in ("photo_attributes", "flat_attributes"):
        fields[name] = json.dumps(fields[name], ensure_ascii=False, sort_keys=True)
    for name in ("mask", "photo_mask"):
        fields[name] = fields[name] or b""
    fields["structure_partner"] = fields["structure_partner"] or ""
    return fields


def from_example(example: dict[str, Any]) -> PairRecord:
    """The inverse of `to_example` on what TFDS gives back (text as bytes)."""
    fields = {name: value for name, value in example.items() if value is not None}
    try:
        fields.setdefault("photo_mask", b"")  # sets of before 2.2 have none
        for name in _FIELDS.keys() - {"photo", "flat", "mask", "photo_mask"}:
            value = fields[name]
            fields[name] = bytes(value).decode() if not isinstance(value, str) else value
        for name in ("photo", "flat", "mask", "photo_mask"):
            fields[name] = bytes(fields[name])
        for name in ("photo_attributes", "flat_attributes"):
            fields[name] = json.loads(fields[name])
    except KeyError as error:
        raise UserError(
            f"record {fields.get('id', '?')!r}: field {error.args[0]} is missing; write it again"
        ) from None
    except ValueError as error:
        raise UserError(
            f"record {fields.get('id', '?')!r}: a field is damaged ({error}); write it again"
        ) from error
    for name in ("mask", "photo_mask"):
        fields[name] = fields[name] or None
    fields["structure_partner"] = fields["structure_partner"] or None
    return record_from_fields(fields)


def encode_record(record: PairRecord) -> bytes:
    """The bytes of one ArrayRecord entry."""
    features = _cached_features()
    return features.serialize_example(features.encode_example(to_example(record)))


def decode_record(data: bytes) -> PairRecord:
    """The inverse of `encode_record`; raises `UserError` when the bytes aren't a pair record."""
    from google.protobuf.message import DecodeError

    try:
        return from_example(_cached_features().deserialize_example_np(data))
    except (DecodeError, KeyError, ValueError) as error:
        raise UserError(
            f"an entry is not a pair record ({' '.join(str(error).split())[:80]}); write it again"
        ) from error


_features = None


def _cached_features():
    global _features
    if _features is None:
        _features = pair_features()
    return _features


def opened_split(builder: Any, split: str) -> Any:
    """The records of a split of a TFDS builder. Raises `UserError` for a file of it that isn't there."""
    files = [Path(path) for path in builder.info.splits[split].filepaths]
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise UserError(
            f"{missing[0]}: this file of split {split!r} is missing ({len(missing)} of {len(files)} are); "
            "copy it there or write the data set anew"
        )
    return builder.as_data_source(split=split)


@contextlib.contextmanager
def named_records(what: str, advice: str = "copy the file again, or write the data set anew") -> Iterator[None]:
    """Reading inside of it raises `UserError` for what is damaged: the library's own error names no file."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(f"{what}: damaged ({str(error).partition(';')[0]}); {advice}") from error


def prepared_folder(folder: str | Path) -> Path | None:
    """The prepared data set that `folder` is, or the one in it, as `ragdiff data ... --out` lays it; None: neither.

    Raises `UserError` for several.
    """
    folder = Path(folder)
    if (folder / INFO).is_file():
        return folder
    found = sorted(file.parent for file in folder.glob(f"*/*/*/{INFO}"))
    if len(found) > 1:
        raise UserError(f"{folder}: holds {len(found)} prepared data sets; name one: {', '.join(map(str, found))}")
    return found[0] if found else None


def prepared_builder(folder: Path, made_by: str) -> Any:
    """TFDS' builder of a prepared data set. Raises `UserError` for a folder without one and a damaged description."""
    import tensorflow_datasets as tfds

    if not (folder / INFO).is_file():
        raise UserError(f"{folder}: holds no prepared data set; make one with `{made_by}`")
    try:
        return tfds.builder_from_directory(folder)
    except Exception as error:  # a damaged description raises errors of many kinds
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder}: {INFO} or features.json is damaged ({reason}); write the data set anew") from error


class TfdsPairs:
    """A split of a TFDS data set of pair records in ArrayRecord files, e.g. one that `prepare_synth` wrote.

    `folder` holds `dataset_info.json` and `features.json`. Raises `UserError` when it doesn't, or for an
    unknown split.
    """

    def __init__(self, folder: str | Path, split: str):
        folder = Path(folder)
        builder = prepared_builder(folder, "ragdiff data synth")
        if split not in builder.info.splits:
            raise UserError(
                f"{folder}: has no split {split!r}; it has {', '.join(sorted(builder.info.splits))}"
            )
        self.folder, self.split = folder, split
        self._source = opened_split(builder, split)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, row: int) -> PairRecord:
        with named_records(f"{self.folder}: record {row} of split {self.split}"):
            return from_example(self._source[row])

    def __iter__(self) -> Iterator[PairRecord]:
        return (self[row] for row in range(len(self)))
