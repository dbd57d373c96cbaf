"""What a bad flat-lay, and an id that is taken, cost a memory that is being built or added to."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from ragdiff_jax.data.images import decode_mask
from ragdiff_jax.data.synth_dataset import synth_record
from ragdiff_jax.errors import UserError
from ragdiff_jax.pipelines.garment_database import _check_writable, garments_of_memory, garments_of_people
from ragdiff_jax.pipelines.memory_builder import MemoryBuilder, flat_lays_of_folder, flat_lays_of_pairs
from ragdiff_jax.retrieval import Memory


class Builder(MemoryBuilder):
    """With vectors of a few pixels in the place of an encoder's."""

    def __init__(self):
        self.params, self.batch_size, self.dim, self.size, self.thumbnail = {}, 2, 4, 32, 16
        self.fingerprint, self.encoded = "0" * 64, 0

    def _embeddings(self, images, attributes):
        self.encoded += len(images)
        return images.reshape(len(images), -1)[:, :4].astype(np.float32) + 1


@pytest.fixture(scope="module")
def records():
    return [synth_record(row, size=32) for row in range(6)]


def test_a_damaged_record_is_reported_and_left_out(records, tmp_path):
    damaged = [records[0], dataclasses.replace(records[1], flat=b"broken"), records[2]]
    with pytest.raises(UserError, match=records[1].id):
        list(flat_lays_of_pairs(damaged))
    failed = []
    flats = flat_lays_of_pairs(damaged, on_error=lambda name, error: failed.append((name, str(error))))
    memory = Builder().build(tmp_path / "memory", flats)
    assert [item.id for item in memory.items] == [records[0].id, records[2].id]
    ((name, why),) = failed
    assert name == "record 1" and records[1].id in why


def test_masks_of_a_folder_have_any_ending_and_the_pictures_shape(records, tmp_path):
    (tmp_path / "masks").mkdir()
    for number, record in enumerate(records[:3]):
        (tmp_path / f"{number}.png").write_bytes(record.flat)
    mask = np.zeros((32, 32, 3), np.uint8)
    mask[8:20, 10:22] = 255
    Image.fromarray(mask).save(tmp_path / "masks/0.JPG", quality=95)
    Image.fromarray(mask[:, :16]).save(tmp_path / "masks/1.png")  # of the picture before it was turned
    failed = []
    flats = flat_lays_of_folder(tmp_path, lambda path: {}, lambda name, error: failed.append(str(error)))
    items = list(Builder().items(flats, lambda name, error: failed.append(str(error))))
    assert [item.id for item in items] == ["0", "2"] and decode_mask(items[0].landmark.png).sum() == 144
    assert failed == ["1: the mask is 16x32, the flat-lay 32x32; they must have one shape"]
    Image.fromarray(mask).save(tmp_path / "masks/2_mask.png")
    with pytest.raises(UserError, match="2_mask.png: the mask of no picture in .*1 such masks"):
        next(flat_lays_of_folder(tmp_path, lambda path: {}, lambda *_: None))


def test_a_damaged_garment_of_people_too():
    @dataclasses.dataclass
    class Person:
        id: str
        garment: bytes
        garment_id: str
        category: str = "upper_body"
        caption: str = ""

    good = synth_record(0, size=32).flat
    people, failed = [Person("a", b"", "a"), Person("b", good, "b"), Person("c", good, "b"), Person("d", good, "a")], []
    found = garments_of_people(people, "train", lambda name, error: failed.append(name))
    assert [flat.id for flat in found] == ["b", "a"] and failed == ["record 0"], "the other copy is whole"


def test_an_add_is_one_change_and_a_taken_id_is_found_before_the_work(records, tmp_path, monkeypatch):
    monkeypatch.setattr("ragdiff_jax.pipelines.memory_builder.SEGMENT", 2)
    builder = Builder()
    memory = builder.build(tmp_path / "memory", flat_lays_of_pairs(records[:1]))
    generation = memory.generation
    builder.encoded = 0
    with pytest.raises(UserError, match="id is taken"):
        builder.add(memory, flat_lays_of_pairs(records))
    for replace in (False, True):
        with pytest.raises(UserError, match="two of the new garments"):
            builder.add(memory, flat_lays_of_pairs([records[1], records[1], *records[2:]]), replace=replace)
    assert builder.encoded == 0 and len(Memory.open(tmp_path / "memory")) == 1
    assert builder.add(memory, flat_lays_of_pairs(records[1:])) == 5
    assert memory.generation == generation + 1 and len(Memory.open(tmp_path / "memory")) == 6


def test_a_memory_for_editing_says_what_it_lacks(records, tmp_path):
    plain = (dataclasses.replace(flat, metadata={}) for flat in flat_lays_of_pairs(records))
    memory = Builder().build(tmp_path / "memory", plain)
    with pytest.raises(UserError, match="--attributes"):
        list(garments_of_memory(memory))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="RAGDIFF_CACHE"):
        _check_writable(tmp_path / "file" / "garments")
