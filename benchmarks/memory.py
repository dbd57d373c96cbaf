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
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

WRITER = """
import sys
import numpy as np
from ragdiff_jax.retrieval import Memory, MemoryItem
memory = Memory.open(sys.argv[1])
rng = np.random.default_rng(int(sys.argv[2]))
def item(name, version):
    return MemoryItem(id=name, embedding=rng.normal(size=64), landmark=rng.random((64, 64)) < 0.5,
                      metadata={"version": version})
def tell(step):
    # Before and after each change: the content at death is one of the two.
    print(step, "|".join(sorted(f"{i.id}:{i.metadata['version']}" for i in memory.items)), flush=True)
tell(0)
step = 0
while True:
    step += 1
    ids = [i.id for i in memory.items]
    kind = step % 5
    if kind in (1, 2):
        memory.add([item(f"{sys.argv[2]}-{step}-{j}", step) for j in range(20)])
    elif kind == 3 and ids:
        memory.update([item(name, step) for name in ids[:10]])
    elif kind == 4 and len(ids) > 30:
        memory.remove(ids[:25])
    else:
        memory.compact()
    tell(step)
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
    rng, kept, started = random.Random(0), {"old": 0, "new": 0}, time.perf_counter()
    for number in range(count):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(number)], stdout=subprocess.PIPE, text=True
        )
        first = writer.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.15))
        writer.send_signal(signal.SIGKILL)
        lines = [first, *writer.stdout.read().splitlines(keepends=True)]
        writer.wait()
        told = [line.rstrip("\n").split(" ", 1)[1] for line in lines if line.endswith("\n")]
        memory = Memory.open(path)
        memory.verify()
        content = "|".join(sorted(f"{i.id}:{i.metadata['version']}" for i in memory.items))
        kept["old" if content == told[-1] else "new"] += 1
        if content != told[-1]:
            check_new(told[-1], content)
    return {"kills": count, "opened": count, "content": kept, "seconds": round(time.perf_counter() - started)}


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
