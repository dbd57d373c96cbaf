"""What Fashion-RAG's text encoder reads: a template around caption and category, and the garments' tokens at its end.

    template   "a photo of a model wearing an upper body garment made of" + tokens     the caption only retrieves
    caption    "{caption}." + tokens                                                   the caption reaches the U-Net
    bare       the same, and the caption alone without garments: for a small vocabulary

`template` is the released code's default (it encodes no caption once there are garments), `caption` its `noun_chunks`.
Without garments both have "a photo of a model wearing an upper body garment. {caption}". Tokens stand at the end, so
that they follow from how many there are.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Int32

from ragdiff_jax.data.tokenizer import Tokenizer
from ragdiff_jax.errors import UserError

PromptKind = Literal["template", "caption", "bare"]
PLACEHOLDER = "$"
PHRASES = {"dresses": "a dress", "upper_body": "an upper body garment", "lower_body": "a lower body garment"}
_WEARING = "a photo of a model wearing {phrase}"
_TEMPLATES = {  # (with garments, without)
    "template": (_WEARING + " made of", _WEARING + ". {caption}"),
    "caption": ("{caption}.", _WEARING + ". {caption}"),
    "bare": ("{caption}.", "{caption}."),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompts:
    """Makes token ids of captions. `garments`: how many of `tokens` each must find room; with `tokens` 0 the garments
    are not in the prompt, which is that of the text alone.
    """

    kind: str
    tokenizer: Tokenizer
    tokens: int

    def __post_init__(self):
        if self.kind not in get_args(PromptKind):
            raise UserError(f"prompt {self.kind!r}: choose one of {', '.join(get_args(PromptKind))}")

    def text(self, caption: str, category: str, garments: int) -> str:
        """The prompt in front of the garments' tokens; empty for an empty caption in a template of it alone."""
        template = _TEMPLATES[self.kind][0 if garments and self.tokens else 1]
        if not caption and template.startswith("{caption}"):
            return ""
        text = template.format(caption=caption, phrase=PHRASES[category])
        return text if caption else text.removesuffix(". ")

    def shown(self, caption: str, category: str, garments: int) -> str:
        """The prompt with its garments, to be read by people."""
        text = self.text(caption, category, garments)
        return f"{text} [{garments} x {self.tokens} tokens]".strip() if garments and self.tokens else text

    @property
    def placeholder(self) -> int:
        """The id of `$`, whose embeddings are replaced."""
        return int(self.tokenizer.encode([PLACEHOLDER])[0, 1])

    def encode(
        self, captions: Sequence[str], categories: Sequence[str], garments: int, *, cut: bool = False
    ) -> Int32[np.ndarray, "b l"]:
        """Ids of each prompt without its placeholders, with room for `garments` before the end.

        Raises `UserError` for a caption that leaves no room, unless `cut` shortens it (training on whatever there is).
        """
        texts = [self.text(*pair, garments) for pair in zip(captions, categories, strict=True)]
        ids = self.tokenizer.encode(texts)
        room, eos = self.tokenizer.max_length - garments * self.tokens, self.tokenizer.eos_id
        if room < 2:
            most = (self.tokenizer.max_length - 2) // self.tokens
            raise UserError(
                f"{garments} garments of {self.tokens} tokens don't fit into {self.tokenizer.max_length}; "
                f"use at most {most}, or pool them"
            )
        for row, text in enumerate(texts):
            length = self.tokenizer.length(text)
            if length <= room:
                continue
            if not cut:
                fits = max(0, self.tokenizer.max_length - length) // self.tokens if garments and self.tokens else 0
                fix = f"shorten it, use at most {fits} garments, or pool them" if fits else "shorten it"
                beside = f", and {garments} garments need {garments * self.tokens}" if garments else ""
                raise UserError(
                    f"prompt {text[:60]!r}: {length} tokens{beside} of {self.tokenizer.max_length}; {fix}"
                )
            ids[row, room - 1], ids[row, room:] = eos, self.tokenizer.pad_id
        return ids
