"""DINOv2's vision transformer: pixels `[b, h, w, 3]` -> normed tokens `[b, 1 + h/p * w/p, c]` (CLS first).

Pre-norm layers whose two branches are scaled by a learned vector each (LayerScale); stacked under `layer` as in the
published checkpoints (facebook/dinov2-small, -base, -large, -giant). Any multiple of the patch size goes in: the
position table is resampled.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ragdiff_jax.errors import UserError
from ragdiff_jax.models.attention import dot_product_attention
from ragdiff_jax.models.clip_encoder import ACTIVATIONS, common_fields
from ragdiff_jax.models.layers import Conv, Dense, LayerNorm, dense_init

MEAN = (0.485, 0.456, 0.406)  # ImageNet's, RGB in [0, 1]: what DINOv2's pixels are normalised with
STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DINOv2Config:
    """What transformers' `Dinov2Config` keeps in `config.json`; the defaults are transformers' own."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    mlp_ratio: int = 4
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    image_size: int = 224
    patch_size: int = 14
    num_channels: int = 3
    qkv_bias: bool = True
    layerscale_value: float = 1.0
    use_swiglu_ffn: bool = False
    use_mask_token: bool = True

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "DINOv2Config":
        """Reads a transformers `config.json`. Raises `UserError` for another kind of transformer."""
        if config.get("model_type", "dinov2") != "dinov2":
            raise UserError(f"DINOv2 config: model_type must be dinov2, not {config['model_type']}")
        names = {field.name for field in dataclasses.fields(cls)}
        values = common_fields({"hidden_act": "gelu"} | dict(config), names, "DINOv2")
        for name in ("image_size", "patch_size"):
            if isinstance(values.get(name), list | tuple):
                if len(set(values[name])) != 1:
                    raise UserError(f"DINOv2 config: {name} must be square, not {values[name]}")
                values[name] = values[name][0]
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """A `config.json` that transformers reads."""
        return {"architectures": ["Dinov2Model"], "model_type": "dinov2"} | dataclasses.asdict(self)

    @property
    def grid(self) -> int:
        """Patches a side that the position table was trained with."""
        return self.image_size // self.patch_size


class DINOv2Output(NamedTuple):
    """Tokens of the last layer after the norm, CLS first; `pooled` is CLS."""

    last_hidden_state: Float[Array, "b l c"]
    pooled: Float[Array, "b c"]


def bicubic_matrix(size: int, new: int) -> Float[np.ndarray, "m n"]:
    """Torch's bicubic resampling (a = -0.75, no antialiasing, edges repeated) of `size` points to `new`."""
    a = -0.75
    centre = (np.arange(new) + 0.5) * size / new - 0.5
    left = np.floor(centre).astype(int)
    out = np.zeros((new, size))
    for offset in (-1, 0, 1, 2):
        x = np.abs(centre - (left + offset))
        near = ((a + 2) * x - (a + 3)) * x**2 + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        np.add.at(out, (np.arange(new), np.clip(left + offset, 0, size - 1)), np.where(x <= 1, near, far))
    return out.astype(np.float32)


class _Embeddings(nn.Module):
    config: DINOv2Config
    dtype: DTypeLike

    @nn.compact
    def __call__(self, pixels):
        c = self.config
        b, h, w, _ = pixels.shape
        if h % c.patch_size or w % c.patch_size:
            raise ValueError(f"pixels are {h}x{w}; both sides must be multiples of the patch size {c.patch_size}")
        patches = _PatchEmbeddings(c, self.dtype, name="patch_embeddings")(pixels.astype(self.dtype))
        normal = nn.initializers.normal(0.02)
        cls = self.param("cls_token", dense_init((None, None, "norm"), normal), (1, 1, c.hidden_size))
        if c.use_mask_token:  # in the published files; only DINOv2's own training reads it
            self.param("mask_token", dense_init((None, "norm"), nn.initializers.zeros_init()), (1, c.hidden_size))
        shape = (1, 1 + c.grid**2, c.hidden_size)
        positions = self.param("position_embeddings", dense_init((None, None, "embed"), normal), shape)
        x = jnp.concatenate(
            [jnp.broadcast_to(cls, (b, 1, c.hidden_size)).astype(self.dtype), patches.reshape(b, -1, c.hidden_size)],
            axis=1,
        )
        return x + self._resampled(positions, h // c.patch_size, w // c.patch_size).astype(self.dtype)

    def _resampled(self, positions, rows: int, columns: int):
        grid = self.config.grid
        if (rows, columns) == (grid, grid):
            return positions
        table = positions[0, 1:].reshape(grid, grid, -1)
        table = jnp.einsum(
            "rg,ch,ghd->rcd",
            bicubic_matrix(grid, rows),
            bicubic_matrix(grid, columns),
            table,
            precision=jax.lax.Precision.HIGHEST,
        )
        return jnp.concatenate([positions[:, :1], table.reshape(1, rows * columns, -1)], axis=1)


# Modules of modules, because the published names are nested so: attention.attention.query, attention.output.dense.
class _PatchEmbeddings(nn.Module):
    config: DINOv2Config
    dtype: DTypeLike

    @nn.compact
    def __call__(self, pixels):
        c = self.config
        p = c.patch_size
        layer = Conv(c.hidden_size, kernel_size=p, strides=p, padding=0, dtype=self.dtype, name="projection")
        return layer(pixels)


class _Output(nn.Module):
    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        return Dense(self.features, axes=("heads", "embed"), dtype=self.dtype, name="dense")(x)


class _SelfAttention(nn.Module):
    config: DINOv2Config
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        c = self.config
        b, length, width = x.shape

        def project(name):
            layer = Dense(width, axes=("embed", "heads"), use_bias=c.qkv_bias, dtype=self.dtype, name=name)
            return layer(x).reshape(b, length, c.num_attention_heads, -1)

        q, k, v = (project(name) for name in ("query", "key", "value"))
        return dot_product_attention(q, k, v).reshape(b, length, width)


class _Attention(nn.Module):
    config: DINOv2Config
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        out = _SelfAttention(self.config, self.dtype, name="attention")(x)
        return _Output(x.shape[-1], self.dtype, name="output")(out)


class _MLP(nn.Module):
    config: DINOv2Config
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        c = self.config
        hidden = int(c.hidden_size * c.mlp_ratio)
        up, down = ("embed", "mlp"), ("mlp", "embed")
        if c.use_swiglu_ffn:
            hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
            gate, value = jnp.split(Dense(2 * hidden, axes=up, dtype=self.dtype, name="weights_in")(x), 2, axis=-1)
            return Dense(c.hidden_size, axes=down, dtype=self.dtype, name="weights_out")(nn.silu(gate) * value)
        h = ACTIVATIONS[c.hidden_act](Dense(hidden, axes=up, dtype=self.dtype, name="fc1")(x))
        return Dense(c.hidden_size, axes=down, dtype=self.dtype, name="fc2")(h)


class _LayerScale(nn.Module):
    value: float

    @nn.compact
    def __call__(self, x):
        scale = self.param("lambda1", dense_init(("norm",), nn.initializers.constant(self.value)), (x.shape[-1],))
        return x * scale.astype(x.dtype)


class _Layer(nn.Module):
    config: DINOv2Config
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x, _):
        c = self.config
        h = LayerNorm(c.layer_norm_eps, self.dtype, name="norm1")(x)
        h = _Attention(c, self.dtype, name="attention")(h)
        x = x + _LayerScale(c.layerscale_value, name="layer_scale1")(h)
        h = LayerNorm(c.layer_norm_eps, self.dtype, name="norm2")(x)
        h = _MLP(c, self.dtype, name="mlp")(h)
        return x + _LayerScale(c.layerscale_value, name="layer_scale2")(h), None


class _Encoder(nn.Module):
    config: DINOv2Config
    remat: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x):
        stack = nn.scan(
            nn.remat(_Layer, prevent_cse=False) if self.remat else _Layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.config.num_hidden_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        return stack(self.config, self.dtype, name="layer")(x, None)[0]


class DINOv2(nn.Module):
    """The encoder, of ImageNet-normalised pixels (`MEAN`, `STD`) with sides in multiples of the patch size."""

    config: DINOv2Config
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, pixels: Float[Array, "b h w 3"]) -> DINOv2Output:
        c = self.config
        x = _Embeddings(c, self.dtype, name="embeddings")(pixels)
        x = _Encoder(c, self.remat, self.dtype, name="encoder")(x)
        x = LayerNorm(c.layer_norm_eps, self.dtype, name="layernorm")(x)
        return DINOv2Output(x, x[:, 0])
