"""`ragdiff edit` from the command line: results, the JSON contract, and what is said of bad input."""

import argparse
import json
from types import SimpleNamespace

import numpy as np
import pytest
from drawn_people import labels
from PIL import Image
from small_fashion import save_small, small_fashion
from small_model import draw_garment

from ragdiff_jax.cli import edit as edit_verb
from ragdiff_jax.data.images import encode_grey, load_image
from ragdiff_jax.systems.fashion_presets import with_image_prompt


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A person with mask, parse map and keypoints; a garment; a model; a memory of people's garments."""
    base = tmp_path_factory.mktemp("edit")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 48, 3), np.uint8)).save(base / "anna.png")
    mask = np.zeros((64, 48), np.uint8)
    mask[20:40, 10:30] = 255
    Image.fromarray(mask).save(base / "mask.png")
    (base / "parse.png").write_bytes(encode_grey(labels()[::8, ::8]))
    joints = [[24.0, 8.0, 0.9, 0]] * 18
    (base / "pose.json").write_text(json.dumps({"keypoints": joints}))
    draw_garment("red").save(base / "red.png")
    people = base / "people_set"
    for part in ("people", "garments", "masks"):
        (people / part).mkdir(parents=True)
    lines = []
    for number, colour in enumerate(("red", "blue", "green", "black", "orange", "grey")):
        name = f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(people / "people" / name)
        draw_garment(colour).save(people / "garments" / name)
        Image.fromarray(mask[:32, :32]).resize((32, 32)).save(people / "masks" / name)
        lines.append(json.dumps({"image": f"people/{name}", "category": "upper_body", "caption": f"a {colour} shirt"}))
    (people / "people.jsonl").write_text("\n".join(lines))
    return SimpleNamespace(base=base, model=save_small(base), people=people, mask=mask > 0)


@pytest.fixture(scope="module")
def memory(files):
    from ragdiff_jax.cli.main import main

    out = files.base / "garments"
    source = ["--dataset", str(files.people), "--split", "train", "--model", str(files.model)]
    assert main(["memory", "build", "--out", str(out), *source]) == 0
    return out


@pytest.fixture
def edit(ragdiff, files, memory, tmp_path):
    def run(*argv):
        common = ("--out", tmp_path, "--model", files.model, "--memory", memory, "--steps", 2)
        return ragdiff("edit", files.base / "anna.png", *common, *argv)

    return run


def test_only_the_masked_pixels_change(edit, files, tmp_path):
    code, (line,), err = edit("--text", "a red shirt", "--mask", files.base / "mask.png", "--n-retrieved", 2, "--json")
    assert code == 0
    assert line.keys() == {
        "input", "output", "panel", "mask", "garments", "prompt", "detail", "database_split", "target_excluded",
        "warnings", "seed", "seconds",
    }  # fmt: skip
    before, after = load_image(files.base / "anna.png"), load_image(line["output"])
    np.testing.assert_array_equal(before[~files.mask], after[~files.mask])
    assert (before[files.mask] != after[files.mask]).any()
    assert line["database_split"] == "train" and line["target_excluded"] is False
    first, second = line["garments"]
    assert first["similarity"] >= second["similarity"] and first["weight"] == 1 and first["id"] != second["id"]
    assert line["prompt"] == "a red shirt. [2 x 4 tokens]"
    (warning,) = err
    assert "pose maps are zero" in warning
    assert load_image(line["panel"]).shape[1] > 5 * 192
    assert (load_image(line["mask"])[..., 0] > 0).sum() == files.mask.sum()
    # An id that is left out is not retrieved; the result is the same at every call.
    mask = ("--mask", files.base / "mask.png")
    _, (without,), _ = edit("--text", "a red shirt", *mask, "--n-retrieved", 1, "--exclude", first["id"], "--json")
    assert without["garments"][0]["id"] == second["id"] and without["target_excluded"] is True


def test_pixels_are_the_files_own_also_of_a_picture_that_is_shrunk(files, tmp_path):
    shape = (3072, 2304)  # of which 2048 x 1536 are kept
    Image.fromarray(np.full((*shape, 3), 200, np.uint8)).save(tmp_path / "large.png")
    given = argparse.ArgumentParser()
    edit_verb.add_arguments(given)
    (tmp_path / "pose.json").write_text(json.dumps({"keypoints": [[1152.0, 1536.0, 0.9, 0]] * 18}))
    common = [str(tmp_path / "large.png"), "--out", str(tmp_path), "--text", "a shirt"]
    box = ["--box", "600,1800,900,1200", "--keypoints", str(tmp_path / "pose.json")]
    person = edit_verb.read_person(given.parse_args([*common, *box]))
    rows, columns = np.nonzero(person.mask)
    assert person.mask.shape == (2048, 1536)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (1200, 2000, 400, 1000)
    np.testing.assert_allclose(person.keypoints[:, :2], [[768.0, 1024.0]] * 18)
    parse = np.zeros(shape, np.uint8)
    parse[600:1500, 600:1500] = 4  # ATR's upper clothes
    (tmp_path / "parse.png").write_bytes(encode_grey(parse))
    by_labels = ["--label-map", str(tmp_path / "parse.png"), "--category", "upper_body"]
    assert edit_verb.read_person(given.parse_args([*common, *by_labels])).mask[500:900, 500:900].all()


def test_a_parse_map_a_box_and_garments_of_ones_own(edit, files):
    by_labels = ("--label-map", files.base / "parse.png", "--category", "upper_body")
    pose = ("--keypoints", files.base / "pose.json")
    code, (line,), err = edit("--garment", files.base / "red.png", *by_labels, *pose, "--json")
    assert (code, err) == (0, [])
    assert line["garments"] == [{"file": str(files.base / "red.png"), "similarity": None, "weight": 1.0}]
    assert line["database_split"] is None
    code, out, _ = edit("--text", "a shirt", "--box", "4,6,20,30", "--n-retrieved", 0)
    assert code == 0 and len(out) == 1
    code, (line,), _ = edit("--text", "a shirt", "--box", "4,6,20,30", "--n-retrieved", 3, "--pool", "--json")
    assert sum(garment["weight"] for garment in line["garments"]) == pytest.approx(1, abs=1e-4)
    code, (line,), _ = edit("--text", "a shirt", "--box", "4,6,20,30", "--reject", 0, "--json", "--n-retrieved", 3)
    assert [garment["weight"] > 0 for garment in line["garments"]] == [True, False, False]


def test_the_rules_of_a_mask_follow_its_map(files, tmp_path):
    from ragdiff_jax.data.inpainting_masks import inpainting_mask
    from ragdiff_jax.data.label_maps import decode_labels

    maps = np.zeros((64, 48), np.uint8)
    maps[24:44, 14:34] = 6  # VITON-HD's parser calls some tops so
    maps[10:24, 18:30] = 5
    (tmp_path / "parse.png").write_bytes(encode_grey(maps))
    given = argparse.ArgumentParser()
    edit_verb.add_arguments(given)
    by_labels = ["--label-map", str(tmp_path / "parse.png"), "--category", "upper_body", "--label-scheme", "vitonhd"]
    person = edit_verb.read_person(given.parse_args([str(files.base / "anna.png"), "--out", "x", *by_labels]))
    assert person.mask[24:44, 14:34].all()
    labels = decode_labels((tmp_path / "parse.png").read_bytes(), "vitonhd", "parse.png")
    assert not inpainting_mask(labels, "upper_body")[34:44, 14:34].any()


def test_detail_of_no_garment_is_an_error_where_it_is_asked_for(edit, files):
    model = ("--model", save_small(files.base, small_fashion(reference_net=True), "closer"))
    code, _, (err,) = edit("--text", "a red shirt", "--box", "4,6,20,30", *model, "--n-retrieved", 0, "--detail")
    assert code == 2 and "no garment whose detail" in err


@pytest.mark.parametrize(
    "argv, message",
    [
        (("--text", "a shirt"), "say what to draw anew: --mask FILE"),
        (("--text", "x", "--label-map", "parse.png"), "say which garment: --category"),
        (("--box", "4,6,20,30"), "no text to retrieve garments by"),
        (("--box", "4,6,20,30", "--n-retrieved", "0"), "nothing says what to draw"),
        (("--garment", "red.png", "--box", "4,6,20,30", "--exclude", "a"), "leave --exclude out"),
        (("--text", "x", "--box", "40,6,20,30"), "does not lie in the 48x64 picture"),
        (("--text", "x", "--mask", "empty.png"), "marks nothing"),
        (("--text", "x", "--mask", "full.png"), "marks the whole picture"),
        (("--text", "x", "--mask", "thin.png", "--whole"), "marks nothing in the model's small picture"),
        (("--text", "x", "--mask", "small.png"), "the mask is 20x20, the person 48x64"),
        (("--text", "x", "--label-map", "empty.png", "--category", "upper_body"), "nothing to change for upper"),
        (("--text", "x", "--box", "4,6,20,30", "--keypoints", "far.json"), "lies outside the 48x64 picture"),
        (("--text", "x", "--box", "4,6,20,30", "--n-retrieved", "40"), "40 garments of 4 tokens don't fit into 77"),
        (("--text", "zigzag " * 30, "--box", "4,6,20,30"), "12 of 77; shorten it"),
        (("--text", "x", "--box", "4,6,20,30", "--n-retrieved", "7"), "to retrieve from, 7 are asked for"),
        (("--text", "x", "--box", "4,6,20,30", "--category", "dresses"), "category dresses: the database has 0"),
        (("--text", "x", "--box", "4,6,20,30", "--exclude", "nobody"), "has no garment 'nobody'"),
        (("--garment", "red.png", "--n-retrieved", "2", "--box", "4,6,20,30"), "give one"),
        (("--text", "x", "--box", "4,6,20,30", "--detail"), "has no reference_net"),
        (("--garment", "red.png", "--box", "4,6,20,30", "--reject-below", "0.5"), "give --text"),
        (("--text", "x", "--box", "4,6,20,30", "--reject-below", "2"), "2 is no cosine; give -1 to 1"),
        (("--garment", "absent.png", "--box", "4,6,20,30"), "absent.png"),
    ],
)
def test_bad_input_is_one_line_that_names_it(edit, files, argv, message):
    blank = {"empty": np.zeros((64, 48)), "full": np.full((64, 48), 255), "small": np.full((20, 20), 255)}
    blank["thin"] = np.zeros((64, 48))
    blank["thin"][30:33, 20:22] = 255
    for name, array in blank.items():
        Image.fromarray(array.astype(np.uint8)).save(files.base / f"{name}.png")
    (files.base / "far.json").write_text(json.dumps({"keypoints": [[400.0, 8.0, 0.9, 0]] * 18}))
    argv = [files.base / part if part.endswith((".png", ".json")) else part for part in argv]
    code, out, err = edit(*argv)
    assert (code, out, len(err)) == (2, [], 1)
    assert message in err[0]


def test_words_of_a_garment_are_named(ragdiff, files, tmp_path):
    argv = ("words", files.base / "red.png", "--out", tmp_path, "--model", files.model)
    code, (line,), _ = ragdiff(*argv, "--nearest", 2, "--json")
    assert code == 0 and load_image(line["picture"]).size
    assert len(line["tokens"]) == 4
    for token in line["tokens"]:
        first, second = token.values()
        assert 1 >= first >= second and all(word.isalpha() for word in token)
    code, _, (err,) = ragdiff(*argv, "--nearest", 9999)
    assert code == 2 and "ask for 1 to" in err
    prompted = save_small(files.base, with_image_prompt(small_fashion()), "prompted")
    code, _, (err,) = ragdiff(*argv[:-1], prompted)
    assert code == 2 and "has no inversion" in err


def test_a_memory_of_flat_lays_serves_after_its_pictures_are_read_once(ragdiff, files, tmp_path):
    from ragdiff_jax.retrieval import Memory, MemoryItem

    flats = Memory.create(tmp_path / "flats", "another encoder", 16, 8)
    items = []
    for number, kind in enumerate(("Hoodie", "T-shirt", "Skirt", "Nothing known")):
        draw_garment("red", width=8 + 4 * number).save(tmp_path / "flat.jpg")
        attributes = {} if kind == "Nothing known" else {"Category": kind}
        items.append(
            MemoryItem(
                id=kind,
                embedding=np.eye(8)[number],
                landmark=np.ones((16, 16), bool),
                metadata={"attributes": attributes},
                thumbnail=(tmp_path / "flat.jpg").read_bytes(),
            )
        )
    flats.add(items)
    argv = ("edit", files.base / "anna.png", "--text", "a shirt", "--box", "4,6,20,30", "--out", tmp_path, "--steps", 1)
    argv = (*argv, "--model", files.model, "--memory", tmp_path / "flats", "--n-retrieved", 2, "--json")
    code, (line,), err = ragdiff(*argv)
    assert code == 0 and {garment["id"] for garment in line["garments"]} == {"Hoodie", "T-shirt"}
    assert line["database_split"] == "unstated" and any("reading 4 garments" in text for text in err)
    code, (again,), err = ragdiff(*argv)
    assert again["garments"] == line["garments"] and not any("reading" in text for text in err)
