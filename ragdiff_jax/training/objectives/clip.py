"""Stage `clip`: the tiny world's own CLIP, pictures against captions.

A sample is the photo or the flat-lay of a pair, half each, and the pair's caption; symmetric InfoNCE over the global
batch with a learned temperature (arXiv 2103.00020), or the sigmoid loss (arXiv 2303.15343). Pairs with the same caption
are no negatives of each other.
With `parts.text_encoder` and `trainable` "^image_encoder/|logit_scale" the text tower is locked (arXiv 2111.07991): a
picture tower for a text encoder that a model has already.
"""

import dataclasses
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ragdiff_jax.data.augment import augment_photo, draw
from ragdiff_jax.data.pixels import to_float
from ragdiff_jax.models.clip_text import CLIPTextConfig, CLIPTextModel, eos_position
from ragdiff_jax.models.clip_vision import CLIPVisionConfig, CLIPVisionModel, preprocess
from ragdiff_jax.models.layers import dense_init
from ragdiff_jax.models.unit_length import unit
from ragdiff_jax.training.large_batch import micro_batched
from ragdiff_jax.training.objectives.common import LARGEST_LOGIT_SCALE, PairObjective, at_most, load_parts
from ragdiff_jax.training.objectives.contrastive import PairLoss, text_names
from ragdiff_jax.weights.folder import ModelFile, save_part, write_model_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPObjective(PairObjective):
    """Attributes:
    text, vision: the towers; both must project to one width.
    tokenizer: folder copied into the model folder.
    text_length: ids seen in training. Attention is causal and the text is read at its end token, so that cutting the
      padding behind the longest caption changes nothing but the time.
    contrast: `info_nce`, or `sigmoid`, which also learns a bias (both start where the papers do).
    micro_batches: the towers see a batch in this many parts, which takes their memory down and leaves the gradient that
      of the whole batch (GradCache).
    tile, method: of the loss, see `large_batch.info_nce`.
    parts: folder of each tower that starts from given weights.
    photo_share: chance that a sample is the photo, not the flat-lay.
    """

    text: CLIPTextConfig
    vision: CLIPVisionConfig
    tokenizer: str
    text_length: int = 77
    contrast: str = "info_nce"
    micro_batches: int = 1
    tile: int = 1024
    method: str = "auto"
    parts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    photo_share: float = 0.5
    trainable: str = "."
    rows_interact: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("photo", "flat", "text_ids", "row")

    @property
    def pair_loss(self) -> PairLoss:
        return PairLoss(loss=self.contrast, symmetric=True, tile=self.tile, method=self.method)

    def init(self, key):
        text_key, vision_key = jax.random.split(key)
        side = self.vision.image_size

        def number(value):
            return dense_init((), lambda key, shape: jnp.full(shape, value))(key, ())

        sigmoid = self.pair_loss.loss == "sigmoid"
        tree = {
            "text_encoder": CLIPTextModel(self.text).init(text_key, jnp.zeros((1, 8), jnp.int32))["params"],
            "image_encoder": CLIPVisionModel(self.vision).init(vision_key, jnp.zeros((1, side, side, 3)))["params"],
            "logit_scale": number(math.log(10.0 if sigmoid else 1 / 0.07)),
        }
        return tree | ({"logit_bias": number(-10.0)} if sigmoid else {})

    def restore_parts(self, params):
        return load_parts(params, self.parts)

    def embed_images(self, params, images):
        pixels = preprocess(images, self.vision.image_size)
        return unit(CLIPVisionModel(self.vision).apply({"params": params["image_encoder"]}, pixels).image_embeds)

    def embed_text(self, params, ids):
        end = eos_position(self.text, ids)[:, None]
        short = ids[:, : self.text_length]
        # A text that is cut ends where it is cut: without an end all of these would be read at their start, as one.
        last = jnp.where(end < short.shape[1], short[:, -1:], jnp.take_along_axis(ids, end, axis=1))
        ids = jnp.concatenate([short[:, :-1], last], axis=1)
        return unit(CLIPTextModel(self.text).apply({"params": params["text_encoder"]}, ids).text_embeds)

    def _embed_rows(self, params, rows):
        """(pictures, texts) of rows whose randomness is drawn."""
        pictures = jnp.where(rows["shows_photo"][:, None, None, None], rows["photo"], rows["flat"])
        images = augment_photo(rows["draws"], to_float(pictures))
        return self.embed_images(params, images), self.embed_text(params, rows["text_ids"])

    def loss(self, params, constants, batch, key):
        pick, augment = jax.random.split(key)
        b = batch["photo"].shape[0]
        rows = {name: batch[name] for name in ("photo", "flat", "text_ids")}
        rows["shows_photo"] = jax.random.bernoulli(pick, self.photo_share, (b,))
        # Hue stays: the caption names colours.
        rows["draws"] = draw(augment, b, hue_probability=0.0)
        image, text = micro_batched(self._embed_rows, self.micro_batches)(params, rows)
        scale = jnp.exp(at_most(params["logit_scale"], LARGEST_LOGIT_SCALE))
        names = text_names(batch["text_ids"])
        bias = params.get("logit_bias", jnp.zeros(()))
        losses, accuracy = self.pair_loss(image, text, scale, bias, query_ids=names, key_ids=names, match="all")
        return losses, {"accuracy": accuracy, "scale": scale}

    def validation(self, params, constants, key):
        arrays = self.held_out or self.pairs
        batch = arrays.batch(np.arange(min(128, len(arrays))))

        def recalls(params, ids, pictures):
            text = self.embed_text(params, ids)
            found = {name: self.embed_images(params, to_float(images)) @ text.T for name, images in pictures.items()}
            return {name: (jnp.argmax(x, axis=1) == jnp.arange(len(ids))).mean() for name, x in found.items()}

        pictures = {name: batch[name] for name in ("photo", "flat")}
        found = self.program("recalls", recalls)(params, batch["text_ids"], pictures)
        return {f"{name}_recall_at_1_of_128": float(right) for name, right in found.items()}

    def export(self, params, directory: Path):
        text = self.text.to_dict() | {"architectures": ["CLIPTextModelWithProjection"]}
        save_part(directory / "text_encoder", text, params["text_encoder"])
        save_part(directory / "image_encoder", self.vision.to_dict(), params["image_encoder"])
        if jax.process_index() == 0:
            shutil.copytree(self.tokenizer, directory / "tokenizer")
            parts = {"text_encoder": "CLIPTextModelWithProjection", "image_encoder": "CLIPVisionModelWithProjection"}
            scale = float(np.exp(np.minimum(params["logit_scale"], LARGEST_LOGIT_SCALE)))
            write_model_json(directory, ModelFile(system="clip", parts=parts, settings={"logit_scale": scale}))
