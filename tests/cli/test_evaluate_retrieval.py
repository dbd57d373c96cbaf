"""`ragdiff evaluate retrieval`: R's protocol on pairs and a memory."""

import json

import pytest
from PIL import Image
from small_model import draw_garment


@pytest.fixture
def pairs(tmp_path):
    folder = tmp_path / "pairs"
    for number in range(12):
        for kind in ("photos", "flats"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            draw_garment(("red", "blue", "green")[number % 3], width=8 + 3 * number).save(
                folder / kind / f"{number:02}.png"
            )
    return folder


def test_table_numbers_and_picture(ragdiff, world, pairs, tmp_path):
    model, out = world[0], tmp_path / "out"
    memory, other = tmp_path / "memory", tmp_path / "other"
    build = ("memory", "build", "--dataset", pairs, "--split", "all", "--model", model, "--out")
    assert ragdiff(*build, memory)[0] == 0 and ragdiff(*build, other, "--limit", 8)[0] == 0
    call = ("evaluate", "retrieval", "--dataset", pairs, "--split", "all", "--model", model, "--memory", memory)
    more = ("--sizes", 8, 12, "-k", 2, 4, "--seeds", 2, "--out", out, "--json")
    code, (line,), err = ragdiff(*call, *more)
    assert code == 0 and len(err) == 1 and "predicts no attributes" in err[0]
    results = json.loads((out / "results.json").read_text())
    table = results["retrieval"]
    assert [(row["memory"], row["k"]) for row in table] == [(8, 2), (8, 4), (12, 2), (12, 4)]
    for row in table:
        for name in ("unknown", "exact"):
            scores = row[name]
            assert row["oracle"]["iou"] + 1e-6 >= scores["iou"] and scores["top5"] >= scores["top1"]
            low, high = scores["iou_95"]
            assert low <= scores["iou"] <= high
            way = row["oracle"]["iou"] - row["random"]["iou"]
            assert scores["iou_way"] == pytest.approx((scores["iou"] - row["random"]["iou"]) / way)
    # K changes the landmark alone; a larger database holds a better best.
    assert table[0]["unknown"]["iou"] == table[1]["unknown"]["iou"]
    assert table[2]["oracle"]["iou"] >= table[0]["oracle"]["iou"]
    assert line["iou"] == table[-1]["unknown"]["iou"] and line["memory"] == 12
    assert (out / "table.md").read_text().count("| oracle |") == 4
    assert Image.open(out / "retrieval.png").width > 500

    code, _, err = ragdiff(*call, "--sizes", 13, "--out", out)
    assert code == 2 and len(err) == 2 and "holds 12" in err[-1]
    code, _, err = ragdiff(*call, "--sizes", 6, "-k", 7, "--out", out)
    assert code == 2 and "above" in err[-1]

    # Eight chosen garments against two draws of eight of the twelve: whose best is better is found.
    against = ("evaluate", "retrieval", "--dataset", pairs, "--split", "all", "--model", model, "--memory", other)
    assert ragdiff(*against, "--against", memory, "--seeds", 2, "--out", out)[0] == 0
    found = json.loads((out / "results.json").read_text())["against"]
    assert (found["garments"], found["of"], found["draws"]) == (8, 12, 2)
    low, high = found["iou"]["difference_95"]
    assert found["iou"]["difference"] == pytest.approx(found["iou"]["memory"] - found["iou"]["other"])
    assert low <= found["iou"]["difference"] <= high
    code, _, err = ragdiff(*call, "--against", other, "--out", out)
    assert code == 2 and "fewer than the 12" in err[-1]
