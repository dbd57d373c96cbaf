"""Setting some output channels of a network's convolutions by hand, in a tree of boxed parameters."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def set_channels(
    tree: Mapping[str, Any],
    path: str,
    outputs: Mapping[int, Sequence[tuple[int, float]]],
    *,
    taps: Sequence[tuple[int, int]] | None = None,
    constants: Mapping[int, float] | None = None,
) -> dict[str, Any]:
    """`tree` with the kernel of the convolution at `path` set for some output channels.

    `outputs`: {output: [(input, factor)]}; `taps`: pixels of the kernel that share it (default: the middle one);
    `constants`: {output: bias}, whose kernel becomes zero.
    """

    def change(layer):
        def kernel(x):
            middle = ((x.shape[0] // 2, x.shape[1] // 2),)
            for output, inputs in {**outputs, **dict.fromkeys(constants or {}, ())}.items():
                x = x.at[..., output].set(0.0)
                for source, factor in inputs:
                    for row, column in taps or middle:
                        x = x.at[row, column, source, output].set(factor / len(taps or middle))
            return x

        def bias(x):
            for output, value in (constants or {}).items():
                x = x.at[output].set(value)
            return x

        return {**layer, "kernel": _boxed(layer["kernel"], kernel), "bias": _boxed(layer["bias"], bias)}

    return _at(tree, path.split("/"), change)


def _at(tree, path: list[str], change: Callable) -> dict[str, Any]:
    if not path:
        return change(tree)
    return {**tree, path[0]: _at(tree[path[0]], path[1:], change)}


def _boxed(leaf, change: Callable):
    return leaf.replace_boxed(change(leaf.unbox()))
