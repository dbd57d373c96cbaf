"""A whole RAGDiffusion with random weights that compiles in seconds: folder and memory, written once."""

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
from flax import linen as nn
from PIL import Image, ImageDraw

from ragdiff_jax.data.tokenizer import train_tokenizer
from ragdiff_jax.systems.ragdiffusion import RAGDiffusion
from ragdiff_jax.weights.model_folder import abstract_params, save_model

IDS = ("black", "blue", "green", "red", "white")


def small_system() -> RAGDiffusion:
    """The tiny preset, cut down to 32 pixels; attention on the way down and in the middle, where ReferenceNet ends."""
    tiny = RAGDiffusion.from_config("tiny")
    change = dataclasses.replace
    text = change(tiny.text_encoders[0], hidden_size=32, intermediate_size=32, projection_dim=32, num_hidden_layers=1)
    vision = change(
        tiny.structure_net.vision,
        hidden_size=32,
        intermediate_size=32,
        projection_dim=32,
        num_hidden_layers=2,
        image_size=16,
    )
    return change(
        tiny,
        image_size=32,
        text_encoders=(text,),
        structure_net=change(
            tiny.structure_net,
            vision=vision,
            dim=32,
            depth=1,
            embed_dim=32,
            photo_stages=((8, 0), (16, 1)),
            photo_size=16,
        ),
        ep_adapter=change(tiny.ep_adapter, embed_dim=32, dim=32, depth=1, num_queries=2),
        unet=change(
            tiny.unet,
            block_out_channels=(16,),
            transformer_layers=(1,),
            attention_heads=(2,),
            down_attention=(True,),
            up_attention=(False,),
            cross_attention_dim=32,
            text_embed_dim=32,
            norm_num_groups=4,
        ),
        landmark_guider=change(tiny.landmark_guider, features=16, strides=(1, 1, 2, 2)),
        vae=change(tiny.vae, block_out_channels=(8, 8, 8), norm_num_groups=2),
    )


def random_params(model: RAGDiffusion, seed: int = 0):
    """Random numbers in the place of `init`, which would have to be compiled."""
    rng = np.random.default_rng(seed)
    shapes = nn.meta.unbox(abstract_params(model))

    def fill(path, leaf):
        scale = 1.0 if path[-1].key == "scale" else 0.0
        return np.asarray(scale + rng.normal(size=leaf.shape) * 0.1, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def draw_garment(colour: str, width: int = 20, size: int = 48) -> Image.Image:
    """A blunt T-shirt on white."""
    picture = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle(((size - width) // 2, 10, (size + width) // 2, 42), fill=colour)
    draw.rectangle((6, 10, size - 6, 18), fill=colour)
    return picture


@functools.cache
def small_world(base: Path) -> tuple[Path, Path, Path]:
    """(model folder, memory, folder of its flat-lays) under `base`."""
    from ragdiff_jax.cli.main import main

    flats = base / "flats"
    flats.mkdir()
    for number, colour in enumerate(IDS):
        shade = (230, 230, 230) if colour == "white" else colour
        draw_garment(shade, width=12 + 4 * number).save(flats / f"{colour}.png")
    model = small_system()
    train_tokenizer(["a red shirt", "a blue hoodie"], 600, base / "tokenizer")
    save_model(base / "model", model, random_params(model), [base / "tokenizer"])
    assert (
        main(
            [
                "memory",
                "build",
                "--out",
                str(base / "memory"),
                "--flats",
                str(flats),
                "--model",
                str(base / "model"),
            ]
        )
        == 0
    )
    return base / "model", base / "memory", flats
