"""Prompts: what CLIP is asked must tell the values apart."""

import pytest

from ragdiff_jax.data.attributes import ATTRIBUTES, STRUCTURAL
from ragdiff_jax.data.wording import UNSAID, applies, prompts, sentence


@pytest.mark.parametrize("name", STRUCTURAL)
def test_every_value_has_prompts_of_its_own(name):
    said = [value for value in ATTRIBUTES[name] if (name, value) not in UNSAID]
    assert len({tuple(prompts("Hoodie", name, value)) for value in said}) == len(said)


def test_prompts_are_sentences_as_captions_are():
    assert prompts("Hoodie", "Sleeve Length", "Long")[0] == "a photo of a long sleeve plain hoodie in black"
    assert prompts("Hoodie", "Category", "Shorts")[0] == "a photo of a pair of plain shorts in black"
    seen = {"Sleeve Length": "Short", "Print": "Striped", "Fit": "Slim", "Collar": "Round", "Top Open": "Yes"}
    assert sentence("T-shirt", seen, ("navy", "white")) == (
        "a photo of a short sleeve striped t-shirt in navy and white, slim fit, round neck, open front"
    )


def test_a_bottom_is_not_asked_for_its_collar():
    assert not applies("Trousers", "Collar") and not applies("Skirt", "Sleeve Length")
    assert applies("Trousers", "Fit") and applies("Dress", "Collar")
