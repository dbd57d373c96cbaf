"""`ragdiff generate` and `retrieve`: what they write, and what they do with inputs that are wrong or odd."""

import io
import json
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_model import draw_garment

from ragdiff_jax.data.images import decode_mask
from ragdiff_jax.retrieval import Memory

QUICK = ("--steps", 1, "--json")
SUFFIXES = ("", "_landmark", "_panel")


def written(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def results_of(*stems):
    return sorted(f"{stem}{suffix}.png" for stem in stems for suffix in SUFFIXES)


def bomb() -> bytes:
    """A PNG of a few bytes whose header says 60,000 x 60,000."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture
def photos(tmp_path):
    """Two good photos: a red and a blue garment."""
    paths = []
    for colour in ("red", "blue"):
        paths.append(tmp_path / f"my {colour}.jpg")
        draw_garment(colour).save(paths[-1])
    return paths


@pytest.fixture
def bad(tmp_path):
    """Inputs that cannot be used, by what is wrong with them."""
    jpeg = io.BytesIO()
    draw_garment("red", size=200).save(jpeg, "JPEG")
    contents = {
        "text.jpg": b"this is no picture",
        "truncated.jpg": jpeg.getvalue()[: len(jpeg.getvalue()) // 2],
        "zero.png": b"",
        "bomb.png": bomb(),
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder").mkdir()
    return [tmp_path / name for name in (*contents, "folder", "missing.jpg")]


def test_bad_inputs_cost_only_themselves(with_world, photos, bad, tmp_path):
    out = tmp_path / "out"
    code, lines, err = with_world("generate", bad[0], photos[0], *bad[1:], photos[1], "--out", out, *QUICK)
    assert code == 2
    errors = {line["input"]: line["error"] for line in lines if "error" in line}
    assert errors.keys() == {str(path) for path in bad}
    for path in bad:
        assert errors[str(path)].startswith(f"{path}: "), "the line names the file"
        assert f"ragdiff: {errors[str(path)]}" in err
    assert len(err) == len(bad)
    assert [line["input"] for line in lines if "output" in line] == [str(path) for path in photos]
    assert written(out) == results_of("my red", "my blue")


def test_a_folder_of_photos_goes_on_where_it_was_stopped(with_world, photos, tmp_path):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for photo in photos:
        photo.rename(folder / photo.name)
    (folder / "notes.txt").write_text("no picture")
    code, lines, err = with_world("generate", folder / "my blue.jpg", "--out", out, *QUICK)
    before = (out / "my blue.png").stat().st_mtime_ns
    code, lines, err = with_world("generate", folder, "--out", out, "--resume", *QUICK)
    assert code == 0 and [Path(line["output"]).name for line in lines] == ["my red.png"]
    assert err == [f"ragdiff: 1 of 2 photos have their results in {out}"]
    assert written(out) == results_of("my red", "my blue")
    assert (out / "my blue.png").stat().st_mtime_ns == before
    code, lines, err = with_world("generate", folder, "--out", out, "--resume", *QUICK)
    assert (code, lines) == (0, []) and "2 of 2" in err[0]
    code, lines, err = with_world("generate", folder, "--out", folder, *QUICK)
    assert code == 2 and len(err) == 1 and "choose another" in err[0]


def test_odd_pictures_are_handled(with_world, tmp_path, photos):
    garment = draw_garment("green")
    rotated = garment.getexif()
    rotated[0x0112] = 6
    garment.save(tmp_path / "rotated.jpg", exif=rotated)
    alpha = garment.convert("RGBA")
    alpha.putalpha(128)
    alpha.save(tmp_path / "alpha.png")
    garment.convert("L").save(tmp_path / "grey.png")
    Image.fromarray(np.asarray(garment.convert("L")).astype(np.uint16) * 257).save(tmp_path / "deep.png")
    garment.resize((400, 3)).save(tmp_path / "wide.png")
    inputs = [tmp_path / name for name in ("rotated.jpg", "alpha.png", "grey.png", "deep.png", "wide.png")]
    inputs.append(photos[0])  # two full chunks of 4 and 2: no photo goes alone
    code, lines, err = with_world("generate", *inputs, "--out", tmp_path / "out", *QUICK)
    assert (code, err) == (0, [])
    assert all(Image.open(line["output"]).size == (32, 32) for line in lines)


def test_the_json_line_is_the_contract(with_world, world, photos, tmp_path):
    code, lines, err = with_world("generate", *photos, "--out", tmp_path / "out", "--seed", 7, *QUICK)
    assert (code, err, len(lines)) == (0, [], 2)
    line = lines[0]
    assert line.keys() == {
        "input", "output", "panel", "neighbours", "landmark", "landmark_source", "attributes", "attributes_source",
        "landmark_id", "alternatives", "warnings", "seed", "seconds",
    }  # fmt: skip
    assert sum(one["chance"] for one in line["alternatives"]) == pytest.approx(1, abs=1e-3)
    assert (line["seed"], line["landmark_source"], line["attributes_source"]) == (7, "likeliest", "unknown")
    assert (line["attributes"], line["warnings"]) == ({}, [])
    assert line["seconds"].keys() == {"annotate", "retrieve", "denoise", "decode", "total"}
    assert line["seconds"]["total"] >= line["seconds"]["denoise"] > 0
    cosines = [neighbour["cosine"] for neighbour in line["neighbours"]]
    assert len(cosines) == 4 and cosines == sorted(cosines, reverse=True)
    assert abs(sum(neighbour["weight"] for neighbour in line["neighbours"]) - 1) < 1e-4
    memory = Memory.open(world[1])
    landmark = decode_mask((tmp_path / "out" / "my red_landmark.png").read_bytes())
    rows = [memory.row(neighbour["id"]) for neighbour in line["neighbours"]]
    assert any(np.array_equal(landmark, memory.landmarks[row]) for row in rows)


def test_the_landmark_file_is_the_silhouette_that_was_asked_for(with_world, world, photos, tmp_path):
    code, lines, _ = with_world("retrieve", *photos, "--out", tmp_path / "a", "--landmark", 2, "--json")
    assert code == 0 and lines[0]["landmark_source"] == "neighbour 2"
    memory = Memory.open(world[1])
    asked = memory.landmarks[memory.row(lines[0]["neighbours"][2]["id"])]
    assert np.array_equal(decode_mask((tmp_path / "a" / "my red_landmark.png").read_bytes()), asked)
    code, lines, _ = with_world("generate", *photos, "--out", tmp_path / "b", "--landmark", 4, *QUICK)
    assert code == 2 and "from 0 (nearest) to 3" in lines[0]["error"] and written(tmp_path / "b") == []


def test_attributes_reach_retrieval_and_a_bad_value_costs_its_photo(with_world, photos, tmp_path):
    file = tmp_path / "attributes.jsonl"

    def describe(category):
        lines = [
            {"image": "my red.jpg", "attributes": {"Category": "Hoodie", "Sleeve Length": "Long"}},
            {"image": "my blue.jpg", "attributes": {"Category": category}},
        ]
        file.write_text("\n".join(map(json.dumps, lines)))
        return with_world("retrieve", *photos, "--attributes", file, "--json")

    code, described, _ = describe("Dress")
    _, unknown, _ = with_world("retrieve", *photos, "--json")
    assert code == 0 and described[0]["neighbours"] != unknown[0]["neighbours"]
    code, lines, err = describe("Drees")
    assert code == 2 and len(err) == 1 and "line 2" in err[0] and "'Dress'" in err[0]
    assert [line["input"] for line in lines if "neighbours" in line] == [str(photos[0])]


def test_retrieve_shows_where_its_landmark_comes_from(with_world, photos, tmp_path):
    code, lines, _ = with_world("retrieve", *photos, "--out", tmp_path / "out", "--json")
    assert code == 0
    assert lines[0]["landmark_id"] in [neighbour["id"] for neighbour in lines[0]["neighbours"]]
    assert written(tmp_path / "out") == sorted(
        f"my {colour}_{kind}.png" for colour in ("blue", "red") for kind in ("landmark", "panel")
    )


def test_places_that_cannot_be_used_are_found_before_any_work(ragdiff, world, photos, tmp_path):
    model, memory, _ = world
    (tmp_path / "taken").write_text("a file")
    code, lines, err = ragdiff("generate", *photos, "--out", tmp_path / "taken", *QUICK)
    assert code == 2 and len(err) == 1 and "taken: cannot be written" in lines[0]["error"]
    for option, path in (("--model", model), ("--memory", memory)):
        others = {"--model": model, "--memory": memory, option: tmp_path / "absent"}
        code, lines, err = ragdiff(
            "generate",
            *photos,
            "--out",
            tmp_path / "out",
            *QUICK,
            *(part for pair in others.items() for part in pair),
        )
        assert code == 2 and len(err) == 1 and "absent" in err[0] and path.exists()
    code, _, err = ragdiff("generate", *photos, "--out", tmp_path / "out", *QUICK, "--devices", 99)
    assert code == 2 and err == ["ragdiff: --devices 99: JAX sees 8 here (cpu)"]
    long = tmp_path / ("x" * 300)  # too long a name for the system, which says so wherever it is asked
    code, lines, err = ragdiff("generate", *photos, "--out", tmp_path / "out", *QUICK, "--model", long)
    assert code == 2 and len(err) == 1 and "File name too long" in lines[0]["error"]


def test_a_memory_of_another_encoder_is_refused(ragdiff, world, photos, tmp_path):
    model, _, _ = world
    Memory.create(tmp_path / "memory", "0" * 64, 32, 32)
    code, lines, err = ragdiff(
        "generate",
        *photos,
        "--out",
        tmp_path / "out",
        "--model",
        model,
        "--memory",
        tmp_path / "memory",
        *QUICK,
    )
    assert code == 2 and len(err) == 1 and "ragdiff memory build" in err[0]
    assert written(tmp_path / "out") == []


def test_a_half_written_model_is_named(ragdiff, world, photos, tmp_path):
    model, memory, _ = world
    shutil.copytree(model, tmp_path / "model")
    weights = next((tmp_path / "model" / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1000])
    arguments = ("generate", *photos, "--out", tmp_path / "out", "--memory", memory, *QUICK)
    code, _, err = ragdiff(*arguments, "--model", tmp_path / "model")
    assert code == 2 and len(err) == 1 and str(weights) in err[0]
    (tmp_path / "model" / "vae" / "config.json").write_text('{"_class_name": "Auto')
    code, _, err = ragdiff(*arguments, "--model", tmp_path / "model")
    assert code == 2 and len(err) == 1 and "vae" in err[0]
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    code, _, err = ragdiff(*arguments, "--model", tmp_path / "run")
    assert code == 2 and len(err) == 1 and "ragdiff train" in err[0]
