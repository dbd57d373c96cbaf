"""What the objectives share: batches of pairs, parts from folders, sheets of samples."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, UInt8

from ragdiff_jax.data.decoded import DecodedPairs
from ragdiff_jax.data.pipeline import FIELDS, PairArrays, PairShapes, global_rows, make_batches
from ragdiff_jax.models.structure_net import StructureNetConfig
from ragdiff_jax.parallel import flatten
from ragdiff_jax.retrieval.manifest import read_latest
from ragdiff_jax.retrieval.memory import Memory
from ragdiff_jax.training.objective import Objective
from ragdiff_jax.weights.folder import load_part
from ragdiff_jax.weights.model_folder import structure_fingerprint


def sheet(*columns: UInt8[np.ndarray, "b h w 3"] | UInt8[Array, "b h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """One row a sample, one column an argument."""
    return np.concatenate([np.concatenate(list(np.asarray(column))) for column in columns], axis=1)


BUCKETS = 5


def losses_by_time(
    loss: Callable[[Any], Float[Array, " b"]], rows: int, times: int, buckets: int = BUCKETS
) -> dict[str, float]:
    """The mean loss over all times, and by bucket of times: `loss`, `loss_t0`, `loss_t200`, ...

    `loss(timesteps)` is that of each of `rows` fixed samples at these times, with noise fixed too. In a bucket the
    rows' times lie evenly, so that nothing is drawn and two measurements differ by the parameters alone.
    """
    found = {}
    for bucket in range(buckets):
        low, high = bucket * times // buckets, (bucket + 1) * times // buckets
        timesteps = np.asarray(low + (np.arange(rows) + 0.5) * (high - low) / rows, np.int32)
        found[f"loss_t{low}"] = float(np.asarray(loss(timesteps)).mean())
    return {"loss": float(np.mean(list(found.values()))), **found}


LARGEST_LOGIT_SCALE = math.log(100.0)  # of a learned temperature's logit, as CLIP has it


@jax.custom_vjp
def at_most(value: Float[Array, "*shape"], top: Any) -> Float[Array, "*shape"]:
    """min(value, top). A value above it keeps the gradient that brings it back: else one step too far is for ever."""
    return jnp.minimum(value, top)


def _at_most_forward(value, top):
    return jnp.minimum(value, top), value > top


def _at_most_backward(above, slope):
    return jnp.where(above, jnp.maximum(slope, 0.0), slope), None


at_most.defvjp(_at_most_forward, _at_most_backward)


def equal_parts(places: Int[np.ndarray, " n"], size: int) -> Iterator[tuple[Int[np.ndarray, " size"], int]]:
    """(so many of the places, how many of them count): the last part is filled up with repeats, for one program."""
    for start in range(0, len(places), size):
        part = places[start : start + size]
        yield np.concatenate([part, np.repeat(part[-1:], size - len(part))]), len(part)


def load_parts(params: Mapping[str, Any], folders: Mapping[str, str | Path]) -> dict[str, Any]:
    """`params` with each part named in `folders` replaced by that folder's weights, placed like the ones replaced."""
    out = dict(params)
    for name, folder in folders.items():
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params[name])
        out[name] = load_part(folder, abstract, shardings=jax.tree.map(lambda x: x.sharding, params[name]))
    return out


def check_memory(
    memory: str, config: StructureNetConfig, params: Mapping[str, Any], trainable: str
) -> None:
    """Refuse a memory that another StructureNet than that of `params` built, at the start of a fresh and a resumed run.

    Every process calls it. Raises `UserError`.
    """
    own = params["structure_net"]
    tower = {name: own[name] for name in ("flat", "attributes")}
    if any(re.search(trainable, f"structure_net/{path}") for path, _ in flatten(tower)):
        return  # what trains leaves its memory behind
    mark = structure_fingerprint(config, own)
    if read_latest(Path(memory)).fingerprint == mark:
        return
    Memory.open(memory, mark, verify=False)


class RematObjective(Objective):
    """An objective whose `model`, or itself, has a field `remat`."""

    def remat_modes(self):
        if hasattr(self, "model"):
            models = {mode: dataclasses.replace(self.model, remat=mode) for mode in ("block", "dots", "none")}
            return {mode: dataclasses.replace(self, model=model) for mode, model in models.items()}
        if hasattr(self, "remat"):
            return {mode: dataclasses.replace(self, remat=mode == "block") for mode in ("block", "none")}
        return {"none": self}

    def without_remat(self):
        plain = self.remat_modes()["none"]
        if hasattr(plain, "model"):  # a fused kernel's operations can't be counted
            plain = dataclasses.replace(plain, model=dataclasses.replace(plain.model, attention="xla"))
        if hasattr(plain, "micro_batches"):  # GradCache computes them again
            plain = dataclasses.replace(plain, micro_batches=1)
        return plain


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairObjective(RematObjective):
    """An objective over pairs. `examples` rows of the data are what `sample` draws and `validation` measures.

    Attributes:
      pairs: the training set.
      held_out: what is drawn and measured; the training set again where there is none.
      order: the rows of an epoch where some pairs come more than once; None: each once.
      reads: the fields of a batch that the loss looks at; no others are decoded, nor sent to the devices.
    """

    pairs: PairArrays | DecodedPairs | PairShapes
    held_out: PairArrays | DecodedPairs | PairShapes | None = None
    order: Int32[np.ndarray, " rows"] | None = None
    examples: int = 8
    reads: ClassVar[tuple[str, ...]] = FIELDS

    def batches(self, **arguments):
        return make_batches(self.pairs, order=self.order, fields=self.reads, **arguments)

    @property
    def epoch_rows(self) -> int:
        rows = self.pairs if self.order is None else self.order
        return 0 if rows is None else len(rows)

    def trained_rows(self, count: int) -> np.ndarray:
        """The first `count` rows, or as many as there are, of those that an epoch shows."""
        return (np.arange(len(self.pairs)) if self.order is None else np.unique(self.order))[:count]

    def batch_ids(self, step, *, batch_size, seed):
        order = np.arange(len(self.pairs)) if self.order is None else self.order
        ids = self.pairs.ids
        return [ids[row] for row in order[global_rows(len(order), batch_size, seed)(step)]]

    def abstract_batch(self, rows):
        if isinstance(self.pairs, PairShapes):
            return self.pairs.abstract_batch(rows, self.reads)
        first = self.pairs.batch(np.zeros(1, np.int32), self.reads)
        return {name: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype) for name, x in first.items()}

    def example_batch(self) -> dict[str, np.ndarray]:
        """The first rows of the held-out set."""
        arrays = self.held_out or self.pairs
        return arrays.batch(np.arange(min(self.examples, len(arrays))))
