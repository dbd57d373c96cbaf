"""Updating, exporting and searching a memory that changes; tables of neighbours that know their memory."""

import json

import jax
import numpy as np
import pytest
from memory_items import DIM, FINGERPRINT, SIZE, make_item

from ragdiff_jax.data.images import decode_mask
from ragdiff_jax.errors import UserError
from ragdiff_jax.retrieval import Memory, NeighbourTable, encode_landmark, find_neighbours, make_searcher
from ragdiff_jax.retrieval.exporting import export_memory, file_name


def test_an_update_replaces_and_adds_at_once(memory):
    generation = memory.generation
    other = make_item(40).embedding
    memory.update([make_item(2, embedding=other), make_item(9)])
    again = Memory.open(memory.path)
    again.verify()
    assert again.generation == generation + 1
    assert [item.id for item in again.items][-2:] == ["garment-2", "garment-9"] and len(again) == 8
    np.testing.assert_allclose(again.embeddings[again.row("garment-2")], other / np.linalg.norm(other), atol=1e-6)
    again.compact()
    assert len(Memory.open(memory.path)) == 8
    with pytest.raises(UserError, match="garment-9.*taken"):
        memory = Memory.open(memory.path)
        memory.update([make_item(9), make_item(9)])


def test_a_landmark_may_be_encoded_beforehand(memory):
    mask = make_item(20).landmark != 0
    memory.add([make_item(20, landmark=encode_landmark(mask))])
    np.testing.assert_array_equal(Memory.open(memory.path).landmarks[-1], mask)
    with pytest.raises(UserError, match=r"\(10, 12\)"):
        memory.add([make_item(21, landmark=encode_landmark(mask.T))])
    with pytest.raises(UserError, match="empty"):
        encode_landmark(np.zeros(SIZE, bool))


@pytest.mark.parametrize("id", ["../../etc/passwd", "/etc/passwd", "a/../b", "a\\b", ".."])
def test_an_id_that_is_a_way_out_of_a_folder_is_refused(memory, id):
    with pytest.raises(UserError, match="path"):
        memory.add([make_item(20, id=id)])


def test_export_is_what_the_memory_holds(memory, tmp_path):
    memory.add([make_item(30, id="Größe/30.v2")])
    export_memory(memory, tmp_path / "plain")
    out = tmp_path / "plain"
    np.testing.assert_array_equal(np.load(out / "embeddings.npy"), memory.embeddings)
    lines = [json.loads(line) for line in (out / "items.jsonl").read_bytes().splitlines()]
    assert [line["id"] for line in lines] == [item.id for item in memory.items]
    for row, line in enumerate(lines):
        assert (out / line["landmark"]).read_bytes() == memory.landmark_png(row)
        np.testing.assert_array_equal(decode_mask(memory.landmark_png(row)), memory.landmarks[row])
        stored = memory.thumbnail(row)
        assert (line["thumbnail"] is None) == (stored is None)
        assert stored is None or (out / line["thumbnail"]).read_bytes() == stored
    assert json.loads((out / "memory.json").read_text())["count"] == 8
    with pytest.raises(UserError, match="there already"):
        export_memory(memory, out)
    assert len({file_name(id) for id in ("a" * 400, "a" * 401, "A", "a/b", "a.b", "a%2Eb")}) == 6


def test_any_number_of_rows_is_split_over_the_mesh(memory):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = np.concatenate([memory.embeddings, make_item(50).embedding[None].astype(np.float32)] * 3)[:-1]
    rows = rows + 0.01 * np.random.default_rng(0).normal(size=rows.shape).astype(np.float32)
    plain = make_searcher("exact", rows)
    for kind in ("exact", "approx", "auto"):
        split = make_searcher(kind, rows, mesh=mesh, rows_over="data")
        assert split.size == 23
        for k in (1, 4, 22):
            ids, cosines = split.search(rows[:3], k, np.array([0, -1, 2]))
            expected, scores = plain.search(rows[:3], k, np.array([0, -1, 2]))
            np.testing.assert_array_equal(ids, expected)
            np.testing.assert_allclose(cosines, scores, atol=1e-6)


def test_neighbours_leave_a_photos_own_flat_lay_out_and_know_their_memory(memory, tmp_path):
    searcher = make_searcher("auto", memory.embeddings)
    assert "exact" in searcher.choice and "7 rows" in searcher.choice
    row_of = {item.id: row for row, item in enumerate(memory.items)}
    names = [*row_of, "not-there"]
    queries = np.concatenate([memory.embeddings, memory.embeddings[:1]])
    rows, cosines = find_neighbours(searcher, queries, names, row_of, 3)
    assert not (rows[:-1] == np.arange(7)[:, None]).any() and rows[-1, 0] == 0
    table = NeighbourTable(
        ids=tuple(names),
        rows=rows,
        cosines=cosines,
        fingerprint=FINGERPRINT,
        generation=memory.generation,
        manifest=memory.manifest.sha256,
    )
    table.save(tmp_path / "near.npz")

    def opened(path=tmp_path / "near.npz"):
        return NeighbourTable.open(path, memory)

    np.testing.assert_array_equal(opened().rows, rows)
    assert opened().ids == table.ids
    other = Memory.create(tmp_path / "other", FINGERPRINT, SIZE, DIM)
    other.add([make_item(i) for i in range(20, 25)])
    other.add([make_item(i) for i in range(25, 28)])
    other.remove(["garment-20"])
    assert (other.generation, len(other)) == (memory.generation, len(memory))
    with pytest.raises(UserError, match="of another memory"):
        NeighbourTable.open(tmp_path / "near.npz", other)
    memory.remove(["garment-0"])
    with pytest.raises(UserError, match="generation 4.*generation 5"):
        opened()
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 nothing")
    for name in ("bad.npz", "none.npz"):
        with pytest.raises(UserError, match="memory neighbours"):
            opened(tmp_path / name)
