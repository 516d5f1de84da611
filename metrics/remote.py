"""A scorer on another machine: pictures go there by HTTP, one number each comes back (docs/http_scorer.md)."""

from __future__ import annotations

import base64
import hashlib
import io
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from .errors import MetricsError

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each further try."""
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
"""HTTP answers that a further try may mend."""


def as_png(image: np.ndarray) -> str:
    """A picture uint8 [H, W, 3] as PNG in base64."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG", compress_level=1)
    return base64.b64encode(data.getvalue()).decode("ascii")


class RemoteScorer:
    """One number for each picture, from a server.

    `GET <url>/info` answers {"name": text, "fingerprint": text, "references": true or false}; the fingerprint changes
    with whatever changes a score. `POST <url>/score` takes {"prompts": [text], "images": [PNG in base64]}, and
    "references" (PNGs of the reference photos) where the server asks for them; it answers {"scores": [number]}, higher
    is better. name: the scorer's name in the run, such as "alignment_2". batch: pictures in one request. timeout:
    seconds for one request. retries: further tries of a request that failed on the way. Raises MetricsError, naming
    address and reason, when the server cannot be reached, answers with an error, or not as described.
    """

    def __init__(
        self,
        url: str,
        name: str,
        references: np.ndarray,
        batch: int = 16,
        timeout: float = 120.0,
        retries: int = 4,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url, self.name, self.batch = url.rstrip("/"), name, batch
        self.timeout, self.retries, self._sleep = timeout, retries, sleep
        about = self._asked("GET", "info")
        if not all(isinstance(about.get(key), str) and about[key] for key in ("name", "fingerprint")):
            raise self._refusal(f"its /info is {_short(about)}, without name and fingerprint")
        self.title = about["name"]
        self._references = [as_png(photo) for photo in references] if about.get("references") else None
        seen = "".join(self._references or [])
        self.fingerprint = hashlib.sha256(f"http-1|{name}|{about['fingerprint']}|{seen}".encode()).hexdigest()

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        """float64 [n] for uint8 images [n, H, W, 3]. Raises MetricsError as the class does."""
        found: list[float] = []
        for first in range(0, len(images), self.batch):
            part = slice(first, first + self.batch)
            sent: dict[str, Any] = {"prompts": list(prompts[part]), "images": [as_png(i) for i in images[part]]}
            if self._references is not None:
                sent["references"] = self._references
            found += self._numbers(self._asked("POST", "score", sent), len(sent["images"]))
        return np.asarray(found, np.float64)

    def _numbers(self, answer: dict, count: int) -> list[float]:
        scores = answer.get("scores")
        good = isinstance(scores, list) and all(isinstance(s, (int, float)) and not isinstance(s, bool) for s in scores)
        if not good or len(scores) != count:
            raise self._refusal(f"it answers {_short(answer)} for {count} pictures, and {count} numbers are needed")
        return [float(score) for score in scores]

    def _asked(self, method: str, path: str, sent: dict | None = None) -> dict:
        """The JSON object that the server answers; tried again after failures on the way."""
        import httpx

        reason = ""
        for attempt in range(self.retries + 1):
            if attempt:
                self._sleep(WAITS[min(attempt, len(WAITS)) - 1])
            try:
                answer = httpx.request(method, f"{self.url}/{path}", json=sent, timeout=self.timeout)
            except httpx.InvalidURL as error:
                raise self._refusal(f"this is no address ({error})") from error
            except httpx.UnsupportedProtocol as error:
                raise self._refusal("the address must begin with http:// or https://") from error
            except httpx.TimeoutException:
                reason = f"no answer within {self.timeout:g} s"
            except httpx.TransportError as error:
                reason = str(error) or type(error).__name__
            else:
                if answer.status_code not in _AGAIN:
                    return self._object(answer)
                reason = f"it answers {answer.status_code} {answer.reason_phrase}: {_short(answer.text)}"
        raise self._refusal(f"{reason}; tried {self.retries + 1} times")

    def _object(self, answer: Any) -> dict:
        if answer.status_code != 200:
            said = f"it answers {answer.status_code} {answer.reason_phrase}: {_short(answer.text)}"
            raise self._refusal(said)
        try:
            value = answer.json()
        except ValueError as error:
            raise self._refusal(f"it answers {_short(answer.text)}, which is no JSON") from error
        if not isinstance(value, dict):
            raise self._refusal(f"it answers {_short(value)}, and a JSON object is needed")
        return value

    def _refusal(self, reason: str) -> MetricsError:
        return MetricsError(
            f"the scorer at {self.url} cannot be used: {reason.rstrip('.')}. Check that the server runs and that the "
            "address is right; all that was scored before is kept."
        )


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 160 else f"{text[:160]}..."
