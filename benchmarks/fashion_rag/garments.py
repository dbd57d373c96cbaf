"""How many garments, and what wrong, conflicting and many ones do to the picture."""

import dataclasses

import numpy as np

from benchmarks.fashion_rag.world import World, table
from ragdiff_jax.evaluation.claims.people import drawn_part
from ragdiff_jax.evaluation.kid import kid as unbiased_kid
from ragdiff_jax.systems.text_retrieval import embed_texts

_WORLDS: dict[int, World] = {}


def opened(arguments) -> World:
    """One world for all sections of a call."""
    if id(arguments) not in _WORLDS:
        _WORLDS[id(arguments)] = World(arguments)
    return _WORLDS[id(arguments)]


def pictures(world, rows):
    """The garments of rows of the database."""
    return [[world.database.picture(row) for row in chosen] for chosen in rows]


def setting(world):
    """What the people and their garments are, printed with every section."""
    return {
        "people": len(world.people),
        "garments": len(world.database),
        "database_split": "train",
        "target_excluded": "the people are of other splits",
        "steps": world.steps,
    }


def number(arguments):
    """N_r 0 to 3, the person's own garment chosen by hand; KID of the drawn parts against the real ones."""
    world = opened(arguments)
    rows = world.retrieved(3)
    shown = pictures(world, rows)
    results = {"0": world.edit(world.people)}
    for count in (1, 2, 3):
        results[str(count)] = world.edit(world.with_garments([row[:count] for row in rows]))
    results["own"] = world.edit(own_garments(world))
    scores = {name: world.scores(found, shown) for name, found in results.items()}
    kid = {name: kid_of(world, found) for name, found in results.items()}
    columns = {"person": [p.image for p in world.people], "own": world.own, "first": [s[0] for s in shown]}
    world.sheet("number", columns | {name: [r.image for r in found] for name, found in results.items()})
    untouched = max(
        int(np.abs(r.image.astype(int) - p.image)[~p.mask].max(initial=0))
        for r, p in zip(results["3"], world.people, strict=True)
    )
    return setting(world) | {"scores": table(scores, "0"), "kid_x1000": kid, "changed_outside_of_255": untouched}


def own_garments(world):
    """The people with the garment that they really wear, chosen by hand."""
    return [
        dataclasses.replace(person, garments=(("own", garment),))
        for person, garment in zip(world.people, world.own, strict=True)
    ]


def kid_of(world, results):
    """KID x 1000 of the drawn parts against the real ones."""
    real, fake = (
        world.tower.images([drawn_part(one.image, one.mask) for one in some]) for some in (world.people, results)
    )
    return round(_kid(real, fake) * 1000, 3)


def _kid(real, fake):
    """On the measuring tower's unit vectors at length sqrt(d)."""
    return unbiased_kid(real * np.sqrt(real.shape[1]), fake * np.sqrt(real.shape[1]))


# Options of the editor: what stands against F's concatenation. A floor is found on the queries.
METHODS = {
    "plain": {},
    "reject": {"reject": 0.1},
    "floor": {"reject_below": None},
    "reject and floor": {"reject": 0.1, "reject_below": None},
    "pool similarity": {"fusion": "pool", "weighting": "similarity"},
}


def random(arguments):
    """(a) r of 3 garments are random ones of the category, r from 0 to 3; kept: the share of the clean gain.

    The floor is the cosine that 95 of 100 retrieved garments have (or --reject-below): no random one took part in it.
    """
    world = opened(arguments)
    rng = np.random.default_rng(arguments.seed)
    rows = world.retrieved(3)
    shown = pictures(world, rows)
    categories = np.array([item.metadata["category"] for item in world.database.memory.items])
    base = world.scores(world.edit(world.people), shown)
    found, curve, mixed = {"N_r 0": base}, {}, []
    vectors = world.database.memory.embeddings
    texts = embed_texts(world.editor.model, world.editor.params, world.editor.tokenizer, [p.text for p in world.people])
    right = np.einsum("nkd,nd->nk", vectors[np.array(rows)], texts)
    floor = float(np.percentile(right, 5)) if arguments.reject_below is None else arguments.reject_below
    methods = {name: METHODS[name] for name in dict.fromkeys(("plain", *(arguments.method or METHODS)))}
    for wrong in range(4):
        mixed = []
        for row, record in zip(rows, world.records, strict=True):
            others = rng.choice(np.flatnonzero(categories == record.category), wrong, replace=False).tolist()
            mixed.append([int(x) for x in rng.permutation([*row[: 3 - wrong], *others])])
        for name, options in methods.items():
            options = {option: floor if value is None else value for option, value in options.items()}
            found[f"{name}, {wrong} random"] = world.scores(world.edit(world.with_garments(mixed), **options), shown)
    others = np.einsum("nkd,nd->nk", vectors[np.array(mixed)], texts)  # all three random
    for name in methods:
        clean = found["plain, 0 random"]["first"].mean() - base["first"].mean()
        curve[name] = [
            round(float((found[f"{name}, {wrong} random"]["first"].mean() - base["first"].mean()) / clean), 3)
            for wrong in range(4)
        ]
    return setting(world) | {
        "floor": round(floor, 4),
        "above_floor": {
            name: round(float((cosines >= floor).mean()), 3)
            for name, cosines in (("retrieved", right), ("random", others))
        },
        "kept_of_clean_gain": curve,
        "scores": table(found, "plain, 0 random"),
    }


def divergent(arguments):
    """(b) The nearest garment and the two of the 60 nearest that are least like it and each other."""
    world = opened(arguments)
    vectors, triples = world.database.memory.embeddings, []
    for row in world.retrieved(60):
        near = vectors[row]
        likeness = near @ near.T
        second = int(likeness[0].argmin())
        third = int((likeness[0] + likeness[second]).argsort()[0])
        third = third if third not in (0, second) else int((likeness[0] + likeness[second]).argsort()[1])
        triples.append([row[0], row[second], row[third]])
    shown = pictures(world, triples)
    methods = {"concat": {}} | {
        f"pool {kind}": {"fusion": "pool", "weighting": kind} for kind in ("equal", "similarity", "agreement")
    }
    found = {
        name: world.scores(world.edit(world.with_garments(triples), **options), shown)
        for name, options in methods.items()
    }
    mean = np.mean([vectors[t[0]] @ vectors[t[1]] for t in triples])
    return setting(world) | {"likeness_of_first_two": round(float(mean), 3), "scores": table(found, "concat")}


def many(arguments):
    """(c) Up to 10 garments: one after another as far as they fit, pooled beyond."""
    world = opened(arguments)
    rows = world.retrieved(10)
    shown = pictures(world, [row[:3] for row in rows])
    found, kid = {}, {}
    for name, count, options in (
        ("concat 3", 3, {}),
        ("pool 3", 3, {"fusion": "pool"}),
        ("pool 5", 5, {"fusion": "pool"}),
        ("pool 10", 10, {"fusion": "pool"}),
        ("pool 10 similarity", 10, {"fusion": "pool", "weighting": "similarity"}),
    ):
        results = world.edit(world.with_garments([row[:count] for row in rows]), **options)
        found[name] = world.scores(results, shown)
        kid[name] = kid_of(world, results)
    return setting(world) | {"scores": table(found, "concat 3"), "kid_x1000": kid}
