"""Seconds of one training step of each stage on this device, at the sizes that a recipe runs it with.

    DRY=1 ./launch/train_tiny runs/tiny > stages.txt
    python benchmarks/train_steps.py stages.txt [--steps 20] [--cache DIR] [--parts]

Each line is a `ragdiff train` command. All steps are compiled at once, in threads, and each is timed when it is ready,
on one batch: others may still be compiling. Nothing is written but, with `--parts`, what a stage reads of an earlier
one that hasn't run yet: random parts and a random memory. Prints one JSON object a stage; `--cache` keeps the programs.
"""

import argparse
import concurrent.futures
import json
import shlex
import statistics
import time
import traceback
from pathlib import Path

import jax
import numpy as np

from ragdiff_jax.cli import train as verb
from ragdiff_jax.parallel import make_mesh, mesh_context, shard_batch
from ragdiff_jax.training.from_config import make_objective
from ragdiff_jax.training.loop import make_plan
from ragdiff_jax.training.settings import TrainSettings
from ragdiff_jax.training.step import jit_step


def read_stage(line: str):
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    arguments = parser.parse_args(shlex.split(line)[2:])
    config = verb.read_config(arguments.config)
    verb.fill_train(config)
    verb.apply_settings(config, arguments.set)
    return arguments.workdir.name, config


def random_like(target):
    """Small numbers in the place of trained ones: the time of a step doesn't depend on them."""
    values = np.sin(np.arange(int(np.prod(target.shape)), dtype=np.float32)).reshape(target.shape) * 0.02
    return jax.device_put(values.astype(target.dtype), target.sharding)


def random_parts(stages) -> None:
    """Writes the parts, the tokenizer's reader and the memory that later stages read, with random weights."""
    from flax import linen as nn

    from ragdiff_jax.retrieval.memory import Memory, MemoryItem
    from ragdiff_jax.systems.ragdiffusion import RAGDiffusion
    from ragdiff_jax.weights.folder import save_part
    from ragdiff_jax.weights.model_folder import abstract_params, part_configs

    model = RAGDiffusion.from_config("tiny")
    rng = np.random.default_rng(0)
    for _, config in stages:
        wanted = dict(config.model.get("parts", {})) | {"vision": config.model.get("vision", "")}
        for part, folder in wanted.items():
            if not folder or Path(folder).is_dir():
                continue
            source = {"image_encoder": "image_encoder", "vision": "image_encoder"}.get(part, part)
            system = RAGDiffusion.from_config("tiny", image_encoder=model.structure_net.vision)
            shapes = nn.meta.unbox(abstract_params(system))[source]
            params = jax.tree.map(lambda x: np.asarray(rng.normal(size=x.shape) * 0.02, np.float32), shapes)
            save_part(folder, part_configs(system)[source], params)
        memory = config.model.get("memory", "")
        if memory and not Path(memory).is_dir():
            vectors = rng.normal(size=(4292, model.structure_net.embed_dim)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            mask = np.zeros((model.image_size,) * 2, bool)
            mask[32:96, 32:96] = True
            made = Memory.create(memory, "0" * 64, model.image_size, vectors.shape[1])
            made.add([MemoryItem(id=str(i), embedding=v, landmark=mask, metadata={}) for i, v in enumerate(vectors)])


class Stage:
    """One stage's step and what it takes."""

    def __init__(self, name, config, pairs):
        self.name, mesh = name, make_mesh(**config.mesh)
        objective, settings = make_objective(config), TrainSettings(**config.train)
        plan = make_plan(objective, settings, mesh)
        self.mesh, self.batch_size = mesh, settings.batch_size
        self.state, self.frozen = jax.tree.map(random_like, (plan.state, plan.frozen))
        # The data set is the same for all: one copy on the device.
        self.constants = objective.constants(mesh)
        if "pairs" in self.constants:
            shared = {key: pairs.setdefault((key, x.shape), x) for key, x in self.constants["pairs"].items()}
            self.constants = self.constants | {"pairs": shared}
        batches = objective.batches(batch_size=settings.batch_size, seed=0, start_step=0)
        self.batch = shard_batch(mesh, next(batches))
        batches.close()
        self.step = jit_step(objective, settings, mesh, plan.state)

    def compile(self) -> float:
        start = time.perf_counter()
        with mesh_context(self.mesh):
            self.compiled = self.step.lower(self.state, self.frozen, self.constants, self.batch).compile()
        return time.perf_counter() - start

    def time(self, steps: int) -> dict:
        spent = []
        for _ in range(steps + 3):
            start = time.perf_counter()
            self.state, metrics = self.compiled(self.state, self.frozen, self.constants, self.batch)
            jax.block_until_ready(metrics["loss"])
            spent.append(time.perf_counter() - start)
        step = statistics.median(spent[3:])
        return {"step_ms": round(1e3 * step, 2), "samples_s": round(self.batch_size / step)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", type=Path, help="file of `ragdiff train` lines")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--only", default="", help="names of stages, by commas")
    parser.add_argument("--cache", default="", metavar="DIR")
    parser.add_argument("--parts", action="store_true", help="write random parts where a stage's are not there yet")
    arguments = parser.parse_args()
    if arguments.cache:
        jax.config.update("jax_compilation_cache_dir", arguments.cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    lines = [line for line in arguments.stages.read_text().splitlines() if line.startswith("ragdiff train")]
    stages = [read_stage(line) for line in lines]
    if arguments.only:
        stages = [stage for stage in stages if stage[0] in arguments.only.split(",")]
    if arguments.parts:
        random_parts(stages)
    pairs: dict = {}
    made, start = [], time.perf_counter()
    for name, config in stages:
        try:
            made.append(Stage(name, config, pairs))
        except Exception:  # the others' times are wanted all the same
            print(json.dumps({"stage": name, "error": traceback.format_exc()[-1500:]}), flush=True)
    print(json.dumps({"prepared_s": round(time.perf_counter() - start, 1)}), flush=True)
    device = jax.devices()[0]
    with concurrent.futures.ThreadPoolExecutor(len(made)) as pool:
        compiling = {pool.submit(stage.compile): stage for stage in made}
        for future in concurrent.futures.as_completed(compiling):
            stage = compiling[future]
            record = {"stage": stage.name, "batch": stage.batch_size, "device": device.device_kind}
            try:
                record["compile_s"] = round(future.result(), 1)
                record |= stage.time(arguments.steps)
            except Exception:
                record["error"] = traceback.format_exc()[-1500:]
            print(json.dumps(record), flush=True)
    print(json.dumps({"peak_gib": round((device.memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**30, 2)}))


if __name__ == "__main__":
    main()
