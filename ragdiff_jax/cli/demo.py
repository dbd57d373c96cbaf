"""The shipped models at work: 8 held-out garments with their truth, every picture given, and four people edited.

  ragdiff demo
  ragdiff demo my_photo.jpg other.png
  ragdiff demo --pairs DIR        pairs of yours (photos/ and flats/, masks/ if there are) in place of the shipped ones

Writes sheet.png (a row a picture: photo, neighbours, landmark, flat-lay, truth), edits.png (a row a person: drawn anew,
garments that the text found, result; not with --model, --memory, --pairs or --no-edits) and metrics.json into --out.
"""

import argparse
import json
import time
from pathlib import Path

from ragdiff_jax.cli.errors import Report
from ragdiff_jax.cli.inputs import (
    Described,
    add_json,
    add_model_arguments,
    at_least,
    load_generator,
    prepare_out,
    read_photos,
)

# Drawn from a seed that neither training nor the shipped memory uses.
EXAMPLES = Path(__file__).parents[1] / "assets" / "examples"
PEOPLE = EXAMPLES.parent / "people"
# What the people shall wear, by category, in turn.
WISHES = {
    "upper_body": ("a plain hoodie in red", "a striped sweater in navy and white"),
    "lower_body": ("a plain skirt in green",),
    "dresses": ("a floral dress in pink and white",),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", nargs="*", type=Path, metavar="PHOTO", help="pictures of yours, added to the sheet")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), metavar="DIR", help="default %(default)s")
    add_model_arguments(parser)
    parser.add_argument(
        "--pairs", type=Path, default=EXAMPLES, metavar="DIR", help="pairs with their truth (default: those that ship)"
    )
    parser.add_argument(
        "--count", type=at_least(0), default=8, help="of the pairs, at most (default %(default)s; all: a large number)"
    )
    parser.add_argument(
        "--steps", type=at_least(1), default=30, metavar="N", help="denoising steps (default %(default)s)"
    )
    parser.add_argument("--no-edits", action="store_true", help="leave the people out")
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="S", help="of the noise (default %(default)s)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, report: Report) -> None:
    from ragdiff_jax.data.images import save_image, write_atomic
    from ragdiff_jax.pipelines.panel import draw_panel

    prepare_out(arguments.out)
    if not arguments.photos and not arguments.count:
        from ragdiff_jax.errors import UserError

        raise UserError("nothing to draw: give pictures, or --count above 0")
    pairs = _pairs(arguments)
    started = time.perf_counter()
    generator = load_generator(arguments, report)
    generator.check(steps=arguments.steps)
    loading = time.perf_counter() - started
    rows, garments, seconds = [], [], []
    with report.progress(len(pairs) + len(arguments.photos), "garment") as bar:
        for photos, records in _chunks(arguments, pairs, generator, report):
            results = generator.generate(
                [image for image, _ in photos],
                [attributes for _, attributes in photos],
                captions=[record.caption if record else "" for record in records],
                steps=arguments.steps,
                seed=arguments.seed,
            )
            for (image, _), record, result in zip(photos, records, results, strict=True):
                cells, numbers = _row(image, record, result, generator)
                rows.append(cells)
                garments.append(numbers)
                seconds.append(result.seconds)
                bar.update()
    if not rows:
        return
    sheet = arguments.out / "sheet.png"
    save_image(sheet, draw_panel(rows, cell=160))
    metrics = _summary(garments, seconds, loading, time.perf_counter() - started, arguments)
    write_atomic(arguments.out / "metrics.json", json.dumps(metrics, indent=2).encode())
    iou = metrics["silhouette_iou"]
    lines = [f"{len(rows)} garments in {metrics['seconds']['wall']:.0f} s"]
    if iou is not None:
        nearest = metrics["retrieval_iou"]
        lines.append(f"silhouette IoU with the truth: flat-lays {iou:.3f}, nearest neighbours {nearest:.3f}")
    found = {"sheet": str(sheet)}
    if not (arguments.no_edits or arguments.model or arguments.memory or arguments.pairs != EXAMPLES):
        found["edits"] = str(_edits(arguments, report))
    lines.append(f"look at {' and '.join(found.values())}; the numbers are in {arguments.out / 'metrics.json'}")
    report.result(metrics | found, "\n".join(lines))


def _edits(arguments: argparse.Namespace, report: Report) -> Path:
    """The sheet of the shipped people, each in what WISHES says."""
    import numpy as np

    from ragdiff_jax.cli.edit import load_editor
    from ragdiff_jax.data.images import decode_image, decode_indices, save_image
    from ragdiff_jax.data.inpainting_masks import inpainting_mask
    from ragdiff_jax.data.person_folder import FolderPersons
    from ragdiff_jax.pipelines.edit import Person
    from ragdiff_jax.pipelines.edit_panel import edit_cells
    from ragdiff_jax.pipelines.panel import draw_panel

    editor = load_editor(arguments, report)
    people, source, told = [], FolderPersons(PEOPLE), {name: iter(wishes) for name, wishes in WISHES.items()}
    for row in range(len(source)):
        record = source[row]
        keypoints = np.array(record.keypoints, np.float32)
        labels = decode_indices(record.label_map, record.id)
        people.append(
            Person(
                image=decode_image(record.person, record.id),
                mask=inpainting_mask(labels, record.category, keypoints),
                category=record.category,
                text=next(told[record.category]),
                keypoints=keypoints,
            )
        )
    results = editor.edit(people, steps=arguments.steps, seed=arguments.seed)
    path = arguments.out / "edits.png"
    save_image(path, draw_panel([edit_cells(p.image, r) for p, r in zip(people, results, strict=True)], cell=160))
    return path


def _pairs(arguments: argparse.Namespace) -> list:
    """The records to show."""
    from ragdiff_jax.data.folder import FolderPairs

    if not arguments.count:
        return []
    source = FolderPairs(arguments.pairs)
    return [source[row] for row in range(min(arguments.count, len(source)))]


def _chunks(arguments: argparse.Namespace, pairs: list, generator, report: Report):
    """Batches of ((image, attributes) of each, its pair record or None): pairs, then the pictures given."""
    from ragdiff_jax.data.images import decode_image

    size = generator.batch_size
    for start in range(0, len(pairs), size):
        records = pairs[start : start + size]
        yield (
            [(decode_image(record.photo, record.id), record.photo_attributes) for record in records],
            records,
        )
    stems = [photo.stem for photo in arguments.photos]
    for photos in read_photos(arguments.photos, stems, Described({}, {}), report, chunk=size):
        yield [(photo.image, {}) for photo in photos], [None] * len(photos)


def _row(image, record, result, generator):
    """The sheet's row of one garment and its numbers; IoUs are None without a truth."""
    from ragdiff_jax.data.images import decode_image, decode_mask, square_mask
    from ragdiff_jax.data.silhouettes import flat_mask, square_flat
    from ragdiff_jax.pipelines.panel import Cell, result_cells

    retrieved = result.retrieved
    numbers = {
        "id": record.id if record else None,
        "neighbours": list(retrieved.ids),
        "iou": None,
        "retrieval_iou": None,
    }
    cells = result_cells(image, retrieved, result.image, generator.memory)
    if record is None:
        return cells, numbers
    size = generator.image_size
    if record.mask:
        truth = square_mask(decode_mask(record.mask), size)
    else:
        truth = square_flat(decode_image(record.flat, record.id), size)[1]
    numbers["iou"] = _iou(flat_mask(result.image), truth)
    numbers["retrieval_iou"] = _iou(generator.memory.landmarks[retrieved.rows[0]], truth)
    numbers["landmark_iou"] = _iou(retrieved.landmark, truth)
    cells.append(Cell(picture=decode_image(record.flat), title="truth", lines=(f"IoU {numbers['iou']:.3f}",)))
    return cells, numbers


def _iou(mask, truth) -> float:
    import jax.numpy as jnp

    from ragdiff_jax.retrieval.landmarks import iou

    return float(iou(jnp.asarray(mask), jnp.asarray(truth)))


def _summary(garments, seconds, loading: float, wall: float, arguments: argparse.Namespace) -> dict:
    def mean(name):
        values = [garment[name] for garment in garments if garment.get(name) is not None]
        return round(sum(values) / len(values), 4) if values else None

    stages = {name: round(sum(one[name] for one in seconds), 3) for name in seconds[0]}
    return {
        "garments": len(garments),
        "held_out": sum(garment["id"] is not None for garment in garments),
        "silhouette_iou": mean("iou"),
        "landmark_iou": mean("landmark_iou"),
        "retrieval_iou": mean("retrieval_iou"),
        "steps": arguments.steps,
        "seed": arguments.seed,
        "seconds": {"load": round(loading, 3), **stages, "wall": round(wall, 3)},
        "each": garments,
    }
