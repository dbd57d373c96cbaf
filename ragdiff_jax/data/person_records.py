"""One person and one garment: what Fashion-RAG is trained on and what it edits.

The same record comes out of ArrayRecord files (TFDS's, without TensorFlow) and of users' folders
(`person_folder.py`).
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ragdiff_jax.data.inpainting_masks import CATEGORIES
from ragdiff_jax.data.records import named_records, opened_split, prepared_builder
from ragdiff_jax.errors import UserError

Joint = tuple[float, float, float]
NO_KEYPOINTS: tuple[Joint, ...] = ((0.0, 0.0, 0.0),) * 18


@dataclasses.dataclass(frozen=True, kw_only=True)
class PersonRecord:
    """A person's picture and a garment's flat-lay as encoded image bytes.

    `garment_id` names the garment in a database, so that a search can leave it out; `category` is one of CATEGORIES.
    `mask`: a 1-bit PNG of the person's size, white where to draw anew, or None (then it follows from the label map).
    `keypoints`: `pose.JOINTS`, rows (x, y, confidence) in pixels of the upright person, (0, 0, 0) where not found.
    `label_map`: a grey PNG of `label_maps.CLASSES` ids or None. `caption` describes the garment; `chunks` are its noun
    chunks, in the source's order. Built from untrusted values by `person_from_fields`.
    """

    id: str
    person: bytes
    garment: bytes
    category: str
    garment_id: str = ""
    mask: bytes | None = None
    keypoints: tuple[Joint, ...] = NO_KEYPOINTS
    label_map: bytes | None = None
    caption: str = ""
    chunks: tuple[str, ...] = ()
    split: str = "train"


_TYPES = {
    "id": (str,),
    "person": (bytes,),
    "garment": (bytes,),
    "category": (str,),
    "garment_id": (str,),
    "mask": (bytes, type(None)),
    "keypoints": (tuple, list, np.ndarray),
    "label_map": (bytes, type(None)),
    "caption": (str,),
    "chunks": (tuple, list),
    "split": (str,),
}
_NEEDED = ("id", "person", "garment", "category")


@runtime_checkable
class PersonSource(Protocol):
    """Random access to the records of one split; rows are stable, row numbers are the data's identity in training."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> PersonRecord: ...


def person_from_fields(fields: dict[str, Any]) -> PersonRecord:
    """A record from a plain dict; keypoints become float32 values, an empty `garment_id` the record's id.

    Raises `UserError` that names the record and the field: missing, unknown, empty, of the wrong type or shape, or a
    category that doesn't exist.
    """
    name = fields.get("id", "?")
    if unknown := sorted(fields.keys() - _TYPES.keys()):
        raise UserError(f"record {name!r}: unknown field {unknown[0]!r}; the fields are {', '.join(sorted(_TYPES))}")
    if missing := [field for field in _NEEDED if field not in fields]:
        raise UserError(f"record {name!r}: field {missing[0]} is missing; every person needs {', '.join(_NEEDED)}")
    for field, value in fields.items():
        if not isinstance(value, _TYPES[field]):
            wanted = " or ".join("nothing" if t is type(None) else t.__name__ for t in _TYPES[field])
            raise UserError(f"record {name!r}: field {field} is {type(value).__name__}; it must be {wanted}")
        if field in (*_NEEDED, "split") and not value:
            raise UserError(f"record {name!r}: field {field} is empty; give it a value")
    if fields["category"] not in CATEGORIES:
        raise UserError(
            f"record {name!r}: category {fields['category']!r} is unknown; use one of {', '.join(CATEGORIES)}"
        )
    chunks = tuple(fields.get("chunks", ()))
    if not all(isinstance(chunk, str) and chunk for chunk in chunks):
        raise UserError(f"record {name!r}: chunks {list(chunks)} are not all text; write each as a string")
    checked = {"chunks": chunks, "keypoints": _joints(fields.get("keypoints", NO_KEYPOINTS), name)}
    return PersonRecord(**fields | checked | {"garment_id": fields.get("garment_id") or fields["id"]})


def _joints(keypoints, name) -> tuple[Joint, ...]:
    try:
        rows = np.asarray(keypoints, np.float32)
    except (TypeError, ValueError):
        rows = np.zeros(0)
    if rows.shape != (18, 3) or not np.isfinite(rows).all():
        raise UserError(f"record {name!r}: keypoints are not 18 rows of finite (x, y, confidence); see pose.JOINTS")
    return tuple(tuple(row) for row in rows.tolist())


def retrieval_query(chunks: Sequence[str], count: int = 3) -> str:
    """The text that Fashion-RAG's garments are searched with: the chunks in alphabetic order, the first `count` of
    them, joined by ", ".
    """
    return ", ".join(sorted(chunks)[:count])


def person_features():
    """The TFDS features of a record: encoded bytes, text and the keypoints, so that no TensorFlow is needed."""
    import tensorflow_datasets as tfds

    blob = tfds.features.Scalar(dtype=np.object_)
    text = tfds.features.Text()
    kinds = {"person": blob, "garment": blob, "mask": blob, "label_map": blob}
    kinds["keypoints"] = tfds.features.Tensor(shape=(18, 3), dtype=np.float32)
    return tfds.features.FeaturesDict({field: kinds.get(field, text) for field in _TYPES})


def person_to_example(record: PersonRecord) -> dict[str, Any]:
    """A record as the values of `person_features`: chunks as JSON, absent bytes as empty."""
    fields = {field: getattr(record, field) for field in _TYPES}
    return fields | {
        "mask": record.mask or b"",
        "label_map": record.label_map or b"",
        "keypoints": np.array(record.keypoints, np.float32),
        "chunks": json.dumps(record.chunks, ensure_ascii=False),
    }


def person_from_example(example: dict[str, Any]) -> PersonRecord:
    """The inverse of `person_to_example` on what TFDS gives back (text as bytes). Raises `UserError` that names what
    is missing or damaged.
    """
    fields = dict(example)
    try:
        for field, types in _TYPES.items():
            if field in ("keypoints", "chunks") or types == (str,):
                value = fields[field]
                fields[field] = bytes(value).decode() if isinstance(value, bytes | np.bytes_) else value
            else:
                fields[field] = bytes(fields[field])
        fields["chunks"] = json.loads(fields["chunks"])
    except KeyError as error:
        raise UserError(f"record {fields.get('id', '?')!r}: field {error.args[0]} is missing; write it again") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"record {fields.get('id', '?')!r}: a field is damaged ({error}); write it again") from error
    return person_from_fields(fields | {name: fields[name] or None for name in ("mask", "label_map")})


class TfdsPersons:
    """A split of a TFDS data set of person records in ArrayRecord files, e.g. one that `prepare_dresscode` wrote.

    `mask_rules`: those of its data set (`inpainting_masks.RULES`). Raises `UserError` when `folder` holds none, or one
    of another kind, and for an unknown split.
    """

    def __init__(self, folder: str | Path, split: str):
        folder = Path(folder)
        builder = prepared_builder(folder, "ragdiff data dresscode")
        if split not in builder.info.splits:
            raise UserError(f"{folder}: has no split {split!r}; it has {', '.join(sorted(builder.info.splits))}")
        if missing := _TYPES.keys() - builder.info.features.keys():
            raise UserError(f"{folder}: holds no people ({', '.join(sorted(missing))} missing); name another data set")
        self.folder, self.split = folder, split
        self.mask_rules = "vitonhd" if builder.name == "viton_hd" else "dresscode"
        self._source = opened_split(builder, split)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, row: int) -> PersonRecord:
        with named_records(f"{self.folder}: record {row} of split {self.split}"):
            return person_from_example(self._source[row])

    def __iter__(self) -> Iterator[PersonRecord]:
        return (self[row] for row in range(len(self)))
