"""What the sections share: the arguments, models that serve with closed gates, memories, held-out pairs, numbers."""

import argparse
import dataclasses
import functools
import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ragdiff_jax.cli.inputs import model_folder, shipped
from ragdiff_jax.data.folder import open_pairs
from ragdiff_jax.data.silhouettes import flat_mask
from ragdiff_jax.data.tokenizer import Tokenizer
from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation.analyze import Pairs, read_pairs
from ragdiff_jax.evaluation.bootstrap import Interval
from ragdiff_jax.pipelines.gated import Gated
from ragdiff_jax.pipelines.generate import GarmentGenerator, load_model
from ragdiff_jax.pipelines.retrieved import Generated
from ragdiff_jax.retrieval import Memory
from ragdiff_jax.systems.attribute_head import HeadAttributes
from ragdiff_jax.systems.zero_shot import ZeroShotAttributes
from ragdiff_jax.weights.folder import read_model_json
from ragdiff_jax.weights.model_folder import TOKENIZERS, can_predict, load_predictor, predictor_part, read_calibration

# (adapter, landmark): what each variant is told beside the photo and the empty text. ReferenceNet is always open.
GATES = {"full": (1, 1), "shipped": (1, 1), "vanilla": (0, 0), "embedding": (1, 0), "silhouette": (0, 1)}


class World:
    """The arguments, and what is loaded once for several sections."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        self.out: Path = arguments.out
        self.batch: int = arguments.batch
        self.models = {name: model_folder(folder) for name, folder in named(arguments.model, GATES).items()}
        self.models = self.models or {"shipped": shipped("tiny")}
        self._memories = named(arguments.memory, ["", *GATES])
        self._temporary: list[tempfile.TemporaryDirectory] = []

    @property
    def main(self) -> str:
        """The model of the sections that need one: the first of these that there is."""
        return next(name for name in ("shipped", "full", *GATES) if name in self.models)

    def memory_path(self, name: str) -> Path:
        return self._memories.get(name) or self._memories.get("") or shipped("memory")

    @functools.lru_cache(maxsize=8)  # noqa: B019 - one world a run
    def memory(self, name: str, without: tuple[str, ...] = ()) -> Memory:
        """The memory of a model. If it holds one of the ids `without`, a copy of it without them."""
        memory = Memory.open(self.memory_path(name))
        there = {item.id for item in memory.items} & set(without)
        if not there:
            return memory
        copy = self.temporary() / "memory"
        shutil.copytree(memory.path, copy)
        memory = Memory.open(copy)
        memory.remove(sorted(there))
        return memory

    def temporary(self) -> Path:
        """A folder that goes with this run."""
        self._temporary.append(tempfile.TemporaryDirectory(prefix="ragdiff-tiny-world-"))
        return Path(self._temporary[-1].name)

    def image_size(self, name: str) -> int:
        """Of a model: what its folder says, else the side of its memory's landmarks (a structure_net stage)."""
        own = read_model_json(self.models[name]).settings.get("image_size")
        return own or Memory.open(self.memory_path(name), verify=False).manifest.landmark_size[0]

    @functools.lru_cache(maxsize=2)  # noqa: B019
    def source(self, split: str):
        if self.arguments.dataset is None:
            raise UserError("this section needs --dataset DIR: a prepared data set of drawn garments")
        return open_pairs(self.arguments.dataset, split)

    @functools.lru_cache(maxsize=2)  # noqa: B019
    def pairs(self, size: int, limit: int) -> tuple[Pairs, np.ndarray, tuple[str, ...]]:
        """(held-out pairs, the group of each, ids that a memory must not hold: theirs and their twins').

        Structure twins have one silhouette: they are one group of the bootstrap, and a twin in the memory would be the
        answer itself.
        """
        source = self.source(self.arguments.split)
        pairs = read_pairs(source, limit, size)
        partners = [source[row].structure_partner for row in range(len(pairs.ids))]
        return pairs, np.array(pairs.groups), tuple(sorted({*pairs.ids, *filter(None, partners)}))

    def generator(self, name: str, without: tuple[str, ...] = ()) -> GarmentGenerator:
        """The generator of a model, its gates as its name says."""
        folder = self.models[name]
        model, params = load_model(folder)
        adapter, landmark = GATES[name]
        gated = Gated.of(model, adapter_gate=float(adapter), landmark_gate=float(landmark))
        return GarmentGenerator(
            gated,
            params,
            self.memory(name, without),
            [Tokenizer.from_folder(folder / part) for part in TOKENIZERS[: len(model.text_encoders)]],
            batch_size=self.batch,
            calibration=read_calibration(folder / predictor_part(model)),
        )

    def predictor(self, name: str) -> ZeroShotAttributes | HeadAttributes | None:
        """That of --clip, else the model's own, else None."""
        folder = self.models[name] if self.arguments.clip is None else model_folder(self.arguments.clip)
        return load_predictor(folder) if can_predict(folder) else None


def named(given: Sequence[str] | None, names) -> dict[str, Path]:
    """{name: folder} of NAME=DIR; DIR alone has the name "" where that is one of `names`."""
    found = {}
    for text in given or ():
        name, equals, folder = text.partition("=")
        name, folder = (name, folder) if equals else ("", text)
        if name not in names or name in found:
            raise UserError(f"{text!r}: give NAME=DIR once each, NAME one of {', '.join(filter(None, names))}")
        found[name] = Path(folder)
    return found


def generate(generator: GarmentGenerator, images: Sequence[np.ndarray], world: World, **options) -> list[Generated]:
    """Attributes predicted where the model can, else unknown; always by the program of a whole batch.

    A single photo would go alone through a program of its own, in which sums are taken in another order.
    """
    alone = len(images) % generator.batch_size == 1
    padded = [*images, images[-1]] if alone else images
    options = {"steps": world.arguments.steps, "seed": world.arguments.seed, "predict": generator.predicts} | options
    return generator.generate(padded, **options)[: len(images)]


def silhouettes(images: np.ndarray) -> np.ndarray:
    """The silhouette in each flat-lay [n, s, s, 3], from its picture alone."""
    return np.stack([flat_mask(image) for image in images])


def number(value: Interval | float | None, digits: int = 4):
    """A number or interval as JSON has it."""
    if isinstance(value, Interval):
        return {name: number(part, digits) for name, part in dataclasses.asdict(value).items()}
    return None if value is None or not np.isfinite(value) else round(float(value), digits)


@functools.cache
def content(folder: Path) -> str:
    """A hash of a folder's files, so that results of other weights at the same place are not taken for these."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(folder)).encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
