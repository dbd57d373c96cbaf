"""What frozen networks made of each sample, kept: rows of an ArrayRecord in the place of pictures.

    DIR/  encodings.json (schema, rows, variants, fingerprint)
          encodings-00000.array_record, ...   of `SHARD` samples each, the last of what is left; a safetensors blob each

Several variants a sample, each under other augmentations: variant v of row r is record v * rows + r, and an epoch shows
every one of them once. Floats of half precision but the embeddings; silhouettes as bits. Nothing is unpickled.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy
from jaxtyping import Int

from ragdiff_jax.array_records import record_writer
from ragdiff_jax.data.pipeline import Batch
from ragdiff_jax.data.records import named_records
from ragdiff_jax.errors import UserError

SCHEMA = 4
INFO = "encodings.json"
SHARD = 4096
_WIDE = ("embedding", "embedding_unknown")


def to_record(fields: Mapping[str, np.ndarray]) -> bytes:
    """One sample's encodings as bytes. `mask` is [s, s] in {0,1}."""
    kept = {}
    for name, value in fields.items():
        if name == "mask":
            kept[name] = np.packbits(np.asarray(value, bool), axis=-1)
        else:
            kept[name] = np.asarray(value, np.float32 if name in _WIDE else np.float16, order="C")
    return safetensors.numpy.save(kept)


def from_record(content: bytes, where: str) -> dict[str, np.ndarray]:
    """The reverse of `to_record`. Raises UserError for bytes that are none."""
    try:
        fields = safetensors.numpy.load(content)
    except Exception as error:  # the library has its own error type
        raise UserError(f"{where}: damaged ({error}); remove the folder, it is made anew") from error
    if "mask" in fields:
        bits = fields["mask"]
        fields["mask"] = np.unpackbits(bits, axis=-1, count=bits.shape[0])
    return fields


@dataclasses.dataclass(frozen=True)
class EncodedInfo:
    """What `encodings.json` says; `fingerprint` is of the weights, the pairs and how they were augmented."""

    rows: int
    variants: int
    fingerprint: str


def read_info(folder: str | os.PathLike) -> EncodedInfo | None:
    """None if there are no encodings in the folder. Raises UserError for a damaged file."""
    path = Path(folder) / INFO
    if not path.exists():
        return None
    try:
        info = json.loads(path.read_text())
        if info.pop("schema") != SCHEMA:
            raise ValueError("of another version")
        return EncodedInfo(**info)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error}); remove the folder, it is made anew") from error


_ANEW = "remove the folder, the encodings are made anew"


class EncodedPairs:
    """A batch source (`data.pipeline`) of kept encodings: `row`, `mask` and what the writer put there."""

    def __init__(self, folder: str | os.PathLike):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self.folder, info = Path(folder), read_info(folder)
        if info is None:
            raise UserError(f"{self.folder / INFO}: missing; {_ANEW}")
        self.info = info
        paths = [self.folder / _shard(number) for number in range(-(-len(self) // SHARD))]
        for path in paths:
            if not path.is_file():
                raise UserError(f"{path}: missing; {_ANEW}")
        with named_records(str(self.folder), _ANEW):
            self._source = ArrayRecordDataSource([str(path) for path in paths])
        if len(self._source) != len(self):
            raise UserError(f"{self.folder}: {len(self._source)} records in place of {len(self)}; remove the folder")

    def __len__(self) -> int:
        return self.info.rows * self.info.variants

    def batch(self, rows: Int[np.ndarray, " b"]) -> Batch:
        """The records of these places; `row` is the sample's row in the data set."""
        with named_records(str(self.folder), _ANEW):
            contents = self._source.__getitems__([int(place) for place in rows])
        items = [
            from_record(content, f"{self.folder}, record {place}")
            for place, content in zip(rows, contents, strict=True)
        ]
        batch = {name: np.stack([item[name] for item in items]) for name in items[0]}
        return batch | {"row": np.asarray(rows % self.info.rows, np.int32)}


def _shard(number: int) -> str:
    return f"encodings-{number:05d}.array_record"


def unfinished(folder: str | os.PathLike, info: EncodedInfo) -> Path:
    """Where shards wait until all are there: beside the folder, by what they are made from."""
    folder = Path(folder)
    name = hashlib.sha256(json.dumps(dataclasses.asdict(info)).encode()).hexdigest()[:12]
    return folder.with_name(f".{folder.name}.{name}.unfinished")


def samples_there(folder: str | os.PathLike, info: EncodedInfo) -> int:
    """How many samples an earlier run, which was stopped, has left in whole shards."""
    place, number = unfinished(folder, info), 0
    while (place / _shard(number)).is_file():
        number += 1
    return min(number * SHARD, info.rows * info.variants)


def write_encoded(
    folder: str | os.PathLike, info: EncodedInfo, records: Iterable[Mapping[str, np.ndarray]], first: int = 0
) -> None:
    """Write the records from sample `first` on, which is what `samples_there` says, and put all of them in `folder`.

    Raises UserError for a place that can't be written. What is whole by then stays for the next run.
    """
    folder, place, rows = Path(folder), unfinished(folder, info), iter(records)
    try:
        place.mkdir(parents=True, exist_ok=True)
        for number in range(-(-first // SHARD), -(-info.rows * info.variants // SHARD)):
            temporary = place / f".{secrets.token_hex(6)}.tmp"
            try:
                with record_writer(temporary) as writer:
                    for fields in itertools.islice(rows, SHARD):
                        writer.write(to_record(fields))
                os.rename(temporary, place / _shard(number))
            finally:
                temporary.unlink(missing_ok=True)
        (place / INFO).write_text(json.dumps({"schema": SCHEMA, **dataclasses.asdict(info)}) + "\n")
        os.rename(place, folder)
    except OSError as error:
        if read_info(folder) != info:  # another run may have been first
            raise UserError(f"{folder}: can't write the encodings ({error.strerror}); choose another folder") from error
