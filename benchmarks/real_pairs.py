"""Real pairs as two folder data sets, one to train on and one held out, split by a hash of the name (1 to 4).

    RAGDIFF_REAL_DATA=DIR python benchmarks/real_pairs.py --out runs/real_pairs [--size 160]

DIR has `flat_photo/`, `flat_white/`, `flat_mask/` (photo, cut-out and mask of one name) and `MANIFEST.csv` with the
columns `file` and `category`. Writes OUT/train and OUT/test, each with photos/, flats/, masks/, photo_masks/ and
attributes.jsonl.
"""

import argparse
import csv
import json
import os
from pathlib import Path

from ragdiff_jax.data.folder import split_of
from ragdiff_jax.data.images import decode_mask, encode_jpeg, encode_mask, encode_png, load_image, square, square_mask

SHARES = {"test": 0.16, "train": 0.84}  # of a data set whose names hash below 0.8: 1 to 4
# The clothing data set's words in Table 6's.
CATEGORIES = {
    "T-Shirt": "T-shirt", "Longsleeve": "Sweater", "Polo": "Polo", "Shirt": "Shirt", "Hoodie": "Hoodie",
    "Outwear": "Jacket", "Blazer": "Suit", "Undershirt": "Tank", "Body": "Innerwear", "Dress": "Dress",
    "Skirt": "Skirt", "Pants": "Trousers", "Shorts": "Shorts",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/real_pairs"), metavar="DIR")
    parser.add_argument("--size", type=int, default=160, help="pixels a side (default %(default)s)")
    arguments = parser.parse_args()
    data, size = Path(os.environ["RAGDIFF_REAL_DATA"]), arguments.size
    with open(data / "MANIFEST.csv", newline="") as file:
        classes = {Path(row["file"]).stem: row["category"] for row in csv.DictReader(file)}
    counts = dict.fromkeys(SHARES, 0)
    lines = {split: [] for split in SHARES}
    for photo in sorted((data / "flat_photo").iterdir()):
        split = split_of(photo.stem, SHARES)
        counts[split] += 1
        white = next((data / "flat_white").glob(f"{photo.stem}.*"))
        mask = decode_mask((data / "flat_mask" / f"{photo.stem}.png").read_bytes(), photo.stem)
        pictures = {
            "photos": (encode_jpeg(square(load_image(photo), size, fill="edge"), quality=92), "jpg"),
            "flats": (encode_png(square(load_image(white), size, fill="white")), "png"),
            "masks": (encode_mask(square_mask(mask, size)), "png"),
            "photo_masks": (encode_mask(square_mask(mask, size)), "png"),  # a cut-out lies as it does in the photo
        }
        for folder, (blob, ending) in pictures.items():
            place = arguments.out / split / folder / f"{photo.stem}.{ending}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(blob)
        category = CATEGORIES.get(classes.get(photo.stem, ""))
        attributes = {"Category": category} if category else {}
        for image in (f"photos/{photo.stem}.jpg", f"flats/{photo.stem}.png"):
            lines[split].append(json.dumps({"image": image, "attributes": attributes, "caption": ""}))
    for split, of_split in lines.items():
        (arguments.out / split / "attributes.jsonl").write_text("\n".join(of_split) + "\n")
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
