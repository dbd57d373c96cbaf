import pytest

from ragdiff_jax.data.records import (
    PairRecord,
    decode_record,
    encode_record,
    from_example,
    record_from_fields,
    to_example,
)
from ragdiff_jax.errors import UserError

FULL = PairRecord(
    id="a-1",
    photo=b"\xff\xd8\x00photo",
    flat=b"\x89PNG\x00flat",
    mask=b"\x00\x01",
    photo_mask=b"\x00\x02",
    photo_attributes={"Category": "Hoodie"},
    flat_attributes={"Category": "Hoodie", "Fit": "Loose"},
    caption="a red hoodie, naïve ☃",
    category="Hoodie",
    structure_partner="a-2",
    split="test",
)


@pytest.mark.parametrize("record", [FULL, PairRecord(id="b", photo=b"p", flat=b"f")])
def test_bytes_round_trip(record):
    assert decode_record(encode_record(record)) == record
    assert from_example(to_example(record)) == record


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"photo": "text"}, ("'a-1'", "photo", "str", "bytes")),
        ({"photo": b""}, ("'a-1'", "photo", "empty")),
        ({"id": ""}, ("id", "empty")),
        ({"caption": None}, ("'a-1'", "caption", "NoneType")),
        ({"flat_attributes": {"Fit": 3}}, ("'a-1'", "flat_attributes", "'Fit'", "3")),
        ({"colour": "red"}, ("'a-1'", "colour")),
    ],
)
def test_bad_fields_are_named(change, words):
    fields = {name: getattr(FULL, name) for name in FULL.__dataclass_fields__} | change
    with pytest.raises(UserError) as error:
        record_from_fields(fields)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_missing_field_is_named():
    with pytest.raises(UserError, match="'x'.*flat is missing"):
        record_from_fields({"id": "x", "photo": b"p"})


@pytest.mark.parametrize("data", [b"", b"not a record", b"\x0a\xff\xff"])
def test_foreign_bytes_are_refused(data):
    with pytest.raises(UserError):
        decode_record(data)
