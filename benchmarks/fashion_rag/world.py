"""What the sections of benchmarks/fashion_rag share: people, garments, the measuring tower, scores, sheets."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ragdiff_jax.data.images import decode_image, decode_indices, resize, save_image, square
from ragdiff_jax.data.inpainting_masks import inpainting_mask
from ragdiff_jax.data.person_folder import open_persons
from ragdiff_jax.data.person_records import PersonRecord, retrieval_query
from ragdiff_jax.data.pixels import to_float
from ragdiff_jax.data.tokenizer import Tokenizer
from ragdiff_jax.evaluation.bootstrap import difference_interval, mean_interval
from ragdiff_jax.models.clip_text import CLIPTextConfig, CLIPTextModel
from ragdiff_jax.models.clip_vision import CLIPVisionConfig, CLIPVisionModel, preprocess
from ragdiff_jax.pipelines.edit import Edited, Person, PersonEditor
from ragdiff_jax.pipelines.garment_database import GarmentDatabase
from ragdiff_jax.systems.text_retrieval import embed_texts
from ragdiff_jax.weights.folder import load_part, read_config


@dataclasses.dataclass
class Tower:
    """A CLIP that took no part in conditioning: unit vectors of pictures and of texts."""

    images: Any
    texts: Any

    @classmethod
    def open(cls, folder: Path) -> "Tower":
        """From the model folder of the `clip` stage."""
        vision = CLIPVisionConfig.from_dict(read_config(folder / "image_encoder"))
        text = CLIPTextConfig.from_dict(read_config(folder / "text_encoder"))
        seen, read = CLIPVisionModel(vision), CLIPTextModel(text)
        side, tokenizer = vision.image_size, Tokenizer.from_folder(folder / "tokenizer")
        blank = jnp.zeros((1, side, side, 3)), jnp.zeros((1, 8), jnp.int32)
        weights = [
            load_part(folder / part, jax.eval_shape(module.init, jax.random.key(0), given)["params"])
            for part, module, given in zip(("image_encoder", "text_encoder"), (seen, read), blank, strict=True)
        ]
        unit = jax.jit(lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True))
        see = jax.jit(lambda p, x: unit(seen.apply({"params": p}, preprocess(to_float(x), side)).image_embeds))
        understand = jax.jit(lambda p, ids: unit(read.apply({"params": p}, ids).text_embeds))

        def batched(run, tree, rows):
            size, found = 32, []
            for start in range(0, len(rows), size):
                part = rows[start : start + size]
                full = np.concatenate([part, np.repeat(part[:1], size - len(part), axis=0)])
                found.append(np.asarray(run(tree, full))[: len(part)])
            return np.concatenate(found)

        def images(pictures):
            return batched(see, weights[0], np.stack([square(picture, side) for picture in pictures]))

        return cls(images, lambda texts: batched(understand, weights[1], tokenizer.encode(list(texts))))


@dataclasses.dataclass
class World:
    """Held-out people, the database that they retrieve from, and the tower that measures.

    Garments of the database are of another split, so that no person's own is among them.
    """

    editor: PersonEditor
    database: GarmentDatabase
    tower: Tower
    records: list[PersonRecord]
    people: list[Person]
    own: list[np.ndarray]
    queries: np.ndarray
    steps: int
    out: Path

    @classmethod
    def open(cls, arguments: argparse.Namespace) -> "World":
        editor = PersonEditor.from_folders(arguments.model, arguments.memory, batch_size=arguments.batch)
        records = []
        for split in arguments.split.split(","):
            source = open_persons(arguments.people, split)
            records += [source[row] for row in range(len(source))]
        records = records[: arguments.count]
        queries = [retrieval_query(record.chunks) or record.caption for record in records]
        return cls(
            editor=editor,
            database=editor.database,
            tower=Tower.open(arguments.tower),
            records=records,
            people=[person_of(record) for record in records],
            own=[decode_image(record.garment, record.id) for record in records],
            queries=embed_texts(editor.model, editor.params, editor.tokenizer, queries),
            steps=arguments.steps,
            out=arguments.out,
        )

    def retrieved(self, k: int) -> list[list[int]]:
        """Rows of the database for each person, nearest first."""
        return [
            list(self.database.search(query, record.category, k).rows)
            for query, record in zip(self.queries, self.records, strict=True)
        ]

    def with_garments(self, rows: Sequence[Sequence[int]]) -> list[Person]:
        """The people with these garments of the database as their own choice."""
        return [
            dataclasses.replace(
                person,
                garments=tuple((self.database.memory.items[row].id, self.database.picture(row)) for row in chosen),
            )
            for person, chosen in zip(self.people, rows, strict=True)
        ]

    def edit(self, people: Sequence[Person], **options) -> list[Edited]:
        """All edited with the same noise; without garments the text alone."""
        settings = {"fusion": "concat", "weighting": "equal", "reject": None} | options
        for name, value in settings.items():
            setattr(self.editor, name, value)
        return self.editor.edit(people, retrieve=0, steps=self.steps)

    def scores(self, results: Sequence[Edited], shown: Sequence[Sequence[np.ndarray]]) -> dict[str, np.ndarray]:
        """Of each person: cosine of what was drawn with the caption (`text`), with the own garment (`own`), and the
        mean with the garments `shown` to all methods alike (`shown`); the drawn part on white.
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

    def sheet(self, name: str, columns: Mapping[str, Sequence[np.ndarray]], count: int = 12, side: int = 96) -> None:
        """The first people, one a row, a column each."""
        rows = [
            np.concatenate([resize(square(pictures[row], side), (side, side)) for pictures in columns.values()], axis=1)
            for row in range(min(count, len(self.people)))
        ]
        save_image(self.out / f"{name}.png", np.concatenate(rows))


def person_of(record: PersonRecord) -> Person:
    """A record as what is edited: its mask follows from its label map, its text is its caption."""
    image = decode_image(record.person, record.id)
    keypoints = np.array(record.keypoints, np.float32)
    labels = decode_indices(record.label_map, record.id)
    mask = inpainting_mask(labels, record.category, keypoints if keypoints.any() else None)
    return Person(image=image, mask=mask, category=record.category, text=record.caption, keypoints=keypoints)


def drawn_part(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mask's bounding box, white outside the mask (F's CLIP scores, `val_metrics.py`)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    white = np.where(mask[..., None], image, np.uint8(255))
    return white[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def table(rows: Mapping[str, Mapping[str, np.ndarray]], against: str) -> dict[str, Any]:
    """Means with 95 % intervals, and paired differences to the row `against`."""
    found = {}
    for name, scores in rows.items():
        found[name] = {
            score: {
                "mean": _numbers(mean_interval(np.asarray(values, np.float64), seed=0)),
                f"minus {against}": _numbers(
                    difference_interval(
                        np.asarray(values, np.float64), np.asarray(rows[against][score], np.float64), seed=0
                    )
                ),
            }
            for score, values in scores.items()
        }
    return found


def _numbers(interval) -> list[float]:
    return [round(interval.estimate, 4), round(interval.low, 4), round(interval.high, 4)]
