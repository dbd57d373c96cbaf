import operator
import os
import subprocess
import sys
import time

import pytest

from ragdiff_jax.data.processes import map_processes
from ragdiff_jax.errors import UserError

WORK = """
import os
import time

def work(item):
    time.sleep(0.1)
    return os.getpid()
"""
PARENT = """
import time
from work import work
from ragdiff_jax.data.processes import map_processes

if __name__ == "__main__":
    for pid in map_processes(work, range(64), 2):
        print(pid, flush=True)
        time.sleep(0.05)
    time.sleep(60)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path):
    (tmp_path / "work.py").write_text(WORK)
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, cwd=tmp_path) as parent:
        workers = {int(parent.stdout.readline()) for _ in range(8)}
        parent.kill()
    assert workers and parent.pid not in workers
    end = time.monotonic() + 20
    while left := [pid for pid in workers if _runs(pid)]:
        assert time.monotonic() < end, f"still there: {left}"
        time.sleep(0.1)


def test_workers_are_a_few_items_ahead_and_no_more():
    taken = []

    def items():
        for number in range(1000):
            taken.append(number)
            yield number

    found = map_processes(operator.neg, items(), 2)
    assert [next(found) for _ in range(3)] == [0, -1, -2]
    assert len(taken) < 20
    found.close()


def test_a_worker_that_is_killed_is_one_line():
    with pytest.raises(UserError, match="a worker process was killed"):
        list(map_processes(os._exit, [1, 1], 2))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
