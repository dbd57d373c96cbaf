"""Does the flat-lay take the silhouette that the user picks? `generate --landmark I` for every neighbour of a photo."""

import dataclasses

import numpy as np

from benchmarks.tiny_world.world import World, generate, number
from ragdiff_jax.data.images import save_image
from ragdiff_jax.evaluation.bootstrap import mean_interval
from ragdiff_jax.evaluation.claims.generating import SAME, control_picks
from ragdiff_jax.pipelines.panel import Cell, draw_panel

SHOWN = 8


def run(world: World) -> dict:
    name, seed = world.main, world.arguments.seed
    pairs, groups, leaks = world.pairs(world.image_size(name), world.arguments.pairs)
    count = min(world.arguments.control_photos, len(pairs.ids))
    generator = world.generator(name, leaks)
    k = generator.model.neighbours
    photos, images = list(pairs.photos[:count]), []
    for landmark in range(k):
        results = generate(generator, photos, world, landmark=landmark)
        images.append([result.image for result in results])
    masks = np.stack([generator.memory.landmarks[list(result.retrieved.rows)] for result in results])  # [n, k, s, s]
    picks, similar = control_picks(np.stack([np.stack(some) for some in images], axis=1), masks)
    if not picks:
        raise RuntimeError("control: all neighbours of all photos have one shape")
    columns = zip(*map(dataclasses.astuple, picks), strict=True)
    photo, chosen, hit, own, chance = map(np.array, columns)
    rows = []
    for which in ("all", *range(k)):
        some = np.ones(len(hit), bool) if which == "all" else chosen == which
        if some.any():
            found = mean_interval(np.float64(hit[some]), seed=seed, groups=photo[some])
            row = {"table": "control", "landmark": which, "trials": int(some.sum()), "hits": int(hit[some].sum())}
            row |= {"share": number(found), "chance": number(chance[some].mean())}
            row["iou_with_chosen"] = number(mean_interval(own[some], seed=seed, groups=photo[some]))
            rows.append(row)
    cells = []
    for i in range(min(SHOWN, count)):
        row = [Cell(picture=pairs.photos[i], title="photo")]
        for landmark in range(k):
            row.append(Cell(picture=masks[i, landmark], title=f"neighbour {landmark}"))
            row.append(Cell(picture=images[landmark][i], title=f"--landmark {landmark}"))
        cells.append(row)
    save_image(world.out / "control.png", draw_panel(cells, cell=112))
    notes = [
        f"A hit: of the {k} neighbours' masks the generated silhouette has its highest IoU with the chosen one. Of "
        f"{count * k} trials {count * k - len(picks)} were dropped, all other masks being the chosen one's double "
        f"(IoU above {SAME}); elsewhere doubles are no rivals: {similar} comparisons were left out in all. Intervals "
        "draw the trials of a photo together. Sheet: control.png",
    ]
    return {"rows": rows, "notes": notes}
