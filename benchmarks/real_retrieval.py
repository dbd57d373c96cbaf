"""Retrieval on real garments: flat-lays with masks and mock-ups as database, photos held out of training as queries.

    RAGDIFF_REAL_DATA=DIR python -m benchmarks.real_retrieval --model MODEL --out out/real_retrieval

DIR is that of `real_pairs.py`, with `wild/` and `mockups/` besides. The database holds every cut-out and mock-up; a
query's own cut-out never counts. Queries are the pairs that `real_pairs.py` holds out: once as photographed, and once
with the garment warped, lit anew and partly covered on a photo of `wild/`. Each is an `evaluate retrieval`.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
from scipy import ndimage

from ragdiff_jax.cli.main import main as ragdiff
from ragdiff_jax.data.folder import split_of
from ragdiff_jax.data.images import decode_mask, encode_jpeg, encode_mask, encode_png, load_image, square, square_mask

SHARES = {"test": 0.16, "train": 0.84}  # as real_pairs.py


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a structure_net, photo_tower or RAGDiffusion folder")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="not there yet")
    parser.add_argument("--size", type=int, default=160, help="pixels a side of what is written (default %(default)s)")
    parser.add_argument("--landmark", type=int, default=64, help="pixels a side of silhouettes (default %(default)s)")
    arguments = parser.parse_args()
    data = Path(os.environ["RAGDIFF_REAL_DATA"])
    held_out = write_folders(data, arguments.out, arguments.size)
    database, memory = arguments.out / "database", arguments.out / "memory"
    build = ["memory", "build", "--flats", str(database), "--model", arguments.model, "--out", str(memory)]
    ragdiff([*build, "--size", str(arguments.landmark)])
    for kind in ("photos", "composed"):
        out = arguments.out / f"retrieval_{kind}"
        call = ["evaluate", "retrieval", "--dataset", str(arguments.out / kind), "--split", "all"]
        code = ragdiff([*call, "--model", arguments.model, "--memory", str(memory), "--seeds", "1", "--out", str(out)])
        if code:
            raise SystemExit(code)
        row = json.loads((out / "results.json").read_text())["retrieval"][0]
        iou = {name: round(row[name]["iou"], 3) for name in ("random", "unknown", "oracle")}
        iou["landmark"] = round(row["unknown"]["landmark_iou"], 3)
        way = {name: round(row["unknown"][f"{name}_way"], 3) for name in ("iou", "landmark_iou")}
        print(json.dumps({"queries": kind, "photos": held_out, "database": row["memory"], "iou": iou, "way": way}))


def write_folders(data: Path, out: Path, size: int) -> int:
    """OUT/database (flats, masks/), OUT/photos and OUT/composed (pairs); returns how many are held out."""
    wild = sorted((data / "wild").iterdir())
    rng = np.random.default_rng(0)
    held_out = 0
    for photo in sorted((data / "flat_photo").iterdir()):
        name = photo.stem
        white = square(load_image(next((data / "flat_white").glob(f"{name}.*"))), size, fill="white")
        mask = square_mask(decode_mask((data / "flat_mask" / f"{name}.png").read_bytes(), name), size)
        save(out / "database" / f"{name}.png", encode_png(white))
        save(out / "database" / "masks" / f"{name}.png", encode_mask(mask))
        if split_of(name, SHARES) != "test":
            continue
        held_out += 1
        ground, cover = (square(load_image(wild[row]), size, fill="edge") for row in rng.integers(0, len(wild), 2))
        seen = {"photos": square(load_image(photo), size, fill="edge")}
        seen["composed"] = composed(white, mask, ground, cover, rng)
        for kind, picture in seen.items():
            save(out / kind / "photos" / f"{name}.jpg", encode_jpeg(picture))
            save(out / kind / "flats" / f"{name}.png", encode_png(white))
            save(out / kind / "masks" / f"{name}.png", encode_mask(mask))
    for path in sorted((data / "mockups").rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            name = "-".join(path.relative_to(data / "mockups").with_suffix(".png").parts)
            save(out / "database" / name, encode_png(square(load_image(path), size, fill="white")))
    return held_out


def composed(garment, mask, ground, cover, rng):
    """The garment turned, scaled, moved and bent on `ground`, in light from a side, a sixth of it under `cover`."""
    size = len(mask)
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    angle, scale = rng.uniform(-0.35, 0.35), rng.uniform(1.0, 1.35)
    at = np.stack([np.cos(angle) * rows - np.sin(angle) * columns, np.sin(angle) * rows + np.cos(angle) * columns])
    bend = rng.uniform(0.0, 0.025, 2)[:, None, None] * np.sin(
        2 * np.pi * (rng.uniform(1, 2.5) * np.stack([columns, rows]) + rng.uniform(0, 1, 2)[:, None, None])
    )
    place = ((at * scale + bend + rng.uniform(-0.06, 0.06, 2)[:, None, None]) + 0.5) * size
    moved = np.stack(
        [ndimage.map_coordinates(garment[..., c].astype(np.float32), place, order=1, cval=255) for c in range(3)], -1
    )
    soft = ndimage.map_coordinates(mask.astype(np.float32), place, order=1)[..., None]
    way = rng.uniform(-np.pi, np.pi)
    light = rng.uniform(0.7, 1.2) + rng.uniform(0.2, 0.6) * (np.cos(way) * rows + np.sin(way) * columns)
    tint = rng.uniform(0.9, 1.1, 3)
    picture = soft * moved * light[..., None] * tint + (1 - soft) * ground
    # A square patch of another photo over a part of the garment.
    inside = np.argwhere(soft[..., 0] > 0.5)
    if len(inside):
        side = int(np.sqrt(len(inside) / 6))
        top, left = np.clip(inside[rng.integers(len(inside))] - side // 2, 0, size - side)
        picture[top : top + side, left : left + side] = cover[top : top + side, left : left + side]
    return picture.clip(0, 255).round().astype(np.uint8)


def save(path: Path, blob: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(blob)


if __name__ == "__main__":
    main()
