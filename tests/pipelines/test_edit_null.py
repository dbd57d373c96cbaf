"""What an edit shows of its garments, and that nothing is left of them where all are rejected."""

import dataclasses

import numpy as np
from small_fashion import random_fashion, small_fashion, small_tokenizer

from ragdiff_jax.cli.edit import edit_record
from ragdiff_jax.pipelines.edit import Person, PersonEditor
from ragdiff_jax.systems.fashion_presets import with_image_prompt


def test_rejected_garments_leave_the_text_alone(tmp_path):
    """Neither an image prompt nor ReferenceNet's keys and values; the small random tower likes no garment much."""
    model = dataclasses.replace(with_image_prompt(small_fashion()), reference_net=True)
    rng = np.random.default_rng(0)
    mask = np.zeros((32, 32), bool)
    mask[8:24, 6:26] = True
    image, *garments = (rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(3))
    person = Person(image=image, mask=mask, category="upper_body", text="a red shirt")
    dressed = dataclasses.replace(person, garments=(("one", garments[0]), ("two", garments[1])))
    editor = PersonEditor(model, random_fashion(model), small_tokenizer(tmp_path), batch_size=1)

    def edit(one, floor=None):
        editor.reject_below = floor
        (result,) = editor.edit([one], retrieve=0, steps=1)
        return result

    alone, seen, rejected = edit(person), edit(dressed), edit(dressed, floor=1.0)
    assert edit_record(seen)["detail"] == "one" and edit_record(alone)["detail"] is None
    assert seen.prompt == "a red shirt."  # no words: an image prompt
    assert (seen.image != alone.image).any()
    assert rejected.detail is None and not any(garment.weight for garment in rejected.garments)
    assert any("the text alone was used" in warning for warning in rejected.warnings)
    assert np.abs(rejected.image.astype(int) - alone.image).max() <= 1
