"""The memory keeps what it is given, in one order, through adding, removing and compacting."""

import dataclasses
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from memory_items import DIM, FINGERPRINT, SIZE, make_item

from ragdiff_jax.errors import UserError
from ragdiff_jax.retrieval import Memory, MemoryItem, fuse_landmarks, make_searcher, search, storage, stored_landmarks

KEPT = [0, 2, 3, 4, 5, 6, 7]


def check_content(memory, numbers):
    expected = [make_item(i) for i in numbers]
    assert [item.id for item in memory.items] == [item.id for item in expected]
    assert [item.metadata for item in memory.items] == [item.metadata for item in expected]
    vectors = np.stack([item.embedding / np.linalg.norm(item.embedding) for item in expected])
    np.testing.assert_allclose(memory.embeddings, vectors, atol=1e-6)
    np.testing.assert_array_equal(memory.landmarks, np.stack([item.landmark != 0 for item in expected]))
    for row, item in enumerate(expected):
        assert memory.row(item.id) == row
        assert memory.thumbnail(row) == item.thumbnail


def test_what_goes_in_comes_out(memory):
    check_content(memory, KEPT)
    check_content(Memory.open(memory.path, FINGERPRINT), KEPT)
    memory.verify()


def test_compacting_keeps_ids_and_order_and_frees_the_disk(memory):
    memory.compact()
    check_content(memory, KEPT)
    check_content(Memory.open(memory.path), KEPT)
    assert [path.name for path in memory.path.iterdir() if path.is_dir()] == ["segment-3"]
    assert not list(memory.path.glob("tombstones-*"))
    stored = b"".join(path.read_bytes() for path in memory.path.rglob("*") if path.is_file())
    assert b"garment-1" not in stored and b"garment-2" in stored
    memory.compact()
    check_content(Memory.open(memory.path), KEPT)


def test_a_stored_landmark_is_0_or_1_to_compiled_programs_too(memory):
    landmarks = Memory.open(memory.path).landmarks[:]
    assert landmarks.view(np.uint8).max() == 1
    clean = np.stack([make_item(i).landmark != 0 for i in KEPT])
    weights = jnp.asarray([[0.1, *[0.15] * 6]])
    expected = fuse_landmarks(jnp.asarray(clean[None]), weights)[1]
    for found in (jnp.asarray(landmarks[None]), Memory.open(memory.path).to_device().landmarks[np.arange(7)[None]]):
        assert jax.jit(fuse_landmarks)(found, weights)[1] == expected


@pytest.fixture
def decoded(monkeypatch):
    """The PNGs decoded since the test began."""
    pngs, decode = [], stored_landmarks.decode_bits
    monkeypatch.setattr(stored_landmarks, "decode_bits", lambda png, *rest: pngs.append(png) or decode(png, *rest))
    return pngs


def test_landmarks_are_taken_as_from_an_array_and_only_what_is_asked_for_is_decoded(memory, decoded):
    every = np.stack([make_item(i).landmark != 0 for i in KEPT])
    landmarks = memory.landmarks
    assert len(landmarks) == 7 and landmarks.shape == every.shape and not decoded
    for rows in (2, -1, np.int64(2), [2, 6, 2], np.array([[2, 6], [6, 6]]), np.array([], np.int64), slice(6, 7)):
        np.testing.assert_array_equal(landmarks[rows], every[rows])
    assert decoded == [memory.landmark_png(row) for row in (2, 6)], "kept once they were"
    for rows in (slice(None, None, 2), every[:, 0, 0], slice(9, 12)):
        np.testing.assert_array_equal(landmarks[rows], every[rows])
        np.testing.assert_array_equal(landmarks.part(rows), every[rows])
        np.testing.assert_array_equal(landmarks.packed(rows), np.packbits(every[rows], axis=-1))
    np.testing.assert_array_equal(landmarks.part([5, 1, 3])[[2, 0]], every[[3, 5]])
    np.testing.assert_array_equal(np.stack(list(landmarks)), every)
    assert [len(part) for part in landmarks.chunks(3)] == [3, 3, 1]
    with pytest.raises(IndexError):
        landmarks[7]


def test_no_more_decoded_landmarks_are_kept_than_there_is_room_for(memory, decoded):
    every, pngs = np.asarray(memory.landmarks), [memory.landmark_png(row) for row in range(7)]
    bits = stored_landmarks.KeptBits(pngs, SIZE, str, room=3 * SIZE[0] * 2 + 1)
    few = stored_landmarks.StoredLandmarks(bits)
    rng = np.random.default_rng(0)
    for count in rng.integers(0, 12, 60):
        rows = rng.integers(0, 7, count)
        np.testing.assert_array_equal(few[rows], every[rows])
    assert len(bits._kept) == 3
    few[[0, 1, 2]]
    decoded.clear()
    few[[2, 1, 0]]
    list(few)
    few[[2, 1, 0]]
    assert decoded == pngs[3:], "who passes over all doesn't take the place of what is asked for often"


def test_no_pass_over_the_landmarks_holds_them_at_a_byte_a_pixel(tmp_path):
    side, count = 256, 320
    memory = Memory.create(tmp_path / "m", FINGERPRINT, side, DIM)
    mask = np.zeros((side, side), bool)
    mask[40:180, 60:200] = True
    memory.add([MemoryItem(f"{i}", make_item(i).embedding, mask) for i in range(count)])
    for work in (Memory.to_device, Memory.verify, lambda memory: memory.landmarks[[3, 300]]):
        memory = Memory.open(memory.path)
        tracemalloc.start()
        work(memory)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 0.9 * count * side**2, work


def test_the_file_of_thumbnails_is_opened_once(memory, monkeypatch):
    opened, start = [], storage.Records.__init__
    monkeypatch.setattr(storage.Records, "__init__", lambda self, *rest: opened.append(rest) or start(self, *rest))
    for _ in range(3):
        assert [memory.thumbnail(row) for row in range(7)] == [make_item(i).thumbnail for i in KEPT]
    assert len(opened) == 2, "two segments"


def test_a_removed_garment_is_not_found_any_more(memory):
    query = make_item(2).embedding[None].astype(np.float32)
    ids, cosines = make_searcher("exact", memory.embeddings).search(query, 1)
    assert memory.items[int(ids[0, 0])].id == "garment-2" and cosines[0, 0] > 0.999
    memory.remove(["garment-2"])
    for opened in (memory, Memory.open(memory.path)):
        ids, _ = make_searcher("exact", opened.embeddings).search(query, len(opened))
        assert "garment-2" not in {opened.items[int(row)].id for row in ids[0]}
    memory.add([make_item(2)])
    check_content(Memory.open(memory.path), [0, 3, 4, 5, 6, 7, 2])


def test_everything_may_be_removed(memory):
    memory.remove([item.id for item in memory.items])
    memory.compact()
    empty = Memory.open(memory.path)
    assert len(empty) == 0 and empty.embeddings.shape == (0, DIM) and empty.landmarks.shape == (0, *SIZE)
    assert not [path for path in memory.path.iterdir() if path.is_dir()]
    names = {entry.name for entry in memory.manifest.segments}
    empty.add([make_item(9)])
    check_content(Memory.open(memory.path), [9])
    (segment,) = empty.manifest.segments
    assert segment.name not in {"segment-1", "segment-2", *names}, "who has the old ones open goes by their names"


def test_a_change_is_made_though_another_process_compacts_right_after_it(memory, monkeypatch):
    create = storage.create_exclusively

    def create_and_compact(path, content):
        create(path, content)
        if path.name.startswith("manifest"):
            monkeypatch.undo()
            Memory.open(memory.path).compact()

    monkeypatch.setattr(storage, "create_exclusively", create_and_compact)
    memory.add([make_item(9)])
    check_content(memory, [*KEPT, 9])
    check_content(Memory.open(memory.path), [*KEPT, 9])


def test_a_tiny_vector_is_made_a_unit_one(tmp_path):
    memory = Memory.create(tmp_path / "tiny", FINGERPRINT, SIZE, DIM)
    item = make_item(1)
    unit = item.embedding / np.linalg.norm(item.embedding)
    memory.add([dataclasses.replace(item, embedding=np.float32(1e-22 * unit))])
    np.testing.assert_allclose(Memory.open(memory.path).embeddings, unit[None], rtol=1e-5)


def test_info(memory):
    info = memory.info()
    assert info["count"] == 7 and info["removed"] == 1 and info["segments"] == 2 and info["generation"] == 4
    assert info["fingerprint"] == FINGERPRINT and info["dim"] == DIM and info["landmark_size"] == list(SIZE)
    assert info["bytes"] > 0


def test_search_on_the_device_inside_jit(memory):
    device = memory.to_device()
    queries = jnp.asarray(memory.embeddings[:3])
    ids, neighbours = jax.jit(lambda m, q: search(m, q, 2, jnp.asarray([0, -1, -1])))(device, queries)
    assert ids[0, 0] != 0 and ids[1, 0] == 1 and ids[2, 0] == 2
    np.testing.assert_array_equal(neighbours, memory.embeddings[np.asarray(ids)])
    np.testing.assert_array_equal(device.landmarks[np.arange(len(memory))], memory.landmarks)


def test_rows_are_split_over_the_mesh_where_they_divide(memory, decoded):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    device = memory.to_device(mesh)
    assert device.embeddings.sharding.is_fully_replicated
    assert memory.to_device(mesh, "data").embeddings.sharding.is_fully_replicated  # 7 rows over 8 devices
    memory.add([make_item(8)])
    device = memory.to_device(mesh, "data")
    assert device.embeddings.sharding.shard_shape((8, DIM)) == (1, DIM)
    np.testing.assert_array_equal(device.landmarks[np.arange(8)], memory.landmarks)
    decoded.clear()
    mesh = jax.make_mesh((2, 4), ("data", "fsdp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    split = Memory.open(memory.path).to_device(mesh, "data")
    np.testing.assert_array_equal(split.landmarks[np.arange(8)], memory.landmarks)
    assert len(decoded) == 8, "once for the four devices that hold a row"
    np.testing.assert_array_equal(device.embeddings, memory.embeddings)
    ids, _ = make_searcher("exact", device.embeddings).search(memory.embeddings, 1)
    np.testing.assert_array_equal(ids[:, 0], np.arange(8))


def test_another_encoders_memory_is_refused_with_both_names(memory):
    with pytest.raises(UserError, match="f" * 12) as raised:
        Memory.open(memory.path, "0" * 64)
    assert "0" * 12 in str(raised.value) and "memory build" in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": ""}, "id must be"),
        ({"id": "a\nb"}, "id must be"),
        ({"id": "x" * 513}, "id must be"),
        ({"id": "garment-0"}, "garment-0.*taken"),
        ({"id": "garment-21"}, "garment-21.*taken"),
        ({"embedding": np.full(DIM, np.nan)}, "garment-20.*embedding"),
        ({"embedding": np.full(DIM, np.inf)}, "garment-20.*embedding"),
        ({"embedding": np.zeros(DIM)}, "garment-20.*embedding"),
        ({"embedding": np.ones(DIM + 1)}, "garment-20.*embedding"),
        ({"landmark": np.ones((10, 12), np.uint8)}, "garment-20.*landmark"),
        ({"landmark": np.ones(SIZE, np.float32)}, "garment-20.*landmark"),
        ({"landmark": np.zeros(SIZE, np.uint8)}, "garment-20.*empty"),
        ({"metadata": {"x": np.ones(2)}}, "garment-20.*JSON"),
        ({"metadata": {"x": float("nan")}}, "garment-20.*JSON"),
        ({"metadata": {"x": "\ud800"}}, "garment-20.*JSON"),
        ({"thumbnail": b"GIF89a"}, "garment-20.*AVIF or a JPEG"),
    ],
)
def test_a_bad_item_is_named_and_nothing_is_added(memory, changes, message):
    before = sorted(memory.path.rglob("*"))
    with pytest.raises(UserError, match=message):
        memory.add([make_item(21), make_item(20, **changes)])
    assert sorted(memory.path.rglob("*")) == before
    check_content(memory, KEPT)


def test_an_unknown_id_is_named(memory):
    with pytest.raises(UserError, match="garment-1'"):
        memory.remove(["garment-0", "garment-1"])
    check_content(Memory.open(memory.path), KEPT)


def test_a_memory_is_made_only_in_an_empty_folder(tmp_path, memory):
    with pytest.raises(UserError, match="not empty"):
        Memory.create(memory.path, FINGERPRINT, SIZE, DIM)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").touch()
    with pytest.raises(UserError, match="not empty"):
        Memory.create(tmp_path / "pictures", FINGERPRINT, SIZE, DIM)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file"):
        Memory.create(tmp_path / "file", FINGERPRINT, SIZE, DIM)
    with pytest.raises(UserError, match="above 0"):
        Memory.create(tmp_path / "new", FINGERPRINT, SIZE, 0)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.touch()])
def test_what_is_no_memory_is_named(tmp_path, make):
    make(tmp_path / "nothing")
    with pytest.raises(UserError, match="nothing"):
        Memory.open(tmp_path / "nothing")
