"""Names of axes, and two wishes about them that networks voice without knowing a mesh.

`constrain` says where an activation lies, `gathered` that a weight is wanted whole before it is used. Outside of
`parallel.mesh_context` both return what they were given; inside, `parallel` answers them by its rule table.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Protocol, runtime_checkable

import jax

Names = Sequence[str | None]


@runtime_checkable
class Places(Protocol):
    """Who knows the mesh."""

    def constrain(self, x: jax.Array, names: Names) -> jax.Array: ...

    def gathered(self, weight: jax.Array, names: Names) -> jax.Array: ...


_PLACES: ContextVar[Places | None] = ContextVar("places", default=None)


@contextlib.contextmanager
def placed_by(places: Places | None) -> Iterator[None]:
    """Inside, `places` answers; None is nobody. Read when a function is traced."""
    token = _PLACES.set(places)
    try:
        yield
    finally:
        _PLACES.reset(token)


def constrain(x: jax.Array, names: Names) -> jax.Array:
    """`x` with its axes laid where the rules put `names`; an axis that doesn't divide is left to the compiler."""
    places = _PLACES.get()
    return x if places is None else places.constrain(x, names)


def gathered(weight: jax.Array, names: Names) -> jax.Array:
    """A weight for use: whole along the axis that only stores it in pieces (`fsdp`), split along `tensor` still.

    Cast to the dtype of the computation first: half the bytes cross the chips. Its gradient comes back in pieces.
    """
    places = _PLACES.get()
    return weight if places is None else places.gathered(weight, names)
