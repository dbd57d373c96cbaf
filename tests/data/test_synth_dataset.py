import shutil
import subprocess
import sys

import numpy as np
import pytest

from ragdiff_jax.data.attributes import attribute_ids
from ragdiff_jax.data.folder import open_pairs
from ragdiff_jax.data.images import decode_image, decode_mask
from ragdiff_jax.data.pipeline import PairArrays, make_batches
from ragdiff_jax.data.synth_dataset import open_synth, prepare_synth, synth_record
from ragdiff_jax.data.tokenizer import train_tokenizer
from ragdiff_jax.errors import UserError

NUMBERS = {"count": 16, "size": 48, "seed": 5, "splits": {"train": 0.75, "test": 0.25}}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("synth")
    return data_dir, prepare_synth(data_dir, **NUMBERS)


def test_the_files_hold_the_series_in_order(prepared):
    data_dir, folder = prepared
    train, test = open_pairs(folder, "train"), open_pairs(folder, "test")
    assert (len(train), len(test)) == (12, 4)
    for row, index in ((0, 0), (7, 7), (11, 11)):
        assert train[row] == synth_record(index, seed=5, size=48)
    assert test[1] == synth_record(13, seed=5, size=48, split="test")
    assert sorted(path.suffix for path in folder.iterdir()).count(".json") == 2
    assert all(".array_record" in path.name for path in folder.iterdir() if path.suffix != ".json")
    assert [path.name for path in folder.parent.iterdir()] == ["2.4.0"]  # nothing incomplete is left


def test_a_data_set_is_found_in_the_folder_that_was_told_to_hold_it(prepared, tmp_path):
    for name in ("first", "second"):
        shutil.copytree(prepared[1], tmp_path / "synth_garments" / name / "1.0.0")
        if name == "first":
            assert list(open_pairs(tmp_path, "test")) == list(open_pairs(prepared[1], "test"))
    with pytest.raises(UserError, match="holds 2 prepared data sets; name one: .*first/1.0.0, .*second/1.0.0"):
        open_pairs(tmp_path, "test")


def test_the_records_are_the_same_with_any_number_of_processes(prepared, tmp_path):
    folder = prepare_synth(tmp_path, **NUMBERS | {"count": 48, "processes": 2})
    train, test = open_pairs(folder, "train"), open_pairs(folder, "test")
    assert (len(train), len(test)) == (36, 12)
    assert list(train)[:12] == list(open_pairs(prepared[1], "train"))
    assert list(test) == [synth_record(index, seed=5, size=48, split="test") for index in range(36, 48)]


def test_a_split_of_many_files_is_in_order_without_a_sort_in_memory(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr("ragdiff_jax.data.in_order.SHARD_BYTES", 20_000)
    monkeypatch.setattr("tensorflow_datasets.core.shuffle.MAX_MEM_BUFFER_SIZE", 0)  # what TFDS does above 1 GB
    folder = prepare_synth(tmp_path, **NUMBERS)
    assert len(list(folder.glob("*-train.*"))) > 2
    assert list(open_pairs(folder, "train")) == list(open_pairs(prepared[1], "train"))


def test_a_full_disk_is_one_clear_error(tmp_path, monkeypatch):
    class Full:
        def __init__(self, *arguments):
            pass

        def write(self, row):
            pass

        def close(self):
            raise RuntimeError("write() failed: No space left on device; at byte 1")

    monkeypatch.setattr("array_record.python.array_record_module.ArrayRecordWriter", Full)
    with pytest.raises(UserError, match=r"\(write\(\) failed: No space left on device\)"):
        prepare_synth(tmp_path, **NUMBERS)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_record_is_whole(prepared):
    record = open_pairs(prepared[1], "train")[3]
    flat, photo, mask = decode_image(record.flat), decode_image(record.photo), decode_mask(record.mask)
    assert flat.shape == photo.shape == (48, 48, 3) and mask.shape == (48, 48)
    assert 0.05 < mask.mean() < 0.9
    assert np.abs(flat.astype(int) - 255)[~mask].mean() < 5 < np.abs(flat.astype(int) - 255)[mask].mean()
    assert record.category in record.flat_attributes.values() and record.caption
    attribute_ids(record.photo_attributes), attribute_ids(record.flat_attributes)  # all known to Table 6


def test_twins_share_structure_and_split(prepared):
    for split in ("train", "test"):
        pairs = open_pairs(prepared[1], split)
        records = {record.id: record for record in pairs}
        for record in pairs:
            twin = records[record.structure_partner]
            assert twin.structure_partner == record.id and twin.category == record.category
            assert record.mask == twin.mask and record.flat != twin.flat


def test_a_finished_set_is_found_and_other_numbers_make_another(prepared):
    data_dir, folder = prepared
    stamps = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert prepare_synth(data_dir, **NUMBERS) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == stamps
    other = open_synth(data_dir, "test", **NUMBERS | {"seed": 6, "processes": 2})
    assert other.folder != folder and other[0] == synth_record(12, seed=6, size=48, split="test")


def test_extreme_garments_and_another_style(tmp_path):
    numbers = NUMBERS | {"count": 4, "extreme": 2, "style": "studio"}
    folder = prepare_synth(tmp_path, **numbers)
    (first, second), train = open_pairs(folder, "extreme"), open_pairs(folder, "train")
    assert first.id == "synth-extreme-studio-5-0000000" and first.structure_partner == second.id
    assert first.mask == second.mask and first.mask != train[0].mask
    assert train[0] == synth_record(0, seed=5, size=48, style="studio")
    drawn = synth_record(0, seed=5, size=48)
    assert drawn.mask == train[0].mask and drawn.flat != train[0].flat and drawn.photo != train[0].photo
    assert prepare_synth(tmp_path, **numbers | {"style": "drawn"}) != folder


def test_training_batches_from_the_files(prepared, tmp_path):
    pairs = open_pairs(prepared[1], "train")
    tokenizer = train_tokenizer([record.caption for record in pairs], 600, tmp_path)
    arrays = PairArrays(pairs, image_size=32, tokenizer=tokenizer, cache=True)
    stream = make_batches(arrays, batch_size=6, seed=0)
    batch = next(stream)
    stream.close()
    assert batch["has_partner"].all() and (batch["partner_row"] == batch["row"] ^ 1).all()
    assert (batch["partner_flat"] != batch["flat"]).any()
    assert batch["photo"].shape == (6, 32, 32, 3)


def test_no_tensorflow_is_needed(prepared):
    script = (
        "import sys; from ragdiff_jax.data.folder import open_pairs\n"
        "print(open_pairs(sys.argv[1], 'test')[0].id)\n"
        "assert not {'tensorflow', 'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, prepared[1]], capture_output=True, text=True, check=True)
    assert done.stdout == "synth-5-0000012\n" and not done.stderr


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"count": 2}, "count 2 is too small"),
        ({"count": 7}, "count 7: twins come by twos"),
        ({"size": 4}, "size 4 is too small"),
        ({"splits": {"train": 0.5}}, "sum to 1"),
        ({"extreme": 3}, "extreme 3 must be an even number"),
        ({"extreme": 2, "splits": {"extreme": 1.0}}, "already has one named"),
        ({"style": "oil"}, "style 'oil' isn't known; use one of drawn, studio"),
    ],
)
def test_impossible_numbers_are_named(tmp_path, numbers, words):
    with pytest.raises(UserError, match=words):
        prepare_synth(tmp_path, **NUMBERS | numbers)
    assert not any(tmp_path.iterdir())


def test_an_unwritable_place_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="file.*can't be written"):
        prepare_synth(tmp_path / "file", **NUMBERS)


def test_stdout_stays_clean(tmp_path, capsys):
    prepare_synth(tmp_path, **NUMBERS | {"count": 4})
    assert capsys.readouterr().out == ""


def test_an_interrupted_run_leaves_nothing_half(tmp_path, monkeypatch):
    import ragdiff_jax.data.synth_dataset as module

    def stop(chunk, **numbers):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "draw_chunk", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare_synth(tmp_path, **NUMBERS)
    monkeypatch.undo()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(open_synth(tmp_path, "train", **NUMBERS)) == 12


def test_a_missing_file_is_named(prepared, tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(prepared[1], folder)
    next(folder.glob("*-train.array_record*")).unlink()
    with pytest.raises(UserError, match=r"train.array_record-00000: .*missing \(1 of 1"):
        open_pairs(folder, "train")
    assert len(open_pairs(folder, "test")) == 4


def test_a_file_that_was_cut_short_is_named(prepared, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(prepared[1], folder)
    file = next(folder.glob("*-train.array_record*"))
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)  # the index at its end is whole: it opens
    file.write_bytes(content)
    with pytest.raises(UserError, match="cut: record [0-9]+ of split train: damaged"):
        list(open_pairs(folder, "train"))
    for name, content in (("features.json", "{"), ("dataset_info.json", ""), ("dataset_info.json", "[]")):
        whole = (folder / name).read_text()
        (folder / name).write_text(content)
        with pytest.raises(UserError, match="cut: dataset_info.json or features.json is damaged"):
            open_pairs(folder, "train")
        (folder / name).write_text(whole)
