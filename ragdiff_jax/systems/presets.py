"""The sizes that ship: `tiny` for two cores, `small` (128 px) for a card, `sdxl` and `sdxl_flux` are the paper's."""

import dataclasses

from ragdiff_jax.diffusion.schedule import NoiseSchedule
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.clip_text import CLIPTextConfig
from ragdiff_jax.models.clip_vision import CLIPVisionConfig
from ragdiff_jax.models.ep_adapter import EPAdapterConfig
from ragdiff_jax.models.landmark_guider import LandmarkGuiderConfig
from ragdiff_jax.models.structure_net import StructureNetConfig
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.models.vae import VAEConfig
from ragdiff_jax.systems.ragdiffusion import RAGDiffusion

# Ids of the ten structural attributes, id 0 (unknown) included: `data.attributes.ATTRIBUTE_SIZES`, held equal by a
# test.
ATTRIBUTE_SIZES = (30, 4, 18, 6, 24, 7, 3, 3, 3, 3)

# 64 px and a factor of 4, not 128 px and 8: two cores can't train the deeper one. Eight channels, because four go to
# brightness and its slopes before they reach the second axis of hue (docs/tiny.md).
TINY_VAE = VAEConfig(
    block_out_channels=(16, 32, 64),
    layers_per_block=1,
    latent_channels=8,
    norm_num_groups=4,
    sample_size=64,
)
SMALL_VAE = VAEConfig(
    block_out_channels=(32, 48, 64, 96),
    layers_per_block=1,
    latent_channels=16,
    norm_num_groups=8,
    sample_size=128,
)
TINY_TEXT = CLIPTextConfig(
    vocab_size=768,
    hidden_size=128,
    intermediate_size=512,
    projection_dim=128,
    num_hidden_layers=4,
    num_attention_heads=4,
    bos_token_id=766,
    eos_token_id=767,
    pad_token_id=767,
)
TINY_VISION = CLIPVisionConfig(
    hidden_size=128,
    intermediate_size=512,
    projection_dim=128,
    num_hidden_layers=6,
    num_attention_heads=4,
    image_size=96,
    patch_size=8,
)
TINY_STRUCTURE_NET = StructureNetConfig(
    vision=TINY_VISION,
    attribute_sizes=ATTRIBUTE_SIZES,
    attribute_dim=8,
    dim=128,
    depth=2,
    heads=4,
    dim_head=32,
    embed_dim=128,
    photo_stages=((48, 0), (96, 2), (160, 4)),
    photo_size=64,
    photo_mirrored=True,
    reads_attributes=True,
)
TINY_UNET = UNetConfig(
    sample_size=16,
    in_channels=8,
    out_channels=8,
    block_out_channels=(48, 96),
    layers_per_block=1,
    transformer_layers=(1, 2),
    attention_heads=(1, 2),
    cross_attention_dim=128,
    norm_num_groups=12,
    addition_time_embed_dim=16,
    text_embed_dim=128,
    down_attention=(True, True),
    up_attention=(True, True),
)
SMALL_UNET = dataclasses.replace(
    TINY_UNET,
    in_channels=16,
    out_channels=16,
    block_out_channels=(64, 128),
    transformer_layers=(1, 1),
    norm_num_groups=16,
)
# v prediction at zero terminal SNR: the white of a flat-lay is learned, not guessed from a grey start.
TINY_SCHEDULE = NoiseSchedule(
    prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", steps_offset=0
)

_CLIP_L = CLIPTextConfig(
    vocab_size=49408,
    hidden_size=768,
    intermediate_size=3072,
    projection_dim=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    eos_token_id=2,
    with_projection=False,
)
_CLIP_BIG_G = CLIPTextConfig(
    vocab_size=49408,
    hidden_size=1280,
    intermediate_size=5120,
    projection_dim=1280,
    num_hidden_layers=32,
    num_attention_heads=20,
    hidden_act="gelu",
    eos_token_id=2,
)
_VIT_L14 = CLIPVisionConfig(
    hidden_size=1024,
    intermediate_size=4096,
    projection_dim=768,
    num_hidden_layers=24,
    num_attention_heads=16,
    image_size=224,
    patch_size=14,
)
_SD_VAE = dict(block_out_channels=(128, 256, 512, 512), layers_per_block=2, norm_num_groups=32, sample_size=1024)


def preset(name: str) -> RAGDiffusion:
    """The system of that name. Raises UserError naming those there are."""
    if name in ("tiny", "small"):
        small = name == "small"
        return RAGDiffusion(
            guidance_scale=1.5,
            sampler="ddpm",
            landmark_candidates=256,
            unet=SMALL_UNET if small else TINY_UNET,
            vae=SMALL_VAE if small else TINY_VAE,
            text_encoders=(TINY_TEXT,),
            structure_net=TINY_STRUCTURE_NET,
            ep_adapter=EPAdapterConfig(embed_dim=128, dim=128, depth=2, heads=4, dim_head=32, num_queries=8),
            landmark_guider=LandmarkGuiderConfig(
                features=64 if small else 48, strides=(1, 2, 2, 2) if small else (1, 1, 2, 2)
            ),
            schedule=TINY_SCHEDULE,
            image_size=128 if small else 64,
        )
    if name in ("sdxl", "sdxl_flux"):
        flux = name == "sdxl_flux"
        vae = (
            VAEConfig(
                **_SD_VAE, latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159,
                use_quant_conv=False, use_post_quant_conv=False,
            )
            if flux
            else VAEConfig(**_SD_VAE, latent_channels=4, scaling_factor=0.13025)
        )  # fmt: skip
        channels = vae.latent_channels
        return RAGDiffusion(
            unet=UNetConfig(in_channels=channels, out_channels=channels),
            vae=vae,
            text_encoders=(_CLIP_L, _CLIP_BIG_G),
            structure_net=StructureNetConfig(vision=_VIT_L14, attribute_sizes=ATTRIBUTE_SIZES),
            ep_adapter=EPAdapterConfig(),
            landmark_guider=LandmarkGuiderConfig(),
            schedule=NoiseSchedule(),
            image_size=768,
            remat="block",
        )
    raise UserError(f"no preset named {name!r}; there are tiny, small, sdxl, sdxl_flux")
