"""Real photos through the shipped model: do all go through, and what comes out?

    RAGDIFF_REAL_DATA=DIR python -m benchmarks.real_photos --out out/real

DIR has `wild/` (photos) and `flat_photo/`, `flat_white/`, `flat_mask/` (photo, cut-out and mask of one name); of these
pairs those are taken that `real_pairs.py` holds out of training. Writes a sheet of each kind and one JSON line of
numbers: failures, seconds, and for the pairs the IoU of the generated silhouette and of the landmark with the mask,
both brought to their bounding boxes (the model centres what it draws).
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np

from benchmarks.real_pairs import SHARES
from ragdiff_jax.data.folder import split_of
from ragdiff_jax.data.images import decode_mask, load_image, resize, save_image, square_mask
from ragdiff_jax.data.silhouettes import flat_mask
from ragdiff_jax.errors import UserError
from ragdiff_jax.pipelines.generate import GarmentGenerator
from ragdiff_jax.pipelines.panel import Cell, draw_panel, result_cells


def framed(mask: np.ndarray, size: int = 64) -> np.ndarray:
    """The mask's bounding box, stretched to a square: shape without place and scale."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.zeros((size, size), bool)
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    picture = np.repeat(np.where(box, 255, 0).astype(np.uint8)[..., None], 3, axis=2)
    return resize(picture, (size, size))[..., 0] > 127


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/real"))
    parser.add_argument("--count", type=int, default=30, help="photos of each kind")
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--memory", type=Path, default=None)
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    data = Path(os.environ["RAGDIFF_REAL_DATA"])
    assets = Path(__file__).parents[1] / "ragdiff_jax" / "assets"
    generator = GarmentGenerator.from_folders(arguments.model or assets / "tiny", arguments.memory or assets / "memory")
    arguments.out.mkdir(parents=True, exist_ok=True)
    record = {}
    for kind in ("wild", "flat_photo"):
        paths = sorted((data / kind).iterdir())
        if kind == "flat_photo":
            paths = [path for path in paths if split_of(path.stem, SHARES) == "test"]
        paths = paths[: arguments.count]
        rows, failures, shapes, landmarks, start = [], [], [], [], time.perf_counter()
        for path in paths:
            try:
                image = load_image(path)
                result = generator.generate([image], steps=arguments.steps)[0]
            except UserError as error:
                failures.append(str(error))
                continue
            cells = result_cells(image, result.retrieved, result.image, generator.memory)
            if kind == "flat_photo":
                truth = framed(square_mask(decode_mask((data / "flat_mask" / f"{path.stem}.png").read_bytes()), 256))
                shapes.append(iou(framed(flat_mask(result.image)), truth))
                landmarks.append(iou(framed(result.retrieved.landmark), truth))
                white = load_image(next((data / "flat_white").glob(f"{path.stem}.*")))
                cells.append(Cell(picture=white, title="cut-out"))
            rows.append(cells)
        save_image(arguments.out / f"{kind}.png", draw_panel(rows, cell=112))
        seconds = (time.perf_counter() - start) / len(paths)
        record[kind] = {"photos": len(paths), "failures": failures, "seconds_each": round(seconds, 2)}
        if shapes:
            record[kind] |= {"shape_iou": round(np.mean(shapes), 3), "landmark_iou": round(np.mean(landmarks), 3)}
    print(json.dumps(record))


if __name__ == "__main__":
    main()
