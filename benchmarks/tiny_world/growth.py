"""A StructureNet that saw only tops, before and after its memory is given bottoms and dresses (R 4.3)."""

import itertools
import shutil

import numpy as np

from benchmarks.tiny_world.world import World, number
from ragdiff_jax.cli.inputs import model_folder
from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation.analyze import Analysis, Picked, read_pairs
from ragdiff_jax.evaluation.bootstrap import difference_interval, mean_interval
from ragdiff_jax.evaluation.retrieval import landmark_rows, mask_ious
from ragdiff_jax.pipelines.memory_builder import MemoryBuilder, flat_lays_of_pairs
from ragdiff_jax.retrieval import LandmarkRule, Memory
from ragdiff_jax.weights.folder import read_model_json
from ragdiff_jax.weights.model_folder import can_predict, load_predictor, load_structure_net

OTHERS = ("Trousers", "Shorts", "Skirt", "Dress", "Loungewear Dress")


def run(world: World) -> dict:
    arguments, seed = world.arguments, world.arguments.seed
    if arguments.tops_model is None:
        raise UserError("growth needs --tops-model DIR: a structure_net trained on tops only")
    folder, others = model_folder(arguments.tops_model), tuple(arguments.others)
    config, params = load_structure_net(folder)
    rule = LandmarkRule.of(read_model_json(folder).settings)
    size = arguments.size or read_model_json(folder).settings.get("image_size")
    if size is None and arguments.tops_memory is not None:
        size = Memory.open(arguments.tops_memory, verify=False).manifest.landmark_size[0]
    builder = MemoryBuilder.from_folder(folder, size=size or world.image_size(world.main))
    train, place = world.source(arguments.memory_split), world.temporary()
    if arguments.tops_memory is None:
        tops = builder.build(place / "tops", flats(train, arguments.growth_tops, lambda name: name not in others))
    else:
        tops = Memory.open(arguments.tops_memory)
    shutil.copytree(tops.path, place / "grown")
    grown = Memory.open(place / "grown")
    added = builder.add(grown, flats(train, arguments.growth_added, lambda name: name in others))
    test = world.source(arguments.split)
    rows, notes = [], []
    for kind, wanted in (
        ("bottoms and dresses", lambda name: name in others),
        ("tops", lambda name: name not in others),
    ):
        picked = Picked(test, list(itertools.islice(places(test, wanted), arguments.pairs)))
        if not len(picked):
            notes.append(f"{kind}: the split {arguments.split} has none.")
            continue
        pairs = read_pairs(picked, len(picked), builder.size)
        groups = np.array(pairs.groups)
        clip = folder if arguments.clip is None else model_folder(arguments.clip)
        predictor = load_predictor(clip) if can_predict(clip) else None
        analysis = Analysis(config, params, tops, pairs, predictor, rule=rule)
        for knowledge, vectors in analysis.photos.items():
            found = {}
            for when, memory in (("before", tops), ("after", grown)):
                own_row = {item.id: row for row, item in enumerate(memory.items)}
                own = np.array([own_row.get(id, -1) for id in pairs.ids], np.int32)
                near, offered = landmark_rows(vectors, memory.embeddings, memory.landmarks, own, rule)
                ious = mask_ious(pairs.masks, memory.landmarks)
                chosen = near[np.arange(len(near)), offered[:, 0]]
                found[when] = np.float64(ious[np.arange(len(near)), chosen])
                found[f"random {when}"] = np.float64(ious.mean(axis=1))
                found[f"oracle {when}"] = np.float64(ious.max(axis=1))
                if when == "after":
                    added_chosen = float((chosen >= len(tops)).mean())
            row = {"table": "growth", "garments": kind, "attributes": knowledge, "photos": len(pairs.ids)}
            row |= {"memory": len(tops), "added": added}
            row |= {name: number(mean_interval(values, seed=seed, groups=groups)) for name, values in found.items()}
            row["after - before"] = number(
                difference_interval(found["after"], found["before"], seed=seed, groups=groups)
            )
            row["of added"] = number(added_chosen)
            rows.append(row)
    notes.append(
        "Mean IoU with the true silhouette of the landmark that the model's rule chooses, beside a random mask and the "
        "best one in the same memory; `of added`: the share of photos whose landmark is one of the added. The weights "
        f"are the same before and after. Bottoms and dresses are {', '.join(others)}; everything else is a top."
    )
    return {"rows": rows, "notes": notes}


def places(source, wanted):
    """Rows of a source whose category is wanted, in order."""
    for row in range(len(source)):
        if wanted(source[row].category):
            yield row


def flats(source, count: int, wanted):
    """The first `count` flat-lays of wanted categories."""
    return flat_lays_of_pairs(Picked(source, list(itertools.islice(places(source, wanted), count))))
