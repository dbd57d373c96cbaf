"""Fashion-RAG: the networks put together once, for training and serving alike.

    garments [b, n, s, s, 3] -> CLIP's picture tower -> F_theta -> words [b, n * t, d]
    prompt ids [b, l], words -> spliced before positions -> CLIP's text transformer -> context [b, l, d]
    person, mask, pose maps -> EditConditions; noise -> denoise in a sampler -> latents [b, h, w, c] -> decode
and, past the paper,
    top garment [b, H, W, 3] -> latents -> ReferenceNet -> keys and values beside the U-Net's own (R 3.3)
or, as a baseline in the words' place,
    garments -> CLIP's picture tower -> image_adapter -> keys and values of a second cross-attention (IP-Adapter-plus)

Every method is a pure function of (parameters, arrays, key). Parameters are one dictionary, a part each: unet, vae,
text_encoder, image_encoder, inversion (F_theta) or image_adapter; reference_net, if the model has one; where retrieval
has towers of its own, retrieval_text_encoder and retrieval_image_encoder.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ragdiff_jax.data.pose import pose_maps
from ragdiff_jax.diffusion.loss import min_snr_weights, mse_loss
from ragdiff_jax.diffusion.process import add_noise, target
from ragdiff_jax.diffusion.samplers import SamplerName
from ragdiff_jax.diffusion.schedule import NoiseSchedule
from ragdiff_jax.models.attention import Implementation
from ragdiff_jax.models.clip_text import CLIPTextConfig, eos_position, insert_placeholders, splice_tokens
from ragdiff_jax.models.clip_vision import CLIPVisionConfig, preprocess
from ragdiff_jax.models.ep_adapter import EPAdapterConfig
from ragdiff_jax.models.f_theta import FThetaConfig
from ragdiff_jax.models.transformer import Gates, Remat
from ragdiff_jax.models.unet import SiteKeyValues
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.models.unit_length import unit
from ragdiff_jax.models.vae import VAEConfig, sample_latents, scale_latents, unscale_latents
from ragdiff_jax.systems.edit_conditions import EditConditions
from ragdiff_jax.systems.fashion_parts import check_parts, example, networks, part_configs

Params = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FashionRAG:
    """A static description, no arrays. Fields are what `model.json` and the parts' `config.json` hold.

    Attributes:
      image_size: (height, width) of the person's picture in pixels.
      guidance_scale, sampler, retrieved: defaults of serving; `retrieved` garments (N_r).
      prompt: see `systems/prompts.py`.
      visual_levels: levels of the U-Net whose cross-attention sees the garments, 0 the finest, the number of levels
        the middle block; None: all (F's released default). The others see the text alone.
      garment_fit: how a garment becomes the tower's square: `pad` with white, or `crop` as the released code does.
      mask_weight: of the loss inside the mask, added to F's mean over the whole picture; 0 is F's.
      normalisation, retrieval_normalisation: of the pictures of `image_encoder` and of retrieval's own tower.
      window: in serving the model sees the part of the picture in which the mask's box takes this share of the height
        or width; 0: the whole picture (F). A small model would otherwise spend its pixels on the street.
      inversion: F_theta, or None for a model whose garments are an image prompt: `image_adapter` then.
      reference_net: whether the U-Net sees the top garment's keys and values too; the network is the U-Net's own kind.
    """

    unet: UNetConfig
    vae: VAEConfig
    text_encoder: CLIPTextConfig
    image_encoder: CLIPVisionConfig
    inversion: FThetaConfig | None
    schedule: NoiseSchedule
    image_size: tuple[int, int]
    retrieval_text_encoder: CLIPTextConfig | None = None
    retrieval_image_encoder: CLIPVisionConfig | None = None
    image_adapter: EPAdapterConfig | None = None
    reference_net: bool = False
    guidance_scale: float = 7.5
    sampler: SamplerName = "ddim"
    retrieved: int = 3
    prompt: str = "template"
    visual_levels: tuple[int, ...] | None = None
    garment_fit: str = "pad"
    normalisation: str = "clip"
    retrieval_normalisation: str = "clip"
    snr_gamma: float = 0.0
    mask_weight: float = 0.0
    window: float = 0.0
    remat: Remat = "none"
    attention: Implementation = "auto"
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        check_parts(self)

    @classmethod
    def from_config(cls, name: str, **changes: Any) -> "FashionRAG":
        """A preset: `tiny` or `sd2_inpaint`. `changes` replaces fields."""
        from ragdiff_jax.systems.fashion_presets import preset

        return dataclasses.replace(preset(name), **changes)

    @property
    def latent_size(self) -> tuple[int, int]:
        return self.image_size[0] // self.vae.factor, self.image_size[1] // self.vae.factor

    @property
    def pose(self) -> bool:
        """Whether the U-Net takes pose maps."""
        return self.unet.in_channels > 2 * self.vae.latent_channels + 1

    @property
    def tokens(self) -> int:
        """Places that a garment takes in the prompt; none where it is an image prompt."""
        return 0 if self.inversion is None else self.inversion.num_tokens

    def retrieval_towers(self) -> tuple[CLIPTextConfig, CLIPVisionConfig]:
        """The configs of the towers that retrieve: their own, or those of the model."""
        return (
            self.retrieval_text_encoder or self.text_encoder,
            self.retrieval_image_encoder or self.image_encoder,
        )

    def configs(self) -> dict[str, Any]:
        """{part: its config} of the parts that there are."""
        return part_configs(self)

    def modules(self) -> dict[str, nn.Module]:
        """The networks by part."""
        return networks(self)

    def init(self, key: jax.Array, parts: Collection[str] | None = None) -> dict[str, Any]:
        """Random parameters, boxed with their logical axes. Of `parts` only, if given."""
        modules = self.modules()
        keys = dict(zip(modules, jax.random.split(key, len(modules)), strict=True))
        wanted = modules if parts is None else [part for part in modules if part in parts]
        return {part: modules[part].init(keys[part], *example(self, part))["params"] for part in wanted}

    def _apply(self, params: Params, part: str, *args, method: str | None = None, **kwargs):
        return self.modules()[part].apply({"params": params[part]}, *args, method=method, **kwargs)

    def encode(
        self, params: Params, image: Float[Array, "b H W 3"], key: jax.Array | None = None
    ) -> Float[Array, "b h w c"]:
        """Scaled latents of pictures in [-1, 1]: the posterior's mean, or with `key` a draw from it."""
        mean, logvar = self._apply(params, "vae", image, method="encode")
        latents = mean if key is None else sample_latents(mean, logvar, key)
        return scale_latents(self.vae, latents.astype(jnp.float32))

    def decode(self, params: Params, latents: Float[Array, "b h w c"]) -> Float[Array, "b H W 3"]:
        """Pictures, about [-1, 1] and not clipped, of scaled latents."""
        return self._apply(params, "vae", unscale_latents(self.vae, latents), method="decode").astype(jnp.float32)

    def garment_states(self, params: Params, garments: Float[Array, "b s s 3"]) -> Float[Array, "b l c"]:
        """What F_theta reads of garments in [-1, 1]: the tower's last hidden state, before its post norm."""
        pixels = preprocess(garments, self.image_encoder.image_size, self.normalisation)
        return self._apply(params, "image_encoder", pixels).last_hidden_state

    def words(
        self, params: Params, garments: Float[Array, "b n s s 3"], key: jax.Array | None = None
    ) -> Float[Array, "b n t d"]:
        """F_theta's pseudo-tokens of each garment; `key` is dropout's, in training."""
        b, n = garments.shape[:2]
        states = self.garment_states(params, garments.reshape(b * n, *garments.shape[2:]))
        rngs = None if key is None else {"dropout": key}
        tokens = self._apply(params, "inversion", states, deterministic=key is None, rngs=rngs)
        return tokens.reshape(b, n, *tokens.shape[1:])

    def image_prompt(
        self, params: Params, garments: Float[Array, "b n s s 3"], weights: Float[Array, "b n"]
    ) -> SiteKeyValues:
        """`image_adapter`'s keys and values of garments in [-1, 1], their mean by weight: one prompt, however many.

        They are linear in the adapter's tokens, so this is the prompt of the mean tokens. Read of the tower's last
        layer but one, as IP-Adapter-plus does. Weights that are all 0 give zeros: close the gate.
        """
        b, n = garments.shape[:2]
        pixels = preprocess(
            garments.reshape(b * n, *garments.shape[2:]), self.image_encoder.image_size, self.normalisation
        )
        each = self._apply(params, "image_adapter", self._apply(params, "image_encoder", pixels).penultimate)
        share = weights / jnp.maximum(weights.sum(axis=1, keepdims=True), 1e-12)

        def mean(x):
            return jnp.einsum("lbn...,bn->lb...", x.reshape(x.shape[0], b, n, *x.shape[2:]), share.astype(x.dtype))

        return jax.tree.map(mean, each)

    def reference(self, params: Params, garment: Float[Array, "b H W 3"]) -> SiteKeyValues:
        """ReferenceNet's keys and values of a garment in [-1, 1], of the person's size: one pass at t = 0."""
        latents = self.encode(params, garment)
        return self._apply(params, "reference_net", latents, jnp.zeros(len(garment), jnp.int32))

    def embed_text(self, params: Params, ids: Int[Array, "b l"]) -> Float[Array, "b p"]:
        """Unit vectors of queries, by the tower that retrieves (fp32)."""
        part = "retrieval_text_encoder" if self.retrieval_text_encoder else "text_encoder"
        return unit(self._apply(params, part, ids).text_embeds)

    def embed_garments(self, params: Params, garments: Float[Array, "b s s 3"]) -> Float[Array, "b p"]:
        """Unit vectors of garments in [-1, 1], by the tower that retrieves (fp32)."""
        if self.retrieval_image_encoder is None:
            part, config, normalisation = "image_encoder", self.image_encoder, self.normalisation
        else:
            part, config = "retrieval_image_encoder", self.retrieval_image_encoder
            normalisation = self.retrieval_normalisation
        return unit(self._apply(params, part, preprocess(garments, config.image_size, normalisation)).image_embeds)

    def encode_prompt(
        self,
        params: Params,
        ids: Int[Array, "b l"],
        words: Float[Array, "b v d"] | None = None,
        counts: Int[Array, "b"] | None = None,
        placeholder: int = 0,
    ) -> Float[Array, "b l d"]:
        """The text encoder's last state of prompts, with the first `counts` of `words` before each end (F 3.2).

        `ids` have no placeholders yet and leave room for them (`Prompts.encode`).
        """
        if words is None:
            return self._apply(params, "text_encoder", ids).last_hidden_state
        start = eos_position(self.text_encoder, ids)
        ids = insert_placeholders(self.text_encoder, ids, counts, placeholder)
        embeddings = self._apply(params, "text_encoder", ids, method="embed_tokens")
        spliced = splice_tokens(embeddings, words, start, counts)
        return self._apply(params, "text_encoder", ids, spliced).last_hidden_state

    def condition(
        self,
        params: Params,
        person: Float[Array, "b H W 3"],
        mask: Float[Array, "b H W"],
        keypoints: Float[Array, "b 18 3"],
        context: Float[Array, "b l d"],
        *,
        plain: Float[Array, "b l d"] | None = None,
        pose_gate: Float[Array, "b"] | None = None,
        key: jax.Array | None = None,
        top: Float[Array, "b H W 3"] | None = None,
        image_prompt: SiteKeyValues | None = None,
        gates: Gates | None = None,
    ) -> EditConditions:
        """Everything the sampler needs, once an image. `person` in [-1, 1], `mask` in {0, 1}, keypoints in its pixels.

        `plain`: the text alone, needed with `visual_levels`. `key`: draws the masked person's latents, as the released
        code does; None takes their mean. A `pose_gate` of 0 removes the pose: its maps are zero.
        `top`: the garment that ReferenceNet sees, on white; `image_prompt`: of the garments. None is absent, and so it
        is for a sample whose gate of `gates` is 0: the U-Net's output is then the plain one's, bit for bit.
        """
        f, size = self.vae.factor, self.image_size
        masked = self.encode(params, person * (mask < 0.5)[..., None], key)
        pose = None
        if self.pose:
            pose = pose_maps(keypoints, size, self.latent_size)
            pose = pose if pose_gate is None else pose * pose_gate[:, None, None, None]
        if self.visual_levels is not None and plain is None:
            raise ValueError("with visual_levels the text alone is needed as `plain`")
        return EditConditions(
            context=context,
            plain=plain if self.visual_levels is not None else None,
            mask=mask[:, ::f, ::f, None].astype(jnp.float32),
            masked=masked,
            pose=pose,
            reference=None if top is None else self.reference(params, top),
            adapter=image_prompt,
            gates=self._gates(gates, top is not None, image_prompt is not None, len(person)),
        )

    def _gates(self, gates: Gates | None, reference: bool, adapter: bool, batch: int) -> Gates | None:
        """A gate for each condition that there is: guidance closes it."""
        if not (reference or adapter):
            return None
        given, ones = gates or Gates(), jnp.ones(batch, jnp.float32)
        there = {"reference": reference, "adapter": adapter}
        return Gates(**{n: (ones if getattr(given, n) is None else getattr(given, n)) for n in there if there[n]})

    def denoise(
        self,
        params: Params,
        conditions: EditConditions,
        latents: Float[Array, "b h w c"],
        timesteps: Int[Array, "b"],
    ) -> Float[Array, "b h w c"]:
        """The U-Net on [latents | mask | masked latents | pose maps]: what the schedule predicts, in fp32."""
        pieces = [latents, conditions.mask, conditions.masked]
        if conditions.pose is not None:
            pieces.append(conditions.pose)
        context = conditions.context
        if conditions.plain is not None:
            context = {
                block: conditions.context if level in self.visual_levels else conditions.plain
                for block, level in self._levels().items()
            }
        return self._apply(
            params,
            "unet",
            jnp.concatenate(pieces, axis=-1),
            timesteps,
            context,
            reference=conditions.reference,
            adapter=conditions.adapter,
            gates=conditions.gates,
        ).astype(jnp.float32)

    def _levels(self) -> dict[str, int]:
        """{block: level}, 0 the finest, the number of levels the middle."""
        levels = len(self.unet.block_out_channels)
        down = {f"down_blocks_{level}": level for level in range(levels)}
        return down | {"mid_block": levels} | {f"up_blocks_{step}": levels - 1 - step for step in range(levels)}

    def denoising_loss(
        self,
        params: Params,
        conditions: EditConditions,
        latents: Float[Array, "b h w c"],
        time_key: jax.Array,
        noise_key: jax.Array,
    ) -> Float[Array, "b"]:
        """Mean squared error of the prediction at uniform random times, each sample's own."""
        t = jax.random.randint(time_key, latents.shape[:1], 0, self.schedule.num_train_timesteps)
        noise = jax.random.normal(noise_key, latents.shape)
        prediction = self.denoise(params, conditions, add_noise(self.schedule, latents, noise, t), t)
        goal = target(self.schedule, latents, noise, t)
        loss = mse_loss(prediction, goal)
        if self.mask_weight:
            # Inside the mask apart, or a small garment hardly counts beside all that is copied.
            inside = conditions.mask.sum(axis=(1, 2, 3)) * latents.shape[-1]
            squares = (conditions.mask * jnp.square(prediction - goal)).sum(axis=(1, 2, 3))
            loss = loss + self.mask_weight * squares / jnp.maximum(inside, 1.0)
        if self.snr_gamma:
            loss = loss * min_snr_weights(self.schedule, t, self.snr_gamma)
        return loss
