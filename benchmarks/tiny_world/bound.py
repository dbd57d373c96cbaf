"""What no photo tower can pass: retrieval by someone who knows the garment itself, but not how it was laid down.

A photo shows a garment, not its flat-lay: how straight it will lie and how its sleeves will be bent is drawn for the
flat-lay alone. So each held-out garment is laid down anew, many times, and the landmark is the one of the memory with
the highest mean IoU with these: the best choice there is for whoever sees all of the garment and nothing of its lay.
"""

import numpy as np

from benchmarks.tiny_world.retrieval import means, oracle, random_choice, ways
from benchmarks.tiny_world.world import World
from ragdiff_jax.data.synth import render_flat, synth_spec
from ragdiff_jax.data.synth.garment import laid_anew
from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation.retrieval import ACCURATE, mask_ious

LAYS = 24


def run(world: World) -> dict:
    name, seed = world.main, world.arguments.seed
    size = world.image_size(name)
    pairs, groups, leaks = world.pairs(size, world.arguments.pairs)
    memory = world.memory(name, leaks)
    landmarks = memory.landmarks
    ious = mask_ious(pairs.masks, landmarks)
    floor, ceiling = random_choice(ious), oracle(ious)
    expected = np.stack([mask_ious(_lays(id, size, seed), landmarks).mean(axis=0) for id in pairs.ids])
    found = np.take_along_axis(ious, np.argsort(-expected, axis=1)[:, :5], axis=1)
    known = {"top1": found[:, 0] > ACCURATE, "top5": (found > ACCURATE).any(axis=1), "iou": found[:, 0]}
    row = {"table": "bound", "photos": len(pairs.ids), "memory": len(memory), "lays": LAYS}
    row |= means(known, seed, groups) | ways(known, floor, ceiling, seed, groups)
    note = (
        f"The garment is known and its lay is not: the landmark of the highest mean IoU with {LAYS} lays of the same "
        "garment. No model of photos can be expected to choose better."
    )
    return {"rows": [row], "notes": [note]}


def _lays(id: str, size: int, seed: int) -> np.ndarray:
    """Silhouettes bool [LAYS, size, size] of one garment, each laid down anew."""
    kind, *rest = id.split("-")
    if kind != "synth" or len(rest) != 2:
        raise UserError(f"{id}: the bound needs drawn garments of the ordinary series, whose lay can be drawn anew")
    data_seed, index = map(int, rest)
    spec = synth_spec(index - index % 2, data_seed)
    lays = np.random.default_rng([seed, data_seed, index]).integers(2**31, size=LAYS)
    return np.stack([render_flat(laid_anew(spec, int(lay)), size)[1] for lay in lays])
