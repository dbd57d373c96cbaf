"""Real photos: pairs that training didn't see, plain and made harder, beside simple rivals; and photos of homes."""

import json
import os
from pathlib import Path

import numpy as np

from benchmarks.real_photos import framed, iou
from benchmarks.tiny_world.photo_kinds import grabcut, kinds
from benchmarks.tiny_world.world import World, generate, number, silhouettes
from ragdiff_jax.data.folder import split_of
from ragdiff_jax.data.images import decode_mask, load_image, resize, save_image, square_mask
from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation.bootstrap import difference_interval, mean_interval
from ragdiff_jax.evaluation.claims.generating import ious
from ragdiff_jax.evaluation.colour import ciede2000, mean_lab
from ragdiff_jax.pipelines.panel import Cell, draw_panel, result_cells

SHARES = {"train": 0.8, "test": 0.2}
SIDE = 256  # pixels of the unaligned comparison, and the longer side of what GrabCut sees
LONGEST = 768  # pixels: photos are read no larger
PAGE = 30


def run(world: World) -> dict:
    if "RAGDIFF_REAL_DATA" not in os.environ:
        raise UserError("real needs RAGDIFF_REAL_DATA=DIR: the folder with wild/, flat_photo/, flat_white/, flat_mask/")
    data = Path(os.environ["RAGDIFF_REAL_DATA"])
    generator = world.generator(world.main)
    pairs, notes = _pairs(world, generator, data)
    wild, sheets = _wild(world, generator, data)
    return {"rows": pairs + wild, "notes": [*notes, f"Sheets: {', '.join(sheets)}"]}


def _pairs(world: World, generator, data: Path):
    seed, memory = world.arguments.seed, generator.memory
    files = {path.stem: path for path in sorted((data / "flat_photo").iterdir()) if not path.name.startswith(".")}
    held = _held_out(world, files)
    training = [name for name in files if name not in held]
    names = held[: world.arguments.real_limit]
    if not names:
        # Not an error: the photos of homes need no truth.
        note = f"No pairs: by its hash ({SHARES}) none of {len(files)} is held out; name them by --real-held-out FILE."
        return [{"table": "real pairs, bounding boxes", "photo": "plain", "pairs": 0}], [note]
    photos = {name: load_image(files[name], max_side=LONGEST) for name in names}
    others = {name: photos[names[(place + 1) % len(names)]] for place, name in enumerate(names)}
    ready = [kinds(photos[name], others[name], name, seed) for name in names]
    truths = [_mask(data, name) for name in names]
    boxed = np.stack([framed(truth) for truth in truths])
    squares = np.stack([square_mask(truth, SIDE) for truth in truths])
    trained = [_mask(data, name) for name in training]
    mean_boxed, mean_square = _mean(map(framed, trained)), _mean(square_mask(mask, SIDE) for mask in trained)
    every = np.asarray(memory.landmarks)  # passed over once for each pair
    memory_boxed = np.stack([framed(mask) for mask in every])
    oracle = np.array([_best(truth, memory_boxed) for truth in boxed])
    whites = [load_image(next((data / "flat_white").glob(f"{name}.*"))) for name in names]
    true_colours = np.stack([_mean_lab(white, truth) for white, truth in zip(whites, truths, strict=True)])
    rows, cells, rivals_there = [], [[] for _ in names], True
    for kind in ready[0]:
        some = [one[kind] for one in ready]
        results = generate(generator, some, world)
        images = np.stack([result.image for result in results])
        masks = silhouettes(images)
        found = {
            "generated": ious(np.stack([framed(mask) for mask in masks]), boxed),
            "landmark": ious(np.stack([framed(result.retrieved.landmark) for result in results]), boxed),
            "oracle": oracle,
        }
        if mean_boxed is not None:
            found["mean mask"] = np.array([iou(mean_boxed, truth) for truth in boxed])
        cuts = [grabcut(_small(photo)) for photo in some]
        rivals_there = cuts[0] is not None
        if rivals_there:
            found["grabcut"] = ious(np.stack([framed(cut) for cut in cuts]), boxed)
        rows.append({"table": "real pairs, bounding boxes", "photo": kind, "pairs": len(names)} | _row(found, seed))
        if kind == "plain":
            unaligned = {
                "generated": ious(np.stack([_large(mask) for mask in masks]), squares),
                "landmark": ious(np.stack([_large(result.retrieved.landmark) for result in results]), squares),
                "oracle": np.array([_best(truth, every) for truth in _fit(squares, memory)]),
            }
            if mean_square is not None:
                unaligned["mean mask"] = np.array([iou(mean_square, truth) for truth in squares])
            if rivals_there:
                unaligned["grabcut"] = ious(np.stack([square_mask(cut, SIDE) for cut in cuts]), squares)
            rows.append({"table": "real pairs, unaligned", "photo": kind, "pairs": len(names)} | _row(unaligned, seed))
        colours = np.stack([_mean_lab(image, mask) for image, mask in zip(images, masks, strict=True)])
        there = np.isfinite(colours).all(axis=1)
        row = {"table": "real pairs, colour", "photo": kind, "pairs": int(there.sum()), "blank": int((~there).sum())}
        if there.any():
            distance = np.linalg.norm(colours[there] - true_colours[there], axis=1)
            row["delta_e_76"] = number(mean_interval(distance, seed=seed), 2)
            distance = np.asarray(ciede2000(colours[there], true_colours[there]))
            row["ciede2000"] = number(mean_interval(distance, seed=seed), 2)
        rows.append(row)
        for i, photo in enumerate(some):
            score = f"IoU {found['generated'][i]:.3f}"
            cells[i].append(Cell(picture=photo, title=kind))
            cells[i].append(Cell(picture=images[i], title="flat-lay", lines=(score,), chosen=kind == "plain"))
    for i, white in enumerate(whites):
        cells[i].append(Cell(picture=white, title="cut-out", lines=(names[i],)))
    sheets = _pages(world, "real-pairs", cells)
    notes = [
        f"{len(names)} pairs held out of {len(files)}. IoU with the true mask, both brought to their bounding boxes; "
        "unaligned: where they lie. mean mask: of the other pairs; oracle: the memory's best mask. GrabCut cuts the "
        "photo as it lies, from a centred rectangle; the true masks were themselves cut by GrabCut and checked by eye, "
        "so on plain photos it is favoured, and turned photos ask it for what it can't do.",
        "Colour: the mean CIELAB colour inside the generated silhouette against that of the cut-out inside its mask.",
        f"Sheets: {', '.join(sheets)}",
    ]
    if not training:
        notes.append("No pairs are left beside those held out: no mean mask.")
    if not rivals_there:
        notes.append("OpenCV is not installed: no GrabCut (pip install opencv-python-headless).")
    return rows, notes


def _wild(world: World, generator, data: Path):
    """Every photo of `wild/`, none of which may fail; a batch that does is tried again one by one, to name it."""
    paths = sorted(path for path in (data / "wild").iterdir() if not path.name.startswith("."))
    paths = paths[: world.arguments.wild_limit]
    failures, read = [], {}
    for path in paths:
        try:
            read[path] = load_image(path, max_side=LONGEST)
        except Exception as error:  # whatever it is, it counts
            failures.append(f"{path.name}: {error!r}")
    rows, blank, warned = [], 0, 0
    for start in range(0, len(read), world.batch):
        part = dict(list(read.items())[start : start + world.batch])
        for (path, image), result in zip(part.items(), _tried(world, generator, part, failures), strict=True):
            if result is None:
                continue
            blank += not silhouettes(result.image[None]).any()
            warned += bool(result.retrieved.warnings)
            cells = result_cells(image, result.retrieved, result.image, generator.memory)
            cells[0] = Cell(picture=image, title="photo", lines=(path.stem, *result.retrieved.warnings))
            rows.append(cells)
    row = {"table": "wild photos", "photos": len(paths), "done": len(rows), "failed": len(failures)}
    return [row | {"blank": blank, "with warnings": warned, "failures": failures}], _pages(world, "wild", rows)


def _pages(world: World, name: str, rows) -> list[str]:
    """Sheets of `PAGE` rows each; their names."""
    sheets = []
    for start in range(0, len(rows), PAGE):
        sheets.append(f"{name}-{len(sheets)}.png")
        save_image(world.out / sheets[-1], draw_panel(rows[start : start + PAGE], cell=112))
    return sheets


def _tried(world: World, generator, photos: dict[Path, np.ndarray], failures: list[str]):
    try:
        return generate(generator, list(photos.values()), world)
    except Exception:
        results = []
        for path, image in photos.items():
            try:
                results += generate(generator, [image], world)
            except Exception as error:
                failures.append(f"{path.name}: {error!r}")
                results.append(None)
        return results


def _held_out(world: World, files) -> list[str]:
    """Names of --real-held-out (one a line, or a JSON list), else those whose hash says test."""
    if world.arguments.real_held_out is None:
        return [name for name in files if split_of(name, SHARES) == "test"]
    wanted = held_out_names(world.arguments.real_held_out)
    wanted = {name if name in files else Path(name).stem for name in wanted}
    if missing := sorted(wanted - set(files)):
        raise UserError(f"{world.arguments.real_held_out}: {missing[0]!r} is no photo of flat_photo/")
    return [name for name in files if name in wanted]


def held_out_names(file: Path) -> list[str]:
    """Names in a file, one a line or a JSON list."""
    try:
        text = file.read_text(encoding="utf-8")
        lines = json.loads(text) if text.lstrip().startswith("[") else text.split("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: can't be read ({error}); give names, one a line, or a JSON list") from error
    return sorted({line.strip() for line in lines if line.strip()})


def _row(found, seed: int) -> dict:
    row = {name: number(mean_interval(values, seed=seed)) for name, values in found.items()}
    for rival in ("landmark", "mean mask", "grabcut"):
        if rival in found:
            row[f"generated - {rival}"] = number(difference_interval(found["generated"], found[rival], seed=seed))
    return row


def _mask(data: Path, name: str) -> np.ndarray:
    path = data / "flat_mask" / f"{name}.png"
    return decode_mask(path.read_bytes(), str(path))


def _mean(masks) -> np.ndarray | None:
    """Where at least half of the masks are; None of none."""
    masks = list(masks)
    return np.mean(masks, axis=0) >= 0.5 if masks else None


def _mean_lab(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mean colour inside a mask, which may have another size; not a number for an empty one."""
    if image.shape[:2] != mask.shape:
        image = resize(image, mask.shape)
    return np.asarray(mean_lab(image[None], mask[None]))[0] if mask.any() else np.full(3, np.nan)


def _best(truth: np.ndarray, masks: np.ndarray) -> float:
    both = (masks & truth).sum(axis=(1, 2))
    return float((both / np.maximum(1, (masks | truth).sum(axis=(1, 2)))).max())


def _fit(squares: np.ndarray, memory) -> np.ndarray:
    """Square masks at the size of the memory's landmarks."""
    return np.stack([square_mask(mask, memory.manifest.landmark_size[0]) for mask in squares])


def _large(mask: np.ndarray) -> np.ndarray:
    return square_mask(mask, SIDE)


def _small(photo: np.ndarray) -> np.ndarray:
    scale = SIDE / max(photo.shape[:2])
    return resize(photo, (max(1, round(photo.shape[0] * scale)), max(1, round(photo.shape[1] * scale))))
