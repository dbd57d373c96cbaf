"""How fast the metrics' heaviest network is beside torch, and whether ten thousand pairs stay within their memory.

    python -m benchmarks.metrics --only features          # FID's Inception, 299 px, random weights: pictures a second
    python -m benchmarks.metrics --only pairs --count 10000 --out out/metrics      # `ragdiff evaluate generation`

From the repository's root. `features` needs torch and takes turns with it, so that both see the same machine. `pairs`
draws two folders of plain shapes and watches the command's memory from outside; words that aren't known here
(`--networks DIR`) go to the command. Prints one JSON line each.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]


def random_params(seed: int = 0) -> dict[str, np.ndarray]:
    """He normal kernels and usual moments under the public file's names."""
    from ragdiff_jax.models import inception

    rng, found = np.random.default_rng(seed), {}
    for name, shape in inception.shapes().items():
        if len(shape) == 4:
            value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith(("running_var", "bn.weight")):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = 0.1 * rng.standard_normal(shape)
        found[name] = np.float32(value)
    return found


def torch_inception(params, layout: str):
    """The same layers in torch, with its own convolution, batch normalisation and pools, in evaluation mode. `layout`:
    `contiguous_format`, as the public computations have it, or `channels_last`.
    """
    import torch
    from torch.nn import functional

    from ragdiff_jax.models.inception import BLOCKS, EPSILON, STEM, Conv

    order = getattr(torch, layout)
    tensors = {name: torch.tensor(value) for name, value in params.items()}
    tensors |= {name: value.to(memory_format=order) for name, value in tensors.items() if value.ndim == 4}

    def walk(steps, x):
        for step in steps:
            if isinstance(step, Conv):
                x = functional.conv2d(
                    x, tensors[f"{step.name}.conv.weight"], stride=step.stride, padding=step.padding
                )
                ends = ("running_mean", "running_var", "weight", "bias")
                moments = (tensors[f"{step.name}.bn.{end}"] for end in ends)
                x = functional.relu(functional.batch_norm(x, *moments, eps=EPSILON), inplace=True)
            elif step == "max":
                x = functional.max_pool2d(x, 3, 2)
            elif step == "max-same":
                x = functional.max_pool2d(x, 3, 1, 1)
            elif step == "mean":
                x = functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
            else:
                x = torch.cat([walk((layer,), x) for layer in step], 1)
        return x

    def run(pixels):
        with torch.inference_mode():
            x = walk(STEM, torch.tensor(pixels).permute(0, 3, 1, 2).contiguous(memory_format=order))
            for block in BLOCKS:
                x = torch.cat([walk(branch, x) for branch in block], 1)
            return x.mean((2, 3)).numpy()

    return run


def features(batch: int, rounds: int) -> dict:
    """Pictures a second of both, in turns; medians."""
    import jax
    import torch

    from ragdiff_jax.evaluation.batches import Batched
    from ragdiff_jax.models.inception import SIDE, inception

    torch.set_num_threads(os.cpu_count() or 1)
    params = random_params()
    pixels = np.random.default_rng(1).uniform(-1, 1, (batch, SIDE, SIDE, 3)).astype(np.float32)
    runs = {"ragdiff_jax": Batched(inception, params, batch=batch)}
    runs |= {f"torch {layout}": torch_inception(params, layout) for layout in ("contiguous_format", "channels_last")}
    a, b, _ = (run(pixels) for run in runs.values())  # compiled and warm
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run(pixels)
            seconds[name].append(time.perf_counter() - start)
    speed = {name: round(batch / statistics.median(times), 2) for name, times in seconds.items()}
    return {
        "section": "features",
        "batch": batch,
        "rounds": rounds,
        "pictures_per_second": speed,
        "ratio": round(speed["ragdiff_jax"] / max(value for name, value in speed.items() if name != "ragdiff_jax"), 3),
        "largest_relative_difference": float(np.abs(a - b).max() / np.abs(b).max()),
        "versions": {"jax": jax.__version__, "torch": torch.__version__},
        "cores": os.cpu_count(),
    }


def draw_folders(out: Path, count: int, side: int) -> tuple[Path, Path]:
    """Two folders of `count` pictures: a coloured shape on white, and the same a little moved and off in colour."""
    from PIL import Image, ImageDraw

    folders = out / f"real{count}-{side}px", out / f"fake{count}-{side}px"
    rng = np.random.default_rng(0)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        low, high = rng.integers(side // 8, side // 3, 2), rng.integers(2 * side // 3, 7 * side // 8, 2)
        colour = rng.integers(0, 200, 3)
        for folder, moved in zip(folders, (0, 3), strict=True):
            file = folder / f"{number:06}.png"
            if not file.exists():
                image = Image.new("RGB", (side, side), "white")
                box = (*(low + moved).tolist(), *(high + moved).tolist())
                ImageDraw.Draw(image).ellipse(box, fill=tuple((colour + 5 * moved).tolist()))
                image.save(file)
    return folders


def pairs(out: Path, count: int, side: int, extra: list[str]) -> dict:
    """The command's resident memory, seen from outside once a second."""
    real, fake = draw_folders(out, count, side)
    command = [sys.executable, "-m", "ragdiff_jax.cli.main", "evaluate", "generation", "--real", str(real)]
    results = out / f"results{count}-{side}px"
    shutil.rmtree(results, ignore_errors=True)  # the command goes on with parts that are there
    command += ["--fake", str(fake), "--out", str(results), "--size", str(side), "--json", *extra]
    start, seen = time.perf_counter(), []
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    parts = results / "parts"
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        time.sleep(1)
        try:
            resident = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
        except (OSError, StopIteration):
            break
        seen.append((len(list(parts.glob("*/*.npz"))), int(resident.split()[1]) / 2**20))
    lines = process.communicate()[0].splitlines()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    done = max(number for number, _ in seen)

    def at(share: float) -> float:
        return round(next(gib for number, gib in seen if number >= share * done), 3)

    return {
        "section": "pairs",
        "count": count,
        "side": side,
        "seconds": round(time.perf_counter() - start, 1),
        "resident_gib": {f"{share:.0%} of the parts": at(share) for share in (0.1, 0.25, 0.5, 0.75, 1.0)},
        "peak_gib": round(max(gib for _, gib in seen), 3),
        "lines": len(lines),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("features", "pairs"), action="append", help="this section (default: both)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=10_000, help="pairs")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "metrics")
    arguments, extra = parser.parse_known_args()
    if "features" in (arguments.only or ("features",)):
        print(json.dumps(features(arguments.batch, arguments.rounds)), flush=True)
    if "pairs" in (arguments.only or ("pairs",)):
        print(json.dumps(pairs(arguments.out, arguments.count, arguments.side, extra)), flush=True)


if __name__ == "__main__":
    main()
