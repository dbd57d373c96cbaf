"""Partners are alike in shape and unlike in colour, and training sees them."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ragdiff_jax.cli.main import main
from ragdiff_jax.data.sources import open_sources, read_partners
from ragdiff_jax.errors import UserError
from ragdiff_jax.training.from_config import open_pairs

COLOURS = ("navy", "red", "gold", "black")


def draw(width, fill):
    picture = Image.new("RGB", (96, 96), "white")
    pen = ImageDraw.Draw(picture)
    pen.rectangle(((96 - width) // 2, 20, (96 + width) // 2, 84), fill=fill)
    pen.rectangle((4, 20, 92, 36), fill=fill)
    return picture


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Three widths in four colours, and a navy twin of one of them: alike, but of the same colour."""
    folder = tmp_path_factory.mktemp("pairs")
    for name in ("photos", "flats"):
        (folder / name).mkdir()
        for width in (20, 44, 70):
            for colour in COLOURS:
                draw(width, colour).save(folder / name / f"{width}-{colour}.png")
        draw(20, "navy").save(folder / name / "20-navy2.png")
    return folder


def test_partners_have_the_shape_and_another_colour(pairs, tmp_path, capsys):
    out = tmp_path / "partners.jsonl"
    call = ["data", "partners", "--dataset", str(pairs), "--split", "all", "--out", str(out), "--json"]
    assert main(call) == 0
    assert json.loads(capsys.readouterr().out)["with_partner"] == 13
    for id, partner in read_partners(out).items():
        (width, colour), (other_width, other_colour) = id.split("-"), partner.split("-")
        assert width == other_width and colour.rstrip("2") != other_colour.rstrip("2")
    line = json.loads(out.read_text().splitlines()[0])
    assert line["similarity"] > 0.9 and line["texture_difference"] >= 0.5

    records = open_sources(str(pairs), "train", partners=str(out))
    assert records[0].structure_partner == read_partners(out)[records[0].id]
    data = {"folder": str(pairs), "image_size": 32, "partners": str(out), "decoded": str(tmp_path / "decoded")}
    arrays = open_pairs(data, "train")
    rows = [row for row in range(len(arrays)) if read_partners(out)[arrays.ids[row]] in arrays.ids]
    assert rows
    batch = arrays.batch(np.array(rows))
    assert batch["has_partner"].all()
    partner = [arrays.ids.index(read_partners(out)[arrays.ids[row]]) for row in rows]
    np.testing.assert_array_equal(batch["partner_row"], partner)
    np.testing.assert_array_equal(batch["partner_mask"], arrays.batch(np.array(partner))["mask"])


def test_bad_files_of_partners_are_named(tmp_path):
    file = tmp_path / "partners.jsonl"
    for text, words in (("nonsense", "line 1"), ('{"id": "a"}', "line 1"), ('{"id":"a","structure_partner":3}', "'a'")):
        file.write_text(text)
        with pytest.raises(UserError, match=words):
            read_partners(file)
    with pytest.raises(UserError, match="data partners"):
        read_partners(tmp_path / "absent")
