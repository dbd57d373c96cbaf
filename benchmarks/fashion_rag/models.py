"""Other models on the same people with the same garments: (d) detail, the image prompt, a longer training."""

import numpy as np

from benchmarks.fashion_rag.garments import kid_of, opened, own_garments, pictures, setting
from benchmarks.fashion_rag.world import table
from ragdiff_jax.pipelines.edit import PersonEditor

PLAIN, WITHOUT = "plain", "without"


def run(arguments):
    """The model (`plain`) and each of --against NAME=DIR with 1 and 3 retrieved garments and the own one, by hand.

    A model with a ReferenceNet stands there twice, and its gain over itself without detail is told apart: what is left
    of a difference to `plain` is longer training. With the own garment, `error` is the mean absolute difference to the
    person's real picture inside the mask, of 255: what is copied right makes it less.
    """
    world = opened(arguments)
    rows = world.retrieved(3)
    shown = pictures(world, rows)
    people = {str(count): world.with_garments([row[:count] for row in rows]) for count in (1, 3)}
    people["own"] = own_garments(world)
    variants = {PLAIN: (world.editor, {})}
    for name, folder in arguments.against:
        editor = PersonEditor.from_folders(folder, None, batch_size=arguments.batch, window=0.0)
        variants[name] = editor, {}
        if editor.model.reference_net:
            variants[f"{name}, {WITHOUT}"] = editor, {"detail": False}
    scores, kid, detail, columns = {}, {}, {}, {"person": [p.image for p in world.people], "own": world.own}
    for count, chosen in people.items():
        found = {name: world.edit(chosen, editor, **options) for name, (editor, options) in variants.items()}
        per = {name: world.scores(results, shown) for name, results in found.items()}
        if count == "own":
            for name, results in found.items():
                per[name]["error"] = _errors(results, world.people)
        scores[count], kid[count] = table(per, PLAIN), {name: kid_of(world, results) for name, results in found.items()}
        for name in variants:
            if f"{name}, {WITHOUT}" in variants:
                pair = {name: per[name], WITHOUT: per[f"{name}, {WITHOUT}"]}
                detail.setdefault(name, {})[count] = table(pair, WITHOUT)[name]
        columns |= {f"{name}, {count}": [result.image for result in results] for name, results in found.items()}
    world.sheet("models", columns)
    return setting(world) | {
        "columns": list(columns),
        "scores": scores,
        "detail_against_itself_without": detail,
        "kid_x1000": kid,
    }


def _errors(results, people):
    """Mean absolute difference inside the mask, of 255, of each person."""
    return np.array(
        [
            np.abs(result.image.astype(np.float64) - person.image)[person.mask].mean()
            for result, person in zip(results, people, strict=True)
        ]
    )


def named(text: str) -> tuple[str, str]:
    """`NAME=DIR` of the command line."""
    name, _, folder = text.partition("=")
    if not name or not folder or name == PLAIN:
        raise ValueError(text)
    return name, folder
