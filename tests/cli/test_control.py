"""What a user can say of a photo: attributes, predicted or given, and the silhouette; and what is doubted."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from small_model import draw_garment, random_params, small_system

from ragdiff_jax.data.attributes import STRUCTURAL
from ragdiff_jax.data.images import decode_mask
from ragdiff_jax.retrieval import Memory
from ragdiff_jax.systems.zero_shot import Calibration
from ragdiff_jax.weights.model_folder import load, load_zero_shot, read_calibration, read_model, save_model

SAID = {name: Calibration(scale=100.0, threshold=0.0 if name in ("Category", "Fit") else None) for name in STRUCTURAL}


@pytest.fixture(scope="module")
def predicting(world, tmp_path_factory):
    """The small model with an image encoder that always says category and fit, and never anything else."""
    folder = tmp_path_factory.mktemp("predicting") / "model"
    plain = small_system()
    model = dataclasses.replace(plain, image_encoder=plain.structure_net.vision)
    params = load(plain, world[0]) | {"image_encoder": random_params(model, seed=1)["image_encoder"]}
    save_model(folder, model, params, [world[0] / "tokenizer"], calibration=SAID)
    return folder


@pytest.fixture
def photo(tmp_path):
    draw_garment("red").save(tmp_path / "red.png")
    return tmp_path / "red.png"


def test_a_model_folder_keeps_its_image_encoder(predicting, world):
    model = read_model(predicting)
    assert model.image_encoder == small_system().structure_net.vision
    assert "image_encoder" in load(model, predicting) and read_calibration(predicting / "image_encoder") == SAID
    assert load_zero_shot(predicting).calibration == SAID
    assert read_model(world[0]).image_encoder is None, "folders without one are what they were"


def test_attributes_are_predicted_and_what_is_given_wins(ragdiff, world, predicting, photo, tmp_path):
    call = ("retrieve", photo, "--model", predicting, "--memory", world[1], "--json")
    code, (line,), err = ragdiff(*call)
    assert (code, err) == (0, []) and line["attributes"].keys() == {"Category", "Fit"}
    sources = line["attributes_source"]
    assert sources.keys() == set(STRUCTURAL)
    assert {name for name in sources if sources[name] == "predicted"} == {"Category", "Fit"}
    assert sources["Collar"] == "unknown"

    (tmp_path / "a.jsonl").write_text(json.dumps({"image": "red.png", "attributes": {"Category": "Skirt"}}))
    _, (mixed,), _ = ragdiff(*call, "--attributes", tmp_path / "a.jsonl", "--attributes", "predict")
    assert mixed["attributes"]["Category"] == "Skirt" and mixed["attributes_source"]["Category"] == "given"
    assert mixed["attributes_source"]["Fit"] == "predicted"
    _, (given,), _ = ragdiff(*call, "--attributes", tmp_path / "a.jsonl", "--attributes", "unknown")
    assert given["attributes"] == {"Category": "Skirt"} and given["attributes_source"]["Fit"] == "unknown"
    _, (unknown,), _ = ragdiff(*call, "--attributes", "unknown")
    assert (unknown["attributes"], unknown["attributes_source"]) == ({}, "unknown")
    assert unknown["neighbours"] != line["neighbours"], "what is predicted reaches retrieval"


def test_a_model_that_cannot_predict(with_world, photo):
    code, lines, err = with_world("retrieve", photo, "--attributes", "predict", "--json")
    assert code == 2 and len(err) == 1 and "predicts no attributes" in lines[0]["error"]
    assert "--attributes unknown" in lines[0]["error"]
    code, (line,), err = with_world("retrieve", photo, "--json")
    assert (code, err, line["attributes_source"]) == (0, [], "unknown")
    code, lines, _ = with_world("retrieve", photo, "--attributes", "predict", "--attributes", "unknown", "--json")
    assert code == 2 and "one of predict and unknown" in lines[0]["error"]


def test_a_mask_of_the_users_own_is_the_landmark(with_world, photo, tmp_path):
    mask = np.zeros((90, 60), np.uint8)
    mask[20:80, 12:48] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    call = ("generate", photo, "--out", tmp_path / "out", "--steps", 1, "--json", "--landmark")
    code, (line,), err = with_world(*call, tmp_path / "mask.png")
    assert (code, err, line["landmark_source"], line["warnings"]) == (0, [], "file", [])
    used = decode_mask((tmp_path / "out" / "red_landmark.png").read_bytes())
    rows, columns = np.flatnonzero(used.any(1)), np.flatnonzero(used.any(0))
    assert used.shape == (32, 32) and (rows[0], rows[-1], columns[0], columns[-1]) == (7, 27, 9, 21)

    for value, words in ((0, "no garment"), (255, "full")):
        Image.fromarray(np.full((20, 20), value, np.uint8)).save(tmp_path / "bad.png")
        code, lines, err = with_world(*call, tmp_path / "bad.png")
        assert code == 2 and len(err) == 1 and words in lines[0]["error"] and "bad.png" in lines[0]["error"]
    Image.fromarray(255 - mask).save(tmp_path / "inverted.png")
    code, (line,), err = with_world(*call, tmp_path / "inverted.png")
    assert code == 0 and "inverted" in line["warnings"][0] and len(err) == 1


def test_a_doubtful_photo_still_gives_pictures(with_world, photo, tmp_path):
    Image.new("RGB", (50, 50), "grey").save(tmp_path / "blank.png")
    inputs = (tmp_path / "blank.png", photo)
    code, lines, err = with_world("generate", *inputs, "--out", tmp_path / "out", "--steps", 1, "--json")
    assert code == 0 and [len(line["warnings"]) for line in lines] == [1, 0]
    assert len(err) == 1 and err[0].startswith(f"ragdiff: {inputs[0]}: doubtful: the photo is blank")
    assert all((tmp_path / "out" / f"blank{kind}.png").is_file() for kind in ("", "_panel", "_landmark"))


def test_the_silhouettes_that_it_may_have_are_listed_and_can_be_used(with_world, world, photo, tmp_path):
    _, (line,), _ = with_world("retrieve", photo, "--json")
    ids = [one["id"] for one in line["alternatives"]]
    assert len(set(ids)) == len(ids) > 1 and ids[0] == line["landmark_id"]
    call = ("generate", photo, "--out", tmp_path / "out", "--steps", 1, "--json", "--alternative")
    code, (made,), err = with_world(*call, 1)
    assert (code, err, made["landmark_source"]) == (0, [], "alternative 1")
    memory = Memory.open(world[1])
    used = decode_mask((tmp_path / "out" / "red_landmark.png").read_bytes())
    np.testing.assert_array_equal(used, memory.landmarks[memory.row(ids[1])])
    code, lines, err = with_world(*call, len(ids))
    assert code == 2 and len(err) == 1 and f"choose from 0 (what is used anyway) to {len(ids) - 1}" in lines[0]["error"]
    code, _, err = with_world(*call, 1, "--landmark", 0)
    assert code == 2 and "not allowed with" in err[-1]
