"""A small objective with every kind of part, for the tests of the loop."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from ragdiff_jax.errors import UserError
from ragdiff_jax.models.layers import Conv, Dense
from ragdiff_jax.parallel import flatten
from ragdiff_jax.training import Objective


class Net(nn.Module):
    """[b, 8, 8, 3] -> [b, 8]; `backbone` is frozen in the tests, `head` trains; `narrow` divides no mesh."""

    @nn.compact
    def __call__(self, x):
        x = nn.with_logical_constraint(x, ("act_batch", None, None, None))
        x = nn.tanh(Conv(16, name="backbone")(x))
        x = nn.with_logical_constraint(x, ("act_batch", None, None, None))
        x = nn.tanh(Conv(3, name="narrow")(x)).reshape(x.shape[0], -1)
        return Dense(8, name="head")(x)


@dataclass(frozen=True)
class Toy(Objective):
    """Regression of a fixed function of the pixels, with noise from the step's key."""

    trainable: str = "^(narrow|head)/"
    noise: float = 0.1
    nan_at: int = -1
    slow: float = 0.0
    broken_at: int = -1
    part: Path | None = None
    rows: int = 0

    @property
    def epoch_rows(self):
        return self.rows

    def init(self, key):
        return Net().init(key, jnp.zeros((1, 8, 8, 3)))["params"]

    def restore_parts(self, params):
        if self.part is None:
            return params
        value = jnp.asarray(np.load(self.part), params["backbone"]["bias"].dtype)
        return {**params, "backbone": {**params["backbone"], "bias": value}}

    def constants(self, mesh):
        return {"scale": jnp.float32(0.5)}

    def batches(self, *, batch_size, seed, start_step, places):
        import time

        step = start_step
        while True:
            rng = np.random.default_rng((seed, step))
            x = rng.normal(size=(batch_size, 8, 8, 3)).astype(np.float32)
            if step == self.nan_at:
                x[3] = np.nan
            if step == self.broken_at and jax.process_index() == jax.process_count() - 1:
                raise UserError("shard-3 is missing")
            time.sleep(self.slow)
            yield {"x": x[places]}
            step += 1

    def batch_ids(self, step, *, batch_size, seed):
        return [f"pair-{step}-{row}" for row in range(batch_size)]

    def abstract_batch(self, rows):
        return {"x": jax.ShapeDtypeStruct((rows, 8, 8, 3), jnp.float32)}

    def evaluators(self):
        return {"head": lambda params, constants, key: {"size": float(jnp.abs(params["head"]["kernel"]).mean())}}

    def loss(self, params, constants, batch, key):
        x = batch["x"]
        noise = self.noise * jax.random.normal(key, x.shape)
        out = Net().apply({"params": params}, x + noise)
        target = constants["scale"] * x.mean((1, 2)).sum(-1, keepdims=True)
        rows = jnp.square(out - target).mean(-1)
        return rows, {"size": jnp.abs(out).mean()}

    def sample(self, params, constants, key):
        del params, constants, key
        return {"grid": np.full((8, 8, 3), 128, np.uint8)}

    def validation(self, params, constants, key):
        del key
        return {"weight": float(jnp.abs(params["head"]["kernel"]).mean() * constants["scale"])}

    def export(self, params, directory):
        whole = {k.replace("/", "."): np.asarray(_whole(v)) for k, v in flatten(params)}
        if jax.process_index() == 0:
            np.savez(directory / "params.npz", **whole)


def _whole(leaf):
    """Every process takes part: an array may lie in pieces across them."""
    split = isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated)
    return multihost_utils.process_allgather(leaf, tiled=True) if split else leaf


def lines(workdir):
    """The lines of metrics.jsonl."""
    import json

    return [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]


def losses(workdir):
    """Loss by step."""
    return {line["step"]: line["loss"] for line in lines(workdir) if "loss" in line}


def exported(workdir):
    """The exported parameters, by name."""
    with np.load(Path(workdir) / "model" / "params.npz", allow_pickle=False) as stored:
        return dict(stored)


def replace(settings, **changes):
    """Settings with some changed."""
    return dataclasses.replace(settings, **changes)
