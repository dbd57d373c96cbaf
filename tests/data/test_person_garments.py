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
