"""Flat-lays of held-out drawn pairs by models that are told different things: shape, SSIM, colour, paired."""

import hashlib
import io
import time

import numpy as np

from benchmarks.tiny_world.world import GATES, World, content, generate, number, silhouettes
from ragdiff_jax.data.images import save_image, write_atomic
from ragdiff_jax.evaluation.analyze import Pairs
from ragdiff_jax.evaluation.bootstrap import difference_interval, mean_interval
from ragdiff_jax.evaluation.claims.generating import ious
from ragdiff_jax.evaluation.colour import mean_ciede2000
from ragdiff_jax.evaluation.ssim import ssim
from ragdiff_jax.pipelines.panel import Cell, draw_panel
from ragdiff_jax.weights.folder import read_model_json

# (a, b): a - b of every measure.
DIFFERENCES = (
    ("full", "vanilla"),
    ("embedding", "vanilla"),
    ("silhouette", "vanilla"),
    ("full", "silhouette"),
    ("full", "embedding"),
    ("shipped", "full"),
)
MEASURES = ("iou", "ssim", "ciede2000")
SHOWN = 4  # rows of the sheet from each place
SSIM_AT_A_TIME = 64


def run(world: World) -> dict:
    seed, scores, images, rows = world.arguments.seed, {}, {}, []
    sizes = {name: world.image_size(name) for name in world.models}
    groups_of = {}
    for name in sorted(world.models, key=list(GATES).index):
        pairs, groups, leaks = world.pairs(sizes[name], world.arguments.pairs)
        groups_of[name] = groups
        parts = _generated(world, name, pairs, leaks)
        images[name] = parts["images"]
        scores[name] = own = _scores(parts, pairs)
        row = {
            "table": "generation",
            "model": name,
            "adapter": GATES[name][0],
            "landmark": GATES[name][1],
            "photos": len(pairs.ids),
            "memory": len(world.memory(name, leaks)),
            "size": sizes[name],
            "guidance": read_model_json(world.models[name]).settings.get("guidance_scale"),
            "steps": world.arguments.steps,
            "predicted": bool(parts["predicted"]),
            "blank": int((own["area"] == 0).sum()),
            "seconds_each": number(parts["seconds"] / len(pairs.ids), 3),
        }
        for measure in (*MEASURES, "landmark_iou"):
            row[measure] = number(mean_interval(own[measure], seed=seed, groups=groups))
        if GATES[name][1]:
            found = difference_interval(own["iou"], own["landmark_iou"], seed=seed, groups=groups)
            row["iou - landmark_iou"] = number(found)
        rows.append(row)
    for a, b in DIFFERENCES:
        # Pictures of another size have another SSIM: nothing to compare.
        if a in scores and b in scores and sizes[a] == sizes[b]:
            row = {"table": "differences", "models": f"{a} - {b}"}
            for measure in MEASURES:
                found = difference_interval(scores[a][measure], scores[b][measure], seed=seed, groups=groups_of[a])
                row[measure] = number(found)
            rows.append(row)
    sheet = _sheet(world, sizes, scores, images)
    notes = [
        "iou: of the silhouette found in the generated picture (`data.silhouettes.flat_mask`) with the true one; "
        "blank: none found, which counts 0. ssim: RGB, the mean of the channels, gaussian 11x11 of sigma 1.5, data "
        "range 1, whole picture. ciede2000: the mean over the true silhouette's pixels. landmark_iou: of what was "
        "retrieved, also where the model isn't told it. A photo has the same noise in all models, each batch another.",
        f"Sheet (worst, median, best {SHOWN} by iou of the first model): {sheet}",
    ]
    photos = {
        name: {measure: own[measure].round(4).tolist() for measure in (*MEASURES, "landmark_iou")}
        for name, own in scores.items()
    }
    return {"rows": rows, "notes": notes, "photos": {"ids": pairs.ids, **photos}}


def _generated(world: World, name: str, pairs: Pairs, leaks) -> dict[str, np.ndarray]:
    """Pictures and landmarks of a model; kept in a file of their own, since they take the time."""
    file = world.out / "parts" / f"generation-{name}.npz"
    key = "\n".join(
        [
            content(world.models[name]),
            content(world.memory_path(name)),
            f"{world.arguments.steps} steps, noise of batches from {world.arguments.seed}, batch {world.batch}",
            f"gates {GATES[name]}",
            hashlib.sha256(pairs.photos.tobytes()).hexdigest(),
            *pairs.ids,
        ]
    )
    if file.is_file() and not world.arguments.again:
        with np.load(file) as kept:
            parts = dict(kept)
        if str(parts["key"]) == key:
            return parts
    generator = world.generator(name, leaks)
    start = time.perf_counter()
    results = []
    for batch, at in enumerate(range(0, len(pairs.photos), world.batch)):
        # One noise for all would be one draw of chance that no interval shows; the models still share each batch's.
        some = list(pairs.photos[at : at + world.batch])
        results += generate(generator, some, world, seed=world.arguments.seed + batch)
    parts = {
        "key": np.array(key),
        "images": np.stack([result.image for result in results]),
        "landmarks": np.stack([result.retrieved.landmark for result in results]),
        "predicted": np.array(generator.predicts),
        "seconds": np.array(time.perf_counter() - start),
    }
    stream = io.BytesIO()
    np.savez_compressed(stream, **parts)
    write_atomic(file, stream.getvalue())
    return parts


def _scores(parts, pairs: Pairs) -> dict[str, np.ndarray]:
    images, masks = parts["images"], silhouettes(parts["images"])
    similar, colour = [], []
    for start in range(0, len(images), SSIM_AT_A_TIME):
        part = np.arange(start, start + SSIM_AT_A_TIME).clip(max=len(images) - 1)
        similar.append(np.asarray(ssim(images[part] / np.float32(255), pairs.flats[part] / np.float32(255))))
        colour.append(np.asarray(mean_ciede2000(images[part], pairs.flats[part], pairs.masks[part])))
    return {
        "iou": ious(masks, pairs.masks),
        "landmark_iou": ious(parts["landmarks"], pairs.masks),
        "ssim": np.float64(np.concatenate(similar)[: len(images)]),
        "ciede2000": np.float64(np.concatenate(colour)[: len(images)]),
        "area": masks.mean(axis=(1, 2)),
    }


def _sheet(world: World, sizes, scores, images) -> str:
    first = next(iter(scores))
    pairs, _, leaks = world.pairs(sizes[first], world.arguments.pairs)
    order = np.argsort(scores[first]["iou"], kind="stable")
    shown = min(SHOWN, len(order) // 3) or 1
    middle = (len(order) - shown) // 2
    places = {"worst": order[:shown], "median": order[middle : middle + shown], "best": order[-shown:]}
    landmarks = _generated(world, first, pairs, leaks)["landmarks"]
    rows = []
    for place, some in places.items():
        for i in some:
            cells = [
                Cell(picture=pairs.photos[i], title=place, lines=(pairs.categories[i],)),
                Cell(picture=pairs.flats[i], title="truth", lines=(pairs.ids[i],)),
                Cell(picture=landmarks[i], title="landmark", lines=(f"IoU {scores[first]['landmark_iou'][i]:.3f}",)),
            ]
            for name, own in scores.items():
                lines = (
                    f"IoU {own['iou'][i]:.3f} SSIM {own['ssim'][i]:.3f}",
                    f"CIEDE2000 {own['ciede2000'][i]:.1f}",
                )
                cells.append(Cell(picture=images[name][i], title=name, lines=lines))
            rows.append(cells)
    save_image(world.out / "generation.png", draw_panel(rows, cell=128))
    return "generation.png"
