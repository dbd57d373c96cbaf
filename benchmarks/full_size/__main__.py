"""The real backbones at their real size, on random weights, against the originals.

    python -m benchmarks.full_size --work DIR [--only unet-sdxl ...]

For each network diffusers or transformers writes random weights and what they compute; `ragdiff weights import` makes a
part folder of them; the folder is loaded in fp32 and in bf16, and both results are held against the original's. JSON
lines, one for each of a network's steps:

  gb                    of the fp32 weights
  import_s, _peak_gb    of the command: seconds, and the most memory that it held
  error                 |ours - theirs| / |theirs|, the worst of the outputs; the original computes in fp32
  load_mb_s             bytes of the file a second, cold page cache, into arrays of that dtype; beside it disk_mb_s, the
                        same bytes read in sequence and thrown away, and over_gb: the process's peak less the arrays
  again_mb_s            the same a second time in one process, cold page cache again, into memory that it has had: on
                        some virtual machines a page's first touch costs more than reading it
  export_s, _error      with --export: seconds of the command; the original, loaded from the result, against itself

The largest needs 11 GB of memory and 31 GB of disk, which are freed at the end. Linux only (memory from /proc).
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.full_size.disk import forget, read_speed
from benchmarks.full_size.networks import NETWORKS


def call(module: str, *arguments) -> str:
    """Runs a module in a process of its own; its stdout."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def measured(*arguments) -> tuple[float, float]:
    """(seconds, peak GB) of a `ragdiff` command."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "ragdiff_jax.cli.main", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    with process.stderr:
        words = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(words.decode())
    return time.perf_counter() - started, usage.ru_maxrss * 1024 / 1e9


def measure(name: str, work: Path, export: bool) -> Iterator[dict]:
    network, source, part, reference = NETWORKS[name], work / "source", work / "part", work / "theirs.npz"
    call("benchmarks.full_size.torch_side", name, "--folder", source, "--out", reference)
    size = sum(path.stat().st_size for path in source.glob("*.safetensors")) / 1e9
    forget(source)
    seconds, peak = measured("weights", "import", source, "--kind", network.kind, "--to", part)
    yield {"gb": round(size, 2), "import_s": round(seconds, 1), "import_peak_gb": round(peak, 2)}
    shutil.rmtree(source)
    for dtype in ("float32", "bfloat16"):
        disk = read_speed(part)
        forget(part)
        arguments = ("--folder", part, "--dtype", dtype, "--reference", reference)
        ours = json.loads(call("benchmarks.full_size.our_side", name, *arguments).splitlines()[-1])
        yield {
            "dtype": dtype,
            "error": float(f"{max(ours['errors'].values()):.2g}"),
            "load_mb_s": round(size * 1e3 / ours["load_s"]),
            "again_mb_s": round(size * 1e3 / ours["again_s"]),
            "disk_mb_s": round(disk),
            "over_gb": round(ours["peak_gb"] - ours["gb"], 2),
        }
    if export:
        out, again = work / "exported", work / "again.npz"
        seconds, _ = measured("weights", "export", part, "--to", out)
        shutil.rmtree(part)
        call("benchmarks.full_size.torch_side", name, "--folder", out, "--read", "--out", again)
        with np.load(reference) as a, np.load(again) as b:
            worst = max(float(np.linalg.norm(a[key] - b[key]) / np.linalg.norm(a[key])) for key in a.files)
        yield {"export_s": round(seconds, 1), "export_error": float(f"{worst:.2g}")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder for the weights (default: a temporary one)")
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--export", nargs="*", choices=NETWORKS, default=["unet-sdxl"], help="(default: %(default)s)")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name in arguments.only:
        with tempfile.TemporaryDirectory(dir=arguments.work) as work:
            for line in measure(name, Path(work), name in arguments.export):
                print(json.dumps({"network": name} | line), flush=True)


if __name__ == "__main__":
    main()
