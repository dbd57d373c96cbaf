"""The sizes of Fashion-RAG: `tiny` for two cores, `sd2_inpaint` is the paper's (F 4.2 and its released code)."""

import dataclasses

from ragdiff_jax.diffusion.schedule import NoiseSchedule
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.clip_text import CLIPTextConfig
from ragdiff_jax.models.clip_vision import CLIPVisionConfig
from ragdiff_jax.models.ep_adapter import EPAdapterConfig
from ragdiff_jax.models.f_theta import FThetaConfig
from ragdiff_jax.models.unet_config import UNetConfig
from ragdiff_jax.models.vae import VAEConfig
from ragdiff_jax.systems.fashion_parts import POSE_CHANNELS
from ragdiff_jax.systems.fashion_rag import FashionRAG
from ragdiff_jax.systems.presets import TINY_SCHEDULE, TINY_TEXT, TINY_VAE

# Two thirds of RAGDiffusion's tiny widths: both systems ship in one package. No pooled text, as SD 2.
TINY_EDIT_UNET = UNetConfig(
    sample_size=16,
    in_channels=2 * TINY_VAE.latent_channels + 1 + POSE_CHANNELS,
    out_channels=TINY_VAE.latent_channels,
    block_out_channels=(32, 64),
    layers_per_block=1,
    transformer_layers=(1, 1),
    attention_heads=(1, 2),
    cross_attention_dim=TINY_TEXT.hidden_size,
    norm_num_groups=8,
    addition_time_embed_dim=0,
    text_embed_dim=0,
    down_attention=(True, True),
    up_attention=(True, True),
)
TINY_TOWER = CLIPVisionConfig(
    hidden_size=96,
    intermediate_size=384,
    projection_dim=TINY_TEXT.projection_dim,
    num_hidden_layers=3,
    num_attention_heads=3,
    image_size=64,
    patch_size=8,
)
# Eight words a garment: the tiny vocabulary needs up to 29 tokens for a caption.
TINY_F_THETA = FThetaConfig(
    hidden_size=96,
    intermediate_size=384,
    num_attention_heads=3,
    mlp_dim=96,
    num_tokens=8,
    token_dim=TINY_TEXT.hidden_size,
    dropout=0.0,
)

_SD2_TEXT = CLIPTextConfig(
    hidden_size=1024,
    intermediate_size=4096,
    projection_dim=512,
    num_hidden_layers=23,
    num_attention_heads=16,
    hidden_act="gelu",
    with_projection=False,
)
_VIT_H14 = CLIPVisionConfig(
    hidden_size=1280,
    intermediate_size=5120,
    projection_dim=1024,
    num_hidden_layers=32,
    num_attention_heads=16,
    image_size=224,
    patch_size=14,
    hidden_act="gelu",
)
# OpenCLIP ViT-L-14 of laion2b_s32b_b82k: quick_gelu is OpenAI's alone.
_LAION_L_TEXT = CLIPTextConfig(
    hidden_size=768,
    intermediate_size=3072,
    projection_dim=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    hidden_act="gelu",
)
_LAION_L_IMAGE = CLIPVisionConfig(
    hidden_size=1024,
    intermediate_size=4096,
    projection_dim=768,
    num_hidden_layers=24,
    num_attention_heads=16,
    image_size=224,
    patch_size=14,
    hidden_act="gelu",
)


def preset(name: str) -> FashionRAG:
    """The system of that name. Raises UserError naming those there are."""
    if name == "tiny":
        return FashionRAG(
            unet=TINY_EDIT_UNET,
            vae=TINY_VAE,
            text_encoder=TINY_TEXT,
            image_encoder=TINY_TOWER,
            inversion=TINY_F_THETA,
            schedule=TINY_SCHEDULE,
            image_size=(64, 64),
            guidance_scale=2.0,
            prompt="bare",
            window=0.6,
        )
    if name == "sd2_inpaint":
        return FashionRAG(
            unet=UNetConfig(
                sample_size=64,
                in_channels=9 + POSE_CHANNELS,
                out_channels=4,
                block_out_channels=(320, 640, 1280, 1280),
                layers_per_block=2,
                transformer_layers=(1, 1, 1, 1),
                attention_heads=(5, 10, 20, 20),
                cross_attention_dim=1024,
                addition_time_embed_dim=0,
                text_embed_dim=0,
                down_attention=(True, True, True, False),
                up_attention=(False, True, True, True),
            ),
            vae=VAEConfig(
                block_out_channels=(128, 256, 512, 512),
                layers_per_block=2,
                norm_num_groups=32,
                sample_size=512,
                latent_channels=4,
                scaling_factor=0.18215,
            ),
            text_encoder=_SD2_TEXT,
            image_encoder=_VIT_H14,
            inversion=FThetaConfig(),
            retrieval_text_encoder=_LAION_L_TEXT,
            retrieval_image_encoder=_LAION_L_IMAGE,
            schedule=NoiseSchedule(),
            image_size=(512, 384),
            retrieval_normalisation="half",
            garment_fit="crop",
            remat="block",
        )
    raise UserError(f"no Fashion-RAG preset named {name!r}; there are tiny, sd2_inpaint")


def without_pose(model: FashionRAG) -> FashionRAG:
    """The same before pose came (F's stage 1): the plain inpainting U-Net's input channels."""
    channels = 2 * model.vae.latent_channels + 1
    return dataclasses.replace(model, unet=dataclasses.replace(model.unet, in_channels=channels))


def with_image_prompt(model: FashionRAG) -> FashionRAG:
    """The baseline: the same with an image prompt in the words' place, as many queries as F_theta has words.

    At full size the adapter is IP-Adapter-plus' own: four layers of 20 heads of 64 on ViT-H's tokens.
    """
    tower = model.image_encoder
    dim_head = min(64, tower.hidden_size // tower.num_attention_heads)
    adapter = EPAdapterConfig(
        embed_dim=tower.hidden_size,
        dim=tower.hidden_size,
        depth=min(4, max(1, tower.num_hidden_layers - 1)),
        heads=tower.hidden_size // dim_head,
        dim_head=dim_head,
        num_queries=model.tokens,
    )
    return dataclasses.replace(model, inversion=None, image_adapter=adapter)
