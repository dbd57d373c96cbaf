"""What is checked before any work: names of results, places to write, descriptions."""

import json
import os
from pathlib import Path

import pytest

from ragdiff_jax.cli.errors import Report
from ragdiff_jax.cli.inputs import listed_photos, model_folder, prepare_out, read_descriptions, result_stems
from ragdiff_jax.cli.main import main
from ragdiff_jax.errors import UserError

ENDINGS = (".png", "_panel.png")


def test_results_of_photos_of_one_name_do_not_overwrite_each_other(tmp_path):
    photos = [Path("a/shirt.jpg"), Path("b/shirt.png"), Path("c/Shirt.jpg")]
    assert result_stems(photos, ENDINGS, tmp_path) == ["shirt", "shirt-2", "Shirt-3"]


def test_thousands_of_photos_of_one_name_are_numbered(tmp_path):
    photos = [Path(f"{number}/front.jpg") for number in range(20_000)]
    stems = result_stems(photos, ENDINGS, tmp_path)
    assert len(set(stems)) == len(photos) and stems[-1] == "front-20000"


def test_a_photo_named_like_another_ones_panel_gets_its_own_name(tmp_path):
    stems = result_stems([Path("shirt.jpg"), Path("shirt_panel.jpg")], ENDINGS, tmp_path)
    written = [stem + ending for stem in stems for ending in ENDINGS]
    assert len(set(written)) == len(written)


def test_a_result_never_overwrites_a_photo(tmp_path):
    with pytest.raises(UserError, match="another --out"):
        result_stems([tmp_path / "shirt.png"], ENDINGS, tmp_path)


def test_out_that_is_a_file_is_named(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="out: cannot be written"):
        prepare_out(tmp_path / "out")


def test_a_run_without_model_is_told_from_a_folder_that_is_none(tmp_path):
    with pytest.raises(UserError, match="no such model folder"):
        model_folder(tmp_path / "absent")
    with pytest.raises(UserError, match="no model.json"):
        model_folder(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="has written no model/ yet"):
        model_folder(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("{}")
    assert model_folder(tmp_path) == tmp_path / "model"


def write_lines(path, *records):
    path.write_text("\n".join(json.dumps(record) for record in records))
    return path


def test_a_bad_value_costs_only_the_photo_that_it_describes(tmp_path):
    file = write_lines(
        tmp_path / "a.jsonl",
        {"image": "good.jpg", "attributes": {"Category": "Hoodie"}, "caption": "a hoodie"},
        {"image": "bad.jpg", "attributes": {"Category": "Hoody"}},
    )
    described = read_descriptions(file, [Path("x/good.jpg"), Path("bad.jpg"), Path("other.jpg")])
    assert described.of(Path("x/good.jpg")).attributes == {"Category": "Hoodie"}
    assert described.of(Path("other.jpg")).attributes == {}
    with pytest.raises(UserError, match="line 2.*'Hoodie'"):
        described.of(Path("bad.jpg"))


@pytest.mark.parametrize("category", ["Hoodie", "Hoody"])
def test_the_file_of_pairs_describes_their_photos(tmp_path, category):
    file = write_lines(
        tmp_path / "attributes.jsonl",
        {"image": "photos/a.jpg", "attributes": {"Category": "Skirt"}},
        {"image": "flats/a.png", "attributes": {"Category": "Suit"}},
        {"image": "photos/b.jpg", "attributes": {"Category": category}},
    )
    described = read_descriptions(file, [Path("pairs/photos/a.jpg")])
    assert described.of(Path("pairs/photos/a.jpg")).attributes == {"Category": "Skirt"}
    flats = read_descriptions(file, [Path("pairs/flats/a.png")], "flats")
    assert flats.of(Path("pairs/flats/a.png")).attributes == {"Category": "Suit"}
    if category == "Hoody":  # a mistake costs only its own photo
        with pytest.raises(UserError, match="line 3"):
            described.of(Path("b.jpg"))


def test_descriptions_of_other_pictures_are_a_mistake(tmp_path):
    file = write_lines(tmp_path / "a.jsonl", {"image": "other.jpg", "attributes": {}})
    with pytest.raises(UserError, match="describes none of the pictures.*'shirt.jpg'"):
        read_descriptions(file, [Path("shirt.jpg")])


def test_a_broken_description_file_is_named_with_its_line(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"image": "shirt.jpg", "attributes": {"Category": "Hoody"}}\n{broken')
    with pytest.raises(UserError, match="a.jsonl line"):
        read_descriptions(file, [Path("shirt.jpg")])
    with pytest.raises(UserError, match="absent.jsonl"):
        read_descriptions(tmp_path / "absent.jsonl", [Path("shirt.jpg")])


def test_a_name_that_is_no_text_or_too_long_costs_only_itself(tmp_path, capfd):
    odd = os.fsdecode(b"caf\xe9.jpg")
    assert listed_photos([Path("x" * 5000), Path(odd)]) == [Path("x" * 5000), Path(odd)]
    report = Report(as_json=True)
    report.error(UserError(f"{odd}: no such file"), odd)
    report.result({"input": "größe.jpg"}, "")
    lines = capfd.readouterr().out.splitlines()
    assert [json.loads(line)["input"] for line in lines] == [odd, "größe.jpg"]


def test_flags_are_written_out_and_seeds_fit_64_bits(capsys):
    call = ["generate", "photo.jpg", "--out", "out"]
    assert main([*call, "--js"]) == 2
    assert "--js" in capsys.readouterr().err
    assert main([*call, "--seed", str(2**63)]) == 2
    assert "below 2^63" in capsys.readouterr().err
