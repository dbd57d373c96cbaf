import json

import drawn_people
import numpy as np
import pytest

from ragdiff_jax.data.dresscode import dresscode_rows, prepare_dresscode
from ragdiff_jax.data.images import decode_image, decode_indices, encode_jpeg
from ragdiff_jax.data.person_folder import open_persons
from ragdiff_jax.data.person_pipeline import PersonArrays
from ragdiff_jax.data.person_records import TfdsPersons
from ragdiff_jax.errors import UserError


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return drawn_people.write_dresscode(tmp_path_factory.mktemp("dresscode"))


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory):
    return prepare_dresscode(source, tmp_path_factory.mktemp("out"))


def test_every_file_and_column_is_read(source, prepared):
    assert prepared.counts == {"train": 9, "test": 9, "test_unpaired": 9} and not prepared.left_out
    record = open_persons(prepared.folder, "train")[0]
    assert (record.id, record.garment_id, record.category) == ("upper_body/001000", "upper_body/001000", "upper_body")
    assert record.person == (source / "upper_body/images/001000_0.jpg").read_bytes()
    assert record.garment == (source / "upper_body/images/001000_1.jpg").read_bytes()
    np.testing.assert_array_equal(decode_indices(record.label_map), drawn_people.small_labels())
    # 384x512 in the file, 48x64 in the picture.
    joints = drawn_people.keypoints() * (1 / 8, 1 / 8, 1)
    joints[4] = 0
    np.testing.assert_allclose(record.keypoints, joints, rtol=1e-6)
    assert record.chunks == ("plain garment 001000", "a short top", "blue thing")
    assert record.caption == "plain garment 001000, a short top, blue thing"


def test_coarse_captions_stand_in_for_fine_ones(prepared):
    records = {record.id: record for record in TfdsPersons(prepared.folder, "train")}
    assert records["upper_body/001001"].chunks == ("from", "the coarse")  # fine has two chunks only


def test_unpaired_rows_show_another_garment_and_its_caption(source, prepared):
    record = TfdsPersons(prepared.folder, "test_unpaired")[0]
    assert (record.id, record.garment_id) == ("upper_body/001003-001004", "upper_body/001004")
    assert record.person == (source / "upper_body/images/001003_0.jpg").read_bytes()
    assert record.garment == (source / "upper_body/images/001004_1.jpg").read_bytes()
    assert record.chunks[0] == "plain garment 001004" and record.split == "test_unpaired"


def test_every_record_has_a_mask(prepared):
    class Words:
        def encode(self, texts):
            return np.zeros((len(texts), 77), np.int32)

    arrays = PersonArrays(TfdsPersons(prepared.folder, "test"), shape=(64, 48), tokenizer=Words())
    batch = arrays.batch(np.arange(9))
    shares = batch["mask"].mean((1, 2))
    assert (0.05 < shares).all() and (shares < 0.5).all() and set(batch["category"]) == {0, 1, 2}


def test_choices(source, tmp_path):
    some = prepare_dresscode(
        source, tmp_path, splits=["test"], categories=["dresses"], garments="cleaned", captions=False, height=32
    )
    record = TfdsPersons(some.folder, "test")[0]
    assert some.counts == {"test": 3} and record.id == "dresses/003003" and record.caption == ""
    assert decode_image(record.person).shape == (32, 24, 3) and decode_indices(record.label_map).shape == (32, 24)
    np.testing.assert_allclose(record.keypoints[0], (192 / 16, 72 / 16, 1))
    cleaned = decode_image((source / "dresses/cleaned_inshop_imgs/003003_1_cleaned.jpg").read_bytes())
    assert np.abs(decode_image(record.garment).astype(int) - cleaned[::2, ::2]).mean() < 20
    again = prepare_dresscode(
        source, tmp_path, splits=["test"], categories=["dresses"], garments="cleaned", captions=False, height=32
    )
    assert again.folder == some.folder
    assert prepare_dresscode(source, tmp_path, splits=["test"], captions=False).folder != some.folder


def test_rows_that_are_left_out_are_counted(tmp_path):
    source = drawn_people.write_dresscode(tmp_path / "in", categories=("dresses",))
    pairs = source / "dresses/train_pairs.txt"
    pairs.write_text(pairs.read_text() + "\n001000_0.jpg 001000_1.jpg\n")
    coarse = json.loads((source / "coarse_captions.json").read_text())
    fine = json.loads((source / "fine_captions.json").read_text())
    coarse.pop("001001")
    (source / "coarse_captions.json").write_text(json.dumps(coarse))
    (source / "fine_captions.json").write_text(json.dumps(fine | {"001001": ["two", "chunks"]}))
    (tmp_path / "x.json").write_text(json.dumps({"test": {"duplicates": ["001004_0.jpg"], "leaked": ["001005_1.jpg"]}}))
    # A copy of another encoding, and a test person who is in training.
    image = decode_image((source / "dresses/images/001000_0.jpg").read_bytes())
    for name in ("001002_0.jpg", "001003_0.jpg"):
        (source / f"dresses/images/{name}").write_bytes(encode_jpeg(image, quality=80))
    done = prepare_dresscode(
        source,
        tmp_path / "out",
        categories=["dresses"],
        splits=["train", "test_unpaired"],
        exclude=tmp_path / "x.json",
    )
    # Unpaired rows are 3 with 4, 4 with 5, 5 with 3; the list names the person and the garment of the second.
    assert done.left_out == {"repeated": 1, "without caption": 1, "listed": 1}
    names = [record.id for record in TfdsPersons(done.folder, "train")]
    assert names == ["dresses/001000", "dresses/001002"]
    assert [record.id for record in TfdsPersons(done.folder, "test_unpaired")] == [
        "dresses/001003-001004",
        "dresses/001005-001003",
    ]
    less = prepare_dresscode(
        source, tmp_path / "out", categories=["dresses"], splits=["train", "test"], same_pictures=True
    )
    assert (less.left_out["same picture"], less.left_out["leaked"]) == (1, 1)
    assert [record.id for record in TfdsPersons(less.folder, "test")] == ["dresses/001004", "dresses/001005"]


def test_all_missing_files_and_bad_lines_are_listed_before_anything_is_written(tmp_path):
    source = drawn_people.write_dresscode(tmp_path / "in")
    for name in (
        "upper_body/images/001000_1.jpg",
        "dresses/keypoints/003003_2.json",
        "lower_body/test_pairs_paired.txt",
    ):
        (source / name).unlink()
    with (source / "dresses/train_pairs.txt").open("a") as file:
        file.write("\n../../etc/passwd 003000_1.jpg\n003001_0.jpg\n")
    with pytest.raises(UserError) as error:
        prepare_dresscode(source, tmp_path / "out")
    for words in (
        "upper_body/images/001000_1.jpg is missing",
        "dresses/keypoints/003003_2.json is missing",
        "lower_body/test_pairs_paired.txt is missing",
        "train_pairs.txt line 4 is '../../etc/passwd 003000_1.jpg', not a pair",
        "train_pairs.txt line 5 is '003001_0.jpg'",
        "expected: {upper_body,lower_body,dresses}/",
    ):
        assert words in str(error.value), words
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_all_damaged_files_are_listed_and_nothing_is_left(tmp_path):
    source = drawn_people.write_dresscode(tmp_path / "in", categories=("upper_body",))
    picture = (source / "upper_body/images/001001_0.jpg").read_bytes()
    (source / "upper_body/images/001001_0.jpg").write_bytes(picture[:-60])
    (source / "upper_body/label_maps/001002_4.png").write_bytes(encode_jpeg(np.zeros((64, 48, 3), np.uint8)))
    (source / "upper_body/keypoints/001004_2.json").write_text('{"keypoints": []}')
    with pytest.raises(UserError) as error:
        prepare_dresscode(source, tmp_path / "out", categories=["upper_body"], splits=["train", "test"])
    for words in ("001001_0.jpg: is damaged", "001002_4.png: is a JPEG", "001004_2.json: has no 18 rows"):
        assert words in str(error.value), words
    assert "\n" not in str(error.value)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"splits": ["validation"]}, "split 'validation'"),
        ({"categories": ["hats"]}, "category 'hats'"),
        ({"categories": []}, "no category"),
        ({"garments": "worn"}, "garments 'worn'"),
        ({"exclude": "missing.json"}, "missing.json: cannot be read"),
    ],
)
def test_bad_choices_are_named(source, options, words):
    with pytest.raises(UserError, match=words):
        dresscode_rows(source, **options)


@pytest.mark.parametrize("content", ["[]", "{", '{"1": "text"}', '{"1": [2]}'])
def test_bad_caption_files_are_named(tmp_path, content):
    (tmp_path / "fine_captions.json").write_text(content)
    with pytest.raises(UserError, match="fine_captions.json: .*copy"):
        dresscode_rows(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{", '{"train": ["a"]}', '{"train": {"duplicates": "a"}}'])
def test_bad_exclusion_lists_are_named(source, tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match="x.json: is no list of files"):
        dresscode_rows(source, exclude=tmp_path / "x.json")
