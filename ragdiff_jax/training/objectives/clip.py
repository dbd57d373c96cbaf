"""Stage `clip`: the tiny world's own CLIP, pictures against captions.

A sample is the photo or the flat-lay of a pair, half each, and the pair's caption; symmetric InfoNCE over the global
batch with a learned temperature (arXiv 2103.00020). Pairs with the same caption are no negatives of each other.
"""

import dataclasses
import math
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ragdiff_jax.data.augment import augment_photo, draw
from ragdiff_jax.data.pixels import to_float
from ragdiff_jax.models.clip_text import CLIPTextConfig, CLIPTextModel
from ragdiff_jax.models.clip_vision import CLIPVisionConfig, CLIPVisionModel, preprocess
from ragdiff_jax.models.layers import dense_init
from ragdiff_jax.training.objectives.common import PairObjective
from ragdiff_jax.training.objectives.contrastive import info_nce, unit
from ragdiff_jax.weights.folder import ModelFile, save_part, write_model_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPObjective(PairObjective):
    """Attributes:
    text, vision: the towers; both must project to one width.
    tokenizer: folder copied into the model folder.
    text_length: ids seen in training. Attention is causal and the text is read at its end token, so that cutting the
      padding behind the longest caption changes nothing but the time.
    """

    text: CLIPTextConfig
    vision: CLIPVisionConfig
    tokenizer: str
    text_length: int = 77
    trainable: str = "."

    def init(self, key):
        text_key, vision_key = jax.random.split(key)
        side = self.vision.image_size
        scale = dense_init((), lambda key, shape: jnp.full(shape, math.log(1 / 0.07)))
        return {
            "text_encoder": CLIPTextModel(self.text).init(text_key, jnp.zeros((1, 8), jnp.int32))["params"],
            "image_encoder": CLIPVisionModel(self.vision).init(vision_key, jnp.zeros((1, side, side, 3)))["params"],
            "logit_scale": scale(key, ()),
        }

    def embed_images(self, params, images):
        pixels = preprocess(images, self.vision.image_size)
        return unit(CLIPVisionModel(self.vision).apply({"params": params["image_encoder"]}, pixels).image_embeds)

    def embed_text(self, params, ids):
        ids = ids[:, : self.text_length]
        return unit(CLIPTextModel(self.text).apply({"params": params["text_encoder"]}, ids).text_embeds)

    def loss(self, params, constants, batch, key):
        pick, augment = jax.random.split(key)
        b = batch["photo"].shape[0]
        photo = jax.random.bernoulli(pick, 0.5, (b, 1, 1, 1))
        # Hue stays: the caption names colours.
        draws = draw(augment, b, hue_probability=0.0)
        images = augment_photo(draws, to_float(jnp.where(photo, batch["photo"], batch["flat"])))
        image, text = self.embed_images(params, images), self.embed_text(params, batch["text_ids"])
        scale = jnp.exp(jnp.minimum(params["logit_scale"], math.log(100.0)))
        ids = batch["text_ids"]
        same = (ids[:, None] == ids[None]).all(-1) & ~jnp.eye(b, dtype=bool)
        there, accuracy = info_nce(image, text, scale, same)
        back, _ = info_nce(text, image, scale, same)
        return (there + back) / 2, {"accuracy": accuracy, "scale": scale}

    def validation(self, params, constants, key):
        arrays = self.held_out or self.pairs
        batch = arrays.batch(np.arange(min(128, len(arrays))))
        image = self.embed_images(params, to_float(batch["photo"]))
        text = self.embed_text(params, batch["text_ids"])
        right = jnp.argmax(image @ text.T, axis=1) == jnp.arange(image.shape[0])
        return {"recall_at_1_of_128": float(right.mean())}

    def export(self, params, directory: Path):
        text = self.text.to_dict() | {"architectures": ["CLIPTextModelWithProjection"]}
        save_part(directory / "text_encoder", text, params["text_encoder"])
        save_part(directory / "image_encoder", self.vision.to_dict(), params["image_encoder"])
        if jax.process_index() == 0:
            shutil.copytree(self.tokenizer, directory / "tokenizer")
            parts = {"text_encoder": "CLIPTextModelWithProjection", "image_encoder": "CLIPVisionModelWithProjection"}
            scale = float(np.exp(params["logit_scale"]))
            write_model_json(directory, ModelFile(system="clip", parts=parts, settings={"logit_scale": scale}))
