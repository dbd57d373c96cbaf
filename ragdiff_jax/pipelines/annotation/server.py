"""An annotator behind any OpenAI-compatible server; the documented one is Qwen2-VL on vLLM.

    vllm serve Qwen/Qwen2-VL-7B-Instruct --limit-mm-per-prompt image=1

The answer's JSON schema goes along, so that a server with guided decoding can't leave it.
"""

import base64
import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from ragdiff_jax.data.answers import Answer, Kind, question, read_answer, schema
from ragdiff_jax.data.images import encode_jpeg
from ragdiff_jax.errors import UserError
from ragdiff_jax.version import __version__

_REFUSED = (400, 401, 403, 404, 405, 422)  # asking again won't help


class RateLimit:
    """Lets at most `per_minute` calls begin in a minute, evenly spaced, over all threads; 0 is no limit."""

    def __init__(self, per_minute: int | float, *, clock=time.monotonic, sleep: Callable[[float], None] = time.sleep):
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._lock, self._next = threading.Lock(), 0.0
        self._clock, self._sleep = clock, sleep

    def wait(self) -> None:
        """Returns when the next call may begin."""
        with self._lock:
            now = self._clock()
            begin = max(now, self._next)
            self._next = begin + self._gap
        if begin > now:
            self._sleep(begin - now)


class ServerAnnotator:
    """Asks `url`/chat/completions. Safe to call from several threads."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str = "",
        timeout: int | float = 60.0,
        retries: int = 4,
        per_minute: int | float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
    ):
        """`url` ends with /v1. `timeout` in seconds; a picture is asked for at most 1 + `retries` times.

        Raises `UserError` for another kind of address, and for a key that can't be sent (without repeating it).
        """
        if not url.startswith(("http://", "https://")):
            raise UserError(f"--url {url}: must begin with http:// or https://, e.g. http://localhost:8000/v1")
        api_key = api_key.strip()  # secrets from files end in a newline
        if not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
            raise UserError("the API key has characters that no header can carry; set it again, one line of ASCII")
        self.name = model
        self._url, self._key, self._timeout, self._retries = url.rstrip("/"), api_key, timeout, retries
        self._limit, self._sleep = RateLimit(per_minute, sleep=sleep), sleep

    def annotate(self, image: UInt8[np.ndarray, "h w 3"], kind: Kind) -> Answer:
        """Raises `UserError` where the server refuses, or gives no usable answer in all tries."""
        picture = base64.b64encode(encode_jpeg(image)).decode()
        body = {
            "model": self.name,
            "temperature": 0,
            "max_tokens": 700,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{picture}"}},
                        {"type": "text", "text": question(kind)},
                    ],
                }
            ],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": f"garment_{kind}", "strict": True, "schema": schema(kind)},
            },
        }
        content, why = json.dumps(body).encode(), ""
        for attempt in range(1 + self._retries):
            self._limit.wait()
            pause = min(30.0, 2.0**attempt)
            try:
                return read_answer(self._ask(content), kind)
            except urllib.error.HTTPError as error:
                why = f"HTTP {error.code}: {_body(error)}"
                if error.code in _REFUSED:
                    raise UserError(f"{self._url}: {why}; check --url, --name and the key") from error
                pause = _retry_after(error.headers.get("Retry-After"), pause)
            except (OSError, http.client.HTTPException) as error:  # no connection, timeout, cut off
                why = str(getattr(error, "reason", error) or type(error).__name__)
            except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
                why = f"no usable answer ({' '.join(str(error).split())[:100]})"
            if attempt < self._retries:
                self._sleep(pause)
        raise UserError(f"{self._url}: {why}, {1 + self._retries} times; run again to go on")

    def _ask(self, content: bytes) -> str:
        headers = {"Content-Type": "application/json", "User-Agent": f"ragdiff_jax/{__version__}"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(f"{self._url}/chat/completions", content, headers)
        with urllib.request.urlopen(request, timeout=self._timeout) as response:
            answer = json.loads(response.read(2**20))
        text = answer["choices"][0]["message"]["content"]
        if not isinstance(text, str):  # refused, filtered, or all of max_tokens went into reasoning
            raise ValueError("the answer has no text")
        return text


def _body(error: urllib.error.HTTPError) -> str:
    try:
        return " ".join(error.read(300).decode("utf-8", "replace").split())[:120]
    except (OSError, http.client.HTTPException):  # it stalled or was cut off
        return "without its text"


def _retry_after(header: str | None, pause: float) -> float:
    try:
        return min(120.0, max(pause, float(header)))
    except (TypeError, ValueError):
        return pause
