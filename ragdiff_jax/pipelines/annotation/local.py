"""Annotators in this process: a vision-language model by transformers (extra `torch`), and CLIP zero-shot in JAX."""

import importlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ragdiff_jax.data.answers import Answer, Kind, asked, question, read_answer
from ragdiff_jax.data.images import square
from ragdiff_jax.errors import UserError
from ragdiff_jax.weights.model_folder import load_predictor


class TransformersAnnotator:
    """A checkpoint of transformers' image-text-to-text kind (Qwen2-VL and its like), asked picture by picture."""

    def __init__(self, name: str, *, device: str = ""):
        """`name`: a folder, or a name that transformers finds in its cache. Raises `UserError` without the packages."""
        try:
            # By name: at run time nothing here needs torch, unless this annotator is asked for.
            transformers: Any = importlib.import_module("transformers")
            importlib.import_module("torch")
        except ImportError as error:
            raise UserError("annotator 'transformers' needs its packages: pip install ragdiff_jax[torch]") from error
        try:
            options = {"device": device} if device else {}
            self._pipe = transformers.pipeline("image-text-to-text", model=name, **options)
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            reason = " ".join(str(error).split())[:160]
            raise UserError(f"--name {name}: transformers can't load it as image-text-to-text ({reason})") from error
        self.name, self._lock = name, threading.Lock()

    def annotate(self, image: UInt8[np.ndarray, "h w 3"], kind: Kind) -> Answer:
        """Raises `UserError` where the model's text is no answer, twice."""
        content = [{"type": "image", "image": Image.fromarray(image)}, {"type": "text", "text": question(kind)}]
        why: object = ""
        for more in ("", "\nAnswer with the JSON object alone."):
            content[1] = {"type": "text", "text": question(kind) + more}
            with self._lock:
                found = self._pipe(
                    text=[{"role": "user", "content": content}],
                    max_new_tokens=700,
                    return_full_text=False,
                    generate_kwargs={"do_sample": False},
                )
            try:
                return read_answer(found[0]["generated_text"], kind)
            except (ValueError, KeyError, TypeError, IndexError) as error:
                why = error
        raise UserError(f"{self.name}: no usable answer ({' '.join(str(why).split())[:100]})")


class CLIPAnnotator:
    """CLIP zero-shot (`systems/zero_shot.py`), or StructureNet's head: the ten structural attributes where it is sure
    enough, no caption.
    """

    def __init__(self, model: Path):
        """`model`: a folder with text and image encoder, or a head. Raises `UserError` where it has none."""
        self._predictor = load_predictor(model)
        self.name, self._lock = f"clip:{model.name}", threading.Lock()

    def annotate(self, image: UInt8[np.ndarray, "h w 3"], kind: Kind) -> Answer:
        """Attributes that a flat-lay can't show are left out of a flat-lay's answer."""
        fill = "edge" if kind == "photo" else "white"
        with self._lock:
            (found,) = self._predictor.predict(square(image, 256, fill=fill)[None], [{}])
        return Answer({name: value for name, value in found.items() if name in asked(kind)})
