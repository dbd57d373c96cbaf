"""The U-Net's transformer: [b, h, w, c] -> tokens [b, h*w, c] -> a stack of blocks -> [b, h, w, c].

A block is self-attention, cross-attention to the text, and a GEGLU feed-forward. Two conditions enter it from outside:
- `reference`: keys and values of ReferenceNet [depth, b, l, heads, d], put *behind* the block's own on the token axis
  (R Eq. 4); a sample whose gate is 0 never sees them in its softmax (`attention.reference_attention`).
- `adapter`: EP-Adapter's keys and values [depth, b, q, heads, d]; a second cross-attention with the same query, summed
  (R 3.2, Eq. 5), times the sample's gate.

ReferenceNet is the same stack in another role (`role="reference"`): it hands out its keys and values, and its very last
block ends there. It sees no text: without a context there is no cross-attention, only its output bias is left (see
docs/papers.md).
"""

from typing import Any, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ragdiff_jax.models.attention import Implementation, dot_product_attention, reference_attention
from ragdiff_jax.models.layers import Conv, Dense, GroupNorm, LayerNorm, weight

Role = Literal["main", "reference", "control"]
Remat = Literal["none", "block", "dots"]


def rematerialised(module: Any, remat: Remat, *, scanned: bool = False) -> Any:
    """The module class, run again in the backward pass: `block` keeps nothing inside it, `dots` its matrix products."""
    if remat == "none":
        return module
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if remat == "dots" else None
    return nn.remat(module, prevent_cse=not scanned, policy=policy)


# A pytree's leaf: an array of the shape its class says; inside transformations, whatever JAX puts there.
Leaf = Any


@flax.struct.dataclass
class KeyValue:
    """Keys and values [depth, b, l, heads, d] of one attention stack; [b, l, heads, d] inside its scan."""

    key: Leaf
    value: Leaf


@flax.struct.dataclass
class Gates:
    """One number [b] per sample and condition: 1 uses it, 0 removes it exactly (docs/contracts.md, "absent").

    None is a condition that isn't gated.
    """

    reference: Leaf = None
    adapter: Leaf = None


def split_heads(x, heads: int):
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


def merge_heads(x):
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


class SelfAttention(nn.Module):
    heads: int
    attention: Implementation
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x, reference: Any, gate):
        width = x.shape[-1]

        def project(name):
            layer = Dense(width, axes=("embed", "heads"), use_bias=False, dtype=self.dtype, name=name)
            return split_heads(layer(x), self.heads)

        query, key, value = project("to_q"), project("to_k"), project("to_v")
        own = (key, value)
        if reference is None:
            out = dot_product_attention(query, key, value, implementation=self.attention)
        else:
            other = (reference.key.astype(key.dtype), reference.value.astype(value.dtype))
            out = reference_attention(query, key, value, *other, gate, implementation=self.attention)
        out = Dense(width, axes=("heads", "embed"), dtype=self.dtype, name="to_out_0")(merge_heads(out))
        return out, own


class CrossAttention(nn.Module):
    heads: int
    attention: Implementation
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x, context, adapter: Any, gate):
        width = x.shape[-1]

        def project(name, source):
            layer = Dense(width, axes=("embed", "heads"), use_bias=False, dtype=self.dtype, name=name)
            return split_heads(layer(source), self.heads)

        query = project("to_q", x)
        out = dot_product_attention(
            query, project("to_k", context), project("to_v", context), implementation=self.attention
        )
        if adapter is not None:
            prompt = dot_product_attention(
                query, adapter.key.astype(query.dtype), adapter.value.astype(query.dtype), implementation=self.attention
            )
            out = out + (prompt if gate is None else gate[:, None, None, None].astype(prompt.dtype) * prompt)
        return Dense(width, axes=("heads", "embed"), dtype=self.dtype, name="to_out_0")(merge_heads(out))


class _OutputBias(nn.Module):
    """What is left of cross-attention to zero text: the bias of its output layer."""

    @nn.compact
    def __call__(self, x):
        return x + _Bias(name="to_out_0")(x)


class _Bias(nn.Module):
    @nn.compact
    def __call__(self, x):
        return weight(self, "bias", ("embed",), nn.initializers.zeros_init(), (x.shape[-1],), x.dtype)


class _KeyValueOnly(nn.Module):
    heads: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        return tuple(
            split_heads(
                Dense(x.shape[-1], axes=("embed", "heads"), use_bias=False, dtype=self.dtype, name=name)(x), self.heads
            )
            for name in ("to_k", "to_v")
        )


class _GEGLU(nn.Module):
    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        x = Dense(2 * self.features, dtype=self.dtype, name="proj")(x)
        value, gate = jnp.split(x, 2, axis=-1)
        return value * jax.nn.gelu(gate, approximate=False)


class _FeedForward(nn.Module):
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        x = _GEGLU(4 * width, dtype=self.dtype, name="net_0")(x)
        return Dense(width, axes=("mlp", "embed"), dtype=self.dtype, name="net_2")(x)


class TransformerBlock(nn.Module):
    """One block, in the form `nn.scan` wants: (carry, per-layer inputs) -> (carry, per-layer output)."""

    heads: int
    role: Role
    attention: Implementation
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x, reference, adapter, context, gates):
        norm1 = LayerNorm(dtype=self.dtype, name="norm1")(x)
        attention = SelfAttention(self.heads, self.attention, self.dtype, name="attn1")
        out, own = attention(norm1, reference, gates.reference)
        x = x + out
        if context is None:
            x = _OutputBias(name="attn2")(x)
        else:
            norm2 = LayerNorm(dtype=self.dtype, name="norm2")(x)
            x = x + CrossAttention(self.heads, self.attention, self.dtype, name="attn2")(
                norm2, context, adapter, gates.adapter
            )
        x = x + _FeedForward(self.dtype, name="ff")(LayerNorm(dtype=self.dtype, name="norm3")(x))
        return x, (own if self.role == "reference" else None)


class _LastReferenceBlock(nn.Module):
    """ReferenceNet's last block: nothing reads what would come after its keys and values, so it doesn't exist."""

    heads: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        x = LayerNorm(dtype=self.dtype, name="norm1")(x)
        return _KeyValueOnly(self.heads, self.dtype, name="attn1")(x)


class SpatialTransformer(nn.Module):
    """GroupNorm, projection in, `depth` blocks under one scan, projection out, residual.

    Returns (hidden [b, h, w, c], KeyValue of the stack in the reference role, else None). With `last=True`, the final
    site of ReferenceNet, the hidden states returned are None.
    """

    depth: int
    heads: int
    groups: int
    linear_projection: bool = True
    role: Role = "main"
    last: bool = False
    remat: Remat = "none"
    attention: Implementation = "auto"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, context, *, reference=None, adapter=None, gates=None):
        b, h, w, c = x.shape
        gates = gates or Gates()
        residual = x
        x = GroupNorm(self.groups, epsilon=1e-6, dtype=self.dtype, name="norm")(x)

        def project(x, name, axes):
            if self.linear_projection:
                return Dense(c, axes=axes, dtype=self.dtype, name=name)(x)
            return Conv(c, kernel_size=1, padding=0, dtype=self.dtype, name=name)(x)

        x = project(x, "proj_in", ("embed", "heads")).reshape(b, h * w, c)
        block = rematerialised(TransformerBlock, self.remat, scanned=True)
        depth = self.depth - 1 if self.last else self.depth
        keys_values = None
        if depth:
            stack = nn.scan(
                block,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=(0, 0, nn.broadcast, nn.broadcast),
                length=depth,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )(self.heads, self.role, self.attention, self.dtype, name="transformer_blocks")
            x, keys_values = stack(x, reference, adapter, context, gates)
        if self.last:
            key, value = _LastReferenceBlock(self.heads, self.dtype, name="transformer_blocks_last")(x)
            key, value = key[None], value[None]
            if keys_values is not None:
                key, value = (jnp.concatenate(pair) for pair in zip(keys_values, (key, value), strict=True))
            return None, KeyValue(key, value)
        x = x.reshape(b, h, w, c)
        x = project(x, "proj_out", ("heads", "embed")) + residual
        return x, (KeyValue(*keys_values) if self.role == "reference" else None)
