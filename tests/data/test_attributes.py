"""The attribute table and the file that users write: ids must not move, mistakes must be named."""

import json

import numpy as np
import pytest

from ragdiff_jax.data.attributes import (
    ATTRIBUTE_SIZES,
    ATTRIBUTES,
    STRUCTURAL,
    attribute_ids,
    read_attributes,
)
from ragdiff_jax.errors import UserError


def test_table_has_14_attributes_of_which_10_are_structural_in_the_papers_order():
    assert len(ATTRIBUTES) == 14
    assert STRUCTURAL == tuple(name for name in ATTRIBUTES if name in STRUCTURAL) and len(STRUCTURAL) == 10
    assert ATTRIBUTE_SIZES == (30, 4, 18, 6, 24, 7, 3, 3, 3, 3)
    assert all(len(set(values)) == len(values) for values in ATTRIBUTES.values())


def test_ids_are_those_that_trained_tables_were_trained_with():
    ids = attribute_ids({"Category": "Hoodie", "Collar": "Hooded", "Top Open": "No", "Print": "Striped"})
    assert ids.dtype == np.int32
    assert ids.tolist() == [2, 0, 7, 0, 0, 0, 0, 0, 2, 0]
    assert attribute_ids({}).tolist() == [0] * 10
    assert attribute_ids({"Category": "Shorts"})[0] == ATTRIBUTE_SIZES[0] - 1


def test_unknown_value_is_named_with_its_nearest_valid_one():
    with pytest.raises(UserError, match=r"'Category' can't be 'hoody'; did you mean 'Hoodie'"):
        attribute_ids({"Category": "hoody"})
    with pytest.raises(UserError, match=r"unknown attribute 'Colar'; did you mean 'Collar'"):
        attribute_ids({"Colar": "Round"})
    with pytest.raises(UserError, match="valid: Loose, Regular, Slim"):
        attribute_ids({"Fit": "zzzz"})


def test_file_round_trip(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [
        {"image": "a.jpg", "attributes": {"Category": "Polo", "Fit": ""}, "caption": "polo", "by": 1},
        {"image": "b.jpg", "attributes": {}},
    ]
    path.write_text("\n\n".join(json.dumps(line) for line in lines) + "\n")
    records = read_attributes(path)
    assert records["a.jpg"]["attributes"] == {"Category": "Polo"}
    assert records["a.jpg"]["caption"] == "polo"
    assert list(records) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"image": "a", "attributes": {"Fit": "Tight"}}', "line 2: attribute 'Fit' can't be 'Tight'"),
        ("{oops", "line 2: not JSON"),
        ("[1]", "line 2: expected an object"),
        ('{"attributes": {}}', "line 2: 'image' must be"),
        ('{"image": "ok"}', "line 2: image 'ok' was already"),
        ('{"image": "a", "attributes": ["Fit"]}', "line 2: attributes must be an object"),
        ('{"image": "a", "caption": 3}', "line 2: 'caption' must be text"),
        ('{"image": "a", "attributes": {"Fit": ["Loose"]}}', r"line 2: attribute 'Fit' can't be \['Loose'\]"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path, text, message):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"image": "ok", "attributes": {}}\n' + text + "\n")
    with pytest.raises(UserError, match=r"bad\.jsonl " + message):
        read_attributes(path)


def test_unreadable_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="can't read"):
        read_attributes(tmp_path / "missing.jsonl")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match="not UTF-8"):
        read_attributes(tmp_path / "binary")
    with pytest.raises(UserError, match="can't read"):
        read_attributes(tmp_path)
