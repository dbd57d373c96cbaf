"""The neighbours of every photo of a data set, encoded as serving encodes them, its own flat-lay left out."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np

from ragdiff_jax.data.attributes import attribute_ids
from ragdiff_jax.data.images import decode_image, square
from ragdiff_jax.data.pixels import to_float
from ragdiff_jax.data.records import PairSource
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.structure_net import StructureNet
from ragdiff_jax.retrieval import Memory, NeighbourTable, find_neighbours, make_searcher
from ragdiff_jax.weights.model_folder import load_structure_net, structure_fingerprint

BATCH = 16


def neighbours_of_pairs(
    model: Path, memory: Memory, source: PairSource, k: int, *, step: Callable[[int], None] = lambda count: None
) -> tuple[NeighbourTable, str]:
    """(the table, how it was searched) of the photos with the attributes that their records give.

    Raises `UserError` for a memory of another encoder, an unreadable photo, and too few garments for k.
    """
    config, params = load_structure_net(model)
    memory.check_encoder(structure_fingerprint(config, params))
    size = memory.manifest.landmark_size[0]
    if not len(source):
        raise UserError("no photos in this split; choose another --split")
    if k >= len(memory):  # a photo's own is left out
        raise UserError(f"-k {k}: the memory holds {len(memory)} garments, one of them perhaps the photo's; give less")
    searcher = make_searcher("auto", memory.embeddings)
    embed = jax.jit(
        lambda params, photos, ids: partial(StructureNet(config).apply, method="embed_photo")(
            {"params": params}, to_float(photos), ids
        )
    )
    names: list[str] = []
    vectors: list[np.ndarray] = []
    for start in range(0, len(source), BATCH):
        # The last batch is filled with its last record: one shape, one compilation.
        rows = np.arange(start, start + BATCH).clip(max=len(source) - 1)
        records = [source[int(row)] for row in rows]
        photos = [square(decode_image(r.photo, f"photo of record {r.id}"), size, fill="edge") for r in records]
        ids = [attribute_ids(r.photo_attributes, f"record {r.id}") for r in records]
        real = min(BATCH, len(source) - start)
        vectors.append(np.asarray(embed(params, np.stack(photos), np.stack(ids)))[:real])
        names += [record.id for record in records[:real]]
        step(real)
    row_of = {item.id: row for row, item in enumerate(memory.items)}
    rows, cosines = find_neighbours(searcher, np.concatenate(vectors), names, row_of, k)
    table = NeighbourTable(
        ids=tuple(names),
        rows=rows,
        cosines=cosines,
        fingerprint=memory.fingerprint,
        generation=memory.generation,
        manifest=memory.manifest.sha256,
    )
    return table, searcher.choice
