"""CLIP's text encoder: token ids `[b, l]` -> states `[b, l, c]`, the EOS state `[b, c]`, projected `[b, p]`.

SDXL takes `penultimate` of two of these and `text_embeds` of the second; SD 2 takes `last_hidden_state`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ragdiff_jax.models.clip_encoder import CLIPEncoder, common_fields, tower_config
from ragdiff_jax.models.layers import Dense, Embed, LayerNorm


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPTextConfig:
    """What transformers' `CLIPTextConfig` keeps in `config.json`; the defaults are transformers' own."""

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    projection_dim: int | None = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    bos_token_id: int | None = 49406
    eos_token_id: int = 49407
    pad_token_id: int | None = 1
    with_projection: bool = True

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "CLIPTextConfig":
        """Reads a transformers `config.json` (a tower's own, or a whole `CLIPModel`'s). Raises `UserError` if it can't.

        Whether there is a projection follows from `architectures`; without that entry there is one.
        """
        config = tower_config(config, "text")
        values = common_fields(config, {f.name for f in dataclasses.fields(cls)}, "CLIP text")
        if config.get("architectures"):
            values["with_projection"] = "CLIPTextModel" not in config["architectures"]
        if isinstance(values.get("eos_token_id"), list | tuple):
            values["eos_token_id"] = values["eos_token_id"][0]
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """A `config.json` that transformers reads."""
        values = dataclasses.asdict(self)
        projected = values.pop("with_projection")
        name = "CLIPTextModelWithProjection" if projected else "CLIPTextModel"
        return {"architectures": [name], "model_type": "clip_text_model"} | values


class CLIPTextOutput(NamedTuple):
    """`penultimate` is `hidden_states[-2]`, `pooled` the EOS state of `last_hidden_state`, after the norm."""

    last_hidden_state: Float[Array, "b l c"]
    penultimate: Float[Array, "b l c"]
    pooled: Float[Array, "b c"]
    text_embeds: Float[Array, "b p"] | None = None


def eos_position(config: CLIPTextConfig, ids: Int[Array, "b l"]) -> Int[Array, "b"]:
    """Where each text ends: at the first EOS; with the legacy `eos_token_id` 2 of old configs, at the highest id."""
    eos = config.eos_token_id
    return jnp.argmax(ids if eos == 2 else ids == eos, axis=-1)


def padded_with(config: CLIPTextConfig, ids: Int[Array, "b l"], pad_id: int) -> Int[Array, "b l"]:
    """`ids` with `pad_id` behind each text's end. The text's own states don't change (attention is causal), but those
    behind it do, and cross-attention sees them: SDXL's two tokenizers have one vocabulary and pad differently.
    """
    return jnp.where(jnp.arange(ids.shape[1])[None] > eos_position(config, ids)[:, None], pad_id, ids)


def insert_placeholders(
    config: CLIPTextConfig, ids: Int[Array, "b l"], counts: Int[Array, "b"], placeholder: int
) -> Int[Array, "b l"]:
    """`ids` with `counts` placeholder tokens before each EOS, as if the text ended in that many of them.

    What falls off the end is lost: the caller sees to it that texts leave room (`systems.prompts`).
    """
    b, length = ids.shape
    at, end = jnp.arange(length)[None], eos_position(config, ids)[:, None]
    behind = jnp.take_along_axis(ids, jnp.clip(at - counts[:, None], 0, length - 1), axis=1)
    return jnp.where(at < end, ids, jnp.where(at < end + counts[:, None], placeholder, behind))


def splice_tokens(
    embeddings: Float[Array, "b l c"], visual: Float[Array, "b v c"], start: Int[Array, "b"], counts: Int[Array, "b"]
) -> Float[Array, "b l c"]:
    """Token embeddings with the first `counts` rows of `visual` in the place of those from `start` on (F 3.2).

    Position embeddings are added afterwards, by the text encoder.
    """
    at = jnp.arange(embeddings.shape[1])[None] - start[:, None]
    picked = jnp.take_along_axis(visual, jnp.clip(at, 0, visual.shape[1] - 1)[..., None], axis=1)
    inside = (at >= 0) & (at < counts[:, None])
    return jnp.where(inside[..., None], picked.astype(embeddings.dtype), embeddings)


class _Embeddings(nn.Module):
    config: CLIPTextConfig
    dtype: DTypeLike

    def setup(self):
        c = self.config
        self.token_embedding = Embed(c.vocab_size, c.hidden_size, dtype=self.dtype)
        self.position_embedding = Embed(
            c.max_position_embeddings, c.hidden_size, axes=(None, "embed"), dtype=self.dtype
        )

    def __call__(self, ids, token_embeddings=None):
        length = ids.shape[1]
        if length > self.config.max_position_embeddings:
            raise ValueError(f"{length} tokens for {self.config.max_position_embeddings} positions")
        if token_embeddings is None:
            token_embeddings = self.token_embedding(ids)
        return token_embeddings.astype(self.dtype) + self.position_embedding(jnp.arange(length))[None]


class _TextTransformer(nn.Module):
    config: CLIPTextConfig
    remat: bool
    dtype: DTypeLike

    def setup(self):
        c = self.config
        self.embeddings = _Embeddings(c, self.dtype)
        self.encoder = CLIPEncoder(
            c.num_hidden_layers,
            c.num_attention_heads,
            c.intermediate_size,
            act=c.hidden_act,
            epsilon=c.layer_norm_eps,
            causal=True,
            remat=self.remat,
            dtype=self.dtype,
        )
        self.final_layer_norm = LayerNorm(c.layer_norm_eps, self.dtype)

    def __call__(self, ids, token_embeddings=None):
        last, penultimate = self.encoder(self.embeddings(ids, token_embeddings))
        return self.final_layer_norm(last), penultimate


class CLIPTextModel(nn.Module):
    """The encoder; `method="embed_tokens"` is the bare table, for callers who splice their own tokens in."""

    config: CLIPTextConfig
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    def setup(self):
        self.text_model = _TextTransformer(self.config, self.remat, self.dtype)
        if self.config.with_projection and self.config.projection_dim:
            self.text_projection = Dense(self.config.projection_dim, use_bias=False, dtype=self.dtype)

    def embed_tokens(self, ids: Int[Array, "b l"]) -> Float[Array, "b l c"]:
        """Token embeddings before the positions are added."""
        return self.text_model.embeddings.token_embedding(ids)

    def __call__(
        self, ids: Int[Array, "b l"], token_embeddings: Float[Array, "b l c"] | None = None
    ) -> CLIPTextOutput:
        """Encodes `ids`; `token_embeddings` may replace the table's (F 3.3), `ids` then only finds EOS.

        Pooled is at EOS (`eos_position`).
        """
        last, penultimate = self.text_model(ids, token_embeddings)
        at = eos_position(self.config, ids)
        pooled = jnp.take_along_axis(last, at[:, None, None], axis=1)[:, 0]
        if not (self.config.with_projection and self.config.projection_dim):
            return CLIPTextOutput(last, penultimate, pooled)
        return CLIPTextOutput(last, penultimate, pooled, self.text_projection(pooled))
