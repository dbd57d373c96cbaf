"""What the measurements share: models, the drawn data they are held against, memories made of another, generators."""

import dataclasses
import functools
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from ragdiff_jax.data.folder import open_pairs
from ragdiff_jax.data.garment_categories import category_of_garment, category_of_item
from ragdiff_jax.data.processes import usable_cores
from ragdiff_jax.data.records import PairSource
from ragdiff_jax.data.tokenizer import Tokenizer
from ragdiff_jax.errors import UserError
from ragdiff_jax.evaluation.analyze import Pairs, Picked, read_pairs
from ragdiff_jax.evaluation.claims.budget import Budget
from ragdiff_jax.evaluation.claims.store import key_of
from ragdiff_jax.evaluation.fingerprints import folder_fingerprint, memory_fingerprint
from ragdiff_jax.pipelines.gated import Gated
from ragdiff_jax.pipelines.generate import GarmentGenerator, load_model
from ragdiff_jax.pipelines.memory_builder import MemoryBuilder, flat_lays_of_pairs
from ragdiff_jax.retrieval import Memory
from ragdiff_jax.weights.folder import read_model_json
from ragdiff_jax.weights.model_folder import TOKENIZERS

# Seeds of drawn garments that no training of ours uses: held-out photos, what memories are given, people and what they
# retrieve from, and what the variants train on.
HELD_OUT, ADDED, PEOPLE, GARMENTS, TRAINING = 7001, 7002, 7003, 7004, 7005
PARTS = ("held_out", "plain", "lower", "extreme", "studio")


class NotRun(Exception):
    """Something that a claim needs isn't there; the words say what."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """Held-out pairs, the group of each (structure twins share a silhouette), and the photos' attributes."""

    pairs: Pairs
    groups: Shaped[np.ndarray, " n"]
    attributes: tuple[Mapping[str, str], ...]

    def __len__(self) -> int:
        return len(self.groups)


Trainer = Callable[[str, Path, Mapping[str, Any]], None]
"""(config as `ragdiff train --config` takes it, workdir, what --set changes): trains to the end or raises UserError."""


class World:
    """Everything that a measurement may look at; loaded when it is first asked for."""

    def __init__(
        self,
        *,
        out: Path,
        stem: Path,
        memory: Path,
        editor: Path,
        tower: Path | None,
        budget: Budget,
        configs: Path,
        trainer: Trainer | None = None,
        step: Callable[[int], None] = lambda pictures: None,
    ):
        """`stem`: the RAGDiffusion that everything starts from; `editor`: a Fashion-RAG; `tower`: a CLIP's model folder
        that measures edits, None takes the editor's own; `trainer` None: nothing is trained; `step` is called with the
        number of pictures made.
        """
        self.out, self.stem, self.memory_path, self.editor, self.tower = out, stem, memory, editor, tower
        self.budget, self.configs, self.trainer, self.step = budget, configs, trainer, step
        settings = read_model_json(stem).settings
        if read_model_json(stem).system != "ragdiffusion" or "image_size" not in settings:
            raise UserError(f"{stem}: is no whole RAGDiffusion; name one with --stem")
        self.image_size: int = settings["image_size"]
        self._parts: dict[str, Part] = {}
        self._fingerprints: dict[str, str] = {}

    def fingerprint(self, name: str) -> str:
        """Of one of the inputs: `stem`, `memory`, `editor`, `tower`. Read once: that takes seconds."""
        if name not in self._fingerprints:
            self._fingerprints[name] = _fingerprint(self, name)
        return self._fingerprints[name]

    @functools.cached_property
    def drawn(self) -> str:
        """The version of the drawn garments and people, which a new one changes."""
        from ragdiff_jax.data.synth_dataset import SynthGarments
        from ragdiff_jax.data.synth_people import SynthPeople

        return f"garments {SynthGarments.VERSION} people {SynthPeople.VERSION}"

    def part(self, name: str) -> Part:
        """Held-out pairs: `held_out` (any), `plain` (of one colour), `lower` (bottoms and dresses), `extreme` (R Fig.
        9), `studio` (rendered in the other style).
        """
        if name not in self._parts:
            self._parts[name] = self._read(name)
        return self._parts[name]

    def _read(self, name: str) -> Part:
        photos = self.budget.photos
        if name == "extreme":
            source, count = self._drawn(HELD_OUT, 2, extreme=photos // 2 // 2 * 2, split="extreme"), photos // 2
        elif name == "studio":
            source, count = self._drawn(HELD_OUT, photos, style="studio"), photos // 2
        else:
            source, count = self._drawn(HELD_OUT, 4 * photos), photos if name == "held_out" else photos // 2
        rows = range(len(source))
        if name == "plain":
            rows = [row for row in rows if source[row].flat_attributes.get("Print") == "Solid Color"]
        elif name == "lower":
            rows = [row for row in rows if category_of_garment(source[row].category) != "upper_body"]
        picked = Picked(source, list(rows)[:count])
        if len(picked) < 4:
            raise NotRun(f"only {len(picked)} {name} garments among the drawn; a larger --photos draws more")
        records = [picked[row] for row in range(len(picked))]
        pairs = read_pairs(picked, len(picked), self.image_size)
        attributes = tuple(one.photo_attributes for one in records)
        return Part(pairs=pairs, groups=np.array(pairs.groups), attributes=attributes)

    def _drawn(self, seed: int, count: int, *, split: str = "test", style: str = "drawn", extreme: int = 0):
        from ragdiff_jax.data.synth_dataset import prepare_synth

        folder = prepare_synth(
            self.out / "data",
            count=max(2, count),
            size=2 * self.image_size,  # drawn twice as large and scaled down, as the training's
            seed=seed,
            splits={"test": 1.0},
            extreme=extreme,
            style=style,
            processes=_processes(count + extreme),
        )
        return open_pairs(folder, split)

    def training_pairs(self) -> Path:
        """The data set that the variants train on."""
        from ragdiff_jax.data.synth_dataset import prepare_synth

        count = self.budget.train_pairs
        splits = {"train": 0.75, "validation": 0.25} if count < 256 else {"train": 0.95, "validation": 0.05}
        size, processes = 2 * self.image_size, _processes(count)
        return prepare_synth(
            self.out / "data", count=count, size=size, seed=TRAINING, splits=splits, processes=processes
        )

    @functools.cache  # noqa: B019 - one world a run
    def memory(self, kind: str = "whole") -> Memory:
        """`whole`: the stem's; `upper`: its garments for the upper body alone; `extreme`, `studio`: the whole with
        flat-lays of these added, of other garments than the held-out ones.
        """
        if kind == "whole":
            return Memory.open(self.memory_path)
        drawn = key_of({"drawn": self.drawn, "size": self.image_size, "added": self.budget.added})[:8]
        name = f"{kind}-{self.fingerprint('memory')[:12]}-{self.fingerprint('stem')[:12]}-{drawn}"
        place = self.out / "memories" / name
        if not place.is_dir():
            temporary = place.with_name(f".{name}.{secrets.token_hex(4)}.tmp")
            try:
                shutil.copytree(self.memory_path, temporary)
                self._change(Memory.open(temporary), kind)
                os.rename(temporary, place)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return Memory.open(place)

    def _change(self, memory: Memory, kind: str) -> None:
        if kind == "upper":
            others = [item.id for item in memory.items if category_of_item(item.metadata) != "upper_body"]
            if not 0 < len(others) < len(memory) - 8:
                raise NotRun(f"{self.memory_path}: doesn't name its garments' categories, or holds one kind only")
            memory.remove(others)
            return
        count = self.budget.added // 2 * 2
        source: PairSource
        if kind == "extreme":
            source = self._drawn(ADDED, 2, extreme=count, split="extreme")
        else:
            source = self._drawn(ADDED, count, style=kind)
        MemoryBuilder.from_folder(self.stem).add(memory, flat_lays_of_pairs(source))

    @functools.lru_cache(maxsize=2)  # noqa: B019 - arms that follow each other share loading and compiling
    def generator(self, folder: Path, memory: str, *, neighbours: int = 0, adapter: float = 1.0) -> GarmentGenerator:
        """Of a model folder and a memory's kind; `neighbours`: K, 0 takes the model's; `adapter` 0 closes EP-Adapter's
        gate. Silhouettes are fused as R 9.3 does, whatever the model's own rule.
        """
        model, params = load_model(folder)
        model = dataclasses.replace(model, landmark_candidates=0)
        if neighbours:
            model = dataclasses.replace(model, neighbours=neighbours)
        if adapter != 1:
            model = Gated.of(model, adapter_gate=adapter)
        tokenizers = [Tokenizer.from_folder(folder / part) for part in TOKENIZERS[: len(model.text_encoders)]]
        return GarmentGenerator(model, params, self.memory(memory), tokenizers, batch_size=self.budget.batch)


def _fingerprint(world: World, name: str) -> str:
    if name == "memory":
        return memory_fingerprint(world.memory_path)
    if name == "stem":
        return folder_fingerprint(world.stem)
    if name == "tower" and world.tower is not None:
        return folder_fingerprint(world.tower)
    # An editing model may share parts with a folder beside it.
    shared = json.loads((world.editor / "model.json").read_text()).get("shared", {})
    places = sorted({str((world.editor / place).resolve()) for place in shared.values()})
    return "+".join(folder_fingerprint(Path(place)) for place in (world.editor, *places))


def _processes(count: int) -> int:
    """Others are worth their start from a few hundred garments on."""
    return max(1, min(usable_cores(), count // 256))


def unit(vectors: Any) -> Any:
    """Rows of unit length."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def places_of(sizes: Mapping[str, float], whole: int, seed: int) -> dict[str, Int[np.ndarray, " m"]]:
    """{name: rows of a random part of a memory of `whole`, sorted}, the smaller within the larger."""
    order = np.random.default_rng(seed).permutation(whole)
    return {name: np.sort(order[: max(1, round(share * whole))]) for name, share in sizes.items()}
