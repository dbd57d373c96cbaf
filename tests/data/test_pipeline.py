import dataclasses
import threading

import numpy as np
import pytest

from ragdiff_jax.data.attributes import attribute_ids
from ragdiff_jax.data.images import decode_image, encode_mask, encode_png
from ragdiff_jax.data.pipeline import PairArrays, PairShapes, global_rows, make_batches
from ragdiff_jax.data.records import PairRecord
from ragdiff_jax.errors import UserError

SIZE = 16


class Words:
    """A stand-in tokenizer: the caption's number, then zeros."""

    def encode(self, texts):
        ids = np.zeros((len(texts), 77), np.int32)
        ids[:, 0] = [int(text.split()[-1]) for text in texts]
        return ids


def record(row, *, partner=None, mask=True):
    flat = np.full((20, 10, 3), 255, np.uint8)
    flat[5:15, 2:8] = row
    return PairRecord(
        id=f"r{row}",
        photo=encode_png(np.full((12, 24, 3), 100 + row, np.uint8)),
        flat=encode_png(flat),
        mask=encode_mask(flat[..., 0] != 255) if mask else None,
        photo_attributes={"Fit": "Loose"},
        flat_attributes={"Category": "Hoodie" if row % 2 else "Tank"},
        caption=f"garment {row}",
        structure_partner=partner,
    )


@pytest.fixture
def source():
    # Twins 0-1, 2-3, ...; the partner of 9 is in no record, 10 has none and no mask.
    records = [record(row, partner=f"r{row ^ 1}") for row in range(9)]
    return [*records, record(9, partner="gone"), record(10, mask=False)]


def take(iterator, count):
    batches = [next(iterator) for _ in range(count)]
    iterator.close()
    return batches


def batches(source, count, **options):
    options = {"batch_size": 4, "seed": 3, "image_size": SIZE, "tokenizer": Words()} | options
    return take(make_batches(source, **options), count)


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_a_batch_holds_what_its_rows_hold(source):
    for batch in batches(source, 6):
        shapes = {name: (value.dtype.name, value.shape) for name, value in batch.items()}
        picture = ("uint8", (4, SIZE, SIZE, 3))
        assert shapes == {
            "photo": picture,
            "flat": picture,
            "partner_flat": picture,
            "mask": ("uint8", (4, SIZE, SIZE)),
        "partner_mask": ("uint8", (4, SIZE, SIZE)),
            "photo_mask": ("uint8", (4, SIZE, SIZE)),
            "has_photo_mask": ("bool", (4,)),
            "photo_attributes": ("int32", (4, 10)),
            "flat_attributes": ("int32", (4, 10)),
            "partner_flat_attributes": ("int32", (4, 10)),
            "has_partner": ("bool", (4,)),
            "text_ids": ("int32", (4, 77)),
            "row": ("int32", (4,)),
            "partner_row": ("int32", (4,)),
        }
        for place, row in enumerate(batch["row"]):
            partner = row ^ 1 if row < 8 else (9 if row == 8 else row)
            assert batch["partner_row"][place] == partner
            assert batch["has_partner"][place] == (row < 9)
            assert batch["text_ids"][place, 0] == row
            assert (batch["photo"][place] == 100 + row).all()  # its border is repeated
            assert batch["flat"][place][SIZE // 2, SIZE // 2, 0] == row
            assert batch["partner_flat"][place][SIZE // 2, SIZE // 2, 0] == partner
            assert (batch["flat"][place][:, :3] == 255).all()  # padded with white
            assert batch["mask"][place].sum() == 8 * 4 or row == 10
            expected = attribute_ids({"Category": "Hoodie" if partner % 2 else "Tank"})
            assert (batch["partner_flat_attributes"][place] == expected).all()


def test_missing_mask_is_found_from_the_flat_lay(source):
    arrays = PairArrays(source, image_size=SIZE, tokenizer=Words())
    assert (arrays[10]["mask"] == arrays[9]["mask"]).all()


@pytest.mark.parametrize("options", [{"num_threads": 0}, {"num_threads": 3}, {"cache": True}])
def test_order_depends_on_seed_and_step_alone(source, options):
    reference = batches(source, 7)
    assert all(same(a, b) for a, b in zip(reference, batches(source, 7, **options), strict=True))
    later = batches(source, 3, start_step=4, **options)
    assert all(same(a, b) for a, b in zip(reference[4:], later, strict=True))
    other = batches(source, 7, seed=4)
    assert [b["row"].tolist() for b in other] != [b["row"].tolist() for b in reference]


def test_processes_share_one_global_batch(source):
    whole = batches(source, 5)
    for places in ([0, 1], [2, 3], [0, 2], [3, 1, 0, 2]):
        for batch, part in zip(whole, batches(source, 5, places=np.array(places, np.int32)), strict=True):
            for name in batch:
                assert np.array_equal(batch[name][places], part[name]), name


def test_each_epoch_shows_each_row_once():
    rows = global_rows(10, 5, seed=0)
    epochs = [sorted(np.concatenate([rows(2 * e), rows(2 * e + 1)]).tolist()) for e in range(4)]
    assert epochs == [list(range(10))] * 4
    assert rows(0).tolist() != rows(2).tolist()
    assert global_rows(10, 5, seed=0)(10**7).shape == (5,)
    assert global_rows(1, 2, seed=0)(3).tolist() == [0, 0]
    # A neighbouring seed isn't the same run one epoch on.
    assert [rows(2).tolist(), rows(3).tolist()] != [global_rows(10, 5, seed=1)(s).tolist() for s in range(2)]


def test_what_is_not_asked_for_is_not_read(source):
    whole = PairArrays(source, image_size=SIZE, tokenizer=Words())
    rows = np.array([4, 8, 10])
    full = whole.batch(rows)
    wanted = ({"flat", "row"}, {"mask"}, {"photo", "has_photo_mask"}, {"has_partner"}, {"partner_mask"}, {"text_ids"})
    for fields in wanted:
        assert same(whole.batch(rows, fields), {name: full[name] for name in fields})
        cached = PairArrays(source, image_size=SIZE, tokenizer=Words(), cache=True)
        assert same(cached.batch(rows, fields), {name: full[name] for name in fields})
    # Of a record whose photo can't be read the flat-lay still can, and no partner is looked at.
    source[4] = dataclasses.replace(source[4], photo=b"none", structure_partner="r5")
    source[5] = dataclasses.replace(source[5], flat=b"none")
    whole.batch(rows, {"flat", "mask"})
    for fields, words in (({"photo"}, "photo of record r4"), ({"flat", "partner_flat"}, "flat-lay of record r5")):
        with pytest.raises(UserError, match=words):
            whole.batch(rows, fields)


def test_abandoned_iterator_leaves_no_threads(source):
    before = threading.active_count()
    for _ in range(5):
        batches(source, 1, num_threads=2)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.name.startswith("grain"):
            thread.join(timeout=5)
    assert threading.active_count() <= before + 2


def test_a_damaged_record_is_named(source):
    source[0] = PairRecord(id="broken-7", photo=source[0].photo[:40], flat=source[0].flat)
    with pytest.raises(UserError, match="photo of record broken-7"):
        batches(source, 6)


def test_a_mask_of_another_shape_is_named(source):
    source[3] = PairRecord(
        id="turned", photo=source[3].photo, flat=source[3].flat, mask=encode_mask(np.ones((10, 20), bool))
    )
    with pytest.raises(UserError, match="record turned: the mask is 20x10, the flat-lay 10x20"):
        batches(source, 6)


@pytest.mark.parametrize(
    "mask, words",
    [
        (np.zeros((20, 10), bool), "the mask marks nothing"),
        (np.ones((20, 10), bool), "the mask marks the whole picture"),
        (~np.pad(np.ones((6, 4), bool), ((7, 7), (3, 3))), "the mask marks all four corners; is it inverted"),
    ],
)
def test_a_mask_that_cannot_be_the_garment_is_named(source, mask, words):
    source[3] = dataclasses.replace(source[3], mask=encode_mask(mask))
    with pytest.raises(UserError, match=f"record {source[3].id}: {words}"):
        batches(source, 6)


def test_a_photo_mask_of_another_shape_is_named(source):
    height, width = decode_image(source[2].photo).shape[:2]
    turned = np.zeros((3 * width, 4 * height + 9 * width), bool)
    source[2] = dataclasses.replace(source[2], photo_mask=encode_mask(turned))
    with pytest.raises(UserError, match=f"record {source[2].id}: the photo_mask is {turned.shape[1]}x"):
        batches(source, 6)
    source[2] = dataclasses.replace(source[2], photo_mask=encode_mask(np.zeros((height, width), bool)))
    with pytest.raises(UserError, match=f"record {source[2].id}: the photo_mask marks nothing"):
        batches(source, 6)


def test_batches_and_sources_must_not_be_empty(source):
    with pytest.raises(UserError, match="batch size 0"):
        batches(source, 1, batch_size=0)
    with pytest.raises(UserError, match="no records"):
        batches([], 1)


def test_shapes_of_pairs_that_are_not_here_are_those_of_pairs_that_are():
    batch = PairArrays([record(0), record(1)], image_size=SIZE, tokenizer=Words()).batch(np.arange(2))
    shapes = PairShapes(SIZE, 77).abstract_batch(2)
    assert {name: (x.shape, x.dtype) for name, x in batch.items()} == {
        name: (x.shape, x.dtype) for name, x in shapes.items()
    }
