"""Eight drawn pairs of 32 pixels with all that the objectives read, and a few real train steps on them."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
from quick import OPTIONS
from small_model import random_params, small_system

import ragdiff_jax as rd
from ragdiff_jax.data.pipeline import PairArrays
from ragdiff_jax.data.synth_dataset import synth_record
from ragdiff_jax.data.tokenizer import train_tokenizer
from ragdiff_jax.models.structure_net import twin_towers
from ragdiff_jax.parallel import flatten, merge, mesh_context, partition, shard_batch
from ragdiff_jax.training import TrainSettings
from ragdiff_jax.training.loop import initial_state, make_plan
from ragdiff_jax.training.objectives.ragdiffusion import RAGDiffusionObjective
from ragdiff_jax.training.state import fresh_state
from ragdiff_jax.training.step import ROW_LOSSES, jit_step
from ragdiff_jax.weights import save_part
from ragdiff_jax.weights.model_folder import abstract_params, part_configs

MODEL = small_system()
# No decay: what moves, moves by its gradient.
SETTINGS = TrainSettings(steps=10, batch_size=8, learning_rate=1e-4, weight_decay=0.0)


class Blank(RAGDiffusionObjective):
    """Starts from zeros, where the shapes are known already: `restore_parts` fills every part."""

    def init(self, key):
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract_params(self.model))


def small_world(base):
    """Pairs, the parts that training starts from, a memory of half of the flat-lays, a tokenizer."""
    records = [synth_record(row, size=32) for row in range(8)]
    tokenizer = train_tokenizer([record.caption for record in records], 700, base / "tokenizer")
    params = random_params(MODEL)
    params["structure_net"] = jax.tree.map(np.asarray, twin_towers(params["structure_net"]))
    configs = part_configs(MODEL)
    # ReferenceNet alone starts as a copy: of these.
    parts = {part: str(base / part) for part in configs if part != "reference_net"}
    for part, folder in parts.items():
        save_part(folder, configs[part], params[part])

    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(6, MODEL.structure_net.embed_dim)).astype(np.float32)
    memory = rd.Memory.create(base / "memory", rd.encoder_fingerprint(MODEL, params), 32, embeddings.shape[1])
    memory.add(
        [
            rd.MemoryItem(
                id=record.id,
                embedding=embedding / np.linalg.norm(embedding),
                landmark=rng.random((32, 32)) < 0.5,
                metadata={},
            )
            for record, embedding in zip(records, embeddings, strict=False)
        ]
    )
    return types.SimpleNamespace(
        pairs=PairArrays(records, image_size=32, tokenizer=tokenizer, cache=True),
        params=params,
        parts=parts,
        memory=str(base / "memory"),
        tokenizer=str(base / "tokenizer"),
        eos_id=tokenizer.eos_id,
        empty_ids=tuple(int(i) for i in tokenizer.encode([""])[0]),
    )


@dataclasses.dataclass
class Run:
    """One training: the whole tree before and after, loss and row losses of each step, the step to go on with."""

    before: dict
    after: dict
    losses: list
    rows: list
    go_on: object


def train(objective, mesh, steps, params=None):
    """`steps` of the compiled step. `params` spares the compilation of random numbers of many shapes."""
    plan = make_plan(objective, SETTINGS, mesh)
    if params is None:
        state, frozen = initial_state(objective, SETTINGS, plan)
    else:
        params = jax.device_put(params, jax.tree.map(lambda x: x.sharding, plan.params))
        trainable, frozen = partition(params, objective.trainable)
        state = fresh_state(SETTINGS, trainable, plan.state)
    before = jax.tree.map(np.array, merge(state.params, frozen))
    constants = objective.constants(mesh)
    batches = objective.batches(batch_size=8, seed=0, start_step=0)
    losses, rows, compiled = [], [], None
    with mesh_context(mesh):
        for _ in range(steps):
            batch = shard_batch(mesh, next(batches))
            if compiled is None:
                step = jit_step(objective, SETTINGS, mesh, plan.state)
                compiled = step.lower(state, frozen, constants, batch).compile(compiler_options=OPTIONS)
            state, metrics = compiled(state, frozen, constants, batch)
            losses.append(float(metrics["loss"]))
            rows.append(np.asarray(metrics[ROW_LOSSES]))
    batches.close()
    after = jax.tree.map(np.array, merge(state.params, frozen))

    def go_on(batch):
        with mesh_context(mesh):
            return compiled(state, frozen, constants, shard_batch(mesh, batch))[1]

    assert np.isfinite(losses).all()
    return Run(before, after, losses, rows, go_on)


def still(run, prefix):
    """Names under `prefix` that are what they were."""
    before, after = dict(flatten(run.before)), dict(flatten(run.after))
    return [n for n in before if n.startswith(prefix) and np.array_equal(before[n], after[n])]
