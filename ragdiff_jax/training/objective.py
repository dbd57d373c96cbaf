"""What a stage of training has to say for itself; the loop does everything else."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from ragdiff_jax.errors import UserError

Batch = Mapping[str, Any]
Params = Mapping[str, Any]


def blank(init: Callable[[jax.Array], Params], key: jax.Array) -> Params:
    """The boxed tree of `init`, all zeros: for parts that `restore_parts` fills.

    Random numbers of many shapes are slow to compile (0.1 s a parameter on a CPU); zeros are not.
    """
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(init, key))


@runtime_checkable
class Objective(Protocol):
    """One stage: what is initialised, what trains, what the loss of a batch is.

    An objective is a frozen dataclass that inherits from this class; methods with a body may be left out.
    `params` is always the whole tree of plain arrays, trainable (fp32) and frozen (`frozen_dtype`) together.
    """

    trainable: str
    """Regular expression searched in the `/`-joined path of each parameter; what matches is trained."""

    wants_average: ClassVar[bool] = False
    """Whether `loss` takes `average` too: the whole tree with the averaged parameters (EMA), a teacher."""

    exact: ClassVar[str] = ""
    """Regular expression of frozen parameters that stay fp32 whatever `train.frozen_dtype` says; empty for none."""

    rows_interact: ClassVar[bool] = False
    """Whether a row's loss depends on the other rows, so that micro-batches one after another would change it."""

    def rate_multipliers(self, params: Params) -> Any:
        """Factors of the learning rate, a tree like the trainable one whose leaves broadcast; None: all 1."""
        del params
        return None

    def training_only(self, trainable: str) -> "Objective":
        """The same objective inside of one that trains what `trainable` matches, in the place of its own choice."""
        del trainable
        return self

    def init(self, key: jax.Array) -> Params:
        """The tree of boxed parameters (`nn.Partitioned` leaves, as Flax's `init` gives it).

        Traced under jit with sharded outputs, outside the mesh context: pure, no files.
        """
        ...

    def restore_parts(self, params: Params) -> Params:
        """Replace parts of a fresh tree by pretrained ones, leaves placed like the ones they replace.

        Called once, at the start of a fresh run, not on resume: checkpoints hold the frozen parts too.
        """
        return params

    def constants(self, mesh: Mesh) -> Any:
        """Arrays that every step reads and no step changes (a memory on device); any tree, called once."""
        del mesh
        return {}

    def batches(
        self, *, batch_size: int, seed: int, start_step: int, places: np.ndarray | None = None
    ) -> Iterator[Mapping[str, np.ndarray]]:
        """Batches from the one of `start_step` on, for ever: a function of (seed, step) alone.

        Each holds this process' rows of the global batch, those at `places` (None: all) in that order, as numpy arrays
        [rows, ...]. Processes may share places: each makes the same of them.
        """
        ...

    def prepared(self, params: Params, constants: Any, mesh: Mesh) -> Any:
        """The constants, once the parameters are there; called by every process before the first batch is asked for.

        Of a fresh and of a resumed run alike, so here is checked what may have changed in between.
        """
        del params, mesh
        return constants

    def abstract_constants(self, mesh: Mesh, memory_rows: int) -> Any:
        """What `constants` gives, as `jax.ShapeDtypeStruct`, without the files; a memory has `memory_rows` rows."""
        del memory_rows
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), self.constants(mesh))

    def abstract_batch(self, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes of a global batch; enough to compile a step without data."""
        raise UserError(f"{type(self).__name__} doesn't say what its batches look like; it can't be planned")

    def program(self, name: str, function: Callable, **options: Any) -> Callable:
        """`jax.jit(function)`, made once for the objective's life: a large model takes half a minute to trace, and
        what is measured at intervals would be traced at each. The function of a name is always the same, and closes
        over nothing that changes.
        """
        kept = self.__dict__.setdefault("_programs", {})
        if name not in kept:
            kept[name] = jax.jit(function, **options)
        return kept[name]

    @property
    def encodings(self) -> str:
        """Where the encodings of frozen networks come from; the run says it at its start."""
        return "made in each step"

    @property
    def idle_parts(self) -> tuple[str, ...]:
        """The parts that no step runs, because what they say of each sample is kept: nothing of them can be trained."""
        return ()

    @property
    def epoch_rows(self) -> int:
        """How many rows an epoch shows, 0 where nobody says. Which rows a step sees depends on it: processes must
        agree, and a resumed run says where it changed.
        """
        return 0

    def batch_ids(self, step: int, *, batch_size: int, seed: int) -> list[str]:
        """The names in the data of the rows of a step's global batch, to say which one was bad; empty: none."""
        del step, batch_size, seed
        return []

    def evaluators(self) -> dict[str, Callable[[Params, Any, jax.Array], dict[str, float]]]:
        """Measurements by name, each `(params, constants, key) -> scalars` like `validation`; dearer, so chosen."""
        return {}

    def remat_modes(self) -> dict[str, "Objective"]:
        """The same objective by how much of it is computed again in the backward pass, the most first."""
        return {"none": self}

    def without_remat(self) -> "Objective":
        """The same objective with nothing computed twice: what a step's useful operations are counted on."""
        return self.remat_modes()["none"]

    def loss(
        self, params: Params, constants: Any, batch: Batch, key: jax.Array
    ) -> tuple[Float[Array, "b"], dict[str, Array]]:
        """(loss of each row, scalars to log). Traced under jit, differentiated in the trainable parameters.

        `key` belongs to the step (and micro-batch): `fold_in(key(seed), step)`.
        """
        ...

    def sample(self, params: Params, constants: Any, key: jax.Array) -> dict[str, np.ndarray]:
        """Pictures by name, uint8 [h, w, 3]; called at intervals with the EMA parameters and the same key."""
        del params, constants, key
        return {}

    def generate(self, params: Params, constants: Any, batch: Batch, key: jax.Array) -> Float[Array, "b h w 3"]:
        """Pictures in [-1, 1] of a batch, conditions, sampler and decoder included; pure, to be traced."""
        raise UserError(f"{type(self).__name__} draws no pictures; there is no generate step to plan")

    def validation(self, params: Params, constants: Any, key: jax.Array) -> dict[str, float]:
        """Scalars; called at intervals with the EMA parameters and the same key: fixed noise, fixed times."""
        del params, constants, key
        return {}

    def export(self, params: Params, directory: Path) -> None:
        """Write the model folder into `directory`, which is there and empty; called once, on every process.

        `params` holds the EMA of the trainable part where there is one. Only process 0 may write.
        """
        ...


class Around(Objective):
    """A stage around another, `base`, whose loss it computes on other batches or through other parameters.

    A frozen dataclass like any; what it says nothing of is the base's.
    """

    base: Any

    @property
    def trainable(self) -> str:
        return self.base.trainable

    @property
    def exact(self) -> str:
        return self.base.exact

    @property
    def rows_interact(self) -> bool:
        return self.base.rows_interact

    def init(self, key):
        return self.base.init(key)

    def restore_parts(self, params):
        return self.base.restore_parts(params)

    def constants(self, mesh):
        return self.base.constants(mesh)

    @property
    def epoch_rows(self) -> int:
        return self.base.epoch_rows

    @property
    def encodings(self) -> str:
        return self.base.encodings

    @property
    def idle_parts(self) -> tuple[str, ...]:
        return self.base.idle_parts

    def without_remat(self):
        return dataclasses.replace(self, base=self.base.without_remat())


class Summing(Objective):
    """A stage without a gradient: its trainable tree holds sums over the data, and what it exports follows from them.

    The loop is the same one (checkpoints, resume, samples, export); its step calls `add` in the place of `loss` and an
    optimizer. Takes `optimizer="none"`.
    """

    def add(
        self, params: Params, constants: Any, batch: Batch, key: jax.Array
    ) -> tuple[Params, Float[Array, "b"], dict[str, Array]]:
        """(the trainable tree with the batch in it, a number of each row that is logged as `loss`, scalars to log).

        Traced under jit. `params` is the whole tree, `key` as in `loss`.
        """
        raise NotImplementedError
