"""A whole RAGDiffusion stage of 32 pixels on the disk: parts, memory, tokenizer; the pairs are drawn again anywhere."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from objective_runs import Blank
from small_model import random_params, small_system

import ragdiff_jax as rd
from ragdiff_jax.data.pipeline import PairArrays
from ragdiff_jax.data.synth_dataset import synth_record
from ragdiff_jax.data.tokenizer import Tokenizer, train_tokenizer
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.structure_net import twin_towers
from ragdiff_jax.training.objectives.autoencoder import AutoencoderObjective
from ragdiff_jax.training.objectives.structure_net import StructureNetObjective
from ragdiff_jax.weights import save_part
from ragdiff_jax.weights.model_folder import part_configs

PAIRS = 24
MODEL = small_system()


def records():
    return [synth_record(row, size=32) for row in range(PAIRS)]


def params():
    """What training starts from."""
    random = random_params(MODEL)
    return random | {"structure_net": jax.tree.map(np.asarray, twin_towers(random["structure_net"]))}


def write(base: Path) -> None:
    """Everything that `objective` reads."""
    drawn = records()
    train_tokenizer([record.caption for record in drawn], 700, base / "tokenizer")
    start = params()
    for part, config in part_configs(MODEL).items():
        save_part(base / part, config, start[part])
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(8, MODEL.structure_net.embed_dim)).astype(np.float32)
    memory = rd.Memory.create(base / "memory", rd.encoder_fingerprint(MODEL, start), 32, vectors.shape[1])
    memory.add(
        [
            rd.MemoryItem(
                id=record.id,
                embedding=vector / np.linalg.norm(vector),
                landmark=rng.random((32, 32)) < 0.5,
                metadata={},
            )
            for record, vector in zip(drawn, vectors, strict=False)
        ]
    )


class _NoText:
    def encode(self, texts):
        return np.zeros((len(texts), 1), np.int32)


def _pairs() -> PairArrays:
    return PairArrays(records()[:8], image_size=32, tokenizer=_NoText(), cache=True)


class _Drawn:
    """Starts from numbers that take no compiling, and trains nothing: for what is measured and exported."""

    def init(self, key):
        shapes = jax.eval_shape(super().init, key)
        return jax.tree.map(lambda x: 0.1 * jnp.sin(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), shapes)

    def loss(self, params, constants, batch, key):
        return sum(x.sum() for x in jax.tree.leaves(params)) * jnp.zeros(len(jax.tree.leaves(batch)[0])), {}


class _StructureNet(_Drawn, StructureNetObjective):
    pass


class _Autoencoder(_Drawn, AutoencoderObjective):
    pass


# Stages that measure, or export, by what their own network says of pictures.
STAGES = {
    "structure_net": lambda: _StructureNet(pairs=_pairs(), config=MODEL.structure_net),
    "autoencoder": lambda: _Autoencoder(pairs=_pairs(), config=MODEL.vae),
}


class _Uncounted(Blank):
    """Its operations aren't counted, which would trace every network a second time."""

    def abstract_batch(self, rows):
        raise UserError("no shapes")


def objective(base: Path, **changes) -> Blank:
    tokenizer = Tokenizer.from_folder(base / "tokenizer")
    return _Uncounted(
        pairs=PairArrays(records(), image_size=32, tokenizer=tokenizer, cache=True),
        model=MODEL,
        parts={part: str(base / part) for part in part_configs(MODEL)},
        memory=str(base / "memory"),
        tokenizers=(str(base / "tokenizer"),),
        empty_ids=tuple(int(i) for i in tokenizer.encode([""])[0]),
        **changes,
    )
