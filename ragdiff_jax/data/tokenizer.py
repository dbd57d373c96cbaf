"""Text to ids, exactly as CLIP's tokenizer does it, from files in the layout of transformers.

A tokenizer folder holds `tokenizer.json`, or `vocab.json` and `merges.txt`; `tokenizer_config.json` and
`special_tokens_map.json` may name the special tokens and the length.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from jaxtyping import Int32
from tokenizers import Regex, normalizers, pre_tokenizers, processors

from ragdiff_jax.data.images import write_atomic
from ragdiff_jax.errors import UserError

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
MAX_LENGTH = 77


class Tokenizer:
    """Turns texts into `int32 [B, max_length]`: BOS, the text's tokens, EOS, then `pad_id`.

    A text that is too long loses its end, never its EOS; the empty text is BOS, EOS, padding.
    """

    def __init__(self, backend: tokenizers.Tokenizer, *, pad_id: int, max_length: int = MAX_LENGTH):
        self._backend = backend
        self._backend.no_padding()
        self._backend.enable_truncation(max_length)
        self.pad_id, self.max_length = pad_id, max_length
        self.bos_id, self.eos_id = self._backend.encode("").ids[:2]
        self.vocab_size = self._backend.get_vocab_size()

    @classmethod
    def from_folder(cls, folder: str | Path, *, max_length: int | None = None) -> "Tokenizer":
        """Reads a tokenizer folder. Raises `UserError` that names the file that is missing or damaged."""
        folder = Path(folder)
        config = _read_json(folder / "tokenizer_config.json") or {}
        special = _read_json(folder / "special_tokens_map.json") or {}

        def token(name, default):
            return _text(config.get(name)) or _text(special.get(name)) or default

        bos, eos, unknown = token("bos_token", BOS), token("eos_token", EOS), token("unk_token", EOS)
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            backend = _clip_backend(folder, bos, eos, unknown)
        elif (folder / "tokenizer.json").is_file():
            backend = _load_backend(folder / "tokenizer.json")
        else:
            raise UserError(
                f"{folder}: holds no tokenizer; it needs tokenizer.json, or vocab.json and merges.txt"
            )
        pad = token("pad_token", eos)
        pad_id = backend.token_to_id(pad)
        if pad_id is None:
            raise UserError(
                f"{folder}: the padding token {pad!r} is not in the vocabulary; mend tokenizer_config.json"
            )
        length = max_length or int(min(config.get("model_max_length") or MAX_LENGTH, MAX_LENGTH))
        if len(backend.encode("").ids) != 2:
            raise UserError(f"{folder}: the tokenizer adds no start and end token; use a CLIP tokenizer")
        return cls(backend, pad_id=pad_id, max_length=length)

    def encode(self, texts: Sequence[str]) -> Int32[np.ndarray, "b l"]:
        """The ids of each text."""
        ids = np.full((len(texts), self.max_length), self.pad_id, np.int32)
        for row, encoding in zip(ids, self._backend.encode_batch(list(map(_sayable, texts))), strict=True):
            row[: len(encoding.ids)] = encoding.ids
        return ids

    def vocabulary(self) -> dict[str, int]:
        """{piece: id}; a piece that ends a word ends in `</w>`."""
        return self._backend.get_vocab()

    def length(self, text: str) -> int:
        """How many tokens the text needs, BOS and EOS with it, more than `max_length` if it would lose its end."""
        encoding = self._backend.encode(_sayable(text))
        return len(encoding.ids) + sum(len(part.ids) - 2 for part in encoding.overflowing)

    def tokens(self, text: str) -> list[str]:
        """The pieces that a text falls into, with BOS and EOS; for messages and tests."""
        return self._backend.encode(_sayable(text)).tokens


def _sayable(text: str) -> str:
    """What the backend takes: bytes that were no text, which Python keeps as half a surrogate pair, become `?`."""
    return text.encode("utf-8", "replace").decode()


def train_tokenizer(captions: Iterable[str], vocab_size: int, folder: str | Path) -> Tokenizer:
    """Learns a CLIP-layout vocabulary (256 bytes, 256 word-final bytes, merges, BOS, EOS) and writes it to
    `folder`.

    Every byte is a token, so no text is ever unknown; EOS has the highest id and is the padding, as in CLIP.
    Raises `UserError` below 514 tokens.
    """
    if vocab_size < 514:
        raise UserError(
            f"vocab_size {vocab_size} is too small; 512 bytes and 2 special tokens need at least 514"
        )
    folder = Path(folder)
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(end_of_word_suffix="</w>"))
    backend.normalizer, backend.pre_tokenizer = _normalizer(), _pre_tokenizer()
    alphabet = _byte_alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(captions, trainer)
    learned = json.loads(backend.to_str())["model"]["merges"]
    pieces = alphabet + [byte + "</w>" for byte in alphabet]
    known, merges = set(pieces), []
    for left, right in (merge.split(" ") if isinstance(merge, str) else merge for merge in learned):
        if len(pieces) == vocab_size - 2:
            break
        merges.append(f"{left} {right}")
        if left + right not in known:
            known.add(left + right)
            pieces.append(left + right)
    vocabulary = {piece: number for number, piece in enumerate([*pieces, BOS, EOS])}
    special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": EOS}
    config = {**special, "model_max_length": MAX_LENGTH, "tokenizer_class": "CLIPTokenizer"}
    write_atomic(folder / "vocab.json", json.dumps(vocabulary, ensure_ascii=False).encode())
    write_atomic(folder / "merges.txt", "\n".join(["#version: 0.2", *merges, ""]).encode())
    write_atomic(folder / "special_tokens_map.json", json.dumps(special, indent=2).encode())
    write_atomic(folder / "tokenizer_config.json", json.dumps(config, indent=2).encode())
    return Tokenizer.from_folder(folder)


def _clip_backend(folder, bos, eos, unknown):
    """The fast tokenizer that transformers builds for `CLIPTokenizer`."""
    try:
        vocabulary, merges = tokenizers.models.BPE.read_file(
            str(folder / "vocab.json"), str(folder / "merges.txt")
        )
        model = tokenizers.models.BPE(
            vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=unknown
        )
    except Exception as error:  # the library raises plain Exception for a bad file
        raise UserError(
            f"{folder}: vocab.json or merges.txt is damaged ({_first_line(error)}); copy it again"
        ) from error
    backend = tokenizers.Tokenizer(model)
    backend.normalizer, backend.pre_tokenizer = _normalizer(), _pre_tokenizer()
    missing = [token for token in (bos, eos) if token not in vocabulary]
    if missing:
        raise UserError(f"{folder}: vocab.json has no {missing[0]!r}; it must be a CLIP vocabulary")
    backend.add_special_tokens(list(dict.fromkeys([unknown, bos, eos])))
    backend.post_processor = processors.RobertaProcessing(
        (eos, vocabulary[eos]), (bos, vocabulary[bos]), trim_offsets=False, add_prefix_space=False
    )
    return backend


def _normalizer():
    return normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )


def _pre_tokenizer():
    pieces = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    split = pre_tokenizers.Split(Regex(pieces), behavior="removed", invert=True)
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])


def _byte_alphabet():
    """The 256 printable stand-ins of bytes in CLIP's (GPT-2's) order."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in own] + [chr(256 + place) for place in range(256 - len(own))]


def _load_backend(path):
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception for a bad file
        raise UserError(f"{path}: is damaged ({_first_line(error)}); copy it again") from error


def _read_json(path):
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is not readable JSON ({_first_line(error)}); copy it again") from error
    return content if isinstance(content, dict) else None


def _text(token):
    return token.get("content") if isinstance(token, dict) else token


def _first_line(error):
    return " ".join(str(error).split())[:100]
