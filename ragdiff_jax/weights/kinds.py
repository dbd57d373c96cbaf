"""The kinds of networks whose weights come in and go out, and what each knows: its config, its tree, its own names."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ragdiff_jax.errors import UserError
from ragdiff_jax.models.clip_text import CLIPTextConfig, CLIPTextModel
from ragdiff_jax.models.clip_vision import CLIPVisionConfig, CLIPVisionModel
from ragdiff_jax.models.dinov2 import DINOv2, DINOv2Config
from ragdiff_jax.models.ep_adapter import EPAdapter, EPAdapterConfig
from ragdiff_jax.models.f_theta import FTheta, FThetaConfig
from ragdiff_jax.models.unet import UNet
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.models.vae import AutoencoderKL, VAEConfig
from ragdiff_jax.weights.architectures import ARCHITECTURES


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """An EP-Adapter and the U-Net that it feeds: together they say the shapes of its tensors."""

    adapter: EPAdapterConfig
    unet: UNetConfig

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "AdapterConfig":
        """Reads what `to_dict` wrote. Raises `UserError` without the U-Net."""
        if not isinstance(config.get("unet"), Mapping):
            raise UserError("EP-Adapter config: 'unet', the config of the U-Net that it feeds, is missing")
        return cls(adapter=EPAdapterConfig.from_dict(config), unet=UNetConfig.from_dict(config["unet"]))

    def to_dict(self) -> dict[str, Any]:
        """The `config.json` of an adapter that stands alone."""
        return self.adapter.to_dict() | {"unet": self.unet.to_dict()}


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind: its config class, its abstract parameters (boxed) given a config, and how others call it.

    `classes` are the names in `_class_name`, `architectures` or `model_type` of a config.json of this kind.
    """

    name: str
    config: Any
    abstract: Callable[[Any], Mapping[str, Any]]
    classes: frozenset[str]

    def read_config(self, config: Mapping[str, Any], where: str) -> Any:
        """The config object of a config.json. Raises `UserError` for another kind's and for impossible values."""
        called = _called(config)
        if called and not called & self.classes:
            right = [kind.name for kind in KINDS.values() if called & kind.classes]
            fix = f"use --kind {' or '.join(right)}" if right else f"the kinds are {', '.join(KINDS)}"
            raise UserError(f"{where}: is a {' / '.join(sorted(called))}, not of kind {self.name}; {fix}")
        try:
            return self.config.from_dict(config)
        except (TypeError, ValueError, KeyError) as error:
            raise UserError(f"{where}: cannot be used ({type(error).__name__}: {error}); get it again") from error

    def named(self, name: str) -> Any:
        """The config of a published architecture. Raises `UserError` naming those there are."""
        known = ARCHITECTURES[self.name]
        if name not in known:
            raise UserError(f"--config {name}: no such file, and no {self.name} of that name ({', '.join(known)})")
        return self.config.from_dict(known[name])


def _called(config: Mapping[str, Any]) -> set[str]:
    names = config.get("architectures") or [config.get("_class_name") or config.get("model_type")]
    return {name for name in names if isinstance(name, str)}


def kind_of(config: Mapping[str, Any]) -> Kind | None:
    """The kind that a config.json calls itself, if it is one of ours; a whole CLIP model has no single kind."""
    called = _called(config)
    found = [kind for kind in KINDS.values() if called & kind.classes]
    return found[0] if len(found) == 1 else None


def _traced(build: Callable[[Any], Any]) -> Callable[[Any], Mapping[str, Any]]:
    """`build(config)` gives a function of a key that inits; traced once for each config, it takes seconds."""

    @functools.lru_cache(maxsize=16)
    def abstract(config: Any) -> Mapping[str, Any]:
        return jax.eval_shape(build(config), jax.random.key(0))["params"]

    return abstract


def _unet(config: UNetConfig):
    side = 2 ** (len(config.block_out_channels) - 1)
    latents, context = jnp.zeros((1, side, side, config.in_channels)), jnp.zeros((1, 1, config.cross_attention_dim))
    added = {}
    if config.text_embed_dim:
        added = {"pooled": jnp.zeros((1, config.text_embed_dim)), "time_ids": jnp.zeros((1, 6))}
    return lambda key: UNet(config).init(key, latents, jnp.zeros((1,), jnp.int32), context, **added)


def _vae(config: VAEConfig):
    image = jnp.zeros((1, config.factor, config.factor, config.in_channels))
    return lambda key: AutoencoderKL(config).init(key, image)


def _text(config: CLIPTextConfig):
    return lambda key: CLIPTextModel(config).init(key, jnp.zeros((1, 1), jnp.int32))


def _vision(config: CLIPVisionConfig):
    pixels = jnp.zeros((1, config.image_size, config.image_size, config.num_channels))
    return lambda key: CLIPVisionModel(config).init(key, pixels)


def _dinov2(config: DINOv2Config):
    pixels = jnp.zeros((1, config.image_size, config.image_size, config.num_channels))
    return lambda key: DINOv2(config).init(key, pixels)


def _adapter(config: AdapterConfig):
    embedding = jnp.zeros((1, config.adapter.embed_dim))
    return lambda key: EPAdapter(config.adapter, config.unet).init(key, embedding)


def _f_theta(config: FThetaConfig):
    return lambda key: FTheta(config).init(key, jnp.zeros((1, 1, config.hidden_size)))


_WHOLE_CLIP = ("CLIPModel", "clip")
KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("unet", UNetConfig, _traced(_unet), frozenset({"UNet2DConditionModel"})),
        Kind("vae", VAEConfig, _traced(_vae), frozenset({"AutoencoderKL"})),
        Kind(
            "clip-text",
            CLIPTextConfig,
            _traced(_text),
            frozenset({"CLIPTextModel", "CLIPTextModelWithProjection", "clip_text_model", *_WHOLE_CLIP}),
        ),
        Kind(
            "clip-vision",
            CLIPVisionConfig,
            _traced(_vision),
            frozenset({"CLIPVisionModel", "CLIPVisionModelWithProjection", "clip_vision_model", *_WHOLE_CLIP}),
        ),
        Kind("dinov2", DINOv2Config, _traced(_dinov2), frozenset({"Dinov2Model", "dinov2"})),
        Kind("ip-adapter", AdapterConfig, _traced(_adapter), frozenset({"EPAdapter"})),
        Kind("f-theta", FThetaConfig, _traced(_f_theta), frozenset({"InversionAdapter"})),
    )
}
