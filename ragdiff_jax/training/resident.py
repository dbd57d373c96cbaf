"""Any stage over pairs with its whole data set on the devices: a batch is row numbers, and the step gathers the rest.

A small network on a fast card waits for its batches otherwise: at 128 pixels a thousand pairs are 131 MB a step.
"""

import dataclasses

import jax

from ragdiff_jax.data.pipeline import gathered, own_fields
from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import replicated
from ragdiff_jax.training.objective import Around, Summing
from ragdiff_jax.training.objectives.common import PairObjective


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResidentObjective(Around):
    """`base` with the decoded pairs among its constants, whole on every device (128 px: 131 kB a pair at most).

    Losses are those of `base`, which sees the same batches.
    """

    base: PairObjective

    def __post_init__(self):
        if isinstance(self.base, Summing):
            raise UserError(f"data.resident: {type(self.base).__name__} reads each pair once; leave resident out")

    def constants(self, mesh):
        def place(array):
            return jax.make_array_from_callback(array.shape, replicated(mesh), lambda index: array[index])

        read = own_fields(self.base.reads)
        pairs = {name: array for name, array in self.base.pairs.arrays().items() if name in read}
        return {"base": self.base.constants(mesh), "pairs": jax.tree.map(place, pairs)}

    def prepared(self, params, constants, mesh):
        return constants | {"base": self.base.prepared(params, constants["base"], mesh)}

    def batches(self, **arguments):
        return self.base.batches(rows_only=True, **arguments)

    def batch_ids(self, step, **arguments):
        return self.base.batch_ids(step, **arguments)

    def abstract_batch(self, rows):
        row = {"row": jax.ShapeDtypeStruct((rows,), "int32")}
        return row | {name: x for name, x in self.base.abstract_batch(rows).items() if name == "step"}

    def evaluators(self):
        return {
            name: lambda params, constants, key, run=run: run(params, constants["base"], key)
            for name, run in self.base.evaluators().items()
        }

    @property
    def wants_average(self) -> bool:
        return self.base.wants_average

    def rate_multipliers(self, params):
        return self.base.rate_multipliers(params)

    def loss(self, params, constants, batch, key, **average):
        pairs = gathered(constants["pairs"], batch["row"], self.base.reads)
        return self.base.loss(params, constants["base"], dict(batch) | pairs, key, **average)

    def sample(self, params, constants, key):
        return self.base.sample(params, constants["base"], key)

    def validation(self, params, constants, key):
        return self.base.validation(params, constants["base"], key)

    def export(self, params, directory):
        self.base.export(params, directory)
