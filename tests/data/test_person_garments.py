"""People with their garments, and what stands for them where a run is only planned."""

import numpy as np

from ragdiff_jax.data.person_garments import Garments, PersonShapes, PersonsWithGarments
from ragdiff_jax.data.person_pipeline import PersonArrays
from ragdiff_jax.data.synth_people import synth_person


class Words:
    """Tokenizer and prompter of 7 ids."""

    def encode(self, texts, *rest, **options):
        return np.zeros((len(texts), 7), np.int32)


def test_planned_people_look_like_real_ones():
    records = [synth_person(row, size=32) for row in range(2)]
    database = Garments(records, 16)
    people = PersonArrays(records, shape=(32, 32), tokenizer=Words())
    real = PersonsWithGarments(people, database, np.zeros((2, 3), np.int32), Words(), most=3).batch(np.arange(2))
    planned = PersonShapes((32, 32), 16, 3, 7).abstract_batch(2)
    assert {name: (x.shape, x.dtype) for name, x in planned.items()} == {
        name: (x.shape, x.dtype) for name, x in real.items()
    }


def test_label_maps_are_read_once_for_the_rows_to_edit(monkeypatch):
    records = [synth_person(row, size=32) for row in range(3)]
    people = PersonArrays(records, shape=(32, 32), tokenizer=Words())
    asked = []
    monkeypatch.setattr(people, "can_be_edited", lambda row: asked.append(row) or row != 1)
    several = PersonsWithGarments(people, Garments(records, 16), np.zeros((3, 1), np.int32), Words(), most=1)
    assert several.rows().tolist() == several.rows().tolist() == [0, 2] and asked == [0, 1, 2]


class Watched:
    """A source that notes which rows are read."""

    def __init__(self, records):
        self.records, self.read = records, []

    def __len__(self):
        return len(self.records)

    def __getitem__(self, row):
        self.read.append(row)
        return self.records[row]


def test_squares_are_kept_up_to_the_limit_and_are_the_same_beyond():
    records = [synth_person(row, size=32) for row in range(4)]
    whole, source = Garments(records, 16), Watched(records)
    some = Garments(source, 16, keep_bytes=2 * 16 * 16 * 3 + 100)
    some.decode(3)  # isn't kept
    for _ in range(2):
        for row in range(4):
            np.testing.assert_array_equal(some[row], whole[row])
    assert source.read == [3, 0, 1, 2, 3, 2, 3]


def test_people_and_database_of_one_source_share_what_is_kept():
    source = Watched([synth_person(row, size=32) for row in range(2)])
    people, database = PersonArrays(source, shape=(32, 32), tokenizer=Words()), Garments(source, 16)
    shared = PersonsWithGarments(people, database, np.ones((2, 1), np.int32), Words(), most=1)
    assert shared.own is database
    others = PersonsWithGarments(people, Garments(source.records, 16), np.ones((2, 1), np.int32), Words(), most=1)
    assert others.own.source is source
    for name, expected in others.batch(np.arange(2)).items():
        np.testing.assert_array_equal(shared.batch(np.arange(2))[name], expected)
