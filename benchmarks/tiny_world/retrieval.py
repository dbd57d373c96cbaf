"""Retrieval on held-out drawn pairs, per knowledge of the photos' attributes, between random choice and the oracle."""

import math

import numpy as np

from benchmarks.tiny_world.world import World, number
from ragdiff_jax.evaluation.analyze import Analysis, said_and_right
from ragdiff_jax.evaluation.bootstrap import mean_interval, way_interval
from ragdiff_jax.evaluation.retrieval import ACCURATE, landmark_rows, mask_ious
from ragdiff_jax.retrieval import LandmarkRule
from ragdiff_jax.weights.folder import read_model_json
from ragdiff_jax.weights.model_folder import load_structure_net, structure_fingerprint

MEASURES = ("top1", "top5", "iou")


def run(world: World) -> dict:
    name, seed = world.main, world.arguments.seed
    config, params = load_structure_net(world.models[name])
    pairs, groups, leaks = world.pairs(world.image_size(name), world.arguments.pairs)
    memory = world.memory(name, leaks)
    memory.check_encoder(structure_fingerprint(config, params))
    rule = LandmarkRule.of(read_model_json(world.models[name]).settings)
    predictor = world.predictor(name)
    analysis = Analysis(config, params, memory, pairs, predictor, rule=rule)
    ious = mask_ious(pairs.masks, memory.landmarks)
    floor, ceiling = random_choice(ious), oracle(ious)
    columns = {"random": floor}
    for knowledge, vectors in analysis.photos.items():
        rows, offered = landmark_rows(vectors, memory.embeddings, memory.landmarks, analysis.own, rule)
        found = np.take_along_axis(ious, rows, axis=1)
        landmarks = np.take_along_axis(found, offered, axis=1)
        columns[knowledge] = {
            "top1": landmarks[:, 0] > ACCURATE,
            "top5": (found[:, :5] > ACCURATE).any(axis=1),
            "iou": landmarks[:, 0],
            "offered": (landmarks > ACCURATE).any(axis=1),
            "best_offered_iou": landmarks.max(axis=1),
            "nearest_top1": found[:, 0] > ACCURATE,
            "nearest_iou": found[:, 0],
        }
    columns["oracle"] = ceiling
    common = {"photos": len(pairs.ids), "memory": len(memory), "k": rule.k, "candidates": rule.candidates}
    rows = []
    for knowledge, values in columns.items():
        row = {"table": "retrieval", "attributes": knowledge, **common} | means(values, seed, groups)
        if knowledge in analysis.photos:
            row |= ways(values, floor, ceiling, seed, groups)
        rows.append(row)
    notes = [
        "top1: the IoU of the landmark that the model's rule chooses (candidates 0: of the K nearest by SLLE and "
        f"fusion, R 9.3; else the likeliest of so many) exceeds {ACCURATE}; top5: that of any of the five nearest; "
        "offered: of any that the rule offers; iou: the landmark's mean; best_offered_iou: of the best offered. Random "
        "is the expectation for one garment (top5: five) of the memory, the oracle its best mask. *_way: the share of "
        "the way from random to the oracle.",
        f"{len(world.memory(name)) - len(memory)} of these pairs' and their twins' flat-lays were taken out of the "
        "memory. Intervals draw structure twins together.",
    ]
    if predictor is None:
        notes.append("The model has no image encoder (and no --clip was named): nothing was predicted.")
    else:
        for attribute, scores in said_and_right(analysis.attribute_ids["predicted"], pairs.photo_ids).items():
            rows.append({"table": "predicted attributes", "attribute": attribute, **scores})
    photos = {knowledge: values["iou"].round(4).tolist() for knowledge, values in columns.items()}
    return {"rows": rows, "notes": notes, "photos": {"ids": pairs.ids, "iou": photos}}


def means(values: dict[str, np.ndarray], seed: int, groups: np.ndarray) -> dict[str, dict]:
    """Of each measure the mean over the photos and its interval."""
    return {name: number(mean_interval(np.float64(one), seed=seed, groups=groups)) for name, one in values.items()}


def ways(values, floor, ceiling, seed: int, groups: np.ndarray) -> dict[str, dict]:
    """Of each of `MEASURES` the share of the way from random choice to the oracle, and its interval."""
    parts = {name: [np.float64(part[name]) for part in (values, floor, ceiling)] for name in MEASURES}
    return {f"{name}_way": number(way_interval(*part, seed=seed, groups=groups)) for name, part in parts.items()}


def random_choice(ious: np.ndarray) -> dict[str, np.ndarray]:
    """What choosing any garment gives of each photo, exactly."""
    count = ious.shape[1]
    right = (ious > ACCURATE).sum(axis=1)
    missed = np.array([math.comb(count - int(some), 5) / math.comb(count, 5) for some in right])
    return {"top1": right / count, "top5": 1 - missed, "iou": ious.mean(axis=1)}


def oracle(ious: np.ndarray) -> dict[str, np.ndarray]:
    best = ious.max(axis=1)
    return {"top1": best > ACCURATE, "top5": best > ACCURATE, "iou": best}
