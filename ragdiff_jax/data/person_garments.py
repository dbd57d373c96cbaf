"""People with the garments that were retrieved for them, and their prompts: what Fashion-RAG's training reads.

A batch has the fields of `person_pipeline` and besides: `garments` uint8 [B,1+K,s,s,3], the person's own garment and
the K retrieved ones by rank; `prompt_ids` int32 [B,2,L], the prompt for an edit with garments and the one without.
For a model that looks at them closely, `pictures` uint8 [B,1+K,h,w,3] too: the same garments at the person's size.
"""

import dataclasses
import functools
import logging
import threading
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Int32, UInt8

from ragdiff_jax.data.images import decode_image, resize, square
from ragdiff_jax.data.person_pipeline import Batch, PersonArrays, fit
from ragdiff_jax.data.person_records import PersonRecord, PersonSource
from ragdiff_jax.errors import UserError

FITS = ("pad", "crop")
KEEP_BYTES = 2 << 30
_WHITE = 245  # a JPEG's white
_log = logging.getLogger(__name__)


@runtime_checkable
class Prompter(Protocol):
    """Makes the ids of prompts with room for `garments` (`systems.prompts.Prompts`)."""

    def encode(self, captions, categories, garments: int, *, cut: bool = False) -> np.ndarray: ...


def garment_square(image: UInt8[np.ndarray, "h w 3"], size: int, fit: str = "pad") -> UInt8[np.ndarray, "s s 3"]:
    """A garment as CLIP's picture towers take it.

    "pad": the whole of it on a white square. "crop": the shorter side scaled to `size` and the middle kept, as the
    released code does; a 3:4 picture loses an eighth of its height at both ends. Raises `UserError` for another fit.
    """
    if fit not in FITS:
        raise UserError(f"garment fit {fit!r}: choose pad or crop")
    if fit == "pad":
        return square(image, size, fill="white")
    height, width, _ = image.shape
    scale = size / min(height, width)
    image = resize(image, (max(size, round(height * scale)), max(size, round(width * scale))))
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


def garment_picture(image: UInt8[np.ndarray, "h w 3"], shape: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """A garment as ReferenceNet takes it: undistorted and centred in `shape` (height, width), the rest white.

    White beyond the shape's proportions is cut off first: a memory keeps squares.
    """
    height, width, _ = image.shape
    inner = min(height, round(width * shape[0] / shape[1])), min(width, round(height * shape[1] / shape[0]))
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    rest = image.copy()
    rest[top : top + inner[0], left : left + inner[1]] = 255
    if rest.min() >= _WHITE:
        image = image[top : top + inner[0], left : left + inner[1]]
    return fit(image, shape, "white")


class Garments:
    """The garments of a source as squares. Safe to read from threads.

    `shape`: (height, width) in which `picture` gives the whole garment on white; those aren't kept.
    `keep_bytes`: how much of the squares (3 s^2 bytes each) is kept, 2 GiB unless told; the rest is decoded at every
    look. The 48,392 of Dress Code would take 7.3 GB at 224 pixels.
    """

    def __init__(
        self,
        source: PersonSource,
        size: int,
        fit: str = "pad",
        shape: tuple[int, int] | None = None,
        *,
        keep_bytes: int = KEEP_BYTES,
    ):
        self.source, self.size, self.fit, self.shape = source, size, fit, shape
        # What came first stays: in epochs, each in its own order, the latest would be seen again less often.
        self._kept: dict[int, np.ndarray] = {}
        self._most = keep_bytes // (3 * size**2)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> UInt8[np.ndarray, "s s 3"]:
        found = self._kept.get(row)
        if found is None:
            found = self.decode(row)
            with self._lock:
                if len(self._kept) < self._most:
                    self._kept[row] = found
        return found

    def decode(self, row: int) -> UInt8[np.ndarray, "s s 3"]:
        """The same square, read anew and not kept: for one pass over all of them."""
        return garment_square(self._decoded(row), self.size, self.fit)

    def picture(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        """The garment in `shape`, undistorted, the rest white."""
        if self.shape == (self.size, self.size) and self.fit == "pad":
            return self[row]
        return garment_picture(self._decoded(row), self.shape)

    def _decoded(self, row: int) -> np.ndarray:
        record = self.source[row]
        return decode_image(record.garment, f"garment of record {record.id}")


class PersonsWithGarments:
    """`people` beside the rows of `database` that were retrieved for each: `neighbours` int32 [people, K] by rank.

    `most`: garments that a prompt must have room for; longer captions are cut.
    """

    def __init__(
        self,
        people: PersonArrays,
        database: Garments,
        neighbours: Int32[np.ndarray, "n k"],
        prompts: Prompter,
        *,
        most: int,
        caption: Callable[[PersonRecord], str] = lambda record: record.caption,
    ):
        if len(neighbours) != len(people):
            raise ValueError(f"{len(neighbours)} rows of neighbours for {len(people)} people")
        self.people, self.database, self.neighbours = people, database, neighbours
        self.prompts, self.most, self.caption = prompts, most, caption
        self.own = database
        if people.source is not database.source:
            self.own = Garments(people.source, database.size, database.fit, database.shape)
        self._ids: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.people)

    def rows(self) -> Int32[np.ndarray, " n"]:
        """The rows with something to draw anew, in order; what is left out is logged. Only the first call reads."""
        return self._rows

    @functools.cached_property
    def _rows(self) -> Int32[np.ndarray, " n"]:
        # Every validation and sample asks for them, and it takes each person's label map.
        rows = np.array([row for row in range(len(self)) if self.people.can_be_edited(row)], np.int32)
        if len(rows) < len(self):
            _log.info("%d of %d people show nothing of their garment: left out", len(self) - len(rows), len(self))
        if not len(rows):
            raise UserError("nobody shows anything of the garment to change; check label maps and categories")
        rows.setflags(write=False)
        return rows

    def batch(self, rows: np.ndarray) -> Batch:
        """The batch of these rows."""
        rows = [int(row) for row in rows]
        batch = self.people.batch(np.array(rows))
        batch["garments"] = np.stack([self._each(row, Garments.__getitem__) for row in rows])
        if self.database.shape is not None:
            batch["pictures"] = np.stack([self._each(row, Garments.picture) for row in rows])
        batch["prompt_ids"] = np.stack([self._prompt(row) for row in rows])
        return batch

    def _each(self, row: int, look: Callable[[Garments, int], np.ndarray]) -> np.ndarray:
        """The person's own garment and those retrieved for it."""
        return np.stack([look(self.own, row), *(look(self.database, int(n)) for n in self.neighbours[row])])

    def _prompt(self, row: int) -> np.ndarray:
        if row not in self._ids:
            record = self.people.source[row]
            text = [self.caption(record)], [record.category]
            pair = [self.prompts.encode(*text, most, cut=True)[0] for most in (self.most, 0)]
            self._ids[row] = np.stack(pair)
        return self._ids[row]


@dataclasses.dataclass(frozen=True)
class PersonShapes:
    """Stands for `PersonsWithGarments` that aren't here: what their batches look like, to plan a run with.

    `shape`: (height, width) of a person; `garment_size` of a garment's square; `most` garments are retrieved for each.
    `pictures`: whether there is that field.
    """

    shape: tuple[int, int]
    garment_size: int
    most: int
    text_length: int
    pictures: bool = False

    def __len__(self) -> int:
        return 0

    def abstract_batch(self, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of `PersonsWithGarments.batch`."""
        picture, s, length = ((*self.shape, 3), np.uint8), self.garment_size, self.text_length
        fields = {
            "person": picture, "garment": picture, "mask": (self.shape, np.uint8),
            "keypoints": ((18, 3), np.float32), "text_ids": ((length,), np.int32),
            "category": ((), np.int32), "row": ((), np.int32),
            "garments": ((1 + self.most, s, s, 3), np.uint8), "prompt_ids": ((2, length), np.int32),
        }  # fmt: skip
        if self.pictures:
            fields["pictures"] = (1 + self.most, *self.shape, 3), np.uint8
        return {name: jax.ShapeDtypeStruct((rows, *shape), dtype) for name, (shape, dtype) in fields.items()}


