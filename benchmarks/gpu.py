"""One accelerator, random weights: how fast pictures, train steps and single layers are, beside the card's own peak.

    python benchmarks/gpu.py --compile-only --cache DIR        compiles all into DIR; allocates no weights
    python benchmarks/gpu.py --cache DIR --markdown FILE       measures; what DIR holds isn't compiled again
    python benchmarks/gpu.py --only image --batches 1,8        some of it
    python benchmarks/gpu.py --tiny                            the same programs, tiny, for a CPU

One JSON object a line on stdout, as soon as it is known, and a Markdown table at the end. TFLOP are counted from the
traced program (`parallel/flops.py`): products and convolutions, two operations a multiply-add, rematerialised ones
included. `share` is of the bf16 product measured in the same run.

What is measured (`--only`):
  peak           a square product and a copy
  attention, convolution, linear     the layers of the U-Net at `image_size`, one by one
  image          text, VAE, ReferenceNet once, 30 guided DDIM steps, decoder: `ragdiff generate` after retrieval
  structure_net  a train step of both towers
  step           a train step of RAGDiffusion. `--trainable` main: MainNet, adapter and guider with AdamW in float32,
                 ReferenceNet frozen; lora: adapters of both U-Nets; adapter: adapter and guider; full: both U-Nets,
                 80 GB of weights, moments and gradients before the first activation
  unet           one MainNet forward without conditions, to be compared with diffusers
  diffusers      the same U-Net in diffusers under torch.compile, where both are installed
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

START = time.monotonic()
# Whatever else is on the card while programs are compiled should keep its memory.
if "--compile-only" in sys.argv:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
else:
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.93")

import flax  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import jaxlib  # noqa: E402
from gpu_parts import diffusers_unet, kernels, whole  # noqa: E402
from gpu_parts.program import Filler, Measurement, Record, Run, device_bytes, gib, rates  # noqa: E402

from ragdiff_jax.systems.ragdiffusion import RAGDiffusion  # noqa: E402

GROUPS = ("peak", "attention", "convolution", "linear", "image", "structure_net", "step", "unet", "diffusers")
LAYERS = GROUPS[:4]
DEFAULT = tuple(group for group in GROUPS if group != "unet")


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", type=lambda text: tuple(text.split(",")), default=DEFAULT, metavar="NAME[,NAME]")
    add("--batches", type=numbers, default=(1, 4), metavar="N,N", help="of image")
    add("--steps", type=int, help="of DDIM (default 30)")
    add("--structure-batches", type=numbers, default=(64,), metavar="N,N", help="of structure_net")
    add("--structure-remat", choices=("yes", "no"), default="yes")
    add("--trainable", choices=tuple(whole.TRAINABLE), default="main", help="by step")
    add("--step-batch", type=int, default=2)
    add("--step-remat", choices=("block", "none"), default="block")
    add("--memory-size", type=int, default=1000, help="garments in the memory that step searches")
    add("--rank", type=int, default=16, help="of LoRA")
    add("--repeats", type=int, default=3)
    add("--attention", choices=("auto", "xla", "cudnn"), default="auto", help="of the whole programs")
    add("--preset", default="sdxl_flux")
    add("--dtype", default="bfloat16")
    add("--tiny", action="store_true", help="the tiny preset, few steps: a check of this script")
    add("--budget", type=float, default=float("inf"), metavar="SECONDS", help="start no measurement after so long")
    add("--compile-only", action="store_true")
    add("--cache", metavar="DIR", help="of compiled programs and of their counts")
    add("--threads", type=int, default=4, help="of --compile-only")
    add("--markdown", metavar="FILE")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.only) - set(GROUPS):
        parser.error(f"--only {', '.join(sorted(unknown))}: choose from {', '.join(GROUPS)}")
    arguments.steps = arguments.steps or (2 if arguments.tiny else 30)
    if arguments.tiny:
        arguments.preset, arguments.batches, arguments.structure_batches = "tiny", arguments.batches[:1], (2,)
        arguments.step_batch, arguments.memory_size, arguments.repeats, arguments.rank = 2, 8, 1, 2
    return arguments


def measurements(arguments: argparse.Namespace) -> list[Measurement]:
    """All that `--only` names, the cheapest first. Nothing is allocated."""
    gpu = jax.default_backend() == "gpu"
    model = RAGDiffusion.from_config(
        arguments.preset, dtype=jnp.dtype(arguments.dtype), attention=arguments.attention, remat=arguments.step_remat
    )
    size, inner, fused = (256, 2, ("xla",)) if arguments.tiny else (8192, 16, ("xla", "cudnn") if gpu else ("xla",))
    makers = {
        "peak": lambda: kernels.peak(size, model.dtype, inner),
        "attention": lambda: kernels.attention(model, 2, fused, 4 * inner),
        "convolution": lambda: kernels.convolution(model, 2, 4 * inner),
        "linear": lambda: kernels.linear(model, 2, 4 * inner),
        "image": lambda: whole.image(model, arguments.batches, arguments.steps),
        "structure_net": lambda: whole.structure_net_step(
            model, arguments.structure_batches, arguments.structure_remat == "yes"
        ),
        "step": lambda: whole.ragdiffusion_step(
            model, arguments.trainable, arguments.step_batch, arguments.memory_size, arguments.rank
        ),
        "unet": lambda: whole.unet(model, 2),
    }
    return [item for group in GROUPS if group in arguments.only and group in makers for item in makers[group]()]


class Catalogue:
    """What is known of programs from an earlier run: their operations, and that the cache holds them.

    Keyed by the sources, so that a changed network is counted and compiled anew.
    """

    def __init__(self, folder: str | None, arguments: argparse.Namespace):
        here = Path(__file__).parent
        files = [*sorted((here.parent / "ragdiff_jax").rglob("*.py")), *sorted(here.rglob("gpu*/*.py"))]
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in files))
        names = ("steps", "attention", "preset", "dtype", "memory_size", "rank", "tiny", "structure_remat")
        words = [str(getattr(arguments, name)) for name in names]
        words += [jax.__version__, jax.devices()[0].device_kind]
        digest.update(json.dumps(words).encode())
        self._prefix, self._path = digest.hexdigest()[:16], Path(folder or ".") / "programs.json"
        self._keep = folder is not None
        try:
            self._found = json.loads(self._path.read_text()) if self._keep else {}
        except FileNotFoundError:
            self._found = {}

    def get(self, item: Measurement, program: str) -> dict[str, int] | None:
        return self._found.get(f"{self._prefix} {item.name} {program}")

    def put(self, item: Measurement, program: str, flops: dict[str, int]) -> None:
        self._found[f"{self._prefix} {item.name} {program}"] = flops

    def write(self) -> None:
        if self._keep:
            self._path.write_text(json.dumps(self._found, indent=1) + "\n")

    def has(self, items: list[Measurement]) -> bool:
        return self._keep and all(self.get(item, program) is not None for item in items for program in item.programs)


class Bench:
    """Compiles, measures, prints; `records` are all lines so far."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        self.records: list[Record] = []
        self.fill = Filler()
        self.peak: float | None = None
        self.events = {"hits": 0, "misses": 0}
        jax.monitoring.register_event_listener(self._listen)
        if arguments.cache:
            Path(arguments.cache).mkdir(parents=True, exist_ok=True)
            jax.config.update("jax_compilation_cache_dir", arguments.cache)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
            jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
        self.catalogue = Catalogue(arguments.cache, arguments)

    def _listen(self, event: str, **_) -> None:
        kind = event.rsplit("/", 1)[-1].removeprefix("cache_")
        if event.startswith("/jax/compilation_cache/cache_") and kind in self.events:
            self.events[kind] += 1

    def left(self) -> float:
        return self.arguments.budget - (time.monotonic() - START)

    def say(self, record: Record) -> None:
        self.records.append(record)
        print(json.dumps(record), flush=True)

    def prepare(self, item: Measurement) -> dict:
        """The compiled programs of one measurement; fills in what the catalogue lacks."""
        compiled = {}
        for name, program in item.programs.items():
            compiled[name] = program.compile()
            if self.catalogue.get(item, name) is None:
                self.catalogue.put(item, name, program.flops())
        for shape, dtype in self.fill.shapes([program.arguments for program in item.programs.values()]):
            self.fill.compile(shape, dtype)
        return compiled

    def compile_only(self, items: list[Measurement]) -> None:
        def one(item):
            start = time.monotonic()
            compiled = self.prepare(item)
            needs = {name: gib(device_bytes(program)) for name, program in compiled.items()}
            return {"name": item.name, "compile_s": round(time.monotonic() - start, 1), "program_gib": needs}

        # The longest first: they are what the last thread would be waited for.
        items = sorted(items, key=lambda item: -item.seconds)
        with concurrent.futures.ThreadPoolExecutor(self.arguments.threads) as pool:
            futures = {pool.submit(one, item): item for item in items}
            for future in concurrent.futures.as_completed(futures):
                item = futures[future]
                self.say(_attempt(future.result, item))
                self.catalogue.write()

    def measure_all(self, items: list[Measurement]) -> None:
        # While one whole program is measured, a thread traces the next and reads it from the cache. Not beside single
        # layers, whose milliseconds it would disturb, nor where it would really compile: that takes the card's time.
        pool = concurrent.futures.ThreadPoolExecutor(1)
        futures: dict[str, concurrent.futures.Future] = {}
        sys.setswitchinterval(1e-4)
        try:
            for index, item in enumerate(items):
                if self.left() < item.seconds:
                    self.say({"name": item.name, "group": item.group, "skipped": "budget"})
                    continue
                if item.group not in LAYERS and not futures and self.catalogue.has(items[index:]):
                    futures = {later.name: pool.submit(self.prepare, later) for later in items[index:]}
                future = futures.get(item.name)
                self.say(_attempt(lambda item=item, future=future: self._measure(item, future), item))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            self.catalogue.write()

    def _measure(self, item: Measurement, future) -> Record:
        start = time.monotonic()
        compiled = future.result() if future else self.prepare(item)
        waited = time.monotonic() - start
        needs = max(device_bytes(program) for program in compiled.values())
        limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", float("inf"))
        record = {"name": item.name, "group": item.group}
        if needs > limit:
            return record | {"skipped": f"needs {gib(needs)} GiB, the device gives {gib(limit)}"}
        flops = {name: sum(self.catalogue.get(item, name).values()) for name in item.programs}
        deadline = START + self.arguments.budget
        run = Run(
            compiled=compiled,
            flops=flops,
            programs=item.programs,
            fill=self.fill,
            repeats=self.arguments.repeats,
            deadline=deadline,
        )
        found = item.measure(run)
        seconds, counted = found.pop("seconds", None), found.pop("flops", None)
        if seconds and counted:
            record |= found | rates(seconds, counted, self.peak)
        else:
            record |= found
        if item.group == "peak" and "tflops" in record:
            self.peak = record["tflops"]
        highest = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
        return record | {
            "program_gib": gib(needs),
            "peak_gib_so_far": gib(highest),
            "ready_s": round(waited, 1),
            "at_s": round(time.monotonic() - START, 1),
        }


def _attempt(call, item: Measurement) -> Record:
    """One program that a device can't compile or hold must not cost the others."""
    try:
        return call()
    except Exception as error:
        return {"name": item.name, "group": item.group, "error": f"{type(error).__name__}: {str(error)[:300]}"}


def device() -> Record:
    """The card, its driver and the versions."""
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,power.limit", "--format=csv,noheader"]
        card = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        card = ""
    found = jax.devices()[0]
    return {
        "name": "device",
        "kind": found.device_kind,
        "card": card,
        "platform": " ".join(str(found.client.platform_version).split()),
        "python": sys.version.split()[0],
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "flax": flax.__version__,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def markdown(records: list[Record]) -> str:
    """A table of what was measured."""
    rows = ["| what | time | TFLOP/s | share of peak | GiB | more |", "|---|---|---|---|---|---|"]
    plain = ("name", "group", "ms", "tflop", "tflops", "share", "program_gib", "peak_gib_so_far", "ready_s", "at_s")
    for record in records:
        if "group" not in record:
            continue
        time_ = f"{record['ms']} ms" if "ms" in record else f"{record.get('s_image', record.get('step_s', ''))} s"
        if "error" in record or "skipped" in record:
            time_ = "-"
        more = ", ".join(f"{key} {value}" for key, value in record.items() if key not in plain)
        share = f"{100 * record['share']:.0f} %" if "share" in record else ""
        speed, held = record.get("tflops", ""), record.get("program_gib", "")
        rows.append(f"| {record['name']} | {time_} | {speed} | {share} | {held} | {more} |")
    return "\n".join(rows) + "\n"


def main(argv=None) -> int:
    arguments = parse(argv)
    bench = Bench(arguments)
    bench.say(device())
    items = measurements(arguments)
    if arguments.compile_only:
        bench.compile_only(items)
    else:
        bench.measure_all(items)
        if "diffusers" in arguments.only:
            batch, repeats = 2, arguments.repeats
            record = diffusers_unet.measure(arguments.preset, batch, repeats, bench.left())
            bench.say(record | {"group": "diffusers"})
    total = round(time.monotonic() - START, 1)
    bench.say({"name": "total", "seconds": total, "compilation_cache": dict(bench.events)})
    if not arguments.compile_only:
        table = markdown(bench.records)
        print(table, end="", flush=True)
        if arguments.markdown:
            Path(arguments.markdown).write_text(table)
    return 1 if any("error" in record for record in bench.records) else 0


if __name__ == "__main__":
    sys.exit(main())
