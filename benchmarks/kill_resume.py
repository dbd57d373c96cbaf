"""Runs killed with SIGKILL at random moments, saves included, end as if nothing had happened.

    python -m benchmarks.kill_resume --kills 50 --out runs/kill_resume

Trains the tiny RAGDiffusion (every trained part, retrieval and SLLE in the step), or with `--stage structure_net` the
tiny StructureNet, which starts sooner, by the command itself, once undisturbed and then in several chains that are
killed again and again and started anew by the same command line. Checks that each start goes on from a checkpoint that
stood at a kill (none but the one being written is lost), that the last checkpoint and the exported model of each chain
are the undisturbed run's bit for bit, and that the undisturbed run, resumed on eight virtual devices, has the next 20
losses to 1e-5. Then the seconds from the command to the first step of a resumed run. Prints one JSON line. It takes
about 20 seconds a kill on two cores.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
MOVED_STEPS = 20


class Bench:
    """`out` is the folder of everything; runs are its subfolders. `stage`: ragdiffusion or structure_net."""

    def __init__(self, out: Path, steps: int, every: int, stage: str = "ragdiffusion"):
        self.out, self.steps, self.every, self.stage = out, steps, every, stage
        self.cache = out / "cache"

    def draw(self, pairs: int) -> None:
        """The data, once. Ends the process where runs of an earlier measurement lie: they would be gone on with."""
        if any(self.out.glob("*.log")):
            raise SystemExit(f"{self.out}: holds the runs of an earlier measurement; choose another --out")
        synth = [sys.executable, "-m", "ragdiff_jax.cli.main", "data", "synth", "--out", str(self.out / "data")]
        if not (self.out / "data").exists():
            subprocess.run(
                [*synth, "--count", str(pairs), "--size", "64"], check=True, cwd=ROOT, stdout=subprocess.DEVNULL
            )

    def command(self, run: str, *extra: str) -> list[str]:
        fields = {
            "data.folder": next((self.out / "data").glob("*/*/*/dataset_info.json")).parent,
            "train.steps": self.steps,
            "train.batch_size": 8,
            "train.schedule": "constant",  # cosine would look at train.steps, which is changed here
            "train.checkpoint_every": self.every,
            "train.checkpoint_seconds": 0.0,
            "train.sample_every": 0,
            "train.validate_every": 0,
            "train.log_every": 5,
        }
        config, start = ROOT / "configs" / self.stage / "tiny.py", ROOT / "ragdiff_jax/assets/tiny"
        if self.stage == "structure_net":
            fields |= {"model.init_from": start}
        else:
            config = f"{config}:{start}"
            fields |= {"model.memory": ROOT / "ragdiff_jax/assets/memory"}
        settings = [item for key, value in fields.items() for item in ("--set", f"{key}={value}")]
        return [sys.executable, "-m", "ragdiff_jax.cli.main", "train", "--config", str(config),
                "--workdir", str(self.out / run), *settings, *extra]  # fmt: skip

    def start(self, run: str, *extra: str, devices: int = 1) -> subprocess.Popen:
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
            "RAGDIFF_CACHE": str(self.cache),
            "PYTHONPATH": str(ROOT),
        }
        log = open(self.out / f"{run}.log", "a")
        return subprocess.Popen(self.command(run, *extra), stderr=log, stdout=log, env=environment, cwd=ROOT)

    def finish(self, run: str, *extra: str, devices: int = 1) -> None:
        if self.start(run, *extra, devices=devices).wait():
            tail = (self.out / f"{run}.log").read_text()[-2000:]
            raise SystemExit(f"{run} failed:\n{tail}")

    def saved(self, run: str) -> int:
        """The newest finished checkpoint, 0 if there is none."""
        with contextlib.suppress(FileNotFoundError):
            return max((int(p.name) for p in (self.out / run / "checkpoints").iterdir() if p.name.isdigit()), default=0)
        return 0

    def losses(self, run: str) -> dict[int, float]:
        lines = (self.out / run / "metrics.jsonl").read_text().splitlines()
        return {line["step"]: line["loss"] for line in map(json.loads, lines) if "loss" in line}

    def fingerprint(self, run: str) -> str:
        """Of every weight of the exported model."""
        digest = hashlib.sha256()
        for path in sorted((self.out / run / "model").rglob("*.safetensors")):
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()

    def state(self, run: str) -> dict[str, bytes]:
        """The sums over the bits of parameters, moments, average and step in the last checkpoint."""
        from orbax.checkpoint import v1 as ocp

        folder = self.out / run / "checkpoints" / str(self.saved(run))
        names = [path.name for path in folder.iterdir() if path.name.endswith("_checksum")]
        loaded = ocp.load_checkpointables(folder, dict.fromkeys(names))
        return {name: np.asarray(value["sums"]).tobytes() for name, value in loaded.items()}


def kill_at_random(bench: Bench, run: str, window: float, rng: random.Random) -> dict:
    """Start, kill after a random time, and note what stood on the disk. Ends early where the run does."""
    process = bench.start(run)
    end = time.monotonic() + rng.uniform(0.3, window)
    writing = False
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.01)
    if process.poll() is None:
        checkpoints = bench.out / run / "checkpoints"
        process.send_signal(signal.SIGSTOP)  # so that what is noted is what the kill leaves
        writing = checkpoints.is_dir() and any("tmp" in path.name for path in checkpoints.iterdir())
        process.send_signal(signal.SIGKILL)
    process.wait()
    return {"killed": process.returncode == -signal.SIGKILL, "writing": writing, "left": bench.saved(run)}


def resumed_at(bench: Bench, run: str) -> list[int]:
    text = (bench.out / f"{run}.log").read_text()
    return [int(step) for step in re.findall(r"resuming .* at step (\d+)/", text)]


def seconds_to_first_step(bench: Bench, run: str) -> float:
    """From the command to the first new line of metrics, with everything compiled before."""
    metrics, before = bench.out / run / "metrics.jsonl", bench.saved(run)
    began, since = time.monotonic(), time.time()
    process = bench.start(run, "--set", f"train.steps={bench.steps + 5}")
    # The metrics of a step are written while the next one runs, so this is an upper bound. A line that an earlier
    # start wrote behind the checkpoint doesn't count: the file is cut to it first.
    while process.poll() is None:
        fresh = metrics.exists() and metrics.stat().st_mtime > since
        lines = metrics.read_text().splitlines() if fresh else []
        if any(f'"step": {before + 1},' in line for line in lines):
            break
        time.sleep(0.05)
    taken = time.monotonic() - began
    process.kill()
    process.wait()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--chains", type=int, default=5, help="runs that the kills are spread over, or more")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=2, help="steps between checkpoints")
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--stage", choices=("ragdiffusion", "structure_net"), default="ragdiffusion")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    bench = Bench(out, arguments.steps, arguments.every, arguments.stage)
    out.mkdir(parents=True, exist_ok=True)
    bench.draw(arguments.pairs)
    began = time.monotonic()
    bench.finish("whole")
    whole_seconds = time.monotonic() - began
    first = seconds_to_first_step(bench, "whole")
    shutil.rmtree(out / "whole")  # that took it further
    bench.finish("whole")
    # One start and a few steps, so that about half of the kills meet a run that trains.
    window = first + 0.25 * whole_seconds
    rng = random.Random(arguments.seed)
    kills, lost, report = 0, 0, []
    each = -(-arguments.kills // arguments.chains)
    while kills < arguments.kills:
        chain = len(report)
        run = f"chain-{chain}"
        notes, ended = [], []
        while len(notes) < min(each, arguments.kills - kills):
            note = kill_at_random(bench, run, window, rng)
            if not note["killed"]:  # it got to its end; the rest of the kills begin anew on a fresh run
                ended = [note["left"]]
                break
            notes.append(note)
            print(f"chain {chain}: killed at checkpoint {note['left']}, writing {note['writing']}", file=sys.stderr)
        if not notes:  # the machine is quicker than when the window was measured
            window *= 0.75
        kills += len(notes)
        bench.finish(run)
        # Starts that came as far as their first line say where they went on: at what the kill before had left.
        starts = resumed_at(bench, run)
        left = [note["left"] for note in notes] + ended
        lost += sum(start not in left for start in starts)
        same = bench.state(run) == bench.state("whole") and bench.fingerprint(run) == bench.fingerprint("whole")
        report.append({"kills": len(notes), "while_writing": sum(n["writing"] for n in notes), "bitwise": same,
                       "losses_equal": bench.losses(run) == bench.losses("whole")})  # fmt: skip
    moved = _on_another_mesh(bench)
    result = {
        "stage": arguments.stage,
        "kills": kills,
        "while_writing": sum(row["while_writing"] for row in report),
        "bitwise_equal": all(row["bitwise"] and row["losses_equal"] for row in report),
        "checkpoints_lost": lost,
        "other_mesh_error": moved,
        "restart_seconds": round(first, 1),
        "undisturbed_seconds": round(whole_seconds, 1),
        "chains": report,
    }
    print(json.dumps(result))


def _on_another_mesh(bench: Bench) -> float:
    """Largest relative difference of the 20 losses that follow when the run goes on on eight devices."""
    middle = bench.steps - MOVED_STEPS
    bench.finish("moved", "--set", f"train.steps={middle}")
    bench.finish("moved", "--set", "mesh.data=2", "--set", "mesh.fsdp=4", devices=8)
    whole, moved = bench.losses("whole"), bench.losses("moved")
    return max(abs(moved[step] - whole[step]) / abs(whole[step]) for step in range(middle + 1, bench.steps + 1))


if __name__ == "__main__":
    main()
