"""Floating-point operations of any function of arrays, counted from its trace: nothing is compiled or allocated.

Counted are matrix products and convolutions, two operations a multiply-add, as hardware vendors count their peaks;
everything else (norms, softmax, activations) is memory traffic rather than arithmetic. What a function computes twice,
as rematerialisation does, is counted twice. Loops count as often as they run, of branches the costliest counts.
"""

import math
from collections.abc import Callable
from typing import Any

import jax


def count_flops(function: Callable, *arguments: Any) -> dict[str, int]:
    """`{"matrix": operations of products, "convolution": of convolutions}` of one call.

    `arguments` are arrays or `jax.ShapeDtypeStruct`. Fused kernels of other libraries can't be looked into: count with
    `attention="xla"`. Raises ValueError for a `while` loop with products in it, which has no known length.
    """
    return flops_of(jax.make_jaxpr(function)(*arguments))


def flops_of(jaxpr: Any) -> dict[str, int]:
    """`count_flops` of a trace that is there already."""
    total = {"matrix": 0, "convolution": 0}
    for equation in jaxpr.eqns:
        for kind, flops in _equation(equation).items():
            total[kind] += flops
    return total


def _equation(equation: Any) -> dict[str, int]:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return {"matrix": _product(equation)}
    if name == "conv_general_dilated":
        return {"convolution": _convolution(equation)}
    inner = [flops_of(jaxpr) for value in params.values() for jaxpr in _jaxprs(value)]
    if not inner:
        return {}
    if name == "cond":
        return max(inner, key=lambda found: sum(found.values()))
    times = params["length"] if name == "scan" else 1
    total = {kind: times * sum(found[kind] for found in inner) for kind in inner[0]}
    if name == "while" and any(total.values()):
        raise ValueError("a while loop with products in it: its length isn't known, so they can't be counted")
    return total


def _jaxprs(value: Any) -> list[Any]:
    """The traces inside one parameter of an equation (closed or not, alone or a tuple of branches)."""
    values = value if isinstance(value, tuple | list) else (value,)
    return [getattr(item, "jaxpr", item) for item in values if hasattr(item, "eqns")]


def _product(equation: Any) -> int:
    left = equation.invars[0].aval.shape
    (contracted, _), _ = equation.params["dimension_numbers"]
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _convolution(equation: Any) -> int:
    kernel = equation.invars[1].aval.shape
    numbers = equation.params["dimension_numbers"]
    # The kernel's input axis is one group's already. Zeros between the input's pixels (the gradient of a strided
    # convolution) are no work.
    window = math.prod(kernel[axis] for axis in numbers.rhs_spec[1:])
    skipped = math.prod(equation.params["lhs_dilation"])
    return 2 * math.prod(equation.outvars[0].aval.shape) * window // skipped
