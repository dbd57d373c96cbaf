"""Held-out people, the garments that they retrieve from, and the tower that measures their edits."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from ragdiff_jax.data.images import decode_image, decode_indices, resize, square
from ragdiff_jax.data.inpainting_masks import inpainting_mask
from ragdiff_jax.data.person_records import PersonRecord, retrieval_query
from ragdiff_jax.evaluation.claims.tower import Tower
from ragdiff_jax.evaluation.kid import kid_of_pairs
from ragdiff_jax.evaluation.random_features import SIDE, random_feature_extractor
from ragdiff_jax.pipelines.edit import Edited, Person, PersonEditor
from ragdiff_jax.pipelines.garment_database import GarmentDatabase
from ragdiff_jax.systems.text_retrieval import embed_texts

Picture = UInt8[np.ndarray, "_ _ 3"]
Rows = Sequence[Sequence[int]]


@dataclasses.dataclass
class People:
    """The people, what they wear, and the vectors of their texts. The database's garments are of another split, so that
    no person's own is among them.
    """

    editor: PersonEditor
    database: GarmentDatabase
    tower: Tower
    records: list[PersonRecord]
    people: list[Person]
    own: list[Picture]
    queries: Float32[np.ndarray, "n d"]

    @classmethod
    def of(cls, editor: PersonEditor, tower: Tower, records: list[PersonRecord]) -> "People":
        """Raises `UserError` for an unreadable record."""
        queries = [retrieval_query(record.chunks) or record.caption for record in records]
        return cls(
            editor=editor,
            database=editor.database,
            tower=tower,
            records=records,
            people=[person_of(record) for record in records],
            own=[decode_image(record.garment, record.id) for record in records],
            queries=embed_texts(editor.model, editor.params, editor.tokenizer, queries),
        )

    def retrieved(self, k: int) -> list[list[int]]:
        """Rows of the database for each person, nearest first."""
        return [
            list(self.database.search(query, record.category, k).rows)
            for query, record in zip(self.queries, self.records, strict=True)
        ]

    def pictures(self, rows: Rows) -> list[list[Picture]]:
        return [[self.database.picture(row) for row in chosen] for chosen in rows]

    def with_garments(self, rows: Rows) -> list[Person]:
        """The people with these garments of the database as their own choice."""
        items = self.database.memory.items
        return [
            dataclasses.replace(
                person, garments=tuple((items[row].id, self.database.picture(row)) for row in chosen)
            )
            for person, chosen in zip(self.people, rows, strict=True)
        ]

    def edit(
        self, people: Sequence[Person], editor: PersonEditor | None = None, *, steps: int, seed: int = 0, **options
    ) -> list[Edited]:
        """All edited with the same noise, by another editor if given; without garments the text alone. `options`: of
        the editor (`fusion`, ...).
        """
        editor = editor or self.editor
        plain = {"fusion": "concat", "weighting": "equal", "reject": None, "reject_below": None, "detail": None}
        for name, value in (plain | options).items():
            setattr(editor, name, value)
        return editor.edit(people, retrieve=0, steps=steps, seed=seed)

    def scores(
        self, results: Sequence[Edited], shown: Sequence[Sequence[Picture]]
    ) -> dict[str, Float[np.ndarray, " n"]]:
        """Of each person the cosine of what was drawn with the caption (`text`), the own garment (`own`), the mean of
        the garments `shown` to all methods alike (`shown`) and the first of these (`first`).
        """
        drawn = self.tower.images([drawn_part(result.image, result.mask) for result in results])
        own = self.tower.images(self.own)
        flat = self.tower.images([picture for pictures in shown for picture in pictures])
        text = self.tower.texts([record.caption for record in self.records])
        each = len(shown[0])
        per = np.einsum("nkd,nd->nk", flat.reshape(len(shown), each, -1), drawn)
        return {
            "text": (drawn * text).sum(axis=1),
            "own": (drawn * own).sum(axis=1),
            "shown": per.mean(axis=1),
            "first": per[:, 0],
        }

    def kid(self, results: Sequence[Edited]) -> dict[str, Float[np.ndarray, " n"]]:
        """KID of the drawn parts against the real ones as pseudo-values, times 1,000: on the tower's vectors at length
        sqrt(d) (`kid_tower`) and on the random network (`kid_random`).
        """
        real = [drawn_part(person.image, person.mask) for person in self.people]
        fake = [drawn_part(result.image, result.mask) for result in results]
        random = random_feature_extractor()

        def seen(pictures):
            vectors = self.tower.images(pictures)
            return vectors * np.sqrt(vectors.shape[1])

        def looks(pictures):
            return random(np.stack([square(picture, SIDE) for picture in pictures]))

        return {
            "kid_tower": 1000 * kid_of_pairs(seen(real), seen(fake)),
            "kid_random": 1000 * kid_of_pairs(looks(real), looks(fake)),
        }

    def sheet(self, columns: Mapping[str, Sequence[Picture]], count: int = 8, side: int = 96) -> Picture:
        """The first people, one a row, a column each."""
        return np.concatenate(
            [
                np.concatenate([resize(square(pictures[row], side), (side, side)) for pictures in columns.values()], 1)
                for row in range(min(count, len(self.people)))
            ]
        )


def person_of(record: PersonRecord) -> Person:
    """A record as what is edited: its mask follows from its label map, its text is its caption."""
    image = decode_image(record.person, record.id)
    keypoints = np.array(record.keypoints, np.float32)
    labels = decode_indices(record.label_map, record.id)
    mask = inpainting_mask(labels, record.category, keypoints if keypoints.any() else None)
    return Person(image=image, mask=mask, category=record.category, text=record.caption, keypoints=keypoints)


def drawn_part(image: Picture, mask: Bool[np.ndarray, "_ _"]) -> Picture:
    """The mask's bounding box, white outside the mask (F's CLIP scores, `val_metrics.py`)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    white = np.where(mask[..., None], image, np.uint8(255))
    return white[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def open_tower(folder: Path | None, editor: PersonEditor) -> Tower:
    """Of a clip stage's model folder, or the editor's own."""
    if folder is not None:
        return Tower.open(folder)
    return Tower.of_editor(editor.model, editor.params, editor.tokenizer)
