"""A whole Fashion-RAG with random weights that compiles in seconds."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from flax import linen as nn

from ragdiff_jax.data.tokenizer import train_tokenizer
from ragdiff_jax.systems.fashion_rag import FashionRAG
from ragdiff_jax.weights.fashion_folder import abstract_fashion, save_fashion


def small_fashion(**changes) -> FashionRAG:
    """The tiny preset, cut down to 32 pixels; four words a garment."""
    tiny, change = FashionRAG.from_config("tiny"), dataclasses.replace
    text = change(
        tiny.text_encoder,
        vocab_size=600,
        hidden_size=32,
        intermediate_size=32,
        projection_dim=32,
        num_hidden_layers=1,
        bos_token_id=598,
        eos_token_id=599,
        pad_token_id=599,
    )
    tower = change(
        tiny.image_encoder,
        hidden_size=32,
        intermediate_size=32,
        projection_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
    )
    words = change(
        tiny.inversion,
        hidden_size=32,
        intermediate_size=32,
        num_attention_heads=2,
        mlp_dim=16,
        num_tokens=4,
        token_dim=32,
    )
    unet = change(
        tiny.unet,
        block_out_channels=(16,),
        transformer_layers=(1,),
        attention_heads=(2,),
        down_attention=(True,),
        up_attention=(False,),
        cross_attention_dim=32,
        norm_num_groups=4,
    )
    vae = change(tiny.vae, block_out_channels=(8, 8, 8), norm_num_groups=2)
    parts = dict(text_encoder=text, image_encoder=tower, inversion=words, unet=unet, vae=vae)
    return change(tiny, image_size=(32, 32), **(parts | changes))


def random_fashion(model: FashionRAG, seed: int = 0):
    """Random numbers in the place of `init`, which would have to be compiled."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        scale = 1.0 if path[-1].key == "scale" else 0.0
        return np.asarray(scale + rng.normal(size=leaf.shape) * 0.1, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, nn.meta.unbox(abstract_fashion(model)))


def small_tokenizer(folder: Path):
    """Its 600 tokens are the small text encoder's."""
    return train_tokenizer(["a red shirt in navy", "a blue hoodie"], 600, folder)


def save_small(base: Path, model: FashionRAG | None = None, name: str = "fashion") -> Path:
    """A model folder under `base`; what another `model` shares with the small one has its weights."""
    model = model or small_fashion()
    if not (base / "fashion_tokenizer").is_dir():
        small_tokenizer(base / "fashion_tokenizer")
    params = random_fashion(model) | random_fashion(small_fashion())
    save_fashion(base / name, model, params, base / "fashion_tokenizer")
    return base / name
