"""A memory changes what can be made without training: R 6.1's bottoms, with the shipped weights."""

from pathlib import Path

import numpy as np
import pytest

import ragdiff_jax
from ragdiff_jax.data.images import decode_image
from ragdiff_jax.data.synth_dataset import synth_record
from ragdiff_jax.pipelines.generate import GarmentGenerator
from ragdiff_jax.pipelines.memory_builder import MemoryBuilder, flat_lays_of_pairs

TINY = Path(ragdiff_jax.__file__).parent / "assets" / "tiny"
SEED = 4_242  # garments that no training has seen


@pytest.fixture(scope="module")
def records():
    """(twelve tops, five trousers): different garments, no structure twins."""
    tops, trousers = [], []
    for number in range(0, 400, 2):
        record = synth_record(number, seed=SEED, size=64)
        (trousers if record.category == "Trousers" else tops).append(record)
        if len(trousers) == 5:
            break
    return [record for record in tops if record.category not in ("Shorts", "Skirt")][:12], trousers


def test_added_garments_are_retrieved_and_become_the_landmark(records, tmp_path):
    tops, trousers = records
    builder = MemoryBuilder.from_folder(TINY)
    memory = builder.build(tmp_path / "memory", flat_lays_of_pairs(tops))
    photo, known = decode_image(trousers[0].photo), trousers[0].photo_attributes

    def retrieve():
        return GarmentGenerator.from_folders(TINY, tmp_path / "memory").retrieve([photo], [known])[0]

    before = retrieve()
    assert set(before.ids) <= {record.id for record in tops}
    builder.add(memory, flat_lays_of_pairs(trousers[1:]))
    after = retrieve()
    assert set(after.ids) == {record.id for record in trousers[1:]}
    own = memory.landmarks[memory.row(after.ids[after.choice])]
    assert np.array_equal(after.landmark, own) and not np.array_equal(after.landmark, before.landmark)
