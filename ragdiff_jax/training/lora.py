"""Any objective with LoRA in place of full training: the base stays frozen, adapters of low rank train beside it."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax

from ragdiff_jax.errors import UserError
from ragdiff_jax.models.lora import TARGETS, init_lora, merge_lora
from ragdiff_jax.parallel import flatten
from ragdiff_jax.training.objective import Around, Objective
from ragdiff_jax.weights.lora_file import load_lora, open_lora, save_lora

PART = "lora"
FOLDER = "lora"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRAObjective(Around):
    """`base` trained through adapters, which lie in the tree under `lora` and are merged into the kernels in each step.

    At the end the model folder holds the merged model, and `lora/` in it the adapters alone, as diffusers reads them.
    The optimizer, the EMA and the checkpoints know the trained leaves alone: a rank of 16 is about 1 % of SDXL's U-Net.

    Attributes:
      base: the objective; what it would train otherwise is frozen.
      rank: of the adapters.
      alpha: the product is multiplied by alpha / rank.
      targets: regular expression searched in the path of each kernel.
      also: regular expression of what is trained in full besides (the small parts); empty for nothing.
      start: file or folder of adapters to train on; empty for new ones.
    """

    base: Objective
    rank: int = 16
    alpha: int | float = 16
    targets: str = TARGETS
    also: str = ""
    start: str = ""

    def __post_init__(self):
        if self.alpha <= 0:
            raise UserError(f"LoRA alpha {self.alpha}: must be above 0")

    @property
    def trainable(self) -> str:
        """The adapters, and what `also` says."""
        return f"^{PART}/|{self.also}" if self.also else f"^{PART}/"

    @property
    def scale(self) -> float:
        """The factor of A B."""
        return self.alpha / self.rank

    def merged(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The base's own tree, with the adapters merged in."""
        base, adapters = _split(params)
        return merge_lora(base, adapters, self.scale)

    def init(self, key):
        first, second = jax.random.split(key)
        base = self.base.init(first)
        adapters = init_lora(second, base, self.targets, self.rank)
        self._check_idle(base, adapters)
        return {**base, PART: adapters}

    def _check_idle(self, base: Mapping[str, Any], adapters: Mapping[str, Any]) -> None:
        paths = (path for path, _ in flatten(nn.meta.unbox(base)))
        also = {path.split("/")[0] for path in paths if self.also and re.search(self.also, path)}
        if idle := sorted((also | set(adapters)) & set(self.base.idle_parts)):
            raise UserError(
                f"lora.targets={self.targets!r}, lora.also={self.also!r}: match {', '.join(idle)}, which no step runs "
                "with data.encodings; match other parts, or leave data.encodings empty"
            )

    def restore_parts(self, params):
        base, adapters = _split(params)
        base = self.base.restore_parts(base)
        if self.start:
            adapters = load_lora(open_lora(self.start), adapters, base, scale=self.scale)
        return {**base, PART: adapters}

    def prepared(self, params, constants, mesh):
        return self.base.prepared(self.merged(params), constants, mesh)

    def batches(self, **arguments):
        return self.base.batches(**arguments)

    def abstract_constants(self, mesh, memory_rows):
        return self.base.abstract_constants(mesh, memory_rows)

    def abstract_batch(self, rows):
        return self.base.abstract_batch(rows)

    def batch_ids(self, step, **arguments):
        return self.base.batch_ids(step, **arguments)

    def evaluators(self):
        return {
            name: lambda params, constants, key, run=run: run(self.merged(params), constants, key)
            for name, run in self.base.evaluators().items()
        }

    def remat_modes(self):
        return {mode: dataclasses.replace(self, base=base) for mode, base in self.base.remat_modes().items()}

    def loss(self, params, constants, batch, key):
        return self.base.loss(self.merged(params), constants, batch, key)

    def sample(self, params, constants, key):
        return self.base.sample(self.merged(params), constants, key)

    def validation(self, params, constants, key):
        return self.base.validation(self.merged(params), constants, key)

    def export(self, params: Mapping[str, Any], directory: Path) -> None:
        base, adapters = _split(params)
        save_lora(directory / FOLDER, adapters, base, rank=self.rank, alpha=self.alpha)
        self.base.export(self.merged(params), directory)


def _split(params: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]]:
    return {name: value for name, value in params.items() if name != PART}, params[PART]
