import json

import numpy as np
import pytest

from ragdiff_jax.data.folder import FolderPairs, open_pairs
from ragdiff_jax.data.images import decode_mask, encode_jpeg, encode_mask, encode_png
from ragdiff_jax.data.pipeline import make_batches
from ragdiff_jax.errors import UserError


def add(folder, stem, *, mask=False):
    picture = np.full((20, 30, 3), 255, np.uint8)
    picture[5:15, 10:20] = sum(map(ord, stem)) % 200
    for name in ("photos", "flats", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "photos" / f"{stem}.JPG").write_bytes(encode_jpeg(picture))
    (folder / "flats" / f"{stem}.png").write_bytes(encode_png(picture))
    if mask:
        (folder / "masks" / f"{stem}.png").write_bytes(encode_mask(picture[..., 0] < 255))


@pytest.fixture
def folder(tmp_path):
    for number in range(40):
        add(tmp_path, f"g{number}", mask=number % 2 == 0)
    (tmp_path / "photos" / ".DS_Store").write_bytes(b"x")
    lines = [
        {"image": "photos/g1.JPG", "attributes": {"Category": "Hoodie"}, "caption": "a grey hoodie"},
        {
            "image": "flats/g1.png",
            "attributes": {"Category": "Sweater", "Fit": "Loose"},
            "caption": "not this one",
            "structure_partner": "g2",
        },
    ]
    (tmp_path / "attributes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def test_pairs_become_records(folder):
    pairs = FolderPairs(folder)
    records = {record.id: record for record in (pairs[row] for row in range(len(pairs)))}
    assert len(records) == 40
    one = records["g1"]
    assert (
        one.photo == (folder / "photos/g1.JPG").read_bytes()
        and one.flat == (folder / "flats/g1.png").read_bytes()
    )
    assert (one.photo_attributes, one.flat_attributes) == (
        {"Category": "Hoodie"},
        {"Category": "Sweater", "Fit": "Loose"},
    )
    assert (one.caption, one.category, one.structure_partner) == ("a grey hoodie", "Sweater", "g2")
    assert one.mask is None and records["g2"].mask and records["g2"].caption == ""


def test_splits_divide_the_pairs_and_stay(folder):
    names = {
        split: {record.id for record in FolderPairs(folder, split, {"train": 0.7, "test": 0.3})}
        for split in ("train", "test")
    }
    assert (
        names["train"] | names["test"] == {f"g{n}" for n in range(40)} and not names["train"] & names["test"]
    )
    assert 4 <= len(names["test"]) <= 20
    add(folder, "a-new-one")
    for split in names:
        assert names[split] <= {
            record.id for record in FolderPairs(folder, split, {"train": 0.7, "test": 0.3})
        }


def test_batches_from_a_folder(folder):
    class Words:
        def encode(self, texts):
            return np.zeros((len(texts), 77), np.int32)

    stream = make_batches(FolderPairs(folder), batch_size=40, seed=0, image_size=32, tokenizer=Words())
    batch = next(stream)
    stream.close()
    assert not batch["has_photo_mask"].any() and not batch["photo_mask"].any()
    # With and without a mask file: the same silhouette, from the flat-lay's white.
    assert batch["mask"].any() and (batch["mask"] == batch["mask"][:1]).mean() > 0.98
    assert batch["has_partner"].sum() == 1


def test_where_the_garment_is_in_the_photo_may_be_given(folder):
    seen = np.zeros((24, 16), bool)
    seen[4:20, 2:9] = True
    (folder / "photo_masks").mkdir()
    (folder / "photo_masks/g2.png").write_bytes(encode_mask(seen))
    records = {record.id: record for record in FolderPairs(folder)}
    np.testing.assert_array_equal(decode_mask(records["g2"].photo_mask), seen)
    assert records["g1"].photo_mask is None
    (folder / "photo_masks/lost.png").write_bytes(encode_mask(seen))
    with pytest.raises(UserError, match=r"photo_masks/lost\.png belongs to no pair"):
        FolderPairs(folder)


def test_every_mismatch_is_listed_at_once(folder):
    (folder / "flats/g3.png").unlink()
    (folder / "photos/g4.JPG").unlink()
    (folder / "photos/notes.txt").write_text("hello")
    (folder / "flats/g5.jpg").write_bytes(b"x")
    (folder / "masks/lost.png").write_bytes(b"x")
    with (folder / "attributes.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"image": "g7.JPG", "attributes": {}}))
        file.write("\n" + json.dumps({"image": "flats/g8.png", "attributes": {}, "structure_partner": "zz"}))
        file.write("\n" + json.dumps({"image": "flats/g7.png", "attributes": {}, "structure_partner": ["g8"]}))
    with pytest.raises(UserError) as error:
        FolderPairs(folder)
    for words in (
        "g3.JPG has no flat-lay",
        "g4.png has no photo",
        "notes.txt is not a picture",
        "g5.png has the name of g5.jpg",
        "lost.png belongs to no pair",
        "'g7.JPG'",
        "partner 'zz'",
        "partner ['g8']",
    ):
        assert words in str(error.value), words
    assert "\n" not in str(error.value)


def test_wrong_folders_are_named(tmp_path, folder):
    with pytest.raises(UserError, match="neither"):
        open_pairs(tmp_path / "nothing", "train")
    with pytest.raises(UserError, match="no split 'tran'"):
        open_pairs(folder, "tran")
    (tmp_path / "half/photos").mkdir(parents=True)
    with pytest.raises(UserError, match="flats: no such folder"):
        open_pairs(tmp_path / "half", "train")
    (tmp_path / "half/flats").mkdir()
    with pytest.raises(UserError, match="no pairs"):
        open_pairs(tmp_path / "half", "train")


def test_an_empty_picture_is_named(folder):
    (folder / "photos/g9.JPG").write_bytes(b"")
    pairs = FolderPairs(folder)
    with pytest.raises(UserError, match="photos/g9.JPG: is empty"):
        list(pairs)
