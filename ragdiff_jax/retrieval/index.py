"""Nearest neighbours by cosine: three searchers behind one signature.

- `exact`: matmul + top_k on the devices that hold the embeddings.
- `approx`: `lax.approx_max_k`, which is faster than top_k on TPU and the same elsewhere.
  Both search a sharded array shard by shard; rows that don't divide over the mesh are padded.
- `scann`: the ScaNN library on the CPU; brute force below 20,000 rows, as ScaNN itself advises, tree-AH
  above. Its index is always built from the vectors: a stored ScaNN index is a pickle.

`exact_search` is the pure function for train steps.
"""

import functools
import importlib.util
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, get_args, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32, Shaped

from ragdiff_jax.errors import UserError

SearcherKind = Literal["auto", "exact", "approx", "scann"]
BRUTE_FORCE_ROWS = 20_000
_Matrix = Shaped[Array, "rows d"] | Shaped[np.ndarray, "rows d"]


@runtime_checkable
class Searcher(Protocol):
    """Searches a fixed set of unit vectors. `kind` tells which way, `size` how many rows, `choice` why, in a line."""

    kind: str
    size: int
    choice: str

    def search(
        self,
        queries: Shaped[Array, "b d"] | Shaped[np.ndarray, "b d"],
        k: int,
        exclude: Int[Array, " b"] | Int[np.ndarray, " b"] | None = None,
    ) -> tuple[Int32[Array, "b k"], Float32[Array, "b k"]]:
        """The k rows nearest to each query, nearest first, and their cosines.

        Queries need not be of unit length. `exclude`: a row for each query that is not returned, -1 for none.
        Raises `UserError` for NaN, infinite, zero or wrongly sized queries and for k larger than the rows
        left.
        """
        ...


def exact_search(
    embeddings: Float[Array, "n d"],
    queries: Float[Array, "b d"],
    k: int,
    exclude: Int[Array, " b"] | None = None,
) -> tuple[Int32[Array, "b k"], Float32[Array, "b k"]]:
    """The k rows of `embeddings` nearest to each query and their cosines; pure jnp, for use inside jit.

    Both are unit vectors (not checked). `exclude`: a row for each query that is left out, -1 for none.
    Raises `UserError` if k is larger than the number of rows (less one with `exclude`).
    """
    _check_k(k, embeddings.shape[0] - (exclude is not None))
    cosines, ids = jax.lax.top_k(_scores(embeddings, queries, exclude), k)
    return ids.astype(jnp.int32), cosines


def sharded_search(
    embeddings: Float[Array, "n d"],
    queries: Float[Array, "b d"],
    k: int,
    exclude: Int[Array, " b"] | None = None,
    *,
    mesh: jax.sharding.Mesh,
    rows_over: tuple[str, ...],
    size: int | None = None,
    recall_target: float | None = None,
) -> tuple[Int32[Array, "b k"], Float[Array, "b k"]]:
    """`exact_search` over rows that are split over the axes `rows_over` of `mesh`; queries are whole.

    Every device searches its own rows and only its k best travel; left alone, XLA gathers all scores. `size`: how many
    rows count, the rest is padding. With `recall_target` each device searches by `approx_max_k`.
    """
    n = embeddings.shape[0]
    size = n if size is None else size
    _check_k(k, size - (exclude is not None))
    rows = n // math.prod(mesh.shape[axis] for axis in rows_over)
    exclude = jnp.full(queries.shape[:1], -1, jnp.int32) if exclude is None else exclude
    best = jax.lax.top_k
    if recall_target is not None:
        best = functools.partial(jax.lax.approx_max_k, recall_target=recall_target)

    def local(embeddings: Array, queries: Array, exclude: Array) -> tuple[Array, Array]:
        first = jax.lax.axis_index(rows_over) * rows
        # A row of another device has no match here.
        scores = _scores(embeddings, queries, exclude - first)
        if size < n:
            scores = jnp.where(first + jnp.arange(rows) < size, scores, -jnp.inf)
        cosines, ids = best(scores, min(k, rows))
        return ids + first, cosines

    spec = jax.P(None, rows_over)
    search = jax.shard_map(
        local, mesh=mesh, in_specs=(jax.P(rows_over), jax.P(), jax.P()), out_specs=(spec, spec)
    )
    replicated = jax.NamedSharding(mesh, jax.P())
    ids, cosines = jax.lax.with_sharding_constraint(search(embeddings, queries, exclude), replicated)
    cosines, choice = jax.lax.top_k(cosines, k)
    return jnp.take_along_axis(ids, choice, axis=1).astype(jnp.int32), cosines


def choose_searcher(rows: int, *, on_host: bool, platform: str | None = None) -> tuple[str, str]:
    """(kind, why) for this many rows, on the host or on devices of `platform`."""
    if not on_host:
        if platform == "tpu" and rows >= BRUTE_FORCE_ROWS:
            return "approx", f"approx: {rows:,} rows on TPU, at least {BRUTE_FORCE_ROWS:,}"
        return "exact", f"exact: {rows:,} rows on the device that holds them"
    if rows < BRUTE_FORCE_ROWS:
        return "exact", f"exact: {rows:,} rows, below {BRUTE_FORCE_ROWS:,}"
    if importlib.util.find_spec("scann"):
        return "scann", f"scann, tree-AH: {rows:,} rows, at least {BRUTE_FORCE_ROWS:,}"
    return "exact", f"exact: {rows:,} rows, and scann is not installed"


def make_searcher(
    kind: SearcherKind | str,
    embeddings: _Matrix,
    *,
    recall_target: float = 0.99,
    scann_leaves_fraction: float = 0.1,
    mesh: jax.sharding.Mesh | None = None,
    rows_over: str | Sequence[str] = (),
) -> Searcher:
    """Builds a searcher over the rows of `embeddings` (made unit length).

    `auto` is `choose_searcher`'s choice: exact below 20,000 rows, above it scann's tree where it is installed and the
    rows are on the host. `mesh` and `rows_over`: splits the rows over these axes, any number of rows.
    `recall_target` is `approx`'s; `scann_leaves_fraction` the share of the tree that `scann` reads.
    Raises `UserError` for an unknown kind, no rows, NaN, infinite or zero rows, or scann without its package.
    """
    if kind not in get_args(SearcherKind):
        raise UserError(f"searcher {kind!r} is unknown; use one of: {', '.join(get_args(SearcherKind))}")
    if embeddings.ndim != 2 or 0 in embeddings.shape:
        raise UserError(
            f"embeddings have shape {embeddings.shape}; a searcher needs [rows, dim] with at least one row"
        )
    axes = (rows_over,) if isinstance(rows_over, str) else tuple(rows_over)
    on_host = isinstance(embeddings, np.ndarray) and not axes
    choice = f"{kind}: asked for"
    if kind == "auto":
        kind, choice = choose_searcher(embeddings.shape[0], on_host=on_host, platform=jax.default_backend())
    if kind == "scann":
        return _ScannSearcher(embeddings, scann_leaves_fraction, choice)
    if axes:
        embeddings = _split(np.asarray(embeddings), mesh, axes)
    return _DeviceSearcher(kind, embeddings, recall_target, choice)


class _Split(NamedTuple):
    array: Array
    size: int


def _split(embeddings: np.ndarray, mesh: jax.sharding.Mesh | None, axes: tuple[str, ...]) -> _Split:
    if mesh is None:
        raise UserError(f"rows_over={axes} needs a mesh")
    vectors = _check_vectors(embeddings, "embedding row")
    short = -len(vectors) % math.prod(mesh.shape[axis] for axis in axes)
    filled = np.concatenate([vectors, vectors[:1].repeat(short, axis=0)])
    sharding = jax.NamedSharding(mesh, jax.P(axes))
    return _Split(jax.make_array_from_callback(filled.shape, sharding, lambda index: filled[index]), len(vectors))


class _DeviceSearcher:
    def __init__(self, kind: str, embeddings: _Matrix | _Split, recall_target: float, choice: str):
        self.kind, self.choice = kind, choice
        embeddings, self.size = embeddings if isinstance(embeddings, _Split) else (embeddings, embeddings.shape[0])
        self.dim = embeddings.shape[1]
        target = recall_target if kind == "approx" else None
        find = exact_search if target is None else functools.partial(_approx_search, recall_target=target)
        if isinstance(embeddings, jax.Array):
            sharding = embeddings.sharding
            self._embeddings, good = jax.jit(_unit_rows, out_shardings=(sharding, None))(embeddings)
            _check_rows(np.asarray(good), "embedding row")
            axes = sharding.spec[0] if isinstance(sharding, jax.NamedSharding) and sharding.spec else None
            if axes is not None:
                axes = (axes,) if isinstance(axes, str) else tuple(axes)
                where = {"mesh": sharding.mesh, "rows_over": axes, "size": self.size}
                find = functools.partial(sharded_search, **where, recall_target=target)
        else:
            self._embeddings = jnp.asarray(_check_vectors(embeddings, "embedding row"))
        self._find = jax.jit(find, static_argnames="k")

    def search(self, queries, k, exclude=None):
        queries, exclude = _check_queries(queries, exclude, k, self.size, self.dim)
        return self._find(self._embeddings, jnp.asarray(queries), k=k, exclude=exclude)


class _ScannSearcher:
    kind = "scann"

    def __init__(self, embeddings: _Matrix, leaves_fraction: float, choice: str):
        self.choice = choice
        try:
            from scann.scann_ops.py import scann_ops_pybind
        except ImportError as error:
            raise UserError(
                "searcher 'scann' needs the scann package (Linux): pip install scann, or use 'exact'"
            ) from error
        self._embeddings = np.ascontiguousarray(_check_vectors(np.asarray(embeddings), "embedding row"))
        self.size, self.dim = self._embeddings.shape
        builder = scann_ops_pybind.builder(self._embeddings, 10, "dot_product")
        if self.size < BRUTE_FORCE_ROWS:
            builder = builder.score_brute_force()
        else:
            leaves = math.isqrt(self.size)
            builder = builder.tree(
                num_leaves=leaves,
                num_leaves_to_search=max(1, math.ceil(leaves * leaves_fraction)),
                training_sample_size=min(self.size, 250_000),
            )
            builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100)
        self._searcher = builder.build()

    def search(self, queries, k, exclude=None):
        queries, exclude = _check_queries(queries, exclude, k, self.size, self.dim)
        fetch = k if exclude is None else k + 1
        found, _ = self._searcher.search_batched(
            queries, final_num_neighbors=fetch, pre_reorder_num_neighbors=max(100, 4 * fetch)
        )
        found = np.asarray(found).astype(np.int64)
        # Recomputed in float32, so that the cosines and the order are those of the exact searcher.
        scores = np.einsum("bd,bkd->bk", queries, self._embeddings[np.clip(found, 0, self.size - 1)])
        ordered = np.sort(found, axis=1)
        short = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1) | (ordered[:, 0] < 0) | (ordered[:, -1] >= self.size)
        if exclude is not None:
            scores[found == np.asarray(exclude)[:, None]] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        ids, cosines = np.take_along_axis(found, order, 1), np.take_along_axis(scores, order, 1)
        if short.any():
            # The leaves that were read held fewer rows than asked for: these queries are searched exactly.
            rest = None if exclude is None else exclude[short]
            exact = exact_search(jnp.asarray(self._embeddings), jnp.asarray(queries[short]), k, rest)
            ids[short], cosines[short] = (np.asarray(part) for part in exact)
        return jnp.asarray(ids, jnp.int32), jnp.asarray(cosines, jnp.float32)


def _scores(embeddings: Array, queries: Array, exclude: Array | None) -> Array:
    scores = jnp.einsum(
        "bd,nd->bn",
        queries.astype(jnp.float32),
        embeddings.astype(jnp.float32),
        precision=jax.lax.Precision.HIGHEST,
    )
    if exclude is None:
        return scores
    return jnp.where(jnp.arange(embeddings.shape[0])[None, :] == exclude[:, None], -jnp.inf, scores)


def _approx_search(embeddings, queries, k, exclude=None, *, recall_target):
    cosines, ids = jax.lax.approx_max_k(_scores(embeddings, queries, exclude), k, recall_target=recall_target)
    return ids.astype(jnp.int32), cosines


def _unit_rows(embeddings: Array) -> tuple[Array, Array]:
    embeddings = embeddings.astype(jnp.float32)
    norms = jnp.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / norms, (jnp.isfinite(norms) & (norms > 0))[:, 0]


def _check_rows(good: np.ndarray, name: str) -> None:
    if not good.all():
        raise UserError(
            f"{name} {int(np.argmin(good))} is zero, NaN or infinite; remove it or compute it again"
        )


def _check_vectors(vectors: np.ndarray, name: str) -> Float32[np.ndarray, "rows d"]:
    vectors = np.asarray(vectors, np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    _check_rows((np.isfinite(norms) & (norms > 0))[:, 0], name)
    return vectors / norms


def _check_k(k: int, available: int) -> None:
    if not 1 <= k <= available:
        raise UserError(f"k {k} must be between 1 and {available}, the number of rows that can be returned")


def _check_queries(queries, exclude, k: int, size: int, dim: int) -> tuple[np.ndarray, Array | None]:
    queries = np.asarray(queries)
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise UserError(f"queries have shape {queries.shape}; the memory needs [queries, {dim}]")
    if exclude is not None:
        exclude = np.asarray(exclude)
        if exclude.shape != queries.shape[:1] or not np.issubdtype(exclude.dtype, np.integer):
            raise UserError(
                f"exclude has shape {exclude.shape}; it needs one row number a query, -1 for none"
            )
        if exclude.max(initial=-1) >= size:
            raise UserError(f"exclude row {int(exclude.max())} must be below {size}, the number of rows")
        exclude = jnp.asarray(exclude, jnp.int32) if (exclude >= 0).any() else None
    _check_k(k, size - (exclude is not None))
    return _check_vectors(queries, "query"), exclude
