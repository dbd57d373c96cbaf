"""Fashion-RAG's edits of held-out people: how many garments, wrong, conflicting and many ones; its words; retrieval."""

import dataclasses
import functools
import re
from typing import Any, Literal

import numpy as np

from ragdiff_jax.data.person_folder import open_persons
from ragdiff_jax.evaluation.claims.people import People, open_tower
from ragdiff_jax.evaluation.claims.store import Measured, key_of
from ragdiff_jax.evaluation.claims.world import GARMENTS, PEOPLE, World
from ragdiff_jax.evaluation.nearest_words import nearest_words
from ragdiff_jax.pipelines.edit import PersonEditor
from ragdiff_jax.pipelines.garment_database import GarmentMemoryBuilder, garments_of_people
from ragdiff_jax.weights.fashion_folder import load_fashion, read_fashion

SHOWN = 3  # garments that every arm's picture is compared with: the nearest to the text
NEAR = 60  # among which conflicting garments are looked for
WORDS = 3  # nearest words of a token
NEAREST = 5  # garments of a text looked at
# Said of nearly every garment: they don't tell one from another.
_EMPTY = frozenset("a an and in of pair photo the".split())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edit:
    """How one set of people is edited.

    Attributes:
      garments: N_r.
      choice: the nearest to the text; the nearest and the two of the `NEAR` nearest that are least like it and each
        other (`conflicting`); the nearest and the two of these that are likest to it (`agreeing`).
      wrong: so many of the garments are random ones of the category.
      fusion, weighting, reject: of the editor.
    """

    garments: int = 3
    choice: Literal["nearest", "conflicting", "agreeing"] = "nearest"
    wrong: int = 0
    fusion: str = "concat"
    weighting: str = "equal"
    reject: float | None = None


def editing(world: World, seed: int, edit: Edit) -> Measured:
    """The scores of `People.scores` and `People.kid` of an arm; `shown` are always the three nearest garments."""
    people = people_of(world)
    shown = people.pictures(people.retrieved(SHOWN))
    rows = _rows(people, edit, seed)
    subjects = people.with_garments(rows) if edit.garments else people.people
    options: dict[str, Any] = {"fusion": edit.fusion, "weighting": edit.weighting, "reject": edit.reject}
    results, size = [], world.budget.batch
    for batch, start in enumerate(range(0, len(subjects), size)):
        some = subjects[start : start + size]
        alone = len(some) == 1 and size > 1
        made = people.edit(some * 2 if alone else some, steps=world.budget.steps, seed=seed * 10_000 + batch, **options)
        results += made[: len(some)]
        world.step(len(some))
    columns = people.scores(results, shown) | people.kid(results)
    used = people.pictures([row[:SHOWN] for row in rows]) if edit.garments else None
    sheet = {"person": [person.image for person in people.people], "own": people.own}
    if used is not None:
        sheet |= {f"garment {i}": [row[i] for row in used] for i in range(len(used[0]))}
    sheet["made"] = [result.image for result in results]
    facts = {"people": len(people.people), "garments": len(people.database)}
    return Measured(columns=columns, groups=_groups(people), facts=facts, sheet=people.sheet(sheet))


def text_retrieval(world: World, seed: int) -> Measured:
    """How much of a text's words the captions of what it finds have (Jaccard): the nearest, the five nearest, any of
    the category on average.
    """
    del seed
    people = people_of(world)
    items = people.database.memory.items
    captions = [_words(str(item.metadata["caption"])) for item in items]
    categories = np.array([item.metadata["category"] for item in items])
    columns: dict[str, list[float]] = {"nearest": [], "five": [], "chance": []}
    for record, rows in zip(people.records, people.retrieved(NEAREST), strict=True):
        own = _words(record.caption)
        alike = np.array([len(own & words) / max(1, len(own | words)) for words in captions])
        columns["nearest"].append(float(alike[rows[0]]))
        columns["five"].append(float(alike[rows].mean()))
        columns["chance"].append(float(alike[categories == record.category].mean()))
    facts = {"people": len(people.records), "garments": len(items)}
    arrays = {name: np.array(values) for name, values in columns.items()}
    return Measured(columns=arrays, groups=_groups(people), facts=facts)


def words(world: World, seed: int) -> Measured:
    """Of a garment: the share of F_theta's tokens one of whose nearest words its caption has, and, as chance, the same
    with every other garment's caption.
    """
    del seed
    people = people_of(world)
    tokens = nearest_words(
        people.editor.model, people.editor.params, people.editor.tokenizer, people.own, WORDS
    )
    captions = [_words(record.caption) for record in people.records]
    named = [[set(token.words) for token in found] for found in tokens]
    share = np.array([[np.mean([bool(near & caption) for near in own]) for caption in captions] for own in named])
    count = len(captions)
    chance = (share.sum(axis=1) - np.diagonal(share)) / max(1, count - 1)
    example = {
        record.caption: ["; ".join(token.words) for token in found]
        for record, found in zip(people.records[:6], tokens, strict=False)
    }
    columns = {"own": np.diagonal(share).copy(), "chance": chance}
    return Measured(columns=columns, groups=_groups(people), facts={"examples": example})


def people_of(world: World) -> People:
    """Opened once a world."""
    return _open(world)


@functools.lru_cache(maxsize=1)
def _open(world: World) -> People:
    from ragdiff_jax.data.synth_people import prepare_synth_people

    budget, place, size = world.budget, world.out / "data", world.image_size
    sets = [
        prepare_synth_people(place, count=count // 2 * 2, size=size, seed=seed, splits={split: 1.0})
        for count, seed, split in ((budget.people, PEOPLE, "test"), (budget.garments, GARMENTS, "train"))
    ]
    model = read_fashion(world.editor)
    params = load_fashion(model, world.editor)
    drawn = key_of({"drawn": world.drawn, "size": size, "garments": budget.garments})[:8]
    folder = world.out / "memories" / f"garments-{world.fingerprint('editor')[:12]}-{drawn}"
    if not folder.is_dir():
        GarmentMemoryBuilder(model, params).build(folder, garments_of_people(open_persons(sets[1], "train"), "train"))
    editor = PersonEditor.from_folders(world.editor, folder, batch_size=budget.batch, window=0.0)  # as F does
    source = open_persons(sets[0], "test")
    records = [source[row] for row in range(len(source))]
    # A category with too few garments to retrieve from can't take part.
    records = [record for record in records if editor.database.available(record.category) >= 2 * NEAREST]
    return People.of(editor, open_tower(world.tower, editor), records)


def _rows(people: People, edit: Edit, seed: int) -> list[list[int]]:
    if not edit.garments:
        return [[] for _ in people.people]
    if edit.choice != "nearest":
        return [_triple(people, row, edit.choice) for row in _near(people)]
    rows = people.retrieved(edit.garments)
    if not edit.wrong:
        return rows
    rng = np.random.default_rng(seed)
    categories = np.array([item.metadata["category"] for item in people.database.memory.items])
    mixed = []
    for row, record in zip(rows, people.records, strict=True):
        others = np.setdiff1d(np.flatnonzero(categories == record.category), row)
        random = rng.choice(others, edit.wrong, replace=False).tolist()
        mixed.append([int(x) for x in rng.permutation([*row[: edit.garments - edit.wrong], *random])])
    return mixed


def _near(people: People) -> list[list[int]]:
    available = [people.database.available(record.category) for record in people.records]
    return people.retrieved(min(NEAR, *available))


def _triple(people: People, row: list[int], choice: str) -> list[int]:
    """The nearest and two more of `row`: the least like it and each other, or the likest to it."""
    near = people.database.memory.embeddings[row]
    likeness = near @ near.T
    if choice == "agreeing":
        return [row[0], *(row[place] for place in (-likeness[0, 1:]).argsort()[:2] + 1)]
    second = int(likeness[0].argmin())
    order = (likeness[0] + likeness[second]).argsort()
    third = next(int(place) for place in order if place not in (0, second))
    return [row[0], row[second], row[third]]


def _groups(people: People) -> np.ndarray:
    """People whose garments are structure twins stand for themselves: other colours, other texts."""
    return np.array([record.id for record in people.records])


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower())) - _EMPTY


