"""`ragdiff demo`: a sheet with held-out garments and the user's pictures, and its numbers."""

import json

from PIL import Image
from small_model import draw_garment


def test_sheet_and_metrics(with_world, tmp_path):
    draw_garment("red").save(tmp_path / "mine.png")
    out = tmp_path / "demo"
    arguments = (
        "demo",
        tmp_path / "mine.png",
        tmp_path / "absent.png",
        "--count",
        2,
        "--steps",
        1,
        "--out",
        out,
    )
    code, lines, err = with_world(*arguments, "--json")
    assert code == 2 and len(err) == 1 and "absent.png" in err[0]
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["garments"], metrics["held_out"]) == (3, 2)
    assert all(0 <= metrics[name] <= 1 for name in ("silhouette_iou", "landmark_iou", "retrieval_iou"))
    assert {"load", "retrieve", "denoise", "decode", "wall"} <= metrics["seconds"].keys()
    assert lines[-1]["sheet"] == str(out / "sheet.png")
    width, height = Image.open(out / "sheet.png").size
    assert width > 8 * 160 and height > 3 * 160
    assert sorted(path.name for path in out.iterdir()) == ["metrics.json", "sheet.png"]


def test_nothing_to_draw(ragdiff, tmp_path):
    code, _, err = ragdiff("demo", "--count", 0, "--out", tmp_path / "demo")
    assert code == 2 and len(err) == 1
