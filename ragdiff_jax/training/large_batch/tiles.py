"""Every row of a batch against every other, a tile at a time, on every device: no N x N array exists anywhere.

Each device holds its rows. The other side visits it, either gathered whole (fewest messages) or block by block round a
ring (least memory); the loss keeps, for each of its own rows, a running state. A backward pass is a second such walk
that computes the tiles again, so that nothing but a few numbers a row is kept (as in Inf-CL, arXiv 2410.17243, and
FlashAttention).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array

from ragdiff_jax.errors import UserError
from ragdiff_jax.parallel.arrays import BATCH_AXES

Match = Literal["any", "all"]
Method = Literal["auto", "gather", "ring"]
GATHER_BYTES = 2**29  # of one side, above which `auto` takes the ring
TILE = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Walk:
    """How rows meet. `axes`: mesh axes that the rows are split over, () for one device; `mesh` None: the context's."""

    mesh: Mesh | None
    axes: tuple[str, ...]
    ring: bool
    tile: int
    match: Match


class Side(NamedTuple):
    """Queries or keys: `vectors` [n,d], `ids` int [n,a], `place` int32 [n] in the whole batch (-1: padding), and the
    loss's own numbers of each row [n].
    """

    vectors: Any
    ids: Any
    place: Any
    extra: tuple[Any, ...] = ()


def make_walk(
    queries: Array, keys: Array, *, match: str, tile: int, method: str, mesh: Mesh | None, axes: Sequence[str]
) -> Walk:
    """Checks what the losses were given. Raises `UserError` for shapes, a tile or names that don't fit."""
    if queries.ndim != 2 or queries.shape != keys.shape or 0 in queries.shape:
        raise UserError(f"queries {queries.shape} and keys {keys.shape}: both must be [rows, dim], row i beside row i")
    if tile < 1:
        raise UserError(f"tile {tile}: must be at least 1")
    if match not in ("any", "all"):
        raise UserError(f"match {match!r}: choose any or all")
    if method not in ("auto", "gather", "ring"):
        raise UserError(f"method {method!r}: choose auto, gather or ring")
    shape = (mesh or jax.sharding.get_abstract_mesh()).shape
    axes = tuple(axis for axis in axes if shape.get(axis, 1) > 1)
    large = keys.size * keys.dtype.itemsize > GATHER_BYTES
    return Walk(mesh=mesh, axes=axes, ring=method == "ring" or (method == "auto" and large), tile=tile, match=match)


def spread(function: Callable, walk: Walk, arrays: Sequence[Array], shared: Sequence[Array], outputs: str) -> Any:
    """`function(*arrays, *shared)` on every device: `arrays` [N, ...] by its own rows, `shared` whole.

    Rows are padded to a multiple of the devices. `outputs`: a letter for each result, r for rows [N, ...], s for a
    number that is the same everywhere.
    """
    if not walk.axes:
        return function(*arrays, *shared)
    n = arrays[0].shape[0]
    mesh = walk.mesh or jax.sharding.get_abstract_mesh()
    parts = 1
    for axis in walk.axes:
        parts *= mesh.shape[axis]
    rows, whole = PartitionSpec(walk.axes), PartitionSpec()
    specs = tuple(rows if letter == "r" else whole for letter in outputs)
    body = jax.shard_map(
        function,
        mesh=walk.mesh,
        in_specs=(*[rows] * len(arrays), *[whole] * len(shared)),
        out_specs=specs,
        check_vma=False,
    )
    results = body(*[padded(array, -n % parts) for array in arrays], *shared)
    return tuple(out[:n] if letter == "r" else out for out, letter in zip(results, outputs, strict=True))


def padded(array: Array, count: int) -> Array:
    """`count` rows of zeros behind."""
    return jnp.pad(array, ((0, count), *[(0, 0)] * (array.ndim - 1))) if count else array


def places(walk: Walk, local: int, total: int) -> Array:
    """The place of each of this device's rows in the batch of `total`; -1 where `spread` padded."""
    first = jax.lax.axis_index(walk.axes) * local if walk.axes else 0
    place = first + jnp.arange(local, dtype=jnp.int32)
    return jnp.where(place < total, place, -1)


def summed(walk: Walk, value: Array) -> Array:
    """Over all devices."""
    return jax.lax.psum(value, walk.axes) if walk.axes else value


Update = Callable[[Any, Side, Side], Any]


def meet(walk: Walk, own: Side, visitor: Side, start: Callable[[int], Any], update: Update) -> Any:
    """The state (arrays [n, ...], one row for each of `own`) after every row of `visitor`, on all devices, has come by.

    `update(state, own tile, visitor tile) -> state` sees tiles of at most `walk.tile` rows each; `start(rows)` is the
    state before.
    """
    n = own.vectors.shape[0]
    tiles = -(-n // walk.tile)
    size = -(-n // tiles)
    kind = own.vectors.dtype
    own, visitor = (_as_bits(_filled(side, tiles * size - n)) for side in (own, visitor))

    def cut(tree):
        return jax.tree.map(lambda x: x.reshape(x.shape[0] // size, size, *x.shape[1:]), tree)

    def row_of_tiles(own_tile, state, others):
        def one(state, other):
            return update(state, _as_vectors(own_tile, kind), _as_vectors(other, kind)), None

        return jax.lax.scan(one, state, others)[0]

    if not (walk.ring and walk.axes):
        if walk.axes:
            visitor = jax.tree.map(lambda x: jax.lax.all_gather(x, walk.axes, tiled=True), visitor)
        others = cut(visitor)
        _, state = jax.lax.scan(lambda _, tile: (None, row_of_tiles(tile, start(size), others)), None, cut(own))
    else:
        count = jax.lax.axis_size(walk.axes)
        on = [(device, (device + 1) % count) for device in range(count)]

        def turn(carry, _):
            state, visitor = carry
            # Sent before it is looked at: the message travels while the tiles are computed.
            following = jax.tree.map(lambda x: jax.lax.ppermute(x, walk.axes, on), visitor)
            others = cut(visitor)
            _, state = jax.lax.scan(lambda _, pair: (None, row_of_tiles(*pair, others)), None, (cut(own), state))
            return (state, following), None

        state = jax.tree.map(lambda x: jnp.broadcast_to(x, (tiles, *x.shape)), start(size))
        (state, _), _ = jax.lax.scan(turn, (state, visitor), None, length=count)
    return jax.tree.map(lambda x: x.reshape(tiles * size, *x.shape[2:])[:n], state)


def first(done: Any, then: Any) -> Any:
    """`then`, not before `done` is there: two walks at once would hold two gathered sides."""
    return jax.lax.optimization_barrier((done, then))[1]


def _filled(side: Side, count: int) -> Side:
    full = jax.tree.map(lambda x: padded(x, count), side)
    if not count:
        return full
    return full._replace(place=jnp.concatenate([side.place, jnp.full((count,), -1, side.place.dtype)]))


def _as_bits(side: Side) -> Side:
    """bfloat16 as plain bits until a tile is looked at: where the hardware lacks it, XLA widens it in messages and
    loops, which takes twice the memory.
    """
    if side.vectors.dtype != jnp.bfloat16:
        return side
    return side._replace(vectors=jax.lax.bitcast_convert_type(side.vectors, jnp.uint16))


def _as_vectors(side: Side, kind) -> Side:
    if side.vectors.dtype == kind:
        return side
    return side._replace(vectors=jax.lax.bitcast_convert_type(side.vectors, kind))


def wide(dtype) -> Any:
    """What sums are kept in: float32, or float64 for float64."""
    return jnp.promote_types(dtype, jnp.float32)


def products(rows: Array, others: Array) -> Array:
    """Inner products [t,u] of [t,d] and [u,d]."""
    return jnp.einsum(
        "id,jd->ij",
        rows,
        others,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=wide(rows.dtype),
    )


def weighted(weights: Array, others: Array) -> Array:
    """Sum over j of weights [t,u] times rows [u,d]; weights are rounded to the rows' dtype, sums are wide."""
    return jnp.einsum(
        "ij,jd->id",
        weights.astype(others.dtype),
        others,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=wide(others.dtype),
    )


def pairing(walk: Walk, own: Side, other: Side) -> tuple[Array, Array]:
    """(which pairs count, which are a row with itself), bool [t,u]: other positives and padding don't count."""
    diagonal = own.place[:, None] == other.place[None]
    real = (own.place >= 0)[:, None] & (other.place >= 0)[None]
    same = jnp.zeros(real.shape, bool)
    if walk.match == "any":
        for i in range(own.ids.shape[1]):
            for j in range(other.ids.shape[1]):
                mine = own.ids[:, i, None]
                same |= (mine == other.ids[None, :, j]) & (mine >= 0)
    elif own.ids.shape[1]:
        same = (own.ids >= 0).all(axis=1)[:, None]
        for i in range(own.ids.shape[1]):
            same &= own.ids[:, i, None] == other.ids[None, :, i]
    return real & (diagonal | ~same), diagonal


def checked_ids(ids: Array | None, rows: int, name: str) -> Array:
    """Ids as int [n,a]; [n,0] where there are none. Raises `UserError` for another shape."""
    if ids is None:
        return jnp.zeros((rows, 0), jnp.int32)
    ids = ids[:, None] if ids.ndim == 1 else ids
    if ids.ndim != 2 or ids.shape[0] != rows or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise UserError(f"{name} is {ids.dtype} {ids.shape}; it needs integers, a row for each of {rows}")
    return ids


DEFAULT_AXES = BATCH_AXES
