"""What an annotator is asked and what of its answer counts: Table 6's names and values as a JSON schema and back.

Nothing is guessed: a value that Table 6 lacks is reported, and the attribute stays unknown. Upper and lower case and
blanks around a value don't matter.
"""

import dataclasses
import json
from typing import Any, Literal

from ragdiff_jax.data.attributes import ATTRIBUTES

Kind = Literal["photo", "flat"]
UNKNOWN = "Unknown"
# What a flat-lay can't show: it is worn by nobody.
NOT_OF_FLATS = ("Age", "Gender", "Sleeves Rolled Up", "Top Tuck In")
_CAPTION_LENGTH = 500


@dataclasses.dataclass(frozen=True)
class Answer:
    """`attributes`: valid names and values; `caption` of a photo or ""; `invalid`: said, and not in Table 6."""

    attributes: dict[str, str]
    caption: str = ""
    invalid: dict[str, Any] = dataclasses.field(default_factory=dict)


def asked(kind: Kind) -> tuple[str, ...]:
    """The attributes that are asked of a photo or a flat-lay."""
    return tuple(name for name in ATTRIBUTES if kind == "photo" or name not in NOT_OF_FLATS)


def schema(kind: Kind) -> dict[str, Any]:
    """A JSON schema of the answer: each attribute one of its values or "Unknown", and of photos a caption."""
    properties: dict[str, Any] = {
        name: {"type": "string", "enum": [*ATTRIBUTES[name], UNKNOWN]} for name in asked(kind)
    }
    if kind == "photo":
        properties["caption"] = {"type": "string", "maxLength": _CAPTION_LENGTH}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def question(kind: Kind) -> str:
    """The prompt beside the picture."""
    what = (
        "The picture shows a garment worn, laid or hung, photographed by a user. Describe the main garment alone."
        if kind == "photo"
        else "The picture is a standard flat-lay of one garment on a plain background."
    )
    lines = [f"- {name}: {', '.join(ATTRIBUTES[name])}" for name in asked(kind)]
    caption = (
        '\nAdd "caption": one English sentence that says what the garment is, its colours, print, cut and collar; '
        "nothing about people or surroundings."
        if kind == "photo"
        else ""
    )
    return (
        f"{what}\nAnswer with one JSON object. For each attribute give exactly one of its values, or {UNKNOWN} where "
        "the picture doesn't show it:\n" + "\n".join(lines) + caption
    )


def read_answer(text: str, kind: Kind) -> Answer:
    """The answer in a text that should be a JSON object, maybe in a ``` fence. Raises `ValueError` for anything else.
    """
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise ValueError(f"no JSON object in {text[:60]!r}")
    value = json.loads(text[start : end + 1])
    if not isinstance(value, dict):
        raise ValueError("the answer is no JSON object")
    attributes, invalid = {}, {}
    names = {name.lower(): name for name in asked(kind)}
    for said, of in value.items():
        name = names.get(str(said).strip().lower())
        if str(said).strip().lower() == "caption" and kind == "photo":
            continue
        if of is None or (isinstance(of, str) and of.strip().lower() in ("", UNKNOWN.lower())):
            continue
        valid = {choice.lower(): choice for choice in ATTRIBUTES[name]} if name else {}
        found = valid.get(of.strip().lower()) if isinstance(of, str) else None
        if found is None:
            invalid[str(said)[:80]] = of if isinstance(of, str | int | float | bool) else str(of)[:80]
        else:
            attributes[name] = found
    caption = next((of for said, of in value.items() if str(said).strip().lower() == "caption"), "")
    caption = " ".join(caption.split())[:_CAPTION_LENGTH] if isinstance(caption, str) and kind == "photo" else ""
    if not attributes and not caption:
        raise ValueError("the answer names no attribute of Table 6")
    return Answer(attributes, caption, invalid)
