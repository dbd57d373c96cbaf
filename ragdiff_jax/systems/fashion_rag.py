"""Fashion-RAG: the networks put together once, for training and serving alike.

    garments [b, n, s, s, 3] -> CLIP's picture tower -> F_theta -> words [b, n * t, d]
    prompt ids [b, l], words -> spliced before positions -> CLIP's text transformer -> context [b, l, d]
    person, mask, pose maps -> EditConditions; noise -> denoise in a sampler -> latents [b, h, w, c] -> decode

Every method is a pure function of (parameters, arrays, key). Parameters are one dictionary, a part each: unet, vae,
text_encoder, image_encoder, inversion (F_theta); where retrieval has towers of its own, retrieval_text_encoder and
retrieval_image_encoder.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ragdiff_jax.data.pose import JOINTS, pose_maps
from ragdiff_jax.diffusion.loss import min_snr_weights, mse_loss
from ragdiff_jax.diffusion.process import add_noise, target
from ragdiff_jax.diffusion.schedule import NoiseSchedule
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.attention import Implementation
from ragdiff_jax.models.clip_text import (
    CLIPTextConfig,
    CLIPTextModel,
    eos_position,
    insert_placeholders,
    splice_tokens,
)
from ragdiff_jax.models.clip_vision import NORMALISATIONS, CLIPVisionConfig, CLIPVisionModel, preprocess
from ragdiff_jax.models.f_theta import FTheta, FThetaConfig
from ragdiff_jax.models.transformer import Leaf, Remat
from ragdiff_jax.models.unet import UNet
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.models.vae import AutoencoderKL, VAEConfig, sample_latents, scale_latents, unscale_latents

Params = Mapping[str, Any]
POSE_CHANNELS = len(JOINTS)


@flax.struct.dataclass
class EditConditions:
    """What the U-Net is told beside noise and time; nothing of it changes between steps.

    Attributes:
      context: text and garments through the text encoder [b, l, d].
      plain: the text alone [b, l, d] for the levels that see no garments, or None: all see them.
      mask: 1 where to draw anew [b, h, w, 1]; masked: latents of the person without it [b, h, w, c].
      pose: heat maps [b, h, w, 18], or None for a U-Net without.
    """

    context: Leaf
    plain: Leaf
    mask: Leaf
    masked: Leaf
    pose: Leaf

    def unconditional(self, empty: Leaf) -> "EditConditions":
        """The other half of guidance: the empty prompt [1, l, d] and no pose; mask and masked person stay."""
        context = jnp.broadcast_to(empty, self.context.shape).astype(self.context.dtype)
        return self.replace(
            context=context,
            plain=None if self.plain is None else context,
            pose=None if self.pose is None else jnp.zeros_like(self.pose),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FashionRAG:
    """A static description, no arrays. Fields are what `model.json` and the parts' `config.json` hold.

    Attributes:
      image_size: (height, width) of the person's picture in pixels.
      guidance_scale, retrieved: defaults of serving; `retrieved` garments (N_r).
      prompt: see `systems/prompts.py`.
      visual_levels: levels of the U-Net whose cross-attention sees the garments, 0 the finest, the number of levels
        the middle block; None: all (F's released default). The others see the text alone.
      garment_fit: how a garment becomes the tower's square: `pad` with white, or `crop` as the released code does.
      mask_weight: of the loss inside the mask, added to F's mean over the whole picture; 0 is F's.
      normalisation, retrieval_normalisation: of the pictures of `image_encoder` and of retrieval's own tower.
    """

    unet: UNetConfig
    vae: VAEConfig
    text_encoder: CLIPTextConfig
    image_encoder: CLIPVisionConfig
    inversion: FThetaConfig
    schedule: NoiseSchedule
    image_size: tuple[int, int]
    retrieval_text_encoder: CLIPTextConfig | None = None
    retrieval_image_encoder: CLIPVisionConfig | None = None
    guidance_scale: float = 7.5
    retrieved: int = 3
    prompt: str = "template"
    visual_levels: tuple[int, ...] | None = None
    garment_fit: str = "pad"
    normalisation: str = "clip"
    retrieval_normalisation: str = "clip"
    snr_gamma: float = 0.0
    mask_weight: float = 0.0
    remat: Remat = "none"
    attention: Implementation = "auto"
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        latents, levels = self.vae.latent_channels, len(self.unet.block_out_channels)
        inputs = {2 * latents + 1, 2 * latents + 1 + POSE_CHANNELS}
        for name, got, need in (
            ("the U-Net's cross_attention_dim", self.unet.cross_attention_dim, {self.text_encoder.hidden_size}),
            ("the U-Net's input channels", self.unet.in_channels, inputs),
            ("the U-Net's output channels", self.unet.out_channels, {latents}),
            ("the U-Net's text_embed_dim", self.unet.text_embed_dim, {0}),
            ("F_theta's token_dim", self.inversion.token_dim, {self.text_encoder.hidden_size}),
            ("F_theta's hidden_size", self.inversion.hidden_size, {self.image_encoder.hidden_size}),
        ):
            if got not in need:
                raise UserError(f"FashionRAG: {name} is {got}, but must be {' or '.join(map(str, sorted(need)))}")
        for side in self.image_size:
            if side % (self.vae.factor * 2 ** (levels - 1)):
                raise UserError(
                    f"FashionRAG: pictures of {self.image_size[1]}x{self.image_size[0]} don't divide by "
                    f"{self.vae.factor * 2 ** (levels - 1)}"
                )
        if (self.retrieval_text_encoder is None) != (self.retrieval_image_encoder is None):
            raise UserError("FashionRAG: retrieval has two towers of its own, or none")
        text, image = self.retrieval_towers()
        if not text.with_projection or text.projection_dim != image.projection_dim:
            raise UserError(
                "FashionRAG: the towers that retrieve must project to one width; a text encoder without projection "
                "(SD 2's) needs retrieval_text_encoder and retrieval_image_encoder beside it"
            )
        if {self.normalisation, self.retrieval_normalisation} - NORMALISATIONS.keys():
            raise UserError(f"FashionRAG: normalisation must be one of {', '.join(NORMALISATIONS)}")
        if self.garment_fit not in ("pad", "crop"):
            raise UserError(f"FashionRAG: garment_fit {self.garment_fit!r} must be pad or crop")
        if self.visual_levels is not None and not set(self.visual_levels) <= set(range(levels + 1)):
            raise UserError(f"FashionRAG: visual_levels {self.visual_levels} must lie in 0 to {levels}")

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

    def retrieval_towers(self) -> tuple[CLIPTextConfig, CLIPVisionConfig]:
        """The configs of the towers that retrieve: their own, or those of the model."""
        return (
            self.retrieval_text_encoder or self.text_encoder,
            self.retrieval_image_encoder or self.image_encoder,
        )

    def configs(self) -> dict[str, Any]:
        """{part: its config}, in the order of the module's words."""
        parts = ("unet", "vae", "text_encoder", "image_encoder", "inversion")
        own = ("retrieval_text_encoder", "retrieval_image_encoder")
        return {part: getattr(self, part) for part in (*parts, *own) if getattr(self, part) is not None}

    def modules(self) -> dict[str, nn.Module]:
        """The networks by part."""
        kinds = {
            "unet": lambda config: UNet(config, remat=self.remat, attention=self.attention, dtype=self.dtype),
            "vae": lambda config: AutoencoderKL(config, self.dtype),
            "text_encoder": lambda config: CLIPTextModel(config, self.dtype),
            "image_encoder": lambda config: CLIPVisionModel(config, self.dtype),
            "inversion": lambda config: FTheta(config, self.dtype),
        }
        return {part: kinds[part.removeprefix("retrieval_")](config) for part, config in self.configs().items()}

    def init(self, key: jax.Array, parts: Collection[str] | None = None) -> dict[str, Any]:
        """Random parameters, boxed with their logical axes. Of `parts` only, if given."""
        modules, configs = self.modules(), self.configs()
        side = 2 ** (len(self.unet.block_out_channels) - 1)
        ids = jnp.zeros((1, 8), jnp.int32)

        def pixels(config):
            return jnp.zeros((1, config.image_size, config.image_size, 3))

        arguments = {
            "unet": lambda c: (
                jnp.zeros((1, side, side, c.in_channels)),
                jnp.zeros((1,), jnp.int32),
                jnp.zeros((1, 8, c.cross_attention_dim)),
            ),
            "vae": lambda c: (jnp.zeros((1, 2 * c.factor, 2 * c.factor, 3)),),
            "text_encoder": lambda c: (ids,),
            "image_encoder": lambda c: (pixels(c),),
            "inversion": lambda c: (jnp.zeros((1, 2, c.hidden_size)),),
        }
        keys = dict(zip(modules, jax.random.split(key, len(modules)), strict=True))
        wanted = modules if parts is None else [part for part in modules if part in parts]
        return {
            part: modules[part].init(keys[part], *arguments[part.removeprefix("retrieval_")](configs[part]))["params"]
            for part in wanted
        }

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

    def embed_text(self, params: Params, ids: Int[Array, "b l"]) -> Float[Array, "b p"]:
        """Unit vectors of queries, by the tower that retrieves (fp32)."""
        part = "retrieval_text_encoder" if self.retrieval_text_encoder else "text_encoder"
        return _unit(self._apply(params, part, ids).text_embeds)

    def embed_garments(self, params: Params, garments: Float[Array, "b s s 3"]) -> Float[Array, "b p"]:
        """Unit vectors of garments in [-1, 1], by the tower that retrieves (fp32)."""
        if self.retrieval_image_encoder is None:
            part, config, normalisation = "image_encoder", self.image_encoder, self.normalisation
        else:
            part, config = "retrieval_image_encoder", self.retrieval_image_encoder
            normalisation = self.retrieval_normalisation
        return _unit(self._apply(params, part, preprocess(garments, config.image_size, normalisation)).image_embeds)

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
    ) -> EditConditions:
        """Everything the sampler needs, once an image. `person` in [-1, 1], `mask` in {0, 1}, keypoints in its pixels.

        `plain`: the text alone, needed with `visual_levels`. `key`: draws the masked person's latents, as the released
        code does; None takes their mean. A `pose_gate` of 0 removes the pose: its maps are zero.
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
        )

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
        return self._apply(params, "unet", jnp.concatenate(pieces, axis=-1), timesteps, context).astype(jnp.float32)

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


def _unit(vectors: Float[Array, "b d"]) -> Float[Array, "b d"]:
    vectors = vectors.astype(jnp.float32)
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
