"""Twenty steps of the tiny RAGDiffusion on one device, eight devices in three meshes, and two processes of four.

    python -m benchmarks.meshes --out runs/meshes

Runs the command itself on virtual CPU devices and prints one JSON line: the largest relative difference of a loss from
the one-device run's, for each mesh. It takes about five minutes on two cores.
"""

import argparse
import json
import socket
from pathlib import Path

from benchmarks.kill_resume import Bench

MESHES = {
    "data 8": {"data": 8, "fsdp": 1, "tensor": 1},
    "fsdp 8": {"data": 1, "fsdp": 8, "tensor": 1},
    "data 2 x fsdp 2 x tensor 2": {"data": 2, "fsdp": 2, "tensor": 2},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    bench = Bench(out, arguments.steps, arguments.steps)
    bench.draw(pairs=32)
    bench.finish("one")
    expected = bench.losses("one")

    def error(run: str) -> float:
        found = bench.losses(run)
        return max(abs(found[step] - loss) / abs(loss) for step, loss in expected.items())

    errors = {}
    for name, mesh in MESHES.items():
        run = name.replace(" ", "-")
        settings = [item for axis, size in mesh.items() for item in ("--set", f"mesh.{axis}={size}")]
        bench.finish(run, *settings, devices=8)
        errors[name] = error(run)
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    mesh = ["--set", "mesh.data=2", "--set", "mesh.fsdp=4"]
    together = [*mesh, "--coordinator", f"localhost:{port}", "--processes", "2"]
    workers = [bench.start("processes", *together, "--process", str(rank), devices=4) for rank in range(2)]
    if any([worker.wait() for worker in workers]):
        raise SystemExit(f"two processes failed: see {out / 'processes'}.log")
    errors["2 processes x 4 devices (data 2 x fsdp 4)"] = error("processes")
    print(json.dumps({"steps": arguments.steps, "relative_error": errors}))


if __name__ == "__main__":
    main()
