"""Types and shapes are checked in every test; here, so that the checks take little of its time.

`jaxtyping`'s hook wraps every function twice over and binds each call's arguments, whether there is an array among them
or not. Here a function gets its check when it is first called, and one without arrays no more than `beartype`'s.
"""

import dataclasses
import functools
import inspect
from typing import Any, get_args

import jaxtyping
from beartype import beartype

_of_arrays = jaxtyping.jaxtyped


def _has_array(annotation: Any) -> bool:
    if isinstance(annotation, str):  # a name of what is defined later
        return True
    own = inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray)
    return own or any(map(_has_array, get_args(annotation)))


def _when_called(function):
    checked = None

    @functools.wraps(function)
    def call(*args, **kwargs):
        nonlocal checked
        if checked is None:
            arrays = any(map(_has_array, function.__annotations__.values()))
            checked = _of_arrays(function, typechecker=beartype) if arrays else beartype(function)
        return checked(*args, **kwargs)

    return call


def checked_when_called(*, typechecker):
    """In the place of `jaxtyping.jaxtyped`, which the hook puts around every function and class."""
    del typechecker

    def decorate(thing):
        if not inspect.isclass(thing):
            return _when_called(thing)
        if dataclasses.is_dataclass(thing) and "__init__" in vars(thing):
            thing.__init__ = _when_called(thing.__init__)
        return thing

    return decorate


def install():
    jaxtyping.jaxtyped = checked_when_called
