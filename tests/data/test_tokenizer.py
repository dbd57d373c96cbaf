import json

import numpy as np
import pytest
from transformers import CLIPTokenizer

from ragdiff_jax.data.tokenizer import Tokenizer, train_tokenizer
from ragdiff_jax.errors import UserError

CAPTIONS = [
    "a red long-sleeved hoodie with stripes",
    "blue denim jacket, loose fit",
    "a child's knitted cardigan, v-neck",
    "polka dot dress with short sleeves",
    "the skirt isn't pleated",
    "size 42 trousers",
]
TEXTS = [
    "",
    " ",
    "a red hoodie",
    "A  RED\thoodie \n with   STRIPES ",
    "it's they've I'd 3456 abc123 !!! ?.,",
    "naïve café ☃ 日本語 İstanbul ǅ ﬁ e\u0301 \u200b\ufeff 👩‍👩‍👧 \u00a0x \x00",
    "<|endoftext|> in the <|startoftext|> middle",
    "x " * 200,
    "stripes" * 100,
    "dress " * 74,
    "dress " * 75,
    "dress " * 76,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(CAPTIONS * 20, 640, folder)
    return folder


def reference(folder, texts):
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    return np.array(
        tokenizer(texts, padding="max_length", max_length=77, truncation=True)["input_ids"], np.int32
    )


def test_equals_transformers(folder):
    ids = Tokenizer.from_folder(folder).encode(TEXTS)
    assert ids.dtype == np.int32 and ids.shape == (len(TEXTS), 77)
    np.testing.assert_array_equal(ids, reference(folder, TEXTS))


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_padding_token_from_either_file(folder, tmp_path, file):
    """SD 2's second file pads with "!" (id 0)."""
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / file).write_text(json.dumps({"pad_token": {"content": "!", "lstrip": False}}))
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.pad_id == 0
    assert tokenizer.encode([""])[0].tolist() == [tokenizer.bos_id, tokenizer.eos_id] + [0] * 75


def test_reads_tokenizer_json(folder, tmp_path):
    CLIPTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).unlink(missing_ok=True)
    assert (tmp_path / "tokenizer.json").is_file()
    np.testing.assert_array_equal(
        Tokenizer.from_folder(tmp_path).encode(TEXTS), Tokenizer.from_folder(folder).encode(TEXTS)
    )


def test_trained_vocabulary_is_clips_layout(folder):
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.eos_id == tokenizer.pad_id == tokenizer.vocab_size - 1 == tokenizer.bos_id + 1
    assert tokenizer.vocab_size <= 640
    assert "hoodie</w>" in tokenizer.tokens("a hoodie")
    # No text is unknown: an EOS inside it would be where CLIP pools.
    every = tokenizer.encode([chr(c) for c in range(0x20, 0x2FF)] + ["🧥", "\U0010ffff"])
    assert ((every == tokenizer.eos_id).argmax(axis=1) < 8).all()
    inner = [row[1 : (row == tokenizer.eos_id).argmax()] for row in every]
    assert all(tokenizer.bos_id not in row for row in inner)
    with pytest.raises(UserError, match="vocab_size 100"):
        train_tokenizer(CAPTIONS, 100, folder)


def test_truncation_keeps_the_end(folder):
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.encode(["\udcff"]).tolist() == tokenizer.encode(["?"]).tolist()  # a byte that was no text
    ids = tokenizer.encode(["dress " * 300])[0]
    assert ids[0] == tokenizer.bos_id and ids[-1] == tokenizer.eos_id and tokenizer.eos_id not in ids[:-1]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "holds no tokenizer"),
        ({"vocab.json": "{", "merges.txt": ""}, "damaged"),
        ({"vocab.json": '{"a": 0}', "merges.txt": "#version: 0.2\n"}, "vocab.json has no"),
        ({"tokenizer.json": "{}"}, "tokenizer.json: is damaged"),
        ({"tokenizer_config.json": "[", "tokenizer.json": "{}"}, "tokenizer_config.json: is not readable"),
    ],
)
def test_bad_folders_are_named(tmp_path, files, words):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words) as error:
        Tokenizer.from_folder(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
