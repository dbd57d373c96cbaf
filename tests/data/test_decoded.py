"""Decoded pairs are the pairs; several sources are one; an epoch shows the rows that it is told to."""

import concurrent.futures
import errno
import functools
import json
import os
import shutil
import socket

import jax
import numpy as np
import pytest

import ragdiff_jax.data.decoded as module
from ragdiff_jax.data.attributes import ATTRIBUTES
from ragdiff_jax.data.decoded import decoded_pairs
from ragdiff_jax.data.folder import FolderPairs
from ragdiff_jax.data.images import encode_png
from ragdiff_jax.data.pipeline import PairArrays, make_batches
from ragdiff_jax.data.sources import (
    JoinedPairs,
    SomePairs,
    flat_attribute_ids,
    open_sources,
    repeated_rows,
    rows_of_categories,
)
from ragdiff_jax.errors import UserError
from ragdiff_jax.training import from_config

SIZE = 16


class Lengths:
    """A stand-in tokenizer: a caption's length."""

    def encode(self, texts):
        return np.array([[len(text)] for text in texts], np.int32)


def write_folder(folder, names, *, captions=True):
    """Pairs of a folder data set; each names the next one as its structure partner."""
    lines = []
    for row, name in enumerate(names):
        for part, shade in (("photos", 40 + row), ("flats", 90 + row)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            picture = np.full((20, 12, 3), 255, np.uint8)
            picture[4:16, 3:9] = shade
            (folder / part / f"{name}.png").write_bytes(encode_png(picture))
        category = "Hoodie" if row % 2 else "Skirt"
        lines.append({"image": f"photos/{name}.png", "attributes": {"Fit": "Loose"}, "caption": "x" * row})
        partner = {"structure_partner": names[(row + 1) % len(names)]}
        lines.append({"image": f"flats/{name}.png", "attributes": {"Category": category}} | partner)
    (folder / "attributes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.fixture
def folders(tmp_path):
    return (
        write_folder(tmp_path / "many", [f"a{row:02d}" for row in range(12)]),
        write_folder(tmp_path / "few", ["b0", "b1", "b2"]),
    )


def decode(folders, tmp_path, **options):
    many, few = folders
    opener = functools.partial(open_sources, str(many), "all", str(few))
    return decoded_pairs(
        opener, [many, few], tmp_path / "decoded", name="all", image_size=SIZE, tokenizer=Lengths(), **options
    )


@pytest.mark.parametrize("processes", [1, 2])
def test_decoded_pairs_give_the_batches_of_their_records(folders, tmp_path, processes):
    many, few = folders
    decoded = decode(folders, tmp_path, processes=processes)
    plain = PairArrays(open_sources(str(many), "all", str(few)), image_size=SIZE, tokenizer=Lengths())
    assert decoded.ids == plain.ids and len(decoded) == 15
    rows = np.array([14, 3, 0, 7], np.int32)
    for ours, theirs in ((decoded.batch(rows), plain.batch(rows)), (decoded.arrays(), plain.arrays())):
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_pairs_are_decoded_once_and_anew_when_the_files_change(folders, tmp_path):
    first = decode(folders, tmp_path, processes=1)
    assert decode(folders, tmp_path, processes=1).folder == first.folder
    write_folder(folders[1], ["b0", "b1", "b2", "b3"])
    again = decode(folders, tmp_path, processes=1)
    assert again.folder != first.folder and len(again) == 16


def test_a_linked_folder_is_looked_into_and_a_loop_has_an_end(tmp_path):
    real, data = tmp_path / "elsewhere", tmp_path / "pairs"
    for folder in (real, data):
        folder.mkdir()
    (real / "a.png").write_bytes(b"1")
    (data / "photos").symlink_to(real)
    (data / "photos" / "again").symlink_to(data)
    (real / os.fsdecode(b"m\xe4.png")).write_bytes(b"")  # a name that is no UTF-8
    first = module.fingerprint([data], 1)
    assert module.fingerprint([data], 1) == first
    (real / "b.png").write_bytes(b"2")
    assert module.fingerprint([data], 1) != first


def test_what_a_killed_run_left_is_swept(folders, tmp_path):
    place = decode(folders, tmp_path, processes=1).folder
    left = place.with_name(f".{place.name}.{socket.gethostname()}.0123.tmp")
    place.rename(left)
    assert decode(folders, tmp_path, processes=1).folder == place
    assert list(place.parent.iterdir()) == [place]


def test_two_at_once_decode_once(folders, tmp_path, monkeypatch):
    done, real = [], module._decode
    monkeypatch.setattr(module, "_decode", lambda *arguments: (done.append(arguments[1]), real(*arguments)))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: decode(folders, tmp_path, processes=1).folder, range(2)))
    assert len(done) == 1 and found[0] == found[1]
    assert list((tmp_path / "decoded").iterdir()) == found[:1]


def test_the_first_process_decodes_and_the_others_wait(folders, tmp_path, monkeypatch):
    """As process 1 of two: the first has decoded when it leaves the barrier, or has a disk of its own."""
    data = {"folder": str(folders[0]), "image_size": SIZE, "decoded": str(tmp_path / "decoded")}
    waited = []

    def barrier(name, minutes):
        if not waited and shared:
            monkeypatch.setattr(jax, "process_index", lambda: 0)
            first = decoded_pairs(
                functools.partial(open_sources, data["folder"], "all", "", ""),
                [data["folder"]],
                data["decoded"],
                name="all",
                image_size=SIZE,
                tokenizer=Lengths(),
                processes=1,
            )
            assert first.folder.is_dir()
            monkeypatch.setattr(module, "_decode", None)
            monkeypatch.setattr(jax, "process_index", lambda: 1)
        waited.append((name, minutes >= 24 * 60, (tmp_path / "decoded").exists()))

    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(from_config, "barrier", barrier)
    for shared in (False, True):
        waited.clear()
        shutil.rmtree(tmp_path / "decoded", ignore_errors=True)
        assert len(from_config.open_pairs(data, "all")) == 12
        assert waited == [("decoded_first", True, shared), ("decoded_all", True, True)]


def test_what_fails_half_way_leaves_nothing(folders, tmp_path):
    (folders[1] / "photos" / "b1.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="b1"):
        decode(folders, tmp_path, processes=1)
    assert not list((tmp_path / "decoded").iterdir())


def test_all_damaged_pictures_are_told_at_once(folders, tmp_path):
    for name in ("b0", "b2"):
        (folders[1] / "flats" / f"{name}.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"(?s)cannot be decoded: .*b0.*; .*b2"):
        decode(folders, tmp_path, processes=1)


def test_a_full_disk_is_told_before_any_work(folders, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match="No space left on device"):
        decode(folders, tmp_path, processes=1)
    assert not list((tmp_path / "decoded").iterdir())


def test_damaged_arrays_are_named(folders, tmp_path):
    folder = decode(folders, tmp_path, processes=1).folder
    (folder / "mask.npy").write_bytes(b"")
    with pytest.raises(UserError, match="damaged"):
        decode(folders, tmp_path, processes=1)


def test_pairs_with_one_id_in_two_folders_are_refused(folders, tmp_path):
    write_folder(folders[1], ["a00", "b1"])
    with pytest.raises(UserError, match="1 names that .* has too, 'a00'"):
        decode(folders, tmp_path, processes=1)
    # Nor may what one holds out be trained on by way of the other.
    trained = open_sources(str(folders[0]), "train").ids
    write_folder(folders[1], [min(FolderPairs(folders[0]).names - set(trained))])
    (folders[1] / "photos/a00.png").unlink()
    (folders[1] / "flats/a00.png").unlink()
    with pytest.raises(UserError, match="1 names that .* has too"):
        open_sources(str(folders[0]), "train", str(folders[1]))


def test_joined_sources_follow_one_another(folders):
    many, few = (open_sources(str(folder), "all") for folder in folders)
    joined = JoinedPairs([many, few, many])
    assert len(joined) == 27
    assert [joined[row].id for row in (0, 11, 12, 14, 15, 26)] == ["a00", "a11", "b0", "b2", "a00", "a11"]
    for row in (27, -1):
        with pytest.raises(IndexError):
            joined[row]


def test_an_epoch_shows_the_few_as_often_as_asked(folders, tmp_path):
    decoded = decode(folders, tmp_path, processes=1)
    for repeat in (0, 4):
        order = repeated_rows([12, 3], repeat)
        count = 12 + 3 * repeat
        batches = make_batches(decoded, batch_size=count, seed=5, order=order, rows_only=True, num_threads=0)
        batch = next(batches)
        batches.close()
        assert set(batch) == {"row"}
        seen = np.bincount(batch["row"], minlength=15)
        np.testing.assert_array_equal(seen, [1] * 12 + [repeat] * 3)
    with pytest.raises(UserError, match="at least 0"):
        repeated_rows([12, 3], -1)


def test_rows_of_categories(folders, tmp_path):
    flat_attributes = np.asarray(decode(folders, tmp_path, processes=1).arrays()["flat_attributes"])
    np.testing.assert_array_equal(rows_of_categories(flat_attributes, ("Hoodie",)), [1, 3, 5, 7, 9, 11, 13])
    with pytest.raises(UserError, match="no category 'Hat'"):
        rows_of_categories(flat_attributes, ("Hat",))
    with pytest.raises(UserError, match="has no Vest"):
        rows_of_categories(flat_attributes, ("Vest",))
    assert "Vest" in ATTRIBUTES["Category"]
    plain = PairArrays(open_sources(str(folders[0]), "all", str(folders[1])), image_size=SIZE, tokenizer=Lengths())
    np.testing.assert_array_equal(flat_attribute_ids(plain), flat_attributes)
    some = SomePairs(plain, rows_of_categories(flat_attributes, ("Hoodie",)))
    assert len(some) == 7 and some.ids[:2] == ["a01", "a03"]
    np.testing.assert_array_equal(some.batch(np.array([2, 0]))["row"], [5, 1])


def test_an_epoch_without_a_row_is_refused(folders, tmp_path):
    data = {"folder": str(folders[0]), "also": str(folders[1]), "also_repeat": 0, "categories": ("Skirt",)}
    decoded = decode(folders, tmp_path, processes=1)
    assert list(from_config.epoch_rows(data, decoded)) == [0, 2, 4, 6, 8, 10]
    few = write_folder(tmp_path / "one", ["c0"])  # a skirt
    data |= {"folder": str(few), "categories": ("Hoodie",)}
    decoded = decode((few, folders[1]), tmp_path, processes=1)
    with pytest.raises(UserError, match=r"also_repeat=0 leaves nothing .* has no Hoodie, .* at least 1"):
        from_config.epoch_rows(data, decoded)
    assert list(from_config.epoch_rows(data | {"also_repeat": 2}, decoded)) == [2, 2]


def test_ids_of_folders_are_known_without_a_look_at_pictures(folders, monkeypatch):
    source = open_sources(str(folders[0]), "all", str(folders[1]))
    read = [source[row].id for row in range(len(source))]
    arrays = PairArrays(source, image_size=SIZE, tokenizer=Lengths())
    for folder in folders:
        for picture in (*folder.glob("photos/*"), *folder.glob("flats/*")):
            picture.unlink()
    assert arrays.ids == read and arrays.row_of("b1") == 13
