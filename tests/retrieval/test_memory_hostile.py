"""Files that were damaged, or made to do harm, are refused in one line that names them."""

import hashlib
import io
import json
import pickle

import numpy as np
import pytest
from memory_items import DIM, SIZE, make_item
from PIL import Image

from ragdiff_jax.errors import UserError
from ragdiff_jax.retrieval import Memory
from ragdiff_jax.retrieval.exporting import export_memory
from ragdiff_jax.retrieval.storage import read_records, write_records


def manifest(memory):
    return memory.path / f"manifest-{memory.generation}.json"


def rewrite_manifest(memory, change):
    value = json.loads(manifest(memory).read_bytes())
    change(value)
    manifest(memory).write_text(json.dumps(value))


def rewrite_file(memory, name, content, segment=0):
    """Replaces a file and makes the manifest's hash agree, as someone with bad intent would."""
    entry = memory.manifest.segments[segment]
    (memory.path / entry.name / name).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    rewrite_manifest(memory, lambda value: value["segments"][segment]["files"].update({name: digest}))


def npy(array, **kwargs):
    buffer = io.BytesIO()
    np.save(buffer, array, **kwargs)
    return buffer.getvalue()


def refused(memory, match):
    with pytest.raises(UserError, match=match) as raised:
        Memory.open(memory.path).verify()
    assert "\n" not in str(raised.value)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


GOOD = np.eye(5, DIM, dtype=np.float32)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an array",
        pickle.dumps(Bomb()),
        npy(np.array([Bomb()] * 5, dtype=object), allow_pickle=True),
        npy(GOOD)[:-4],
        npy(GOOD.astype(np.float64)),
        npy(GOOD.astype(">f4")),
        npy(GOOD[:4]),
        npy(GOOD[:, :8]),
        npy(GOOD.reshape(-1)),
        npy(np.where(np.arange(5)[:, None] == 2, np.nan, GOOD).astype(np.float32)),
        npy(2 * GOOD),
        npy(np.float32(1e38) * np.ones((5, DIM), np.float32)),
        npy(GOOD).replace(b"(5, 16)", b"(5000000000, 16)".ljust(7)),
        npy(GOOD).replace(b"'descr'", b"'d'+'escr'"),
    ],
)
def test_bad_embeddings(memory, content):
    rewrite_file(memory, "embeddings.npy", content)
    refused(memory, "embeddings.npy")


LINE = json.dumps({"id": "a", "metadata": {}, "thumbnail": None})


@pytest.mark.parametrize(
    "lines",
    [
        [LINE],
        [LINE] * 4 + ["{"],
        [LINE] * 4 + ["[" * 100_000],
        [LINE] * 4 + ["[]"],
        [LINE] * 4 + ['{"id": 3, "metadata": {}, "thumbnail": null}'],
        [LINE] * 4 + ['{"id": "b", "metadata": {"x": NaN}, "thumbnail": null}'],
        [LINE] * 4 + ['{"id": "b", "metadata": {}, "thumbnail": 7}'],
        [LINE] * 4 + ['{"id": "b", "metadata": {}, "thumbnail": false}'],
        [LINE] * 4 + ['{"id": "b", "metadata": {}, "thumbnail": null, "__class__": "os"}'],
    ],
)
def test_bad_items(memory, lines):
    rewrite_file(memory, "items.jsonl", "\n".join(lines).encode())
    refused(memory, "items.jsonl")


def test_an_id_that_stands_twice(memory):
    rewrite_file(memory, "items.jsonl", "\n".join([LINE] * 5).encode())
    refused(memory, "'a' stands twice")


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        png(Image.new("1", (30_000, 30_000))),
        png(Image.new("L", (SIZE[1], SIZE[0]))),
        png(Image.new("1", SIZE)),
        png(Image.new("1", (SIZE[1], SIZE[0])))[:-30],
    ],
)
def test_bad_landmarks(memory, tmp_path, record):
    write_records(tmp_path / "records", [record] * 5)
    rewrite_file(memory, "landmarks.array_record", (tmp_path / "records").read_bytes())
    refused(memory, "landmark")
    opened = Memory.open(memory.path)
    for use in (lambda: opened.landmarks[[4, 3]], opened.to_device, lambda: export_memory(opened, tmp_path / "plain")):
        with pytest.raises(UserError, match=r"landmarks.array_record, row \d: landmark is"):
            use()
    assert not (tmp_path / "plain").exists()


def test_damaged_record_files(memory):
    path = memory.path / "segment-1" / "landmarks.array_record"
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], bytes(70_000), np.random.default_rng(0).bytes(70_000)):
        rewrite_file(memory, "landmarks.array_record", content)
        refused(memory, "landmarks.array_record")
    with pytest.raises(UserError, match="records"):
        path.write_bytes(whole)
        read_records(path, 4)


@pytest.mark.parametrize(
    "name", ["embeddings.npy", "items.jsonl", "landmarks.array_record", "thumbnails.array_record"]
)
def test_a_changed_or_missing_file_is_found_by_its_hash(memory, name):
    path = memory.path / "segment-1" / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused(memory, f"{name}.*hash")
    path.unlink()
    refused(memory, f"{name}.*missing")


def set_in(*keys):
    *path, last, new = keys

    def change(value):
        for key in path:
            value = value[key]
        value[last] = new

    return change


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (set_in("segments", 0, "name", "../elsewhere"), "segment name"),
        (set_in("segments", 0, "name", "segment-1/../../x"), "segment name"),
        (set_in("segments", 0, "name", "/etc"), "segment name"),
        (set_in("segments", 0, "name", "segment-2"), "twice"),
        (set_in("segments", 0, "name", "segment-77"), "segment-77.*missing"),
        (set_in("segments", 0, "files", "../../secret", "0" * 64), "files"),
        (set_in("segments", 0, "files", "embeddings.npy", "x"), "hash"),
        (set_in("segments", 0, "count", 2**40), "count"),
        (set_in("segments", 0, "count", 2**31 - 1), "lines|float32"),
        (set_in("segments", 0, "count", True), "count"),
        (set_in("segments", {}), "segments"),
        (set_in("segments", 0, None), "segment"),
        (set_in("tombstones", "name", "../../secret.json"), "tombstones"),
        (set_in("tombstones", "sha256", "0" * 64), "hash"),
        (set_in("tombstones", None), "7"),
        (set_in("dim", 0), "dim"),
        (set_in("dim", 17), "float32"),
        (set_in("landmark_size", [12]), "landmark_size"),
        (set_in("landmark_size", [10**9, 10**9]), "landmark_size"),
        (set_in("landmark_size", [10, 12]), "landmark"),
        (set_in("count", 6), "6"),
        (set_in("count", -1), "count"),
        (set_in("schema", 2), "schema 2"),
        (set_in("generation", 9), "generation"),
        (set_in("fingerprint", 5), "fingerprint"),
    ],
)
def test_bad_manifests(memory, change, match):
    rewrite_manifest(memory, change)
    refused(memory, match)


@pytest.mark.parametrize("content", ["[]", '{"schema": 1}', "3"])
def test_a_manifest_of_another_kind(memory, content):
    manifest(memory).write_text(content)
    refused(memory, "manifest-4.json")


@pytest.mark.parametrize(
    "rows", [{"segment-1": [5]}, {"segment-1": [-1]}, {"segment-9": [0]}, {"segment-1": "a"}, []]
)
def test_bad_tombstones(memory, rows):
    path = memory.path / memory.manifest.tombstones
    path.write_text(json.dumps(rows))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    rewrite_manifest(memory, lambda value: value["tombstones"].update(sha256=digest))
    refused(memory, "tombstones")


@pytest.mark.parametrize("content", ["", '{"schema": 1, "gener', "\x00" * 300])
def test_a_half_written_manifest_is_passed_over(memory, content):
    """And never written over: its number stays taken until someone deletes it."""
    half = memory.path / "manifest-5.json"
    half.write_text(content)
    opened = Memory.open(memory.path)
    assert opened.generation == 4 and len(opened) == 7
    with pytest.raises(UserError, match="manifest-5.json.*delete it"):
        opened.add([make_item(9)])
    half.unlink()
    opened.add([make_item(9)])
    assert len(Memory.open(memory.path)) == 8


def test_files_without_a_manifest_are_never_read(memory):
    for name in ("segment-3", ".writing-1-abc", "segment-x", "segment-"):
        (memory.path / name).mkdir()
        (memory.path / name / "embeddings.npy").write_bytes(b"half")
    (memory.path / "tombstones-5-00000000.json").write_text("{")
    (memory.path / "manifest-x.json").write_text("{")
    opened = Memory.open(memory.path)
    opened.add([make_item(9)])
    assert opened.manifest.segments[-1].name == "segment-4"
    opened.compact()
    assert len(Memory.open(memory.path)) == 8
    assert not (memory.path / "segment-3").exists()


def test_a_manifest_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "manifest-1.json").mkdir()
    with pytest.raises(UserError, match="can't read the memory"):
        Memory.open(tmp_path)
