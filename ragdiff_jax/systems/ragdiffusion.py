"""RAGDiffusion: the networks, retrieval and diffusion put together once, for training and serving alike.

    photo [b, H, W, 3] -> embed -> e [b, d] -> (memory: search) -> SLLE weights [b, k] -> condition -> Conditions
    Conditions, noise -> denoise in a sampler -> latents [b, h, w, c] -> decode -> flat-lay [b, H, W, 3]

Every method is a pure function of (parameters, arrays, key): it can be jitted, differentiated and replaced. Parameters
are one dictionary, a part each: unet, reference_net, ep_adapter, landmark_guider, structure_net, vae, text_encoder
(and text_encoder_2), and where attributes are predicted image_encoder. Ablations and baselines leave parts out or put
others in (`systems/variants.py`).
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Shaped

from ragdiff_jax.diffusion.loss import min_snr_weights, mse_loss
from ragdiff_jax.diffusion.process import add_noise, target
from ragdiff_jax.diffusion.samplers import SamplerName
from ragdiff_jax.diffusion.schedule import NoiseSchedule
from ragdiff_jax.models.attention import Implementation
from ragdiff_jax.models.clip_text import CLIPTextConfig, padded_with
from ragdiff_jax.models.clip_vision import CLIPVisionConfig
from ragdiff_jax.models.ep_adapter import EPAdapterConfig
from ragdiff_jax.models.f_theta import FThetaConfig
from ragdiff_jax.models.landmark_guider import LandmarkGuiderConfig
from ragdiff_jax.models.structure_net import StructureNetConfig, Tower
from ragdiff_jax.models.token_adapter import TokenAdapterConfig
from ragdiff_jax.models.transformer import Gates, Remat
from ragdiff_jax.models.unet import SiteKeyValues
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.models.vae import VAEConfig, sample_latents, scale_latents, unscale_latents
from ragdiff_jax.retrieval.index import exact_search
from ragdiff_jax.retrieval.landmarks import LandmarkRule, fuse_landmarks
from ragdiff_jax.retrieval.slle import fuse_embeddings, slle_weights
from ragdiff_jax.systems.conditions import Conditions, Text
from ragdiff_jax.systems.dropout import Dropout
from ragdiff_jax.systems.encodings import flat_latents, noise_with_offset
from ragdiff_jax.systems.parts import TEXT_PARTS, Null, Params, check_parts, example, networks
from ragdiff_jax.systems.tokens import read_tokens
from ragdiff_jax.systems.training_conditions import training_conditions


@dataclasses.dataclass(frozen=True, kw_only=True)
class RAGDiffusion:
    """A static description, no arrays. Fields are what `model.json` and the parts' `config.json` hold.

    Attributes:
      guidance_scale, sampler, neighbours, alpha, reg: defaults of serving, and of what training sees (K, Eq. 3's
        alpha, SLLE's ridge).
      landmark_candidates, landmark_temperature: of serving, `LandmarkRule`'s; 0 candidates is R 9.3. Training sees the
        silhouettes of R 9.3.
      null: what an absent condition is; `gate` removes it exactly, `zero` is the paper's zero vectors.
      snr_gamma: min-SNR weighting of the loss; 0 is off.
      noise_offset: share of noise that is one number a channel; 0 is off.
      image_encoder: the picture tower of the last text encoder's CLIP, or None. It predicts attributes
        (`systems/zero_shot.py`), and the three adapters below read its tokens.
      reference_net, ep_adapter, landmark_guider, latent_concat, image_adapter, class_adapter, token_adapter,
        photo_guider, mask_unet: the conditions, None or False where a model hasn't one (`systems/variants.py`);
        `photo_guider` is what shows the photo to a ControlNet.
      text_pads: of each text encoder the id that its tokenizer pads with, where they differ: training has the ids of
        one. Empty: ids are taken as they are, which is right of serving, where each encoder has its own.
    """

    unet: UNetConfig
    vae: VAEConfig
    text_encoders: tuple[CLIPTextConfig, ...]
    structure_net: StructureNetConfig
    ep_adapter: EPAdapterConfig | None
    landmark_guider: LandmarkGuiderConfig | None
    schedule: NoiseSchedule
    image_size: int
    guidance_scale: float = 2.0
    sampler: SamplerName = "ddim"
    neighbours: int = 4
    alpha: float = 0.5
    reg: float = 1e-3
    landmark_candidates: int = 0
    landmark_temperature: float = 0.05
    null: Null = "gate"
    dropout: Dropout = Dropout()
    snr_gamma: float = 0.0
    noise_offset: float = 0.0
    image_encoder: CLIPVisionConfig | None = None
    reference_net: bool = True
    latent_concat: bool = False
    image_adapter: EPAdapterConfig | None = None
    class_adapter: FThetaConfig | None = None
    token_adapter: TokenAdapterConfig | None = None
    photo_guider: LandmarkGuiderConfig | None = None
    mask_unet: UNetConfig | None = None
    text_pads: tuple[int, ...] = ()
    remat: Remat = "none"
    attention: Implementation = "auto"
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        check_parts(self)
        _ = self.landmark_rule  # its own checks

    @classmethod
    def from_config(cls, name: str, **changes: Any) -> "RAGDiffusion":
        """A preset: `tiny` (64 px), `small` (128 px), `sdxl` (4-channel VAE) or `sdxl_flux` (16 channels).

        `changes` replaces fields. Raises `UserError` for another name.
        """
        from ragdiff_jax.systems.presets import preset

        return dataclasses.replace(preset(name), **changes)

    @property
    def latent_size(self) -> int:
        return self.image_size // self.vae.factor

    @property
    def landmark_rule(self) -> LandmarkRule:
        """How serving chooses a silhouette of the memory."""
        return LandmarkRule.of(vars(self))

    @property
    def retrieves(self) -> bool:
        """Whether a condition comes from the memory."""
        return self.ep_adapter is not None or (self.landmark_guider is not None and self.mask_unet is None)

    @property
    def reads_tokens(self) -> bool:
        """Whether a condition comes from the image encoder's tokens."""
        return any(part is not None for part in (self.image_adapter, self.class_adapter, self.token_adapter))

    @property
    def sees_photo(self) -> bool:
        """Whether a condition comes from the photo's pixels, not from its latents or its embedding."""
        return self.reads_tokens or self.photo_guider is not None or self.mask_unet is not None

    def modules(self) -> dict[str, nn.Module]:
        """The networks by part, in the order of the module's words."""
        return networks(self)

    def init(self, key: jax.Array, parts: Collection[str] | None = None) -> dict[str, Any]:
        """Random parameters, boxed with their logical axes (`nn.meta.unbox` takes the boxes off).

        Of `parts` only, if given.
        """
        modules = self.modules()
        keys = dict(zip(modules, jax.random.split(key, len(modules)), strict=True))
        wanted = modules if parts is None else [part for part in modules if part in parts]
        return {part: modules[part].init(keys[part], *example(self, part))["params"] for part in wanted}

    def _apply(self, params: Params, part: str, *args, method: str | None = None, **kwargs):
        return self.modules()[part].apply({"params": params[part]}, *args, method=method, **kwargs)

    def encode_text(self, params: Params, ids: Int[Array, "b l"] | tuple[Int[Array, "b l"], ...]) -> Text:
        """Prompts as SDXL sees them: the encoders' penultimate states side by side, the last one's pooled text.

        `ids`: one array for all encoders, padded anew for each by `text_pads`; or one each, as their tokenizers give
        them.
        """
        if not isinstance(ids, tuple):
            pads = self.text_pads or (None,) * len(self.text_encoders)
            ids = tuple(
                ids if pad is None else padded_with(config, ids, pad)
                for config, pad in zip(self.text_encoders, pads, strict=True)
            )
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
        if landmark is None and self.landmark_guider is not None:
            landmark = self.landmark(params, photo, landmarks, weights)
        ones = jnp.ones(photo.shape[0], jnp.float32)
        return self.make_conditions(
            params,
            photo=photo,
            structure=self.fuse(embedding, neighbours, weights),
            silhouette=None if landmark is None else landmark.astype(jnp.float32)[..., None],
            text=text,
            gates=Gates(reference=ones, adapter=ones),
        )

    def landmark(
        self,
        params: Params,
        photo: Float[Array, "b H W 3"],
        landmarks: Shaped[Array, "b k H W"] | None,
        weights: Float[Array, "b k"] | None,
    ) -> Bool[Array, "b H W"]:
        """The silhouette that is used: the neighbours', fused (R 9.3), or the one predicted from the photo."""
        if self.mask_unet is not None:
            return self.mask_logits(params, photo)[..., 0] > 0
        if landmarks is None:
            raise ValueError("the neighbours' landmarks are needed, or the landmark to use")
        return fuse_landmarks(landmarks, weights)[0]

    def mask_logits(self, params: Params, photo: Float[Array, "b H W 3"]) -> Float[Array, "b H W 1"]:
        """The flat-lay's silhouette as a U-Net sees it in the photo, above 0 inside (R 4.3, "Generating masks")."""
        nowhen = jnp.zeros(photo.shape[0], jnp.int32)
        return self._apply(params, "mask_unet", photo, nowhen).astype(jnp.float32)

    def make_conditions(
        self,
        params: Params,
        *,
        text: Text,
        gates: Gates,
        photo: Float[Array, "b H W 3"] | None = None,
        photo_latents: Float[Array, "b h w c"] | None = None,
        structure: Float[Array, "b d"] | None = None,
        silhouette: Float[Array, "b H W 1"] | None = None,
        landmark_gate: Float[Array, "b"] | None = None,
    ) -> Conditions:
        """Conditions of ready pieces; `condition` is the way from retrieval to here, `loss` that of training.

        Pieces that no condition of the model needs may be None; `photo_latents` are made of `photo` where they are.
        """
        features, adapter = None, None
        if photo_latents is None and (self.reference_net or self.latent_concat):
            photo_latents = self.encode(params, photo)
        if self.null == "zero":
            # The paper's "zero vectors": the parts run on zeros instead of being left out.
            if structure is not None:
                structure = structure * gates.adapter[:, None]
            if photo_latents is not None:
                photo_latents = photo_latents * gates.reference[:, None, None, None]
            gates = jax.tree.map(jnp.ones_like, gates)
        if self.landmark_guider is not None:
            features = self._apply(params, "landmark_guider", silhouette)
            if landmark_gate is not None:
                features = features * landmark_gate[:, None, None, None].astype(features.dtype)
        if self.ep_adapter is not None:
            adapter = self._apply(params, "ep_adapter", structure)
        conditions = Conditions(
            text=text,
            landmark_features=features,
            reference=self.reference(params, photo_latents) if self.reference_net else None,
            adapter=adapter,
            gates=gates,
            beside=photo_latents if self.latent_concat else None,
            hint=None if self.photo_guider is None else self._apply(params, "photo_guider", photo),
        )
        return read_tokens(self, params, conditions, photo) if self.reads_tokens else conditions

    def unconditional(self, params: Params, conditions: Conditions, empty: Text) -> Conditions:
        """The other half of guidance, as training drops conditions: closed gates, or with `null="zero"` zero vectors.

        `empty`: the empty prompt through the encoders.
        """
        closed = conditions.with_closed_gates(empty)
        if self.null == "gate":
            return closed
        rows, features = closed.gates.reference.shape[0], conditions.landmark_features
        shape = (self.latent_size,) * 2 if features is None else features.shape[1:3]
        changes: dict[str, Any] = {"gates": jax.tree.map(jnp.ones_like, closed.gates)}
        if self.reference_net:
            changes["reference"] = self.reference(params, jnp.zeros((rows, *shape, self.unet.in_channels)))
        if self.ep_adapter is not None:
            zeros = jnp.zeros((rows, self.structure_net.embed_dim))
            changes["adapter"] = self._apply(params, "ep_adapter", zeros)
        return dataclasses.replace(closed, **changes)

    def denoise(
        self,
        params: Params,
        conditions: Conditions,
        latents: Float[Array, "b h w c"],
        timesteps: Int[Array, "b"],
    ) -> Float[Array, "b h w c"]:
        """MainNet: noise or velocity, as the schedule's `prediction_type` says, in fp32."""
        b, h, w, _ = latents.shape
        factor, gate = self.vae.factor, conditions.gates.reference
        context, features, hint = conditions.text.context, conditions.landmark_features, conditions.hint
        if conditions.words is not None:
            # Keys and values have no bias: of zeros, nothing but the output's bias is left.
            context = conditions.words * gate[:, None, None].astype(conditions.words.dtype)
        if conditions.beside is not None:
            latents = jnp.concatenate([latents, conditions.beside * gate[:, None, None, None]], axis=1)
            under = ((0, 0), (0, h), (0, 0), (0, 0))
            features, hint = (None if x is None else jnp.pad(x, under) for x in (features, hint))
        inputs = (latents, timesteps, context, conditions.text.pooled, self.time_ids(b, h * factor, w * factor))
        control = None
        if hint is not None:
            control = self._apply(params, "control_net", *inputs, landmark_features=hint)
            control = jax.tree.map(lambda x: x * gate[:, None, None, None].astype(x.dtype), control)
        noise = self._apply(
            params,
            "unet",
            *inputs,
            landmark_features=features,
            reference=conditions.reference,
            adapter=conditions.adapter,
            gates=conditions.gates,
            control=control,
        )
        return noise[:, :h].astype(jnp.float32)

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
        """The denoising loss of each sample (R Eq. 6), plus that of a predicted silhouette; the caller averages.

        `batch`: photo, flat [b,H,W,3] in [-1,1]; mask [b,H,W,1]; photo_attributes [b,a]; text_ids [b,l]; memory_row
        [b], the sample's own flat-lay in `memory` (-1: it isn't there), which is never among its neighbours; padding
        [b], if there, by which photo, flat-lay and mask were augmented: a retrieved silhouette is made smaller as well.
        `empty_ids`: the empty prompt [l], which stands in for dropped text. Encodings made before
        (`systems/encodings.py`) stand for the pictures and ids, and then the empty prompt's for `empty_ids`; `photo`
        is then there for a model that sees it.
        `timesteps`: else drawn.
        """
        keys = jax.random.split(key, 9)
        conditions, mask_loss = training_conditions(self, params, batch, keys, memory, empty_ids)
        latents = flat_latents(self, params, batch, keys[5])
        rows = self.denoising_loss(params, conditions, latents, keys[6], keys[7], timesteps)
        return rows if mask_loss is None else rows + mask_loss

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
