import numpy as np
import pytest

from ragdiff_jax.data.images import decode_image, decode_indices
from ragdiff_jax.data.label_maps import CLASSES
from ragdiff_jax.data.person_folder import open_persons
from ragdiff_jax.data.person_pipeline import PersonArrays
from ragdiff_jax.data.synth.stage import LABELS
from ragdiff_jax.data.synth_dataset import synth_record
from ragdiff_jax.data.synth_people import prepare_synth_people, synth_person
from ragdiff_jax.errors import UserError

WORN = {"upper_body": ("upper",), "lower_body": ("skirt", "pants"), "dresses": ("dress",)}


class Words:
    def encode(self, texts):
        return np.zeros((len(texts), 4), np.int32)


@pytest.fixture(scope="module")
def people():
    return [synth_person(index, size=96) for index in range(12)]


def test_the_drawn_labels_are_ours():
    assert {name: CLASSES[name] for name in LABELS} == LABELS


def test_a_person_wears_the_garment_of_the_pair_record(people):
    for index in (0, 5):
        pair = synth_record(index, size=96)
        assert (people[index].garment, people[index].garment_id) == (pair.flat, pair.id)
        assert len(people[index].chunks) == 3 and people[index].caption == ", ".join(people[index].chunks)
        assert pair.category.lower() in people[index].caption


def test_masks_cover_the_drawn_garment_and_never_the_face(people):
    arrays = PersonArrays(people, shape=(96, 96), tokenizer=Words())
    noses = 0
    for row, record in enumerate(people):
        item, labels = arrays[row], decode_indices(record.label_map)
        garment = np.isin(labels, [CLASSES[name] for name in WORN[record.category]])
        assert garment.any() and item["mask"][garment].all(), record.id
        x, y, seen = item["keypoints"][0]
        if seen:
            noses += 1
            assert not item["mask"][int(y), int(x)], record.id
        assert not item["mask"][labels == CLASSES["hair"]].any()
    assert noses > 3 and {record.category for record in people} == set(WORN)


def test_the_files_hold_the_series(tmp_path):
    folder = prepare_synth_people(tmp_path, count=8, size=48, seed=3, splits={"train": 0.75, "test": 0.25})
    train, test = open_persons(folder, "train"), open_persons(folder, "test")
    assert (len(train), len(test)) == (6, 2)
    assert test[1] == synth_person(7, seed=3, size=48, split="test")
    assert decode_image(train[0].person).shape == (48, 48, 3)
    with pytest.raises(UserError, match="size 4 is too small"):
        prepare_synth_people(tmp_path, size=4)
