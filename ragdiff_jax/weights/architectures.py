"""The published architectures by name, as their own `config.json` says them: for checkpoints that come without one.

`ragdiff weights import unet.pth --kind unet --config fashion-rag`. Each is what diffusers, transformers or the papers'
code builds; the tests hold the names and shapes of all their tensors against diffusers and transformers.
"""

from collections.abc import Mapping
from typing import Any

_DOWN = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
_UP = ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3

_SD1 = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "attention_head_dim": 8,  # the number of heads, in spite of its name
    "cross_attention_dim": 768,
    "down_block_types": _DOWN,
    "up_block_types": _UP,
}
_SD2 = _SD1 | {"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "use_linear_projection": True}
_SDXL = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280],
    "layers_per_block": 2,
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}
_VAE = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
_FLUX = {
    "latent_channels": 16,
    "sample_size": 1024,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}


def _text(width: int, layers: int, heads: int, act: str, projection: int, projected: bool = True) -> dict[str, Any]:
    return {
        "architectures": ["CLIPTextModelWithProjection" if projected else "CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_act": act,
        "projection_dim": projection,
        "eos_token_id": 49407,
    }


def _vision(width: int, hidden: int, layers: int, heads: int, act: str, projection: int) -> dict[str, Any]:
    return {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_act": act,
        "projection_dim": projection,
        "image_size": 224,
        "patch_size": 14,
    }


def _dinov2(width: int, layers: int, heads: int, swiglu: bool = False) -> dict[str, Any]:
    return {
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": 518,
        "patch_size": 14,
        "use_swiglu_ffn": swiglu,
    }


# IP-Adapter-plus of SDXL: 16 queries of 20 heads over ViT-H's tokens, keys and values at all of SDXL's 70 sites.
_IP_ADAPTER = {
    "_class_name": "EPAdapter",
    "embed_dim": 1280,
    "dim": 1280,
    "depth": 4,
    "heads": 20,
    "dim_head": 64,
    "num_queries": 16,
    "ff_mult": 4,
    "unet": _SDXL,
}
# F_theta of LaDI-VTON and Fashion-RAG: one ViT-H layer, then an MLP to 16 tokens of SD 2's text width.
_F_THETA = {
    "_class_name": "InversionAdapter",
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 16,
    "num_hidden_layers": 1,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "mlp_dim": 5120,
    "num_tokens": 16,
    "token_dim": 1024,
}

ARCHITECTURES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "unet": {
        "sd1": _SD1,
        "sd2": _SD2,
        "sd2-inpainting": _SD2 | {"in_channels": 9},
        "sdxl": _SDXL,
        "fashion-rag": _SD2 | {"in_channels": 27},  # 9 of inpainting and 18 pose maps
        "ladi-vton": _SD2 | {"in_channels": 31},  # and 4 of the warped garment
    },
    "vae": {
        "sd": _VAE | {"sample_size": 512, "scaling_factor": 0.18215},
        "sdxl": _VAE | {"sample_size": 1024, "scaling_factor": 0.13025},
        "flux": _VAE | _FLUX,
    },
    "clip-text": {
        "vit-l": _text(768, 12, 12, "quick_gelu", 768, projected=False),  # as SD 1 and SDXL take it
        "vit-h": _text(1024, 24, 16, "gelu", 1024),
        "vit-h-sd2": _text(1024, 23, 16, "gelu", 512, projected=False),  # SD 2 leaves the last layer out
        "bigg": _text(1280, 32, 20, "gelu", 1280),
    },
    "clip-vision": {
        "vit-l": _vision(1024, 4096, 24, 16, "quick_gelu", 768),
        "vit-h": _vision(1280, 5120, 32, 16, "gelu", 1024),
    },
    "dinov2": {
        "small": _dinov2(384, 12, 6),
        "base": _dinov2(768, 12, 12),
        "large": _dinov2(1024, 24, 16),
        "giant": _dinov2(1536, 40, 24, swiglu=True),
    },
    "ip-adapter": {"plus-sdxl": _IP_ADAPTER},
    "f-theta": {"vit-h": _F_THETA},
}
