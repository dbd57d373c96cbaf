"""How well a model predicts attributes: accuracy of each, and what serving would say of it.

    python benchmarks/attributes.py --model DIR --dataset DIR            prints one JSON object a line, an attribute
    python benchmarks/attributes.py --model DIR --dataset DIR --write    and keeps the calibration in the model folder

The model folder has an `image_encoder` (a whole system's, or that of the `clip` stage) or a StructureNet with a head.
Scale and threshold are found on the photos of `--calibrate` and measured on those of `--split`: `accuracy` of the
nearest prompt, or of the head, beside `chance` (1 / values) and `commonest` (always saying the commonest value);
`said`: the share of photos whose value reaches the threshold, `right`: the share of these that is right.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np

from ragdiff_jax.data.attributes import ATTRIBUTES, STRUCTURAL, attribute_ids
from ragdiff_jax.data.folder import open_pairs
from ragdiff_jax.data.images import decode_image, square
from ragdiff_jax.systems.attribute_head import HeadAttributes
from ragdiff_jax.systems.zero_shot import ZeroShotAttributes, calibrate, known_rows, softmax
from ragdiff_jax.weights.folder import read_model_json
from ragdiff_jax.weights.model_folder import (
    IMAGE_ENCODER,
    load_head,
    load_zero_shot,
    read_calibration,
    write_calibration,
)

BATCH = 16


def measure(predictor: ZeroShotAttributes | HeadAttributes, folder: Path, split: str, limit: int, size: int):
    """({attribute: cosines [n, values]}, ids [n, 10]) of a split's photos, nothing given."""
    source = open_pairs(folder, split)
    records = [source[row] for row in range(min(limit, len(source)))]
    found = []
    for start in range(0, len(records), BATCH):
        part = records[start : start + BATCH]
        photos = [square(decode_image(record.photo, record.id), size, fill="edge") for record in part]
        full = np.stack([*photos, *photos[:1] * (BATCH - len(photos))])  # one size, one compilation
        cosines, _ = predictor.scores(full, [None] * BATCH)
        found.append({name: rows[: len(part)] for name, rows in cosines.items()})
    ids = np.stack([attribute_ids(record.photo_attributes, record.id) for record in records])
    return {name: np.concatenate([some[name] for some in found]) for name in STRUCTURAL}, ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--calibrate", default="validation", help="split (default %(default)s)")
    parser.add_argument("--split", default="test", help="split (default %(default)s)")
    parser.add_argument("--limit", type=int, default=512, help="photos of each (default %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="pixels a side, as the model's (default %(default)s)")
    parser.add_argument("--write", action="store_true", help="keep the calibration in the model folder")
    arguments = parser.parse_args()
    clip = IMAGE_ENCODER in read_model_json(arguments.model).parts
    predictor = load_zero_shot(arguments.model) if clip else load_head(arguments.model)
    part = arguments.model / (IMAGE_ENCODER if clip else "structure_net")
    common = (arguments.limit, arguments.size)
    start = read_calibration(part)
    scores, ids = measure(predictor, arguments.dataset, arguments.calibrate, *common)
    calibration = calibrate(scores, ids, start, scales=predictor.scales)
    cosines, ids = measure(predictor, arguments.dataset, arguments.split, *common)
    for column, name in enumerate(STRUCTURAL):
        own, known = calibration[name], known_rows(ids, name)
        record = {"attribute": name, "photos": int(known.sum()), **dataclasses.asdict(own)}
        if known.any():
            truth, likely = ids[known, column] - 1, softmax(cosines[name][known], own.scale)
            right = likely.argmax(axis=1) == truth
            said = likely.max(axis=1) >= (2.0 if own.threshold is None else own.threshold)
            record |= {
                "accuracy": round(float(right.mean()), 3),
                "chance": round(1 / len(ATTRIBUTES[name]), 3),
                "commonest": round(float(np.bincount(truth).max() / len(truth)), 3),
                "said": round(float(said.mean()), 3),
                "right": round(float(right[said].mean()), 3) if said.any() else None,
            }
        print(json.dumps(record), flush=True)
    if arguments.write:
        write_calibration(part, calibration)


if __name__ == "__main__":
    main()
