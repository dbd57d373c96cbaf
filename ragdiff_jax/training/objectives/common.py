"""What the objectives share: batches of pairs, parts from folders, sheets of samples."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int32, UInt8

from ragdiff_jax.data.decoded import DecodedPairs
from ragdiff_jax.data.pipeline import PairArrays, PairShapes, make_batches
from ragdiff_jax.training.objective import Objective
from ragdiff_jax.weights.folder import load_part


def sheet(*columns: UInt8[np.ndarray, "b h w 3"] | UInt8[Array, "b h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """One row a sample, one column an argument."""
    return np.concatenate([np.concatenate(list(np.asarray(column))) for column in columns], axis=1)


def load_parts(params: Mapping[str, Any], folders: Mapping[str, str | Path]) -> dict[str, Any]:
    """`params` with each part named in `folders` replaced by that folder's weights, placed like the ones replaced."""
    out = dict(params)
    for name, folder in folders.items():
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params[name])
        out[name] = load_part(folder, abstract, shardings=jax.tree.map(lambda x: x.sharding, params[name]))
    return out


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairObjective(Objective):
    """An objective over pairs. `examples` rows of the data are what `sample` draws and `validation` measures.

    Attributes:
      pairs: the training set.
      held_out: what is drawn and measured; the training set again where there is none.
      order: the rows of an epoch where some pairs come more than once; None: each once.
    """

    pairs: PairArrays | DecodedPairs | PairShapes
    held_out: PairArrays | DecodedPairs | PairShapes | None = None
    order: Int32[np.ndarray, " rows"] | None = None
    examples: int = 8

    def batches(self, **arguments):
        return make_batches(self.pairs, order=self.order, **arguments)

    def abstract_batch(self, rows):
        return self.pairs.abstract_batch(rows)

    def without_remat(self):
        changes = {}
        if hasattr(self, "model"):
            changes["model"] = dataclasses.replace(self.model, remat="none", attention="xla")
        if getattr(self, "remat", False):
            changes["remat"] = False
        return dataclasses.replace(self, **changes)

    def example_batch(self) -> dict[str, np.ndarray]:
        """The first rows of the held-out set."""
        arrays = self.held_out or self.pairs
        return arrays.batch(np.arange(min(self.examples, len(arrays))))
