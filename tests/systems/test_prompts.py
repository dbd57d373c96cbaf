"""Fashion-RAG's prompts: what they say, how many tokens stand where, and which captions leave no room."""

import numpy as np
import pytest

from ragdiff_jax.data.tokenizer import train_tokenizer
from ragdiff_jax.errors import UserError
from ragdiff_jax.systems.prompts import Prompts


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    words = ["a photo of a model wearing an upper body garment made of a dress"] * 3
    return train_tokenizer(words, 640, tmp_path_factory.mktemp("prompts"))


@pytest.mark.parametrize(
    "kind, caption, garments, text",
    [
        ("template", "red top", 2, "a photo of a model wearing an upper body garment made of"),
        ("template", "red top", 0, "a photo of a model wearing an upper body garment. red top"),
        ("template", "", 0, "a photo of a model wearing an upper body garment"),
        ("caption", "red top", 2, "red top."),
        ("caption", "red top", 0, "a photo of a model wearing an upper body garment. red top"),
        ("bare", "red top", 0, "red top."),
        ("bare", "", 2, ""),
    ],
)
def test_each_kind_says_what_it_should(tokenizer, kind, caption, garments, text):
    assert Prompts(kind=kind, tokenizer=tokenizer, tokens=16).text(caption, "upper_body", garments) == text


def test_the_placeholder_is_a_token_of_its_own(tokenizer):
    prompts = Prompts(kind="template", tokenizer=tokenizer, tokens=16)
    pieces = tokenizer.tokens("a dress made of $ $ $")
    assert pieces.count("$</w>") == 3
    ids = tokenizer.encode(["a dress $"])[0]
    assert prompts.placeholder == ids[list(tokenizer.tokens("a dress $")).index("$</w>")]


def test_three_garments_fit_and_four_do_not(tokenizer):
    """F: 48 visual tokens of 77; the fourth garment would push the end out."""
    prompts = Prompts(kind="template", tokenizer=tokenizer, tokens=16)
    assert prompts.encode(["x"], ["upper_body"], 3).shape == (1, 77)
    with pytest.raises(UserError, match="4 garments need 64 of 77"):
        prompts.encode(["x"], ["upper_body"], 4)
    with pytest.raises(UserError, match="use at most 4, or pool"):
        prompts.encode(["x"], ["dresses"], 5)


def test_a_long_caption_is_refused_in_serving_and_cut_in_training(tokenizer):
    prompts = Prompts(kind="caption", tokenizer=tokenizer, tokens=16)
    caption = "zigzag " * 8
    with pytest.raises(UserError, match="48 of 77; shorten it, use at most 1 garments"):
        prompts.encode([caption], ["dresses"], 3)
    ids = prompts.encode([caption], ["dresses"], 3, cut=True)[0]
    assert ids[28] == tokenizer.eos_id and (ids[29:] == tokenizer.pad_id).all()
    np.testing.assert_array_equal(ids[:28], tokenizer.encode([caption])[0, :28])
    endless = "zigzag " * 80  # too long for the text alone
    assert tokenizer.length(endless) > 400
    for tokens in (16, 0):  # 0: the garments are an image prompt, beside the text
        with pytest.raises(UserError, match="of 77; shorten it$"):
            Prompts(kind="template", tokenizer=tokenizer, tokens=tokens).encode([endless], ["dresses"], 0)


def test_an_unknown_kind_is_named(tokenizer):
    with pytest.raises(UserError, match="prompt 'poem'"):
        Prompts(kind="poem", tokenizer=tokenizer, tokens=16)
