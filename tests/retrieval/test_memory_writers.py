"""Writers that race, and writers that are killed: the memory stays whole, and no change is lost silently."""

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from memory_items import DIM, FINGERPRINT, SIZE, make_item

from ragdiff_jax.errors import UserError
from ragdiff_jax.retrieval import Memory

TESTS = Path(__file__).parent
# Says when it is up, so that the kills fall into its work.
WRITER = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from memory_items import make_item
from ragdiff_jax.retrieval import Memory
memory = Memory.open(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
i = 1000
while True:
    memory.add([make_item(j) for j in range(i, i + 3)])
    memory.remove([f"garment-{i}"])
    if i % 5 == 0:
        memory.compact()
    i += 3
"""


def start_writer(path):
    command = [sys.executable, "-c", WRITER, str(TESTS), str(TESTS.parent.parent), str(path)]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "ready\n"
    return writer


@pytest.mark.parametrize("most_bytes", [2_000, 20_000], ids=["embeddings", "landmarks"])
def test_a_full_disk_is_one_clear_error_and_changes_nothing(memory, most_bytes):
    files = {path: path.read_bytes() for path in memory.path.rglob("*") if path.is_file()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        with pytest.raises(UserError, match="can't write the memory .*free space"):
            memory.add([make_item(i) for i in range(100, 300)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path: path.read_bytes() for path in memory.path.rglob("*") if path.is_file()} == files
    memory.add([make_item(100)])
    memory.verify()


def test_a_compaction_whose_manifest_was_cut_off_is_told(memory):
    memory.compact()
    newest = memory.path / f"manifest-{memory.generation}.json"
    newest.write_bytes(newest.read_bytes()[:-20])
    with pytest.raises(UserError, match="segment-.*missing"):
        Memory.open(memory.path)


def test_of_two_writers_one_wins_and_the_other_is_told(memory):
    first, second = Memory.open(memory.path), Memory.open(memory.path)
    first.add([make_item(10)])
    files = sorted(memory.path.rglob("*"))
    for change in (
        lambda: second.add([make_item(11)]),
        lambda: second.remove(["garment-0"]),
        second.compact,
    ):
        with pytest.raises(UserError, match="another writer"):
            change()
    assert sorted(memory.path.rglob("*")) == files
    again = Memory.open(memory.path)
    again.add([make_item(11)])
    assert {"garment-10", "garment-11", "garment-0"} <= {item.id for item in Memory.open(memory.path).items}


def test_many_writers_at_once_lose_nothing(tmp_path):
    path = Memory.create(tmp_path / "memory", FINGERPRINT, SIZE, DIM).path

    def write(i):
        while True:
            memory = Memory.open(path)
            try:
                memory.compact() if i % 4 == 3 else memory.add([make_item(i)])
                return
            except UserError as error:
                if "another writer" not in str(error):
                    failures.append(error)
                    return

    failures = []
    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not [str(error) for error in failures]
    final = Memory.open(path)
    final.verify()
    assert {item.id for item in final.items} == {f"garment-{i}" for i in range(8) if i % 4 != 3}


def test_a_number_that_was_taken_and_is_free_again_is_no_failure(memory, monkeypatch):
    """Another writer had the name at the rename and, beaten by a third, has deleted its folder since."""
    rename, refused = os.rename, []

    def taken_once(source, target):
        if not refused:
            refused.append(target)
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        rename(source, target)

    monkeypatch.setattr(os, "rename", taken_once)
    memory.add([make_item(20)])
    monkeypatch.undo()
    assert refused and "garment-20" in {item.id for item in Memory.open(memory.path).items}


def test_a_reader_that_was_open_during_a_compaction_still_reads(memory):
    reader = Memory.open(memory.path)
    memory.compact()
    assert reader.landmarks.shape == (7, *SIZE)
    with pytest.raises(UserError, match="open the memory again"):
        reader.thumbnail(0)


def test_a_killed_writer_leaves_a_whole_memory(memory):
    """kill -9 at random moments of adding, removing and compacting."""
    rng = random.Random(0)
    for _ in range(5):
        writer = start_writer(memory.path)
        writer.stdin.write("\n")
        writer.stdin.flush()
        time.sleep(rng.uniform(0.0, 0.25))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdin.close()
        writer.stdout.close()
        opened = Memory.open(memory.path)
        opened.verify()
        ids = {item.id for item in opened.items}
        assert {f"garment-{i}" for i in (0, 2, 3, 4, 5, 6, 7)} <= ids
        opened.remove([id for id in ids if int(id.split("-")[1]) >= 1000])
    Memory.open(memory.path).compact()
    assert len(Memory.open(memory.path)) == 7
    assert len([path for path in memory.path.iterdir() if path.name.startswith("segment-")]) == 1
