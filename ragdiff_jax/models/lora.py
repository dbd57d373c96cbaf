"""LoRA (Hu et al. 2021): kernel + scale * A B of low rank r, where A and B train and the kernel doesn't.

An adapter is a tree beside the parameters: where these have `.../to_q/kernel` [in, out] it has `.../to_q/lora_A/kernel`
[in, r] and `.../to_q/lora_B/kernel` [r, out], under a leading layer axis where the kernel has one. A convolution's A
is a convolution of its own size into r channels, and B one of 1x1. The networks know nothing of it: a step merges and
differentiates through the merging, so that rematerialisation, scanned stacks and sharding work as they do without.

    params = merge_lora(base, adapters, scale)      # inside the step: gradients reach `adapters` alone
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ragdiff_jax.errors import UserError

A, B = "lora_A", "lora_B"
TARGETS = r"^(unet|reference_net)/.*attn[12]/(to_q|to_k|to_v|to_out_0)/kernel$"
"""The attention projections of both U-Nets, what diffusers' training scripts adapt too."""

Params = Mapping[str, Any]


def init_lora(key: jax.Array, params: Params, targets: str, rank: int) -> dict[str, Any]:
    """Adapters of every kernel in `params` whose `/`-joined path `targets` matches (`re.search`).

    A is normal with deviation 1 / rank, as diffusers starts it, and B zero: the start changes nothing. Boxed kernels
    give boxed adapters, whose long axes carry the kernel's logical names.

    Raises:
      UserError: `targets` is no regular expression or matches no kernel; `rank` is below 1 or not below both sides of a
        matched kernel.
    """
    try:
        pattern = re.compile(targets)
    except re.error as error:
        raise UserError(f"LoRA targets {targets!r} is not a regular expression: {error}") from error
    if rank < 1:
        raise UserError(f"LoRA rank {rank}: must be at least 1")
    found: list[str] = []
    out = _init(key, params, pattern, rank, "", found)
    if not found:
        raise UserError(f"LoRA targets {targets!r} match no kernel; the parts are: {', '.join(map(str, params))}")
    return out


def _init(key, params: Params, pattern: re.Pattern, rank: int, prefix: str, found: list[str]) -> dict[str, Any]:
    out = {}
    for name, value in params.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            if inner := _init(key, value, pattern, rank, f"{path}/", found):
                out[name] = inner
        elif name == "kernel" and pattern.search(path):
            found.append(path)
            out |= _pair(jax.random.fold_in(key, len(found)), value, rank, path)
    return out


def _pair(key, kernel, rank: int, path: str) -> dict[str, Any]:
    boxed = isinstance(kernel, nn.meta.AxisMetadata)
    shape = kernel.value.shape if boxed else kernel.shape
    *head, into, of = shape
    if rank >= min(into, of):
        raise UserError(f"LoRA rank {rank}: {path} is {into} x {of}, whose rank is no higher; choose a lower one")
    leading = [1, 1] if len(shape) == 4 else head
    a = jax.random.normal(key, (*head, into, rank), jnp.float32) / rank
    b = jnp.zeros((*leading, rank, of), jnp.float32)
    if boxed:
        *names, first, last = kernel.names
        a = kernel.replace(value=a, names=(*names, first, None))
        b = kernel.replace(value=b, names=(*([None, None] if len(shape) == 4 else names), None, last))
    return {A: {"kernel": a}, B: {"kernel": b}}


def merge_lora(params: Params, adapters: Params, scale: float) -> dict[str, Any]:
    """`params` with `scale * A B` added to each adapted kernel, in the kernel's dtype; the other leaves themselves.

    `scale` is alpha / rank. Pure: under `jax.grad` the adapters get their gradients through the product.
    """
    out = dict(params)
    for name, value in adapters.items():
        if A in value:
            kernel = out[name]["kernel"]
            out[name] = {**out[name], "kernel": _merged(kernel, value[A]["kernel"], value[B]["kernel"], scale)}
        else:
            out[name] = merge_lora(out[name], value, scale)
    return out


# Alone: in a program of the whole tree the leaves without an adapter would be copied.
@functools.partial(jax.jit, static_argnames="scale")
def _merged(kernel, a, b, scale: float):
    if kernel.ndim == 4:
        b = b[0, 0]
    delta = jnp.einsum("...ir,...ro->...io", a.astype(jnp.float32), b.astype(jnp.float32))
    return (kernel.astype(jnp.float32) + scale * delta).astype(kernel.dtype)
