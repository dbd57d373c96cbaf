"""Where the adapters start: ReferenceNet, ControlNet and EP-Adapter's projections as copies of MainNet's weights.

R 3.3: ReferenceNet "shares same initial parameter weights" with MainNet. IP-Adapter (4.1 of its public training
script): the new keys and values start as the text's. Both are pure functions of trees.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ragdiff_jax.models.unet_config import UNetConfig

Params = Mapping[str, Any]


def reference_from_unet(reference: Params, unet: Params) -> dict[str, Any]:
    """The tree of `reference` with every leaf taken from `unet`, each copy placed like the leaf it replaces.

    Where ReferenceNet's last stack is cut, its blocks are the first of MainNet's, and `transformer_blocks_last` the
    last.
    """
    out = {}
    for name, value in reference.items():
        if name == "transformer_blocks_last":
            last = jax.tree.map(lambda x: x[-1], _same(value, unet["transformer_blocks"]))
            out[name] = jax.tree.map(_placed, last, value)
        elif isinstance(value, Mapping):
            out[name] = reference_from_unet(value, unet[name])
        else:
            source = unet[name]
            out[name] = _placed(source if source.shape == value.shape else source[: value.shape[0]], value)
    return out


def _same(tree: Params, source: Params) -> dict[str, Any]:
    return {
        name: _same(value, source[name]) if isinstance(value, Mapping) else source[name]
        for name, value in tree.items()
    }


def _placed(source, like):
    # A copy, never the same buffer: both trees may be donated.
    copy = jnp.array(source, dtype=like.dtype, copy=True)
    return jax.device_put(copy, like.sharding) if isinstance(like, jax.Array) and hasattr(like, "sharding") else copy


def adapter_from_unet(adapter: Params, unet: Params, config: UNetConfig) -> dict[str, Any]:
    """EP-Adapter's parameters with each site's `to_k` and `to_v` copied from MainNet's text projections."""
    out = dict(adapter)
    for site, *_ in config.sites():
        block, attention = site.split("/")
        source = unet[block][attention]["transformer_blocks"]["attn2"]
        own = adapter[site.replace("/", "_")]
        out[site.replace("/", "_")] = {name: _placed(source[name]["kernel"], own[name]) for name in ("to_k", "to_v")}
    return out


def control_from_unet(control: Params, unet: Params) -> dict[str, Any]:
    """The tree of a ControlNet, a copy of `unet` but for its zero convolutions, which stay as they are."""
    return {name: reference_from_unet(tree, unet[name]) if name in unet else tree for name, tree in control.items()}


def narrow_inputs(unet: Params, channels: int) -> dict[str, Any]:
    """A U-Net whose conv_in takes the first `channels` of its inputs alone: ReferenceNet's, which sees latents."""
    kernel = unet["conv_in"]["kernel"]
    return {**unet, "conv_in": {**unet["conv_in"], "kernel": kernel[:, :, :channels]}}


def widen_inputs(unet: Params, channels: int) -> dict[str, Any]:
    """A U-Net whose conv_in takes `channels` inputs: the old ones first, the new ones' weights zero (F 3.3).

    It computes what it did until the new ones are trained. Raises ValueError for fewer channels than there are.
    """
    kernel = unet["conv_in"]["kernel"]
    more = channels - kernel.shape[2]
    if more < 0:
        raise ValueError(f"conv_in has {kernel.shape[2]} inputs already, {channels} are fewer")
    return {**unet, "conv_in": {**unet["conv_in"], "kernel": jnp.pad(kernel, ((0, 0), (0, 0), (0, more), (0, 0)))}}
