"""The engine around a step: how long a save blocks, how fast pictures come in, how soon a resumed run steps.

    python -m benchmarks.engine save [--gigabytes 1]
    python -m benchmarks.engine input [--pairs 48] [--size 768]
    python -m benchmarks.engine restart

`save`: seconds that the loop waits for a checkpoint of that many bytes, written beside the steps and written at once.
`input`: pairs a second from JPEG records to batches, beside decoding the same records alone, both on all cores; and of
pairs with structure partners, whole batches beside what two stages read of them.
`restart`: seconds from the command to the first step of a resumed tiny RAGDiffusion, everything compiled before, by the
clock and of the processors.
Prints one JSON line: the median of the repetitions, and all of them.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
PASSES = 3


def save(gigabytes: float, repeats: int) -> dict:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from ragdiff_jax.parallel import make_mesh, replicated
    from ragdiff_jax.training.checkpoint import Checkpoints
    from ragdiff_jax.training.state import TrainState

    mesh = make_mesh(devices=jax.devices()[:1])
    rows = int(gigabytes * 1e9 / 4 / 8 / 1024)
    # Random bits: weights don't compress either.
    rng = np.random.default_rng(0)
    params = {
        f"layer_{i}": jax.device_put(rng.standard_normal((rows, 1024), np.float32), replicated(mesh)) for i in range(8)
    }
    state = TrainState(step=jax.device_put(jnp.int32(0), replicated(mesh)), params=params, opt_state=(), ema={})
    blocked, whole = [], []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(folder, mesh, keep=1)
        checkpoints.save(1, state)  # compiles the checksum
        checkpoints.wait()
        for repeat in range(repeats):
            began = time.perf_counter()
            checkpoints.save(2 + repeat, state)
            blocked.append(time.perf_counter() - began)
            checkpoints.wait()
            whole.append(time.perf_counter() - began)
        checkpoints.close()
    return {"gigabytes": gigabytes, "blocked_seconds": _median(blocked), "synchronous_seconds": _median(whole),
            "all": {"blocked": blocked, "synchronous": whole}}  # fmt: skip


def pictures(pairs: int, size: int, repeats: int) -> dict:
    from ragdiff_jax.data.folder import open_pairs
    from ragdiff_jax.data.images import decode_image, decode_mask
    from ragdiff_jax.data.pipeline import PairArrays, make_batches
    from ragdiff_jax.data.synth_dataset import prepare_synth
    from ragdiff_jax.training.objectives.ragdiffusion import RAGDiffusionObjective
    from ragdiff_jax.training.objectives.text_to_image import TextToImageObjective

    cores, batch = os.cpu_count() or 1, 8
    with tempfile.TemporaryDirectory() as folder:
        prepare_synth(folder, count=pairs, size=size, processes=cores)
        (info,) = Path(folder).rglob("dataset_info.json")
        source = open_pairs(str(info.parent), "train")
        steps = PASSES * len(source) // batch
        alone, piped = [], []

        def decode(row: int) -> None:
            record = source[row % len(source)]
            decode_image(record.photo, "photo")
            decode_image(record.flat, "flat")
            for mask in (record.mask, record.photo_mask):
                if mask is not None:
                    decode_mask(mask, "mask")

        def batched(fields=None, **options) -> float:
            arrays = PairArrays(source, image_size=size, tokenizer=_NoText(), **options)
            began = time.perf_counter()  # the threads' start counts too
            batches = make_batches(arrays, batch_size=batch, seed=0, num_threads=cores, fields=fields)
            for _ in range(steps):
                next(batches)
            seconds = time.perf_counter() - began
            batches.close()
            return steps * batch / seconds

        for _ in range(repeats):
            with ThreadPoolExecutor(cores) as pool:
                began = time.perf_counter()
                list(pool.map(decode, range(steps * batch)))
                alone.append(steps * batch / (time.perf_counter() - began))
            piped.append(batched(partners=False))
        # With their structure partners: all of a batch, and what a stage reads of it.
        stages = {
            name: _median([batched(fields=fields) for _ in range(repeats)])
            for name, fields in (
                ("all_fields", None),
                ("ragdiffusion", RAGDiffusionObjective.reads),
                ("text_to_image", TextToImageObjective.reads),
            )
        }
    return {"size": size, "decoding_alone": _median(alone), "pipeline": _median(piped),
            "share": round(_median(piped) / _median(alone), 3), "with_partners": stages,
            "all": {"alone": alone, "pipeline": piped}}  # fmt: skip


class _NoText:
    def encode(self, texts):
        import numpy as np

        return np.zeros((len(texts), 1), np.int32)


def restart(repeats: int) -> dict:
    import resource

    from benchmarks.kill_resume import Bench, seconds_to_first_step

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    taken, processor = [], []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), steps=2, every=2)
        bench.draw(pairs=32)
        bench.finish("run")
        for _ in range(repeats):
            before = spent()
            taken.append(seconds_to_first_step(bench, "run"))
            processor.append(spent() - before)
    return {"restart_seconds": _median(taken), "processor_seconds": _median(processor),
            "all": {"restart": taken, "processor": processor}}  # fmt: skip


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("save", "input", "restart"))
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--pairs", type=int, default=48)
    parser.add_argument("--size", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.part == "save":
        result = save(arguments.gigabytes, arguments.repeats)
    elif arguments.part == "input":
        result = pictures(arguments.pairs, arguments.size, arguments.repeats)
    else:
        result = restart(arguments.repeats)
    print(json.dumps({"part": arguments.part, **result}))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
