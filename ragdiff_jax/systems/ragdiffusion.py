"""RAGDiffusion: the networks, retrieval and diffusion put together once, for training and serving alike.

    photo [b, H, W, 3] -> embed -> e [b, d] -> (memory: search) -> SLLE weights [b, k] -> condition -> Conditions
    Conditions, noise -> denoise in a sampler -> latents [b, h, w, c] -> decode -> flat-lay [b, H, W, 3]

Every method is a pure function of (parameters, arrays, key): it can be jitted, differentiated and replaced. Parameters
are one dictionary, a part each: unet, reference_net, ep_adapter, landmark_guider, structure_net, vae, text_encoder
(and text_encoder_2), and where attributes are predicted image_encoder.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Shaped

from ragdiff_jax.diffusion.loss import min_snr_weights, mse_loss
from ragdiff_jax.diffusion.process import add_noise, target
from ragdiff_jax.diffusion.schedule import NoiseSchedule
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.attention import Implementation
from ragdiff_jax.models.clip_text import CLIPTextConfig, CLIPTextModel
from ragdiff_jax.models.clip_vision import CLIPVisionConfig, CLIPVisionModel
from ragdiff_jax.models.ep_adapter import EPAdapter, EPAdapterConfig
from ragdiff_jax.models.landmark_guider import LandmarkGuider, LandmarkGuiderConfig
from ragdiff_jax.models.structure_net import StructureNet, StructureNetConfig, Tower
from ragdiff_jax.models.transformer import Gates, Remat
from ragdiff_jax.models.unet import SiteKeyValues, UNet
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.models.vae import AutoencoderKL, VAEConfig, sample_latents, scale_latents, unscale_latents
from ragdiff_jax.retrieval.index import exact_search
from ragdiff_jax.retrieval.landmarks import fuse_landmarks, iou
from ragdiff_jax.retrieval.slle import fuse_embeddings, slle_weights
from ragdiff_jax.systems.conditions import Conditions, Text
from ragdiff_jax.systems.encodings import flat_latents, noise_with_offset, text_of

Params = Mapping[str, Any]
TEXT_PARTS = ("text_encoder", "text_encoder_2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dropout:
    """Chances that a training sample loses a condition, drawn apart for each sample (docs/papers.md).

    `everything` takes text, structure and reference together; `retrieved_landmark` is the share of samples that see the
    retrieved silhouette instead of the true one, where the two have at least `retrieved_iou` in common: one of another
    kind of garment teaches that silhouettes are not to be believed. `landmark` takes the silhouette, whichever it is.
    """

    text: float = 0.05
    structure: float = 0.05
    everything: float = 0.05
    reference: float = 0.1
    retrieved_landmark: float = 0.5
    retrieved_iou: float = 0.0
    landmark: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RAGDiffusion:
    """A static description, no arrays. Fields are what `model.json` and the parts' `config.json` hold.

    Attributes:
      guidance_scale, neighbours, alpha, reg: defaults of serving, and of what training sees (K, Eq. 3's alpha, SLLE's
        ridge).
      null: what an absent condition is; `gate` removes it exactly, `zero` is the paper's zero vectors.
      snr_gamma: min-SNR weighting of the loss; 0 is off.
      noise_offset: share of noise that is one number a channel; 0 is off.
      image_encoder: the picture tower of the last text encoder's CLIP, or None. It predicts attributes
        (`systems/zero_shot.py`) and takes no part in generation.
    """

    unet: UNetConfig
    vae: VAEConfig
    text_encoders: tuple[CLIPTextConfig, ...]
    structure_net: StructureNetConfig
    ep_adapter: EPAdapterConfig
    landmark_guider: LandmarkGuiderConfig
    schedule: NoiseSchedule
    image_size: int
    guidance_scale: float = 2.0
    neighbours: int = 4
    alpha: float = 0.5
    reg: float = 1e-3
    null: Literal["gate", "zero"] = "gate"
    dropout: Dropout = Dropout()
    snr_gamma: float = 0.0
    noise_offset: float = 0.0
    image_encoder: CLIPVisionConfig | None = None
    remat: Remat = "none"
    attention: Implementation = "auto"
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        widths = sum(config.hidden_size for config in self.text_encoders)
        last = self.text_encoders[-1]
        for name, got, need in (
            ("text encoders' widths together", widths, self.unet.cross_attention_dim),
            ("pooled text width", last.projection_dim, self.unet.text_embed_dim),
            ("VAE's latent channels", self.vae.latent_channels, self.unet.in_channels),
            ("landmark guider's features", self.landmark_guider.features, self.unet.block_out_channels[0]),
            ("landmark guider's strides, multiplied,", math.prod(self.landmark_guider.strides), self.vae.factor),
            ("EP-Adapter's embed_dim", self.ep_adapter.embed_dim, self.structure_net.embed_dim),
        ):
            if got != need:
                raise UserError(f"RAGDiffusion: {name} is {got}, but its counterpart needs {need}")
        if self.image_encoder is not None and self.image_encoder.projection_dim != last.projection_dim:
            raise UserError(
                f"RAGDiffusion: the image encoder projects to {self.image_encoder.projection_dim}, the last text "
                f"encoder to {last.projection_dim}; take both from one CLIP"
            )

    @classmethod
    def from_config(cls, name: str, **changes: Any) -> "RAGDiffusion":
        """A preset: `tiny`, `sdxl` (4-channel VAE) or `sdxl_flux` (16 channels). `changes` replaces fields."""
        from ragdiff_jax.systems.presets import preset

        return dataclasses.replace(preset(name), **changes)

    @property
    def latent_size(self) -> int:
        return self.image_size // self.vae.factor

    def modules(self) -> dict[str, nn.Module]:
        """The networks by part, in the order of the module's words."""
        common = dict(remat=self.remat, attention=self.attention, dtype=self.dtype)
        parts = {
            "unet": UNet(self.unet, **common),
            "reference_net": UNet(self.unet, role="reference", **common),
            "ep_adapter": EPAdapter(self.ep_adapter, self.unet, self.dtype),
            "landmark_guider": LandmarkGuider(self.landmark_guider, self.dtype),
            "structure_net": StructureNet(self.structure_net, self.dtype),
            "vae": AutoencoderKL(self.vae, self.dtype),
        }
        for part, config in zip(TEXT_PARTS, self.text_encoders, strict=False):
            parts[part] = CLIPTextModel(config, self.dtype)
        if self.image_encoder is not None:
            parts["image_encoder"] = CLIPVisionModel(self.image_encoder, self.dtype)
        return parts

    def init(self, key: jax.Array, parts: Collection[str] | None = None) -> dict[str, Any]:
        """Random parameters, boxed with their logical axes (`nn.meta.unbox` takes the boxes off).

        Of `parts` only, if given.
        """
        modules = self.modules()
        latents, time = jnp.zeros((1, 8, 8, self.unet.in_channels)), jnp.zeros((1,), jnp.int32)
        image = jnp.zeros((1, 2 * self.vae.factor, 2 * self.vae.factor, 3))
        ids = jnp.zeros((1, 8), jnp.int32)
        context = jnp.zeros((1, 8, self.unet.cross_attention_dim))
        added = (jnp.zeros((1, self.unet.text_embed_dim)), jnp.zeros((1, 6)))
        attributes = jnp.zeros((1, len(self.structure_net.attribute_sizes)), jnp.int32)
        arguments = {
            "unet": (latents, time, context, *added),
            "reference_net": (latents, time, None, *added),
            "ep_adapter": (jnp.zeros((1, self.structure_net.embed_dim)),),
            "landmark_guider": (image[..., :1],),
            "structure_net": (image, image, attributes),
            "vae": (image,),
            "text_encoder": (ids,),
            "text_encoder_2": (ids,),
        }
        if self.image_encoder is not None:
            side = self.image_encoder.image_size
            arguments["image_encoder"] = (jnp.zeros((1, side, side, 3)),)
        keys = dict(zip(modules, jax.random.split(key, len(modules)), strict=True))
        wanted = modules if parts is None else [part for part in modules if part in parts]
        return {part: modules[part].init(keys[part], *arguments[part])["params"] for part in wanted}

    def _apply(self, params: Params, part: str, *args, method: str | None = None, **kwargs):
        return self.modules()[part].apply({"params": params[part]}, *args, method=method, **kwargs)

    def encode_text(self, params: Params, ids: Int[Array, "b l"] | tuple[Int[Array, "b l"], ...]) -> Text:
        """Prompts as SDXL sees them: the encoders' penultimate states side by side, the last one's pooled text.

        `ids`: one array for all encoders, or one each (two tokenizers may pad differently).
        """
        ids = ids if isinstance(ids, tuple) else (ids,) * len(self.text_encoders)
        outputs = [
            self._apply(params, part, i) for part, i in zip(TEXT_PARTS[: len(self.text_encoders)], ids, strict=True)
        ]
        context = jnp.concatenate([output.penultimate for output in outputs], axis=-1)
        return Text(context, outputs[-1].text_embeds)

    def encode(
        self, params: Params, image: Float[Array, "b H W 3"], key: jax.Array | None = None
    ) -> Float[Array, "b h w c"]:
        """Scaled latents of pictures in [-1, 1]: the posterior's mean, or with `key` a draw from it."""
        mean, logvar = self.moments(params, image)
        latents = mean if key is None else sample_latents(mean, logvar, key)
        return scale_latents(self.vae, latents.astype(jnp.float32))

    def moments(
        self, params: Params, image: Float[Array, "b H W 3"]
    ) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"]]:
        """(mean, log variance) of the VAE's posterior, not scaled."""
        return self._apply(params, "vae", image, method="encode")

    def decode(self, params: Params, latents: Float[Array, "b h w c"]) -> Float[Array, "b H W 3"]:
        """Pictures, about [-1, 1] and not clipped, of scaled latents."""
        return self._apply(params, "vae", unscale_latents(self.vae, latents), method="decode").astype(jnp.float32)

    def embed(
        self,
        params: Params,
        image: Float[Array, "b H W 3"],
        attributes: Int[Array, "b a"],
        *,
        tower: Tower = "photo",
    ) -> Float[Array, "b d"]:
        """Structure embeddings, unit vectors in fp32 (R 3.1). Attribute id 0 is unknown."""
        return self._apply(params, "structure_net", image, attributes, tower, method="embed")

    def time_ids(self, batch: int, height: int, width: int) -> Float[Array, "b 6"]:
        """SDXL's micro-conditions: original size, crop corner 0,0, target size = the picture's size."""
        return jnp.tile(jnp.array([[height, width, 0, 0, height, width]], jnp.float32), (batch, 1))

    def reference(self, params: Params, photo_latents: Float[Array, "b h w c"]) -> SiteKeyValues:
        """ReferenceNet's keys and values of every self-attention: one pass at t = 0, once an image (R 3.3)."""
        b, h, w, _ = photo_latents.shape
        factor = self.vae.factor
        pooled = jnp.zeros((b, self.unet.text_embed_dim))
        ids = self.time_ids(b, h * factor, w * factor)
        return self._apply(params, "reference_net", photo_latents, jnp.zeros((b,), jnp.int32), None, pooled, ids)

    def fuse(
        self, embedding: Float[Array, "b d"], neighbours: Float[Array, "b k d"], weights: Float[Array, "b k"]
    ) -> Float[Array, "b d"]:
        """R Eq. 3 with this model's alpha."""
        return fuse_embeddings(embedding, neighbours, weights, self.alpha)

    def condition(
        self,
        params: Params,
        photo: Float[Array, "b H W 3"],
        embedding: Float[Array, "b d"],
        neighbours: Float[Array, "b k d"],
        weights: Float[Array, "b k"],
        landmarks: Shaped[Array, "b k H W"] | None,
        text: Text,
        *,
        landmark: Shaped[Array, "b H W"] | None = None,
    ) -> Conditions:
        """Everything the sampler needs, once an image.

        `landmarks` are the neighbours' silhouettes (bool, or numbers), fused by the SLLE weights (R 9.3); `landmark`
        replaces the result (the user's pick, R 6.2) and leaves the embedding alone; `landmarks` may then be None.
        """
        if landmark is None:
            if landmarks is None:
                raise ValueError("condition needs the neighbours' landmarks or the landmark to use")
            landmark, _ = fuse_landmarks(landmarks, weights)
        ones = jnp.ones(photo.shape[0], jnp.float32)
        return self.make_conditions(
            params,
            photo_latents=self.encode(params, photo),
            structure=self.fuse(embedding, neighbours, weights),
            silhouette=landmark.astype(jnp.float32)[..., None],
            text=text,
            gates=Gates(reference=ones, adapter=ones),
        )

    def make_conditions(
        self,
        params: Params,
        *,
        photo_latents: Float[Array, "b h w c"],
        structure: Float[Array, "b d"],
        silhouette: Float[Array, "b H W 1"],
        text: Text,
        gates: Gates,
        landmark_gate: Float[Array, "b"] | None = None,
    ) -> Conditions:
        """Conditions of ready pieces; `condition` is the way from retrieval to here, `loss` that of training."""
        if self.null == "zero":
            # The paper's "zero vectors": the parts run on zeros instead of being left out.
            structure = structure * gates.adapter[:, None]
            photo_latents = photo_latents * gates.reference[:, None, None, None]
            gates = jax.tree.map(jnp.ones_like, gates)
        features = self._apply(params, "landmark_guider", silhouette)
        if landmark_gate is not None:
            features = features * landmark_gate[:, None, None, None].astype(features.dtype)
        return Conditions(
            text=text,
            landmark_features=features,
            reference=self.reference(params, photo_latents),
            adapter=self._apply(params, "ep_adapter", structure),
            gates=gates,
        )

    def unconditional(self, params: Params, conditions: Conditions, empty: Text) -> Conditions:
        """The other half of guidance, as training drops conditions: closed gates, or with `null="zero"` zero vectors.

        `empty`: the empty prompt through the encoders.
        """
        closed = conditions.unconditional(empty)
        if self.null == "gate":
            return closed
        b, h, w, _ = conditions.landmark_features.shape
        return dataclasses.replace(
            closed,
            reference=self.reference(params, jnp.zeros((b, h, w, self.unet.in_channels))),
            adapter=self._apply(params, "ep_adapter", jnp.zeros((b, self.structure_net.embed_dim))),
            gates=jax.tree.map(jnp.ones_like, closed.gates),
        )

    def denoise(
        self,
        params: Params,
        conditions: Conditions,
        latents: Float[Array, "b h w c"],
        timesteps: Int[Array, "b"],
    ) -> Float[Array, "b h w c"]:
        """MainNet: noise or velocity, as the schedule's `prediction_type` says, in fp32."""
        b, h, w, _ = latents.shape
        factor = self.vae.factor
        return self._apply(
            params,
            "unet",
            latents,
            timesteps,
            conditions.text.context,
            conditions.text.pooled,
            self.time_ids(b, h * factor, w * factor),
            landmark_features=conditions.landmark_features,
            reference=conditions.reference,
            adapter=conditions.adapter,
            gates=conditions.gates,
        ).astype(jnp.float32)

    def retrieve(
        self, memory: Any, embedding: Float[Array, "b d"], exclude: Int[Array, "b"] | None = None
    ) -> tuple[Int[Array, "b k"], Float[Array, "b k"], Float[Array, "b k d"], Float[Array, "b k"]]:
        """(ids, cosines, neighbours, SLLE weights) from a memory on the device; pure, for use inside jit."""
        ids, cosines = exact_search(memory.embeddings, embedding, self.neighbours, exclude)
        neighbours = memory.embeddings[ids]
        return ids, cosines, neighbours, slle_weights(embedding, neighbours, self.reg)

    def loss(
        self,
        params: Params,
        batch: Mapping[str, Array],
        key: jax.Array,
        *,
        memory: Any,
        empty_ids: Any,
        timesteps: Int[Array, "b"] | None = None,
    ) -> Float[Array, "b"]:
        """The denoising loss of each sample (R Eq. 6); the caller averages.

        `batch`: photo, flat [b,H,W,3] in [-1,1]; mask [b,H,W,1]; photo_attributes [b,a]; text_ids [b,l]; memory_row
        [b], the sample's own flat-lay in `memory` (-1: it isn't there), which is never among its neighbours.
        `empty_ids`: the empty prompt [l], which stands in for dropped text. Encodings made before
        (`systems/encodings.py`) stand for the pictures and ids, and then the empty prompt's for `empty_ids`.
        `timesteps`: else drawn.
        """
        keys = jax.random.split(key, 9)
        b = batch["mask"].shape[0]

        def chance(index, probability):
            return jax.random.bernoulli(keys[index], probability, (b,))

        embedding = batch.get("embedding")
        if embedding is None:
            embedding = self.embed(params, batch["photo"], batch["photo_attributes"])
        ids, _, neighbours, weights = self.retrieve(memory, embedding, batch["memory_row"])
        retrieved, _ = fuse_landmarks(memory.landmarks[ids], weights)
        use_retrieved = chance(0, self.dropout.retrieved_landmark)
        if self.dropout.retrieved_iou:
            use_retrieved &= iou(retrieved, batch["mask"][..., 0]) >= self.dropout.retrieved_iou
        retrieved = retrieved.astype(jnp.float32)[..., None]
        silhouette = jnp.where(use_retrieved[:, None, None, None], retrieved, batch["mask"])

        everything = chance(1, self.dropout.everything)
        no_text = everything | chance(2, self.dropout.text)
        no_structure = everything | chance(3, self.dropout.structure)
        no_reference = everything | chance(4, self.dropout.reference)
        photo_latents = batch.get("photo_latents")
        conditions = self.make_conditions(
            params,
            photo_latents=self.encode(params, batch["photo"]) if photo_latents is None else photo_latents,
            structure=self.fuse(embedding, neighbours, weights),
            silhouette=silhouette,
            text=text_of(self, params, batch, no_text, empty_ids),
            gates=Gates(reference=1.0 - no_reference, adapter=1.0 - no_structure),
            landmark_gate=1.0 - chance(8, self.dropout.landmark) if self.dropout.landmark else None,
        )
        latents = flat_latents(self, params, batch, keys[5])
        return self.denoising_loss(params, conditions, latents, keys[6], keys[7], timesteps)

    def denoising_loss(
        self,
        params: Params,
        conditions: Conditions,
        latents: Float[Array, "b h w c"],
        time_key: jax.Array,
        noise_key: jax.Array,
        timesteps: Int[Array, "b"] | None = None,
    ) -> Float[Array, "b"]:
        """Mean squared error of the prediction at uniform random times, each sample's own, or at `timesteps`."""
        t = timesteps
        if t is None:
            t = jax.random.randint(time_key, latents.shape[:1], 0, self.schedule.num_train_timesteps)
        noise = noise_with_offset(noise_key, latents.shape, self.noise_offset)
        prediction = self.denoise(params, conditions, add_noise(self.schedule, latents, noise, t), t)
        loss = mse_loss(prediction, target(self.schedule, latents, noise, t))
        if self.snr_gamma:
            loss = loss * min_snr_weights(self.schedule, t, self.snr_gamma)
        return loss
