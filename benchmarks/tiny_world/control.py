"""Does the flat-lay take the silhouette that the user picks? `generate --landmark I` for every neighbour of a photo."""

import numpy as np

from benchmarks.tiny_world.world import World, generate, number, silhouettes
from ragdiff_jax.data.images import save_image
from ragdiff_jax.evaluation.bootstrap import mean_interval
from ragdiff_jax.evaluation.retrieval import mask_ious
from ragdiff_jax.pipelines.panel import Cell, draw_panel

SAME = 0.97  # masks of a higher IoU are one shape
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
    trials, similar = [], 0
    for photo in range(count):
        drawn = mask_ious(silhouettes(np.stack([images[i][photo] for i in range(k)])), masks[photo])  # [chosen, k]
        between = mask_ious(masks[photo], masks[photo])
        for chosen in range(k):
            rivals = [i for i in range(k) if i != chosen and between[chosen, i] <= SAME]
            similar += k - 1 - len(rivals)
            if rivals:  # nothing to tell apart otherwise
                own = drawn[chosen, chosen]
                hit = own > drawn[chosen, rivals].max()  # a tie with a distinct mask is no hit
                trials.append((photo, chosen, hit, own, 1 / (1 + len(rivals))))
    if not trials:
        raise RuntimeError("control: all neighbours of all photos have one shape")
    photo, chosen, hit, own, chance = (np.array(column) for column in zip(*trials, strict=True))
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
        f"{count * k} trials {count * k - len(trials)} were dropped, all other masks being the chosen one's double "
        f"(IoU above {SAME}); elsewhere doubles are no rivals: {similar} comparisons were left out in all. Intervals "
        "draw the trials of a photo together. Sheet: control.png",
    ]
    return {"rows": rows, "notes": notes}
