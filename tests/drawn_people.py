"""Parametric people, label maps and keypoints in the real layouts, for the tests: drawn, not copied."""

import json

import numpy as np

from ragdiff_jax.data.images import encode_grey, encode_jpeg
from ragdiff_jax.data.label_maps import CLASSES

# A person of usual size in a 512x384 picture: (label, top, bottom, left, right), later ones over earlier ones.
_TOP = (
    ("hair", 20, 60, 165, 219),
    ("head", 40, 110, 172, 212),  # face and neck
    ("left arm", 110, 270, 240, 266),
    ("right arm", 110, 270, 118, 144),
    ("left leg", 270, 470, 198, 226),
    ("right leg", 270, 470, 158, 186),
    ("left shoe", 470, 495, 198, 232),
    ("right shoe", 470, 495, 152, 186),
)
_WORN = {
    "pants": (("upper", 105, 260, 144, 240), ("pants", 255, 400, 154, 230)),
    "skirt": (("upper", 105, 260, 144, 240), ("skirt", 255, 360, 134, 250)),
    "dress": (("dress", 105, 360, 140, 244),),
}
_JOINTS = (
    (192, 72), (192, 112), (150, 115), (132, 180), (130, 236), (234, 115), (252, 180), (254, 236),
    (172, 265), (172, 360), (172, 460), (212, 265), (212, 360), (212, 460), (186, 66), (198, 66), (176, 70), (208, 70),
)  # fmt: skip


def labels(worn="pants"):
    """uint8 [512, 384] in Dress Code's ids; `worn`: pants, skirt or dress."""
    drawn = np.zeros((512, 384), np.uint8)
    for name, top, bottom, left, right in _TOP + _WORN[worn]:
        drawn[top:bottom, left:right] = CLASSES[name]
    return drawn


def keypoints():
    """float32 [18, 3] of that person, all found."""
    return np.array([(x, y, 1) for x, y in _JOINTS], np.float32)


def picture(seed, shape=(64, 48)):
    """JPEG bytes: a coloured figure on a coloured ground."""
    rng = np.random.default_rng(seed)
    image = np.empty((*shape, 3), np.uint8)
    image[:] = rng.integers(0, 256, 3)
    image[shape[0] // 4 :, shape[1] // 4 : -shape[1] // 4] = rng.integers(0, 256, 3)
    return encode_jpeg(image)


def small_labels(worn="pants", step=8):
    """The same person in a small map."""
    return labels(worn)[::step, ::step]


def write_dresscode(folder, *, people=3, categories=("upper_body", "lower_body", "dresses")):
    """Dress Code's layout with `people` in train and in test of each category; every file name and column."""
    captions = {}
    for place, category in enumerate(categories):
        for name in ("images", "keypoints", "label_maps", "cleaned_inshop_imgs"):
            (folder / category / name).mkdir(parents=True, exist_ok=True)
        ids = [f"{place + 1:03d}{number:03d}" for number in range(2 * people)]
        for number, own in enumerate(ids):
            base, seed = folder / category, 100 * place + number
            (base / f"images/{own}_0.jpg").write_bytes(picture(seed))
            (base / f"images/{own}_1.jpg").write_bytes(picture(seed + 50))
            (base / f"cleaned_inshop_imgs/{own}_1_cleaned.jpg").write_bytes(picture(seed + 60))
            rows = [[*row, index] for index, row in enumerate(keypoints().astype(float).tolist())]
            rows[4] = [0.0, 0.0, 0.0, 4.0]  # a wrist that wasn't found
            (base / f"keypoints/{own}_2.json").write_text(json.dumps({"keypoints": rows}))
            worn = {"upper_body": "pants", "lower_body": "skirt", "dresses": "dress"}[category]
            (base / f"label_maps/{own}_4.png").write_bytes(encode_grey(small_labels(worn)))
            captions[own] = [f"plain garment {own}", "a short top", "blue thing"]
        train, test = ids[:people], ids[people:]
        pairs = {
            "train_pairs": zip(train, train, strict=True),
            "test_pairs_paired": zip(test, test, strict=True),
            "test_pairs_unpaired": zip(test, test[1:] + test[:1], strict=True),
        }
        for name, lines in pairs.items():
            text = "\r\n".join(f"{person}_0.jpg\t{garment}_1.jpg" for person, garment in lines)
            (folder / category / f"{name}.txt").write_text(text)  # no line end at the end, as in the release
    fine = {key: value for key, value in captions.items() if not key.endswith("0")}
    fine["001001"] = ["too", "few"]
    coarse = {key: value for key, value in captions.items() if key.endswith("0")} | {"001001": ["from", "the coarse"]}
    (folder / "fine_captions.json").write_text(json.dumps(fine))
    (folder / "coarse_captions.json").write_text(json.dumps(coarse))
    return folder


def write_vitonhd(folder, *, people=4, labels_folder="image-parse-v3", poses_folder="openpose_json"):
    """VITON-HD's layout with `people` in train and in test."""
    lip = {4: 5, 6: 9, 11: 13, 2: 2, 14: 14, 15: 15, 12: 16, 13: 17, 9: 18, 10: 19, 0: 0}
    ids = np.zeros(256, np.uint8)
    ids[list(lip)] = list(lip.values())
    body_25 = np.insert(keypoints()[:15], 8, (192, 265, 1), 0)
    body_25 = np.concatenate([body_25, keypoints()[15:], np.zeros((6, 3))]) * (2, 2, 0.5)
    for place, phase in enumerate(("train", "test")):
        names = [f"{place}{number:04d}_00" for number in range(people)]
        for part in ("image", "cloth", labels_folder, poses_folder):
            (folder / phase / part).mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(names):
            (folder / phase / f"image/{name}.jpg").write_bytes(picture(1000 * place + number))
            (folder / phase / f"cloth/{name}.jpg").write_bytes(picture(1000 * place + number + 500))
            (folder / phase / labels_folder / f"{name}.png").write_bytes(encode_grey(ids[small_labels()]))
            pose = {"version": 1.3, "people": [{"pose_keypoints_2d": body_25.ravel().tolist()}]}
            (folder / phase / poses_folder / f"{name}_keypoints.json").write_text(json.dumps(pose))
        lines = [f"{one}.jpg {other}.jpg\n" for one, other in zip(names, names[1:] + names[:1], strict=True)]
        (folder / f"{phase}_pairs.txt").write_text("".join(lines))
    chunks = {f"{place}{number:04d}": ["white tee", "a top"] for place in (0, 1) for number in range(people)}
    (folder / "captions.json").write_text(json.dumps(chunks))
    return folder
