"""Kept encodings give the stage from captions the same step as the pictures do."""

import jax
import jax.numpy as jnp
import numpy as np
from quick import quick_jit
from small_model import random_params, small_system

from ragdiff_jax.data.pipeline import PairShapes
from ragdiff_jax.training.objectives.text_to_image import TextToImageObjective


def test_what_is_kept_stands_for_pictures_and_captions():
    model, length = small_system(), 77
    objective = TextToImageObjective(
        model=model, parts={}, empty_ids=(3,) + (0,) * (length - 1), text_dropout=0.5, pairs=PairShapes(32, 77)
    )
    params = random_params(model)
    rng = np.random.default_rng(0)
    batch = {
        "flat": rng.integers(0, 256, (4, model.image_size, model.image_size, 3)).astype(np.uint8),
        "text_ids": rng.integers(1, 100, (4, length)).astype(np.int32),
        "row": np.arange(4, dtype=np.int32),
    }

    def both(params, batch, key):
        kept = objective.encode(params, {}, batch, key) | {"row": batch["row"]}
        drawn = objective.draw(params, batch, key)[:2]
        return drawn, objective.draw(params, kept, key, objective.empty_text(params, {}))[:2]

    seen, kept = quick_jit(both)(params, batch, jax.random.key(1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), kept, seen)
    texts = seen[0].text.context
    assert 0 < int((jnp.abs(texts - texts[0]).max((1, 2)) > 1e-3).sum()) < 4  # some captions were dropped, not all
