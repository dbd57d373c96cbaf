"""Which tower, and which picture, serving shows its encoders: flat-lays the flat tower's, photos the photo tower's."""

import jax
import jax.numpy as jnp
import numpy as np
from quick import quick_jit
from small_model import draw_garment, random_params, small_system

from ragdiff_jax.data.attributes import attribute_ids
from ragdiff_jax.data.images import encode_png
from ragdiff_jax.data.pipeline import PairArrays
from ragdiff_jax.data.pixels import to_float
from ragdiff_jax.data.records import PairRecord
from ragdiff_jax.pipelines.generate import GarmentGenerator
from ragdiff_jax.pipelines.memory_builder import FlatLay, MemoryBuilder


def test_a_memory_is_built_by_the_flat_lays_tower():
    model = small_system()
    params = jax.tree.map(jnp.asarray, random_params(model))
    builder = MemoryBuilder(model.structure_net, params["structure_net"], size=32, batch_size=2)
    picture = np.asarray(draw_garment("red").resize((32, 32)))
    (item,) = builder.items([FlatLay(id="a", image=picture, attributes={"Category": "Hoodie"})])
    ids = jnp.asarray(attribute_ids({"Category": "Hoodie"}))[None]
    images = to_float(jnp.asarray(picture[None]))
    embed = quick_jit(model.embed, static_argnames="tower")
    flat, photo = (embed(params, images, ids, tower=tower) for tower in ("flat", "photo"))
    np.testing.assert_allclose(item.embedding, flat[0], atol=1e-5)
    assert np.abs(flat - photo).max() > 1e-3


def test_a_photo_is_squared_in_serving_as_in_training():
    class Words:
        def encode(self, texts):
            return np.zeros((len(texts), 4), np.int32)

    picture = np.random.default_rng(0).integers(0, 256, (12, 24, 3), np.uint8)
    record = PairRecord(id="a", photo=encode_png(picture), flat=encode_png(np.asarray(draw_garment("red"))))
    trained = PairArrays([record], image_size=32, tokenizer=Words())[0]["photo"]
    generator = object.__new__(GarmentGenerator)
    generator.batch_size, generator.model, generator.tokenizers = 2, small_system(), (Words(),)
    photos, _, _ = generator._batch([picture], None, None)
    np.testing.assert_array_equal(photos[0], trained)
