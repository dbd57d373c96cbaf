"""`ragdiff memory`: flat-lays in, all of them or a line that says why not."""

import dataclasses
import json
import shutil

import numpy as np
from PIL import Image, ImageDraw
from small_model import IDS, draw_garment, small_system

from ragdiff_jax.data.images import decode_mask, load_image
from ragdiff_jax.evaluation.fingerprints import memory_fingerprint
from ragdiff_jax.retrieval import Memory, MemoryItem
from ragdiff_jax.weights import ModelFile, write_model_json
from ragdiff_jax.weights.model_folder import load, save_model


def test_info_of_a_built_memory(ragdiff, world):
    code, (info,), _ = ragdiff("memory", "info", "--memory", world[1], "--json")
    assert code == 0 and info["count"] == len(IDS) and info["landmark_size"] == [32, 32]


def test_build_leaves_out_what_cannot_be_used(ragdiff, world, tmp_path):
    flats = tmp_path / "flats"
    flats.mkdir()
    draw_garment("red").save(flats / "good.png")
    draw_garment("white").save(flats / "blank.png")
    (flats / "broken.png").write_bytes(b"no picture")
    out = tmp_path / "memory"
    code, lines, err = ragdiff("memory", "build", "--out", out, "--flats", flats, "--model", world[0], "--json")
    assert code == 2 and len(err) == 2
    assert {line["input"] for line in lines if "error" in line} == {"blank", str(flats / "broken.png")}
    memory = Memory.open(out)
    assert [item.id for item in memory.items] == ["good"] and memory.thumbnail(0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flats", "memory"]


def test_a_name_that_no_memory_takes_costs_only_its_picture(ragdiff, world, tmp_path):
    flats, out = tmp_path / "flats", tmp_path / "memory"
    flats.mkdir()
    bad = ("full\u3000width", "no\xa0break", "zero\u200bwidth")
    for name in (*bad, "good", "gr\xfcn"):
        draw_garment("red").save(flats / f"{name}.png")
    code, lines, err = ragdiff("memory", "build", "--out", out, "--flats", flats, "--model", world[0], "--json")
    assert code == 2 and len(err) == 3 and all("printable characters; rename it" in line for line in err)
    assert {line["input"] for line in lines if "error" in line} == {repr(name) for name in bad}
    assert all(any(repr(name) in line for line in err) for name in bad)
    assert [item.id for item in Memory.open(out).items] == ["good", "gr\xfcn"]


def test_a_build_of_nothing_leaves_nothing(ragdiff, world, tmp_path):
    flats = tmp_path / "flats"
    flats.mkdir()
    (flats / "broken.png").write_bytes(b"no picture")
    code, _, err = ragdiff("memory", "build", "--out", tmp_path / "m", "--flats", flats, "--model", world[0])
    assert code == 2 and "nothing was written" in err[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flats"]


def test_add_and_its_mistakes(ragdiff, world, tmp_path):
    model, _, flats = world
    out, more = tmp_path / "memory", tmp_path / "more"
    assert ragdiff("memory", "build", "--out", out, "--flats", flats, "--model", model)[0] == 0
    code, _, err = ragdiff("memory", "build", "--out", out, "--flats", flats, "--model", model)
    assert code == 2 and len(err) == 1 and "memory add" in err[0]
    more.mkdir()
    draw_garment("orange").save(more / "orange.png")
    (tmp_path / "a.jsonl").write_text(json.dumps({"image": "orange.png", "attributes": {"Category": "T-shirt"}}))
    add = (
        "memory",
        "add",
        "--memory",
        out,
        "--flats",
        more,
        "--model",
        model,
        "--attributes",
        tmp_path / "a.jsonl",
    )
    code, (info,), _ = ragdiff(*add, "--json")
    assert code == 0 and info["count"] == len(IDS) + 1
    memory = Memory.open(out)
    assert memory.items[memory.row("orange")].metadata["attributes"] == {"Category": "T-shirt"}
    code, _, err = ragdiff(*add)
    assert code == 2 and len(err) == 1 and "'orange'" in err[0] and "taken" in err[0]


def test_a_structure_net_alone_builds_the_same_memory(ragdiff, world, tmp_path):
    """Its own training stage makes the memory that the next stage retrieves from."""
    model, memory, flats = world
    shutil.copytree(model / "structure_net", tmp_path / "stage" / "structure_net")
    write_model_json(tmp_path / "stage", ModelFile(system="structure_net", parts={"structure_net": "StructureNet"}))
    build = ("memory", "build", "--out", tmp_path / "m", "--flats", flats, "--model", tmp_path / "stage")
    code, _, err = ragdiff(*build)
    assert code == 2 and len(err) == 1 and "--size" in err[0]
    code, (info,), _ = ragdiff(*build, "--size", 32, "--limit", 3, "--json")
    assert code == 0 and info["count"] == 3 and info["fingerprint"] == Memory.open(memory).fingerprint
    code, _, err = ragdiff(*build[:-1], model, "--out", tmp_path / "other", "--size", 64)
    assert code == 2 and len(err) == 1 and "leave --size out" in err[0]


def test_no_flat_lays_there(ragdiff, world, tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        code, _, err = ragdiff("memory", "build", "--out", tmp_path / "m", "--flats", folder, "--model", world[0])
        assert code == 2 and len(err) == 1 and str(folder) in err[0]


def draw_trousers(width):
    picture = Image.new("RGB", (48, 48), "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((10, 2, 38, 10), fill="navy")
    for left in (10, 38 - width):
        draw.rectangle((left, 10, left + width, 46), fill="navy")
    return picture


def test_a_new_category_is_retrieved_and_becomes_the_landmark_without_training(ragdiff, world, tmp_path):
    """R 6.1. Towers that are alike stand for trained ones: they find what looks the same."""
    plain, _, tops = world
    model = small_system()
    params = load(model, plain)
    twins = params["structure_net"] | {"photo": params["structure_net"]["flat"]}
    alike = dataclasses.replace(model.structure_net, photo_stages=(), photo_size=0, photo_mirrored=False)
    model = dataclasses.replace(model, structure_net=alike)
    save_model(tmp_path / "model", model, params | {"structure_net": twins}, [plain / "tokenizer"])
    memory, trousers, photo = tmp_path / "memory", tmp_path / "trousers", tmp_path / "photo.png"
    trousers.mkdir()
    for width in (8, 9, 11, 12):
        draw_trousers(width).save(trousers / f"trousers{width}.png")
    draw_trousers(10).save(photo)
    with_model = ("--model", tmp_path / "model", "--json")
    retrieve = ("retrieve", photo, "--memory", memory, "--out", tmp_path / "out", *with_model)

    def found():
        code, (line,), _ = ragdiff(*retrieve)
        assert code == 0
        return {neighbour["id"] for neighbour in line["neighbours"]}, line["landmark_id"]

    assert ragdiff("memory", "build", "--out", memory, "--flats", tops, *with_model)[0] == 0
    neighbours, landmark = found()
    assert neighbours < set(IDS)
    assert ragdiff("memory", "add", "--memory", memory, "--flats", trousers, *with_model)[0] == 0
    neighbours, landmark = found()
    assert neighbours == {f"trousers{width}" for width in (8, 9, 11, 12)} and landmark in neighbours
    used = decode_mask((tmp_path / "out" / "photo_landmark.png").read_bytes())
    stored = Memory.open(memory)
    assert np.array_equal(used, stored.landmarks[stored.row(landmark)])
    assert not used[-4, 15:17].any() and used[4, 15:17].all(), "two legs"


def test_a_live_memory_is_changed_checked_and_exported(ragdiff, world, tmp_path):
    model, memory, flats = world
    own = tmp_path / "memory"
    shutil.copytree(memory, own)
    code, (info,), _ = ragdiff("memory", "update", "--memory", own, "--flats", flats, "--model", model, "--json")
    assert code == 0 and info["count"] == len(IDS) and info["removed"] == len(IDS)
    code, (info,), _ = ragdiff("memory", "remove", "--memory", own, IDS[0], "--json")
    assert code == 0 and info["count"] == len(IDS) - 1
    assert ragdiff("memory", "verify", "--memory", own)[0] == 0
    code, (info,), _ = ragdiff("memory", "compact", "--memory", own, "--json")
    assert code == 0 and (info["segments"], info["removed"]) == (1, 0)
    code, (line,), _ = ragdiff("memory", "export", "--memory", own, "--out", tmp_path / "plain", "--json")
    assert code == 0 and line["count"] == len(IDS) - 1 and len(list((tmp_path / "plain/landmarks").iterdir())) == 4
    pictures = sorted((tmp_path / "plain/thumbnails").iterdir())
    assert len(pictures) == 4 and all(load_image(file).shape[2] == 3 for file in pictures)
    assert {file.suffix for file in pictures} == {".avif"}
    code, _, err = ragdiff("memory", "remove", "--memory", own, IDS[0])
    assert code == 2 and len(err) == 1 and IDS[0] in err[0]
    next(own.rglob("items.jsonl")).write_text("{}")
    code, _, err = ragdiff("memory", "verify", "--memory", own)
    assert code == 2 and len(err) == 1 and "items.jsonl" in err[0]


def test_a_curated_build_writes_its_report(ragdiff, world, tmp_path):
    flats = tmp_path / "flats"
    flats.mkdir()
    for number in range(12):
        draw_garment("red" if number % 2 else "blue", width=10 + number).save(flats / f"{number:02}.png")
    out = tmp_path / "memory"
    build = ("memory", "build", "--out", out, "--flats", flats, "--model", world[0], "--json")
    code, (info,), err = ragdiff(*build, "--select", 6, "--outliers", 0.1, "--min-samples", 2)
    assert code == 0 and info["count"] == 6 and "5 are represented by those kept" in err[0]
    report = json.loads((tmp_path / "memory.curation.json").read_text())
    assert report["encoded"] == 12 and report["kept"] == 6
    code, _, err = ragdiff(*build[:3], tmp_path / "m2", *build[4:], "--select", 13)
    assert code == 2 and len(err) == 1 and "12 flat-lays" in err[0]
    code, _, err = ragdiff(*build[:3], tmp_path / "m2", *build[4:], "--select", 6, "--min-samples", 20)
    assert code == 2 and len(err) == 1 and "--min-samples 20" in err[0]


def test_a_curated_build_of_pairs_leaves_out_a_bad_one(ragdiff, world, tmp_path):
    for folder in ("photos", "flats"):
        (tmp_path / "pairs" / folder).mkdir(parents=True)
        for number in range(8):
            draw_garment("red", width=10 + number).save(tmp_path / "pairs" / folder / f"{number:02}.png")
    (tmp_path / "pairs/flats/03.png").write_bytes(b"")
    pairs = ("--dataset", tmp_path / "pairs", "--split", "all")
    build = ("memory", "build", "--out", tmp_path / "memory", *pairs, "--model", world[0], "--json", "--min-samples", 2)
    code, lines, err = ragdiff(*build, "--select", 4)
    assert code == 2 and "03.png" in err[0] and lines[-1]["count"] == 4
    assert "03" not in {item.id for item in Memory.open(tmp_path / "memory").items}
    near = ("memory", "neighbours", "--memory", tmp_path / "memory", *pairs, "--model", world[0])
    code, _, err = ragdiff(*near, "--out", tmp_path / "near.npz", "-k", 4)
    assert code == 2 and len(err) == 1 and "-k 4" in err[0]


def test_a_memorys_fingerprint_knows_its_silhouettes(world, tmp_path):
    shutil.copytree(world[1], tmp_path / "memory")
    memory, before = Memory.open(tmp_path / "memory"), memory_fingerprint(world[1])
    assert memory_fingerprint(memory.path) == before
    item = memory.items[0]
    mask = ~memory.landmarks[0]
    memory.update([MemoryItem(id=item.id, embedding=memory.embeddings[0], landmark=mask, metadata=dict(item.metadata))])
    assert memory_fingerprint(memory.path) != before
