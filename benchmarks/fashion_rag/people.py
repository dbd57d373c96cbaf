"""`ragdiff edit` on street photos with parse maps: does each go through, from its map and from a box?"""

import time
from pathlib import Path

import numpy as np

from ragdiff_jax.data.images import load_image, save_image
from ragdiff_jax.data.inpainting_masks import box_mask, inpainting_mask
from ragdiff_jax.data.label_maps import decode_labels
from ragdiff_jax.errors import UserError
from ragdiff_jax.pipelines.edit import Person, PersonEditor
from ragdiff_jax.pipelines.edit_panel import edit_cells
from ragdiff_jax.pipelines.panel import draw_panel

ASSETS = Path(__file__).parents[2] / "ragdiff_jax" / "assets"
TEXTS = {
    "upper_body": ("a plain shirt in red", "a striped sweater in navy and white", "a plain hoodie in green"),
    "lower_body": ("a plain skirt in burgundy", "plain trousers in beige", "plain shorts in denim blue"),
    "dresses": ("a floral dress in pink", "a plain dress in black", "a plain dress in teal"),
}


def run(arguments):
    """Every photo, categories and texts in turn: the mask of its parse map, then the box around it."""
    if not arguments.real:
        raise UserError("RAGDIFF_REAL_DATA: name the folder that holds people/")
    folder = Path(arguments.real) / "people"
    memory = arguments.memory or ASSETS / "memory"
    editor = PersonEditor.from_folders(arguments.model, memory, batch_size=8)
    people, failures, start = [], [], time.perf_counter()
    for number, path in enumerate(sorted((folder / "photos").iterdir())[: arguments.count]):
        labels = decode_labels((folder / "parse" / f"{path.stem}.png").read_bytes(), "ccp", path.stem)
        # The garment that the person wears most of, so that every photo has one.
        categories = sorted(TEXTS, key=lambda name: -_area(labels, name))
        try:
            image, category = load_image(path), categories[0]
            mask = inpainting_mask(labels, category)
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1
            text = TEXTS[category][number % 3]
            for kind in (mask, box_mask(box, mask.shape)):
                people.append(Person(image=image, mask=kind, category=category, text=text))
        except UserError as error:
            failures.append(f"{path.name}: {error}")
    results = editor.edit(people, steps=arguments.steps)
    outside = [
        int(np.abs(r.image.astype(int) - p.image)[~p.mask].max(initial=0)) for r, p in zip(results, people, strict=True)
    ]
    rows = [edit_cells(p.image, r) for p, r in zip(people[::2], results[::2], strict=True)]
    for page in range(0, len(rows), 20):
        save_image(arguments.out / f"people-{page // 20}.png", draw_panel(rows[page : page + 20], cell=128))
    boxes = [edit_cells(p.image, r) for p, r in zip(people[1::2], results[1::2], strict=True)]
    save_image(arguments.out / "people-boxes.png", draw_panel(boxes[:20], cell=128))
    return {
        "edits": len(results),
        "failures": failures,
        "changed_outside_of_255": max(outside),
        "categories": {name: sum(p.category == name for p in people[::2]) for name in TEXTS},
        "seconds_each": round((time.perf_counter() - start) / max(1, len(results)), 2),
    }


def _area(labels, category):
    try:
        return int(inpainting_mask(labels, category).sum())
    except UserError:
        return 0
