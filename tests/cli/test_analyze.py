"""`ragdiff analyze`: numbers and pictures of pairs and a memory."""

import json

import pytest
from PIL import Image
from small_model import draw_garment

NAMES = ("p0", "p2", "p3", "p4")  # all in the split `train`


@pytest.fixture
def pairs(tmp_path):
    folder, lines = tmp_path / "pairs", []
    for kind in ("photos", "flats"):
        (folder / kind).mkdir(parents=True)
    for number, name in enumerate(NAMES):
        colour = ("red", "blue", "green", "purple")[number]
        draw_garment(colour, width=10 + 5 * number).save(folder / "flats" / f"{name}.png")
        draw_garment(colour, width=8 + 5 * number).save(folder / "photos" / f"{name}.png")
        attributes = {"Category": "Hoodie" if number < 2 else "Skirt"}
        lines += [{"image": f"{kind}/{name}.png", "attributes": attributes} for kind in ("photos", "flats")]
    (folder / "attributes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def test_numbers_and_pictures(ragdiff, world, pairs, tmp_path):
    model, _, flats = world
    memory, out = tmp_path / "memory", tmp_path / "out"
    ragdiff("memory", "build", "--out", memory, "--flats", flats, "--model", model)
    # Two of the pairs' own flat-lays are in the memory and must not be found.
    ragdiff("memory", "add", "--memory", memory, "--dataset", pairs, "--limit", 2, "--model", model)
    call = ("analyze", "--dataset", pairs, "--split", "train", "--model", model, "--memory", memory, "--out", out)
    code, (line,), err = ragdiff(*call, "--sizes", 6, 7, "--rows", 3, "--pairs", 4, "--json")
    assert code == 0 and len(err) == 1 and "predicts no attributes" in err[0]
    assert sorted(path.name for path in out.iterdir()) == [
        "analysis.json", "neighbours.png", "similarity.png", "tsne.png",
    ]  # fmt: skip
    numbers = json.loads((out / "analysis.json").read_text())
    assert numbers["retrieval"] == line["retrieval"] and line["photos"] == len(NAMES)
    assert [part["memory"] for part in line["retrieval"]] == [6, 7]
    for part in line["retrieval"]:
        assert part.keys() == {"memory", "random", "oracle", "unknown", "exact"}
        assert all(part["oracle"]["iou"] + 1e-6 >= part[name]["iou"] for name in ("random", "unknown", "exact"))
    for photo in numbers["neighbours"]["photos"]:
        assert photo["id"] not in [neighbour["id"] for neighbour in photo["neighbours"]]
    assert numbers["similarity"]["unknown"]["own"]["count"] == len(NAMES)
    assert len(numbers["tsne"]["exact"]["photos"]) == len(NAMES)
    assert all(Image.open(picture).width > 500 for picture in line["pictures"])
    # The same call, the same bytes.
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert ragdiff(*call, "--sizes", 6, 7, "--rows", 3, "--pairs", 4, "--json")[0] == 0
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}


def test_mistakes_are_told_before_the_work(ragdiff, world, pairs, tmp_path):
    call = ("analyze", "--dataset", pairs, "--model", world[0], "--memory", world[1], "--out", tmp_path / "out")
    for extra, words in (
        (("--split", "test"), "split 'test'"),
        (("--split", "train", "--sizes", 1000), "the memory holds 5"),
        (("--split", "train", "--clip", world[0]), "predicts no attributes"),
        (("--split", "train"), "needs at least 6"),
    ):
        code, lines, err = ragdiff(*call, *extra, "--json")
        assert code == 2 and words in lines[0]["error"] and err[-1].endswith(lines[0]["error"])
