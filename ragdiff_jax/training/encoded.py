"""A stage with its frozen encoders run once: an objective around an objective, whose batches are kept encodings.

The VAE, the text encoders and StructureNet see every sample `variants` times, each time under other augmentations,
before the first step; the steps then have no picture and none of these networks in them. More augmentation is only to
be had without it. Made on the run's own mesh, kept in `folder`, and refused where weights or data have changed since.
"""

import contextlib
import dataclasses
import functools
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ragdiff_jax.data.decoded import fingerprint
from ragdiff_jax.data.encoded import EncodedInfo, EncodedPairs, read_info, samples_there, write_encoded
from ragdiff_jax.data.pipeline import ahead, batch_bytes, global_rows, make_batches
from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel import (
    agree,
    barrier,
    batch_sharding,
    batch_shards,
    flatten,
    from_first_process,
    make_mesh,
    mesh_context,
    own_places,
    replicated,
    shard_batch,
)
from ragdiff_jax.systems.parts import TEXT_PARTS
from ragdiff_jax.training.objective import Around

# What `encode` looks at: the parts, and the model's fields.
_ENCODERS = ("vae", *TEXT_PARTS, "structure_net")
_ENCODER_FIELDS = ("vae", "text_encoders", "structure_net", "image_size", "dtype", "sees_photo")
_MADE = 2  # counts changes of what is encoded, and how
ROWS = 16  # a device's batch of the encoders; fixed, because augmentations are drawn for a batch
GATHERED = 8  # of these batches at a time, at most, go from the devices to the disk


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodedObjective(Around):
    """`base` must say how a batch is encoded (`encode`, `empty_text`); its loss takes encodings for pictures."""

    base: Any
    folder: str
    variants: int = 4
    seed: int = 0
    sources: tuple[str, ...] = ()  # files and folders that the pairs are read from

    def __post_init__(self):
        if not hasattr(self.base, "encode"):
            raise UserError(f"data.encodings: {type(self.base).__name__} has no frozen encoders; leave it empty")
        if self.variants < 1:
            raise UserError(f"data.encoding_variants={self.variants}: must be at least 1")

    @property
    def encodings(self) -> str:
        return f"read from {self.folder}, {self.variants} variants a sample"

    @property
    def idle_parts(self) -> tuple[str, ...]:
        return _ENCODERS

    def prepared(self, params, constants, mesh):
        for path, _ in flatten(params):
            if path.split("/")[0] in _ENCODERS and re.search(self.trainable, path):
                raise UserError(
                    f"data.encodings: {path} is to be trained, and no step would run it; freeze it, or leave "
                    "data.encodings empty"
                )
        constants = self.base.prepared(params, constants, mesh)
        constants = constants | {"empty_text": self._empty(params, constants, mesh)}
        info = EncodedInfo(len(self.base.pairs), self.variants, self._fingerprint())
        there = read_info(self.folder)
        if there is not None and there != info:
            raise UserError(
                f"{self.folder}: these encodings were made from other weights, data or augmentations; remove the "
                "folder or name another"
            )
        if there is None and Path(self.folder).is_dir() and any(Path(self.folder).iterdir()):
            raise UserError(
                f"data.encodings={self.folder}: holds other things and no encodings; name a folder that isn't there"
            )
        if agree(there is None)[0]:
            first = from_first_process(samples_there(self.folder, info))
            records = self._records(params, constants, mesh, first)
            if jax.process_index() == 0:
                write_encoded(self.folder, info, records, first)
            else:  # the networks run on all processes; one writes
                for _ in records:
                    pass
            barrier("encoded")
        return constants

    def _empty(self, params, constants, mesh):
        with mesh_context(mesh, rules=()):
            return jax.jit(self.base.empty_text, out_shardings=replicated(mesh))(params, constants)

    def _fingerprint(self) -> str:
        digest = hashlib.sha256("\0".join(self.base.pairs.ids).encode())
        encoders = (folder for part, folder in self.base.parts.items() if part in _ENCODERS)
        folders = [folder for folder in (*encoders, *self.sources) if Path(folder).exists()]
        digest.update(fingerprint(folders, _MADE).encode())
        how = [getattr(self.base, name, None) for name in ("augment", "paste_share")]
        how += [getattr(self.base.model, name) for name in _ENCODER_FIELDS]
        if self.base.model.text_pads:
            how.append(self.base.model.text_pads)
        digest.update(repr((how, self.seed)).encode())
        return digest.hexdigest()

    def _records(self, params, constants, mesh, first: int) -> Iterator[dict[str, np.ndarray]]:
        """The samples from the `first` on, as they are in a run that wasn't stopped."""
        from tqdm import tqdm

        pairs, count, reads = self.base.pairs, len(self.base.pairs), self.base.reads
        groups = batch_shards(mesh)  # each device takes a batch of its own
        rows = groups * ROWS
        calls = -(-count // rows)  # a variant
        places = own_places(mesh, rows)

        def load(call):  # the last batch is filled up with its last row
            return pairs.batch((call % calls * rows + places).clip(max=count - 1), reads)

        def encode(params, constants, batch, variant, starts):
            key = jax.random.fold_in(jax.random.key(self.seed), variant)
            keys = jax.vmap(functools.partial(jax.random.fold_in, key))(starts)
            batch = jax.tree.map(lambda x: x.reshape(groups, ROWS, *x.shape[1:]), batch)
            found = jax.vmap(self.base.encode, in_axes=(None, None, 0, 0))(params, constants, batch, keys)
            return jax.tree.map(lambda x: x.reshape(rows, *x.shape[2:]), found)

        # What lies whole on every device doesn't grow with the mesh.
        piece = ROWS * max(number for number in range(1, GATHERED + 1) if groups % number == 0)

        def take(found, at):
            return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, at, piece), found)

        total = count * self.variants
        done, left = divmod(first, count)
        call = done * calls + left // rows
        size = batch_bytes(pairs.batch(np.arange(1), reads), len(places))
        batches = ahead(load, start=call, stop=calls * self.variants, size=size)
        quiet = None if jax.process_index() == 0 else True
        with (
            mesh_context(mesh, rules=()),
            contextlib.closing(batches),
            tqdm(total=total, initial=first, desc="encoding", unit=" samples", disable=quiet) as bar,
        ):
            encode = jax.jit(encode, out_shardings=batch_sharding(mesh))
            take = jax.jit(take, out_shardings=replicated(mesh))
            skipped = left % rows
            found = {}
            for batch in batches:
                variant, start = call // calls, call % calls * rows
                starts = start + np.arange(groups, dtype=np.int32) * ROWS
                running = encode(params, constants, shard_batch(mesh, batch, rows), variant, starts)
                for at in range(0, rows, piece):
                    yield from _rows(found)  # the last piece is written while the devices go on
                    low, high = max(0, skipped - at), max(0, count - start - at)
                    found = {name: x[low:high] for name, x in jax.device_get(take(running, at)).items()}
                bar.update(min(rows, count - start) - skipped)
                call, skipped = call + 1, 0
            yield from _rows(found)

    def _order(self, pairs: EncodedPairs) -> np.ndarray:
        own = self.base.order
        rows = np.arange(pairs.info.rows) if own is None else own
        return (np.arange(self.variants)[:, None] * pairs.info.rows + rows).reshape(-1).astype(np.int32)

    def batches(self, **arguments):
        pairs = EncodedPairs(self.folder)
        return make_batches(pairs, order=self._order(pairs), **arguments)

    @property
    def epoch_rows(self) -> int:
        return self.variants * self.base.epoch_rows

    def batch_ids(self, step, *, batch_size, seed):
        pairs, ids = EncodedPairs(self.folder), self.base.pairs.ids
        order = self._order(pairs)
        places = order[global_rows(len(order), batch_size, seed)(step)]
        return [f"{ids[place % len(ids)]}, variant {place // len(ids)}" for place in places]

    def abstract_constants(self, mesh, memory_rows):
        constants = self.base.abstract_constants(mesh, memory_rows)
        params = jax.eval_shape(self.base.init, jax.random.key(0))
        empty = jax.eval_shape(self.base.empty_text, params, constants)
        return constants | {
            "empty_text": jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)), empty
            )
        }

    def abstract_batch(self, rows):
        pictures = self.base.abstract_batch(rows)
        constants = self.base.abstract_constants(make_mesh(devices=jax.devices()[:1]), 8)
        params = jax.eval_shape(self.base.init, jax.random.key(0))
        found = jax.eval_shape(self.base.encode, params, constants, pictures, jax.random.key(0))
        return {**found, "row": pictures["row"]}

    def remat_modes(self):
        return {mode: dataclasses.replace(self, base=base) for mode, base in self.base.remat_modes().items()}

    def loss(self, params, constants, batch, key):
        return self.base.loss(params, constants, batch, key)

    def sample(self, params, constants, key):
        return self.base.sample(params, constants, key)

    def validation(self, params, constants, key):
        return self.base.validation(params, constants, key)

    def evaluators(self):
        return self.base.evaluators()

    def export(self, params, directory):
        self.base.export(params, directory)


def _rows(found: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    for place in range(len(next(iter(found.values()), ()))):
        yield {name: value[place] for name, value in found.items()}
