import dataclasses
import json

import drawn_people
import numpy as np
import pytest

from ragdiff_jax.data.images import decode_image, encode_grey, encode_jpeg, encode_mask
from ragdiff_jax.data.label_maps import CLASSES, SCHEMES, convert_labels, decode_labels
from ragdiff_jax.data.person_folder import FolderPersons, open_persons
from ragdiff_jax.data.person_pipeline import PersonArrays
from ragdiff_jax.data.person_records import (
    PersonRecord,
    person_features,
    person_from_example,
    person_from_fields,
    person_to_example,
    retrieval_query,
)
from ragdiff_jax.data.pipeline import make_batches
from ragdiff_jax.errors import UserError

JOINTS = tuple((float(n), n + 0.5, 0.25) for n in range(18))
FULL = PersonRecord(
    id="upper_body/1-2",
    person=b"\xff\xd8\x00person",
    garment=b"\x89PNG\x00garment",
    category="upper_body",
    garment_id="upper_body/2",
    mask=b"\x00\x01",
    keypoints=JOINTS,
    label_map=b"\x00labels",
    caption="naïve top ☃, blue",
    chunks=("naïve top ☃", "blue"),
    split="test",
)
LEAST = person_from_fields({"id": "b", "person": b"p", "garment": b"g", "category": "dresses"})


class Words:
    """Token ids that tell which text was given."""

    def encode(self, texts):
        return np.array([[len(text), *map(ord, text[:3].ljust(3))] for text in texts], np.int32)


@pytest.mark.parametrize("record", [FULL, LEAST])
def test_records_round_trip_through_tfds_features(record):
    features = person_features()
    data = features.serialize_example(features.encode_example(person_to_example(record)))
    assert person_from_example(features.deserialize_example_np(data)) == record


def test_a_garment_without_its_own_id_has_the_records():
    assert LEAST.garment_id == "b" and not any(map(any, LEAST.keypoints)) and LEAST.mask is None


def test_the_query_is_the_sorted_first_chunks():
    assert retrieval_query(("red top", "a tee", "knit"), 2) == "a tee, knit"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"person": "text"}, ("'upper_body/1-2'", "person", "str")),
        ({"garment": b""}, ("garment", "empty")),
        ({"category": "hats"}, ("'hats'", "lower_body")),
        ({"keypoints": JOINTS[:17]}, ("18 rows",)),
        ({"keypoints": [[0, 0, float("nan")]] * 18}, ("finite",)),
        ({"keypoints": [["a"]] * 18}, ("18 rows",)),
        ({"chunks": ("a", 3)}, ("chunks", "3")),
        ({"colour": "red"}, ("colour",)),
    ],
)
def test_bad_fields_are_named(change, words):
    fields = {name: getattr(FULL, name) for name in FULL.__dataclass_fields__} | change
    with pytest.raises(UserError) as error:
        person_from_fields(fields)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_missing_and_damaged_fields_are_named():
    with pytest.raises(UserError, match="'x'.*garment is missing"):
        person_from_fields({"id": "x", "person": b"p", "category": "dresses"})
    example = person_to_example(FULL)
    with pytest.raises(UserError, match="chunks is missing"):
        person_from_example({name: value for name, value in example.items() if name != "chunks"})
    with pytest.raises(UserError, match="damaged"):
        person_from_example(example | {"chunks": "["})


def test_label_schemes_bring_ids_to_ours():
    lip = np.arange(20, dtype=np.uint8)[None]
    names = {id: name for name, id in CLASSES.items()}
    ours = [names[id] for id in convert_labels(lip, "vitonhd")[0]]
    assert ours[5:8] == ["upper", "dress", "upper"] and ours[9] == "pants" and ours[10] == "neck"
    assert ours[12:20] == [
        "skirt", "head", "left arm", "right arm", "left leg", "right leg", "left shoe", "right shoe",
    ]  # fmt: skip
    np.testing.assert_array_equal(SCHEMES["dresscode"], np.arange(len(CLASSES)))
    assert names[SCHEMES["ccp"][41]] == "skin" and names[SCHEMES["ccp"][42]] == "skirt"
    with pytest.raises(UserError, match="m.png: has label 99.*vitonhd labels are 0 to 19"):
        convert_labels(np.full((2, 2), 99, np.uint8), "vitonhd", "m.png")
    with pytest.raises(UserError, match="scheme 'cihp'"):
        convert_labels(lip, "cihp")


def test_label_maps_are_read_by_index_and_colours_are_refused():
    from PIL import Image

    drawn = drawn_people.small_labels()
    assert (decode_labels(encode_grey(drawn)) == drawn).all()
    palette = Image.fromarray(drawn)
    palette.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())  # as the releases have them
    import io

    buffer = io.BytesIO()
    palette.save(buffer, "PNG")
    assert (decode_labels(buffer.getvalue()) == drawn).all()
    for data, words in (
        (encode_jpeg(np.zeros((8, 8, 3), np.uint8)), "JPEG of mode RGB"),
        (b"", "empty"),
        (buffer.getvalue()[:-80], "damaged"),
        (b"text", "not a picture"),
    ):
        with pytest.raises(UserError, match=f"l.png: .*{words}"):
            decode_labels(data, name="l.png")


@pytest.fixture
def folder(tmp_path):
    for name in ("people", "garments", "label_maps", "masks", "keypoints"):
        (tmp_path / name).mkdir()
    lines = []
    for number in range(20):
        stem, category = f"p{number}", ("upper_body", "dresses")[number % 2]
        (tmp_path / f"people/{stem}.JPG").write_bytes(drawn_people.picture(number, (128, 96)))
        (tmp_path / f"garments/{stem}.png").write_bytes(drawn_people.picture(number + 100, (60, 60)))
        worn = ("pants", "dress")[number % 2]
        (tmp_path / f"label_maps/{stem}.png").write_bytes(encode_grey(drawn_people.small_labels(worn)))
        lines.append({"image": f"people/{stem}.JPG", "category": category, "caption": f"top {number}"})
    mask = np.zeros((128, 96), bool)
    mask[40:80, 20:60] = True
    (tmp_path / "masks/p3.png").write_bytes(encode_mask(mask))
    rows = drawn_people.keypoints() * (0.25, 0.25, 1)
    people = {"people": [{"pose_keypoints_2d": rows.ravel().tolist()}]}
    (tmp_path / "keypoints/p4.json").write_text(json.dumps(people))
    lines[5]["chunks"] = ["red top", "knit"]
    (tmp_path / "people.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def test_a_folder_becomes_records(folder):
    people = FolderPersons(folder)
    records = {record.id: record for record in (people[row] for row in range(len(people)))}
    assert len(records) == 20
    assert records["p3"].mask and records["p4"].mask is None
    np.testing.assert_allclose(records["p4"].keypoints, drawn_people.keypoints() * (0.25, 0.25, 1))
    assert records["p5"].chunks == ("red top", "knit") and records["p5"].caption == "top 5"
    assert (records["p4"].category, records["p5"].category) == ("upper_body", "dresses")
    one = open_persons(folder, "train")
    assert 0 < len(one) < 20 and one[0].split == "train"


def test_every_mismatch_is_listed_at_once(folder):
    (folder / "garments/p3.png").unlink()
    (folder / "keypoints/lost.json").write_text("{}")
    (folder / "label_maps/p6.jpg").write_bytes(b"x")
    (folder / "people/p7.png").write_bytes(b"x")
    with (folder / "people.jsonl").open("a") as file:
        file.write('\n{"image": "people/nobody.jpg", "category": "dresses"}\n[\n{"image": "people/p1.JPG"}\n{"a": 1}')
    text = (folder / "people.jsonl").read_text().replace('"upper_body", "caption": "top 8"', '"hat", "caption": ""')
    (folder / "people.jsonl").write_text(text)
    with pytest.raises(UserError) as error:
        FolderPersons(folder)
    for words in (
        "people/p3.JPG has no garment",
        "keypoints/lost.json belongs to no person",
        "label_maps/p6.jpg is not one of .png",
        "people/p7.png has the name of p7.JPG",
        "line 21 describes 'people/nobody.jpg', which isn't there",
        "line 22 is not JSON",
        "line 23 describes 'people/p1.JPG' again",
        "line 24 is not an object",
        "category 'hat'",
    ):
        assert words in str(error.value), words
    assert "\n" not in str(error.value)


def test_arrays_fit_the_picture_and_move_the_joints(folder):
    people = FolderPersons(folder)
    rows = {people[row].id: row for row in range(20)}
    arrays = PersonArrays(people, shape=(64, 64), tokenizer=Words(), cache=True)
    item = arrays[rows["p4"]]
    assert item["person"].shape == item["garment"].shape == (64, 64, 3) and item["mask"].shape == (64, 64)
    assert item["person"].dtype == item["mask"].dtype == np.uint8 and set(np.unique(item["mask"])) == {0, 1}
    # 96x128 becomes 48x64, with 8 columns on either side that repeat the border.
    whole = decode_image(people[rows["p4"]].person)
    assert (item["person"][:, :8] == item["person"][:, 8:9]).all() and whole.shape == (128, 96, 3)
    np.testing.assert_allclose(item["keypoints"][0], (192 / 8 + 8, 72 / 8, 1))
    assert not item["mask"][5:10, 30:34].any() and item["mask"][16:30, 28:36].all()  # face, chest
    assert item["category"] == 0 and item["text_ids"][0] == len("top 4")
    own = arrays[rows["p3"]]["mask"]  # the user's mask goes before the label map
    assert own[21:39, 19:37].all() and own.sum() < 21 * 21
    box = PersonArrays(people, shape=(64, 48), tokenizer=Words(), mask_mode="bounding_box")
    assert (
        box[rows["p4"]]["mask"].sum()
        > PersonArrays(people, shape=(64, 48), tokenizer=Words())[rows["p4"]]["mask"].sum()
    )


def test_batches_of_people(folder):
    arrays = PersonArrays(
        FolderPersons(folder), shape=(64, 48), tokenizer=Words(), prompt=lambda record: record.category
    )
    stream = make_batches(arrays, batch_size=8, seed=0)
    batch = next(stream)
    stream.close()
    assert batch["person"].shape == (8, 64, 48, 3) and batch["keypoints"].shape == (8, 18, 3)
    assert len(set(batch["row"])) == 8 and batch["text_ids"][0, 0] in (len("upper_body"), len("dresses"))


def test_a_record_that_cannot_be_masked_is_named(folder):
    (folder / "label_maps/p0.png").unlink()
    (folder / "label_maps/p1.png").write_bytes(encode_grey(np.zeros((16, 12), np.uint8)))
    (folder / "label_maps/p2.png").write_bytes(encode_grey(drawn_people.small_labels().T.copy()))
    (folder / "masks/p5.png").write_bytes(encode_mask(np.zeros((128, 96), bool)))
    people = FolderPersons(folder)
    rows = {people[row].id: row for row in range(20)}
    arrays = PersonArrays(people, shape=(64, 48), tokenizer=Words())
    for stem, words in (
        ("p0", "record p0: has neither a mask nor a label map"),
        ("p1", "record p1: the label map shows nothing to change for dresses"),
        ("p2", "record p2: the label map is 64x48, the person 96x128"),
        ("p5", "record p5: the mask marks nothing"),
    ):
        with pytest.raises(UserError, match=words):
            arrays[rows[stem]]


def test_a_damaged_person_is_named_before_editing():
    labels = encode_grey(np.zeros((16, 12), np.uint8))
    record = dataclasses.replace(FULL, person=b"\xff\xd8\xff", mask=None, label_map=labels)
    with pytest.raises(UserError, match="^person of record upper_body/1-2: "):
        PersonArrays([record], shape=(64, 48), tokenizer=Words()).can_be_edited(0)


def test_wrong_folders_are_named(tmp_path, folder):
    with pytest.raises(UserError, match="neither people/"):
        open_persons(tmp_path / "nothing", "train")
    with pytest.raises(UserError, match="no split 'tran'"):
        open_persons(folder, "tran")
    (folder / "people.jsonl").unlink()
    with pytest.raises(UserError, match="people.jsonl: cannot be read"):
        open_persons(folder, "train")
