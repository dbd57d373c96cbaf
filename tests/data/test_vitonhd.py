import json

import drawn_people
import numpy as np
import pytest

from ragdiff_jax.data.images import decode_indices
from ragdiff_jax.data.label_maps import CLASSES
from ragdiff_jax.data.person_records import TfdsPersons
from ragdiff_jax.data.vitonhd import prepare_vitonhd
from ragdiff_jax.errors import UserError


@pytest.mark.parametrize("names", [("image-parse-v3", "openpose_json"), ("image-parse", "openpose-json")])
def test_both_releases_are_read_to_the_last_column(tmp_path, names):
    source = drawn_people.write_vitonhd(tmp_path / "in", labels_folder=names[0], poses_folder=names[1])
    done = prepare_vitonhd(source, tmp_path / "out", captions=source / "captions.json")
    assert done.counts == {"train": 4, "test": 4, "test_unpaired": 4}
    paired, unpaired = TfdsPersons(done.folder, "test")[0], TfdsPersons(done.folder, "test_unpaired")[0]
    assert (paired.id, paired.garment_id) == ("10000", "10000")
    assert (unpaired.id, unpaired.garment_id) == ("10000-10001", "10001")
    assert paired.person == unpaired.person == (source / "test/image/10000_00.jpg").read_bytes()
    assert paired.garment == (source / "test/cloth/10000_00.jpg").read_bytes()
    assert unpaired.garment == (source / "test/cloth/10001_00.jpg").read_bytes()
    assert TfdsPersons(done.folder, "test").mask_rules == "vitonhd"
    assert paired.category == "upper_body" and paired.chunks == ("white tee", "a top")
    # BODY-25 in a 768x1024 frame is COCO-18 in the 48x64 picture.
    np.testing.assert_allclose(paired.keypoints, drawn_people.keypoints() * (1 / 8, 1 / 8, 0.5), rtol=1e-6)
    labels, drawn = decode_indices(paired.label_map), drawn_people.small_labels()
    for name in ("upper", "pants", "head", "hair", "left arm", "right arm", "left leg", "left shoe", "right shoe"):
        np.testing.assert_array_equal(labels == CLASSES[name], drawn == CLASSES[name])


def test_training_pairs_a_person_with_their_own_garment(tmp_path):
    source = drawn_people.write_vitonhd(tmp_path / "in")
    done = prepare_vitonhd(source, tmp_path / "out", splits=["train"])
    assert [record.garment_id for record in TfdsPersons(done.folder, "train")] == ["00000", "00001", "00002", "00003"]


def test_known_duplicates_and_leaks_stay_out(tmp_path):
    source = drawn_people.write_vitonhd(tmp_path / "in")
    listed = {
        "test": {"duplicates": ["10001_00.jpg"], "leaked": ["10002_00.jpg"]},
        "train": {"duplicates": ["00003_00.jpg"]},
    }
    (tmp_path / "listed.json").write_text(json.dumps(listed))
    done = prepare_vitonhd(source, tmp_path / "out", splits=["train", "test"], exclude=tmp_path / "listed.json")
    assert done.counts == {"train": 3, "test": 2} and done.left_out == {"listed": 3}
    assert [record.id for record in TfdsPersons(done.folder, "test")] == ["10000", "10003"]


def test_same_pictures_are_found_without_a_list(tmp_path):
    source = drawn_people.write_vitonhd(tmp_path / "in")
    first = (source / "train/image/00000_00.jpg").read_bytes()
    for name in ("train/image/00002_00.jpg", "test/image/10001_00.jpg"):
        (source / name).write_bytes(first)
    done = prepare_vitonhd(source, tmp_path / "out", splits=["train", "test"], same_pictures=True)
    assert done.counts == {"train": 3, "test": 3} and done.left_out == {"same picture": 1, "leaked": 1}
    assert [record.id for record in TfdsPersons(done.folder, "train")] == ["00000", "00001", "00003"]
    assert [record.id for record in TfdsPersons(done.folder, "test")] == ["10000", "10002", "10003"]


def test_what_is_missing_is_told_with_the_layout(tmp_path):
    source = drawn_people.write_vitonhd(tmp_path / "in")
    (source / "test/cloth/10002_00.jpg").unlink()
    (source / "train_pairs.txt").unlink()
    with pytest.raises(UserError) as error:
        prepare_vitonhd(source, tmp_path / "out")
    for words in ("test/cloth/10002_00.jpg is missing", "train_pairs.txt is missing", "(or image-parse/)"):
        assert words in str(error.value), words
    with pytest.raises(UserError, match="nowhere: no such folder"):
        prepare_vitonhd(tmp_path / "nowhere", tmp_path / "out")
