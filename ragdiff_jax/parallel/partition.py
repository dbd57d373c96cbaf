"""Splitting a tree of parameters in two by name and merging it again: pure functions of nested dicts."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ragdiff_jax.errors import UserError

Params = Mapping[str, Any]


def flatten(params: Params, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(`a/b/kernel`, leaf) of a nested dict, in its order."""
    for key, value in params.items():
        path = f"{prefix}/{key}" if prefix else key
        if isinstance(value, Mapping):
            yield from flatten(value, path)
        else:
            yield path, value


def _select(params: Params, pattern: re.Pattern, wanted: bool, prefix: str = "") -> dict:
    out = {}
    for key, value in params.items():
        path = f"{prefix}/{key}" if prefix else key
        if isinstance(value, Mapping):
            if inner := _select(value, pattern, wanted, path):
                out[key] = inner
        elif bool(pattern.search(path)) == wanted:
            out[key] = value
    return out


def partition(params: Params, regex: str) -> tuple[dict, dict]:
    """Split a tree into the parameters whose `/`-joined path matches `regex` (`re.search`) and the rest.

    Returns:
        (matched, rest): nested dicts with the leaves themselves, nothing copied. `merge` undoes it.

    Raises:
        UserError: the pattern is no regular expression, or nothing matches it.
    """
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise UserError(f"{regex!r} is not a regular expression: {error}") from error
    matched = _select(params, pattern, True)
    if not matched:
        raise UserError(
            f"no parameter matches {regex!r}; the top-level parts are: {', '.join(map(str, params))}"
        )
    return matched, _select(params, pattern, False)


def merge(*trees: Params) -> dict:
    """One tree of several with distinct leaves (the parts of a `partition`).

    Raises:
        ValueError: two trees hold the same leaf.
    """
    out: dict = {}
    for tree in trees:
        for key, value in tree.items():
            if key not in out:
                out[key] = merge(value) if isinstance(value, Mapping) else value
            elif isinstance(value, Mapping) and isinstance(out[key], Mapping):
                out[key] = merge(out[key], value)
            else:
                raise ValueError(f"both trees hold {key!r}")
    return out
