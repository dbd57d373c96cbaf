r"""The live memory: how long changes take, and what is left after kill -9.

    python benchmarks/memory.py --folder /tmp/memory                 # timings, and 200 kills
    python benchmarks/memory.py --folder /tmp/memory --kills 0 --rows 8000 --landmark 768

Timings: a memory of --rows garments of --dim; 1,000 garments added, updated and removed in one change each, landmarks
encoded beforehand; five times. Recall is of exact search against NumPy's, before and after. Kills: a writer adds,
updates, removes and compacts without end and is killed at a random moment; the memory must open and verify with the
content of the last change that the writer reported, or of the one after it.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

# Imports once and forks for each line of stdin, so that 200 writers don't import JAX 200 times.
WRITERS = """
import os, sys
import numpy as np
from ragdiff_jax.retrieval import Memory, MemoryItem

def write(path, number, log):
    memory = Memory.open(path)
    rng = np.random.default_rng(number)
    log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    def item(name, version):
        return MemoryItem(id=name, embedding=rng.normal(size=64), landmark=rng.random((64, 64)) < 0.5,
                          metadata={"version": version})
    def tell():
        os.write(log, ("|".join(sorted(f"{i.id}:{i.metadata['version']}" for i in memory.items)) + chr(10)).encode())
    tell()
    step = 0
    while True:
        step += 1
        ids = [i.id for i in memory.items]
        kind = step % 5
        if kind in (1, 2):
            memory.add([item(f"{number}-{step}-{j}", step) for j in range(20)])
        elif kind == 3 and ids:
            memory.update([item(name, step) for name in ids[:10]])
        elif kind == 4 and len(ids) > 30:
            memory.remove(ids[:25])
        else:
            memory.compact()
        tell()

for line in sys.stdin:
    path, number, log = line.rstrip(chr(10)).split(chr(9))
    pid = os.fork()
    if pid == 0:
        write(path, int(number), log)
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("gone", flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a place for throw-away memories")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--landmark", type=int, default=256)
    parser.add_argument("--change", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--kills", type=int, default=200)
    arguments = parser.parse_args()
    if arguments.repeat:
        timings(arguments)
    if arguments.kills:
        print(json.dumps(kills(arguments.folder / "killed", arguments.kills)), flush=True)


def timings(arguments) -> None:
    from ragdiff_jax.retrieval import Memory, MemoryItem, encode_landmark, make_searcher

    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: arguments.landmark, : arguments.landmark]

    def landmark():
        across, down = rng.uniform(0.2, 0.45, 2) * arguments.landmark
        middle = arguments.landmark / 2
        return encode_landmark(((rows - middle) / down) ** 2 + ((columns - middle) / across) ** 2 < 1)

    def items(prefix, count):
        vectors = rng.normal(size=(count, arguments.dim)).astype(np.float32)
        return [MemoryItem(id=f"{prefix}-{i}", embedding=v, landmark=landmark()) for i, v in enumerate(vectors)]

    def recall(memory):
        queries = rng.normal(size=(200, arguments.dim)).astype(np.float32)
        found = np.asarray(make_searcher("auto", memory.embeddings).search(queries, 4)[0])
        truth = np.argsort(-(queries @ memory.embeddings.T), axis=1)[:, :4]
        return float(np.mean([len(set(a) & set(b)) / 4 for a, b in zip(found.tolist(), truth.tolist(), strict=True)]))

    path = arguments.folder / "timed"
    shutil.rmtree(path, ignore_errors=True)
    memory = Memory.create(path, "0" * 64, arguments.landmark, arguments.dim)
    memory.add(items("base", arguments.rows))
    before = recall(memory)
    seconds: dict[str, list[float]] = {"add": [], "update": [], "remove": [], "compact": []}
    for number in range(arguments.repeat):
        new, again = (items(f"new-{number}", arguments.change) for _ in range(2))
        changes = {
            "add": lambda new=new: memory.add(new),
            "update": lambda again=again: memory.update(again),
            "remove": lambda new=new: memory.remove([item.id for item in new]),
            "compact": memory.compact,
        }
        for name, change in changes.items():
            start = time.perf_counter()
            change()
            seconds[name].append(time.perf_counter() - start)
    memory.verify()
    print(
        json.dumps(
            {
                "rows": arguments.rows,
                "changed": arguments.change,
                "landmark": arguments.landmark,
                "ms": {name: [round(1e3 * s) for s in sorted(values)] for name, values in seconds.items()},
                "recall_before": before,
                "recall_after": recall(memory),
            }
        ),
        flush=True,
    )
    shutil.rmtree(path)


def kills(path: Path, count: int) -> dict:
    """Opens the memory after each of `count` kills and holds it against what the writer said."""
    from ragdiff_jax.retrieval import Memory

    shutil.rmtree(path, ignore_errors=True)
    Memory.create(path, "0" * 64, 64, 64)
    log = path.with_name("told")
    writers = subprocess.Popen(
        [sys.executable, "-c", WRITERS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    rng, kept, changes, started = random.Random(0), {"old": 0, "new": 0}, 0, time.perf_counter()
    for number in range(count):
        log.unlink(missing_ok=True)
        writers.stdin.write(f"{path}\t{number}\t{log}\n")
        writers.stdin.flush()
        writer = int(writers.stdout.readline())
        while not (log.exists() and log.stat().st_size):
            time.sleep(0.001)
        time.sleep(rng.uniform(0.0, 0.15))
        os.kill(writer, signal.SIGKILL)
        writers.stdout.readline()
        told = log.read_text().split("\n")[:-1]  # what is behind the last line end is half a line
        memory = Memory.open(path)
        memory.verify()
        content = "|".join(sorted(f"{i.id}:{i.metadata['version']}" for i in memory.items))
        kept["old" if content == told[-1] else "new"] += 1
        changes += len(told) - 1
        if content != told[-1]:
            check_new(told[-1], content)
    writers.stdin.close()
    writers.wait()
    seconds = round(time.perf_counter() - started)
    return {"kills": count, "opened": count, "content": kept, "changes_before_kills": changes, "seconds": seconds}


def check_new(old: str, new: str) -> None:
    """Fails unless `new` is exactly one whole change after `old`."""
    before, after = (set(filter(None, text.split("|"))) for text in (old, new))
    added, gone = after - before, before - after
    steps = {name.rsplit(":", 1)[1] for name in added}
    whole = (len(added), len(gone)) in {(20, 0), (10, 10), (0, 25)} or (added and len(added) == len(gone) < 10)
    if not whole or len(steps) > 1:
        raise SystemExit(f"half a change: {len(added)} garments came, {len(gone)} went")


if __name__ == "__main__":
    main()
