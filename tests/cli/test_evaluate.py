"""`ragdiff evaluate`: results that say what they are, go on where they stopped, and can't be quietly edited."""

import json
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from ports import free_port
from safetensors.numpy import save_file

from ragdiff_jax.data.images import encode_png
from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation import pair_run
from ragdiff_jax.evaluation.folder_pairs import open_folders
from ragdiff_jax.evaluation.result_file import read_results
from ragdiff_jax.models.lpips import shapes


def garment(rng, shift=0, noise=0):
    picture = np.full((64, 48, 3), 255, np.int16)
    top, left = rng.integers(4, 10, 2)
    picture[top + shift : top + shift + 40, left : left + 30] = rng.integers(0, 200, 3)
    picture[top + shift + 10 : top + shift + 20, left + 5 : left + 15] = rng.integers(0, 200, 3)
    return np.clip(picture + rng.normal(0, noise, picture.shape) * (picture < 255), 0, 255).astype(np.uint8)


@pytest.fixture
def folders(tmp_path):
    """`real`, `near` and `far`: the last two resemble the first, more and less."""
    for name, shift, noise in (("real", 0, 0), ("near", 1, 3), ("far", 5, 25)):
        (tmp_path / name).mkdir()
        for number in range(7):
            picture = garment(np.random.default_rng(number), shift, noise)
            Image.fromarray(picture).save(tmp_path / name / f"{number}.png")
    return tmp_path


def evaluate(ragdiff, base, fake, *argv, task="generation"):
    paths = ("--real", base / "real", "--fake", base / fake, "--out", base / f"out_{fake}")
    return ragdiff("evaluate", task, *paths, "--size", 64, "--json", *argv)


def test_generation_and_compare(ragdiff, folders):
    for beside in ("0_panel", "3_landmark"):  # as `generate` leaves them there
        Image.new("RGB", (9, 9)).save(folders / f"near/{beside}.png")
    code, out, _ = evaluate(ragdiff, folders, "near")
    assert code == 0
    results = json.loads((folders / "out_near/results.json").read_text())
    assert results["n"] == 7 and results["metrics"]["ssim"]["protocol"] == "ssim/gauss11-1.5/1"
    row = results["metrics"]["ssim_aligned"]
    assert row["low"] <= row["value"] <= row["high"] and row["value"] == out[0]["ssim_aligned"]
    assert "lpips" in results["notes"][0] and "lpips" not in results["metrics"]
    page = (folders / "out_near/results.html").read_text()
    assert page.count("data:image/jpeg") == 2 * (4 + 4 + 4) and "<svg" in page
    assert "| ssim |" in (folders / "out_near/results.md").read_text()

    assert evaluate(ragdiff, folders, "far")[0] == 0
    code, out, _ = ragdiff("evaluate", "compare", folders / "out_far", folders / "out_near", "--json")
    assert code == 0
    found = out[0]["metrics"]
    assert found["ssim"]["verdict"] == "b better" and found["ssim"]["low"] > 0
    assert found["ciede2000"]["verdict"] == "b better" and found["ciede2000"]["high"] < 0
    same = ragdiff("evaluate", "compare", folders / "out_far", folders / "out_far", "--json")[1][0]["metrics"]
    assert {row["verdict"] for row in same.values()} == {"undecided"}


def test_the_same_call_gives_the_same_and_goes_on(ragdiff, folders, monkeypatch):
    monkeypatch.setattr(pair_run, "PART", 2)
    assert evaluate(ragdiff, folders, "near")[0] == 0
    before = (folders / "out_near/results.json").read_bytes()
    parts = sorted((folders / "out_near/parts").glob("*/*.npz"))
    assert len(parts) == 4
    kept = parts[0].stat().st_mtime_ns
    parts[1].unlink()
    parts[2].write_bytes(b"half")
    assert evaluate(ragdiff, folders, "near")[0] == 0
    assert (folders / "out_near/results.json").read_bytes() == before
    assert parts[0].stat().st_mtime_ns == kept and parts[1].exists()


def test_everything_wrong_is_listed_before_the_work(ragdiff, folders):
    (folders / "near/3.png").write_bytes((folders / "near/3.png").read_bytes()[:60])
    (folders / "near/5.png").rename(folders / "near/other.png")
    Image.new("RGB", (64, 64), "white").save(folders / "real/6.png")
    code, _, err = evaluate(ragdiff, folders, "near")
    assert code == 2 and len(err) == 1
    for words in (
        "4 things",
        "near/3.png",
        "real/5.png: no picture",
        "near/other.png: no picture",
        "real/6.png: no garment",
    ):
        assert words in err[0]
    assert not (folders / "out_near/parts").exists()


def test_edited_and_unlike_results_are_refused(ragdiff, folders):
    for fake in ("near", "far"):
        assert evaluate(ragdiff, folders, fake, task="editing")[0] == 0
    file = folders / "out_near/results.json"
    before = file.read_text()
    value = json.loads(before)["metrics"]["ssim"]["value"]
    file.write_text(before.replace(str(value), "0.99"))
    assert ragdiff("evaluate", "compare", file, folders / "out_far")[::2] == (
        2, [f"ragdiff: {file}: was changed after it was written; evaluate again"],
    )  # fmt: skip
    file.write_text(before)
    rows = folders / "out_near/pairs.jsonl"
    rows.write_text(rows.read_text().replace('"ssim": 0', '"ssim": 1', 1))
    assert "pairs.jsonl: was changed" in ragdiff("evaluate", "compare", file, folders / "out_far")[2][0]
    assert evaluate(ragdiff, folders, "near", "--size", 48)[0] == 0
    code, _, err = ragdiff("evaluate", "compare", folders / "out_near", folders / "out_far")
    assert code == 2 and "different task" in err[0]


def test_logos_need_boxes_that_lie_in_the_picture(ragdiff, folders):
    boxes = folders / "boxes.jsonl"
    boxes.write_text('{"image": "0.png", "box": [14, 10, 30, 25]}\n{"image": "1", "box": [14, 10, 30, 25]}\n')
    assert evaluate(ragdiff, folders, "near", "--boxes", boxes)[0] == 0
    results = json.loads((folders / "out_near/results.json").read_text())
    assert results["metrics"]["logo_psnr"]["n"] == 2
    boxes.write_text('{"image": "0.png", "box": [14, 10, 30, 250]}\nnothing\n{"image": "x", "box": [1, 1, 2, 2]}\n')
    code, _, err = evaluate(ragdiff, folders, "near", "--boxes", boxes)
    assert code == 2 and all(words in err[0] for words in ("3 things", "48 x 64", ":2: not", "no such pair"))
    assert "weights aren't here" in evaluate(ragdiff, folders, "near", "--metrics", "lpips")[2][0]


def test_boxes_lie_in_the_files_own_pixels(ragdiff, tmp_path):
    for name in ("real", "near"):
        (tmp_path / name).mkdir()
        picture = np.full((3000, 3000, 3), 255, np.uint8)
        picture[300:2700, 300:2700] = (200, 30, 40)
        picture[2300:2600, 2300:2600] = 0
        Image.fromarray(picture).save(tmp_path / name / "large.png")  # is decoded at 2048 pixels
    boxes = tmp_path / "boxes.jsonl"
    boxes.write_text('{"image": "large.png", "box": [2300, 2300, 2600, 2600]}\n')
    pairs = open_folders(tmp_path / "real", tmp_path / "near", masks=True, boxes=boxes)
    assert pairs.box(0, 300) == (230, 230, 260, 260)


def test_logos_of_other_boxes_are_not_compared_and_few_pairs_decide_nothing(ragdiff, folders):
    boxes = folders / "boxes.jsonl"
    boxes.write_text('{"image": "0.png", "box": [14, 10, 30, 25]}\n')
    for fake in ("near", "far"):
        assert evaluate(ragdiff, folders, fake, "--boxes", boxes)[0] == 0
    compare = ("evaluate", "compare", folders / "out_far", folders / "out_near", "--json")
    found = ragdiff(*compare)[1][0]["metrics"]
    assert found["logo_psnr"]["n"] == 1 and found["logo_psnr"]["verdict"] == "undecided"
    assert found["ssim"]["verdict"] == "b better"
    boxes.write_text('{"image": "0.png", "box": [14, 10, 31, 25]}\n')
    assert evaluate(ragdiff, folders, "far", "--boxes", boxes)[0] == 0
    code, _, err = ragdiff(*compare)
    assert code == 2 and "logo_psnr: measured with different --boxes" in err[0]


def test_a_picture_that_is_not_square_keeps_its_garment_on_any_plain_ground(ragdiff, tmp_path):
    """Padded with white first, a light grey ground would stand out and be the garment."""
    for name, ground in (("real", 236), ("fake", 255)):
        (tmp_path / name).mkdir()
        picture = np.full((64, 40, 3), ground, np.uint8)
        picture[16:48, 10:30] = (40, 60, 160)
        Image.fromarray(picture).save(tmp_path / name / "a.png")
    names = ("silhouette_iou", "ciede2000")
    code, out, err = evaluate(ragdiff, tmp_path, "fake", "--metrics", *names)
    assert code == 0, err
    assert out[0]["silhouette_iou"] == 1 and out[0]["ciede2000"] == pytest.approx(0, abs=1e-6)


def test_names_of_any_letters(ragdiff, folders):
    for name in ("real", "near"):
        os.rename(folders / name / "0.png", os.fsencode(folders / name) + b"/sm\xe5.png")
        (folders / name / "1.png").rename(folders / name / "line\u2028end.png")
    assert evaluate(ragdiff, folders, "near")[0] == 0
    code, out, err = ragdiff("evaluate", "compare", folders / "out_near", folders / "out_near", "--json")
    assert code == 0 and out[0]["metrics"]["ssim"]["n"] == 7, err


def test_a_study_goes_out_and_comes_back(ragdiff, folders):
    base = ("evaluate", "study", "--photos", folders / "real", "--out", folders / "study")
    methods = ("--method", f"ours={folders / 'near'}", "--method", f"theirs={folders / 'far'}")
    code, out, _ = ragdiff(*base, *methods, "--limit", 3, "--json")
    assert code == 0 and out[0]["photos"] == 3
    key = json.loads((folders / "study/key.json").read_text())
    names = [
        f"{task}/{place}/{question}" for task in range(3) for place in (0, 1) for question in ("structure", "detail")
    ]
    (folders / "scores.json").write_text(json.dumps({"study": key["study"], "scores": dict.fromkeys(names, 7)}))
    code, out, _ = ragdiff("evaluate", "scores", folders / "study/key.json", folders / "scores.json", "--json")
    assert code == 0 and out[0]["methods"]["ours"]["structure"]["mean"] == 7
    assert ragdiff(*base, "--method", "ours")[0] == 2
    assert ragdiff("evaluate", "scores", folders / "scores.json", folders / "scores.json")[0] == 2
    (folders / "results.json").write_text('{"schema": 1, "task": "generation"}')
    code, _, err = ragdiff("evaluate", "scores", folders / "results.json", folders / "scores.json")
    assert code == 2 and len(err) == 1 and "is not the key of a study" in err[0]


IN_PARTS = """
import sys
from ragdiff_jax.cli.main import main
from ragdiff_jax.evaluation import pair_run
pair_run.PART = 16
sys.exit(main(sys.argv[1:]))
"""


def lpips_files(folder):
    """torchvision's and the authors' file, with random numbers."""
    rng = np.random.default_rng(0)
    tensors = {name: np.float32(0.05 * np.abs(rng.standard_normal(shape))) for name, shape in shapes("alex").items()}
    files = folder / "alexnet.safetensors", folder / "alex.safetensors"
    for file, part in zip(files, ("features", "lin"), strict=True):
        save_file({name: value for name, value in tensors.items() if name.startswith(part)}, file)
    return files


def test_two_processes_share_the_pairs(ragdiff, tmp_path, monkeypatch):
    monkeypatch.setattr(pair_run, "PART", 16)
    for name, shift in (("real", 0), ("near", 1)):
        (tmp_path / name).mkdir()
        for number in range(pair_run.PART + 9):
            picture = garment(np.random.default_rng(number), shift)
            Image.fromarray(picture).save(tmp_path / name / f"{number:03}.png")
    files = lpips_files(tmp_path)
    chosen = ("--metrics", "lpips_alex", "kid_random", "silhouette_iou", "--lpips", "alex", *files, "--batch", "32")
    assert evaluate(ragdiff, tmp_path, "near", *chosen)[0] == 0
    alone = json.loads((tmp_path / "out_near/results.json").read_text())
    (tmp_path / "out_near").rename(tmp_path / "alone")
    port = free_port()
    paths = ("--real", tmp_path / "real", "--fake", tmp_path / "near", "--out", tmp_path / "out_near")
    argv = ["evaluate", "generation", *paths, "--size", 64, "--json", *chosen]
    argv += ["--coordinator", f"localhost:{port}", "--processes", 2, "--process"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", IN_PARTS, *map(str, argv), str(rank)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert len(said[0][0].splitlines()) == 1 and not said[1][0]  # one of them speaks
    together = json.loads((tmp_path / "out_near/results.json").read_text())
    for name, row in alone["metrics"].items():
        assert together["metrics"][name]["value"] == pytest.approx(row["value"], rel=1e-5, abs=1e-7)
    next((tmp_path / "out_near/parts").glob("*/000001.npz")).unlink()
    with pytest.MonkeyPatch.context() as patch:  # as if the other host's folder were another one
        patch.setattr(pair_run.jax, "process_count", lambda: 2)
        patch.setattr(pair_run, "barrier", lambda name: None)
        code, _, err = evaluate(ragdiff, tmp_path, "near", *chosen)
    assert code == 2 and "1 of 2 parts aren't here" in err[-1]


def test_lpips_comes_with_its_files(ragdiff, folders):
    files = lpips_files(folders)
    code, out, _ = evaluate(ragdiff, folders, "near", "--lpips", "alex", *files)
    assert code == 0 and out[0]["lpips_alex"] > 0
    results = json.loads((folders / "out_near/results.json").read_text())
    assert results["metrics"]["lpips_alex"]["protocol"].startswith("lpips-alex/0.1/weights-")
    assert "lpips_alex" not in results["notes"][0] and "lpips_vgg" in results["notes"][0]
    code, _, err = evaluate(ragdiff, folders, "near", "--lpips", "vgg", *files)
    assert code == 2 and "features.0.weight is (64, 3, 11, 11)" in err[0]
    assert "each at most once" in evaluate(ragdiff, folders, "near", "--lpips", "squeeze", *files)[2][0]


def test_a_data_sets_flat_lays_are_the_true_pictures(ragdiff, tmp_path):
    from ragdiff_jax.data.synth_dataset import open_synth

    source = open_synth(tmp_path / "data", "test", count=6, size=32, seed=1, splits={"test": 1.0})
    (tmp_path / "fake").mkdir()
    for row in range(len(source)):
        (tmp_path / "fake" / f"{source[row].id}.png").write_bytes(source[row].flat)
    dataset = next((tmp_path / "data").rglob("dataset_info.json")).parent
    call = ("evaluate", "generation", "--real", dataset, "--fake", tmp_path / "fake", "--out", tmp_path / "out")
    more = ("--size", 32, "--metrics", "ssim", "--json")
    verdicts = ("evaluate", "compare", tmp_path / "out", tmp_path / "out", "--json")
    code, out, err = ragdiff(*call, *more)
    assert code == 0, err
    assert out[0]["n"] == 6 and out[0]["ssim"] == pytest.approx(1, abs=1e-5)
    first = json.loads((tmp_path / "out" / "results.json").read_text())
    assert first["real"] == f"{dataset}:test"
    assert first["bootstrap"]["method"] == "percentile, over groups of structure twins"  # drawn as twins of two
    assert sorted(Counter(read_results(tmp_path / "out").groups).values()) == [2, 2, 2]
    assert ragdiff(*verdicts)[1][0]["metrics"]["ssim"]["n"] == 6
    folder = tmp_path / "flats"
    (tmp_path / "out" / next((tmp_path / "out").glob("real-test-*")).name).rename(folder)
    assert ragdiff(*call[:3], folder, *call[4:], *more)[0] == 0  # as a folder the same pictures are the same split
    assert json.loads((tmp_path / "out" / "results.json").read_text())["split_sha256"] == first["split_sha256"]
    code, _, err = ragdiff(*call, "--split", "train", *more)
    assert code == 2 and len(err) == 1 and "train" in err[0]


def test_people_of_a_data_set_have_names_that_are_paths(tmp_path, monkeypatch):
    from types import SimpleNamespace

    from ragdiff_jax.evaluation import dataset_pictures as module

    picture = encode_png(np.zeros((8, 8, 3), np.uint8))
    people = [SimpleNamespace(id=f"{where}/000123", person=picture) for where in ("upper_body", "dresses")]
    monkeypatch.setattr(module, "open_persons", lambda dataset, split: people)
    folder, groups = module.dataset_pictures(tmp_path / "people", "test", "editing", tmp_path)
    assert groups == {name: name for name in ("upper_body-000123", "dresses-000123")}
    assert sorted(file.name for file in folder.iterdir()) == ["dresses-000123.png", "upper_body-000123.png"]
    people.append(SimpleNamespace(id="dresses-000123", person=picture))
    with pytest.raises(UserError, match="two records would be the file 'dresses-000123'"):
        module.dataset_pictures(tmp_path / "people", "test", "editing", tmp_path)
