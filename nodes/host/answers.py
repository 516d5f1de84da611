"""The judge by questions on a vision-language model that ComfyUI has loaded as a CLIP."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch

from ...dpo_core.backends.comfyui import host
from ...dpo_core.backends.comfyui.fingerprints import fingerprint_of_clip
from ...dpo_core.errors import UserError
from ...metrics.errors import MetricsError
from ...metrics.pictures import check_images
from ...metrics.vlm import answer_tokens, yes_and_no


class ClipAnswerer:
    """Log-probabilities of yes and no by a CLIP of the host that generates text; an Answerer.

    The host moves the model. Pictures are asked about one by one, as the host's tokens hold one conversation. Raises
    UserError for a CLIP that cannot be asked.
    """

    def __init__(self, clip: Any) -> None:
        name = type(clip.cond_stage_model).__name__.strip("_")
        try:
            self._yes, self._no = answer_tokens(host.answer_tokenizer(clip), name)
        except MetricsError as error:
            raise UserError(str(error)) from error
        host.question_tokens(clip, "?", torch.zeros(1, 64, 64, 3))  # refuses a CLIP that takes no picture
        self.name, self._clip = f"text encoder {name}", clip
        mark = f"clip-answers-1|{fingerprint_of_clip(clip)}|{self._yes}|{self._no}"
        self.fingerprint = hashlib.sha256(mark.encode()).hexdigest()

    @torch.no_grad()
    def answers(self, images: np.ndarray, question: str) -> np.ndarray:
        """float64 [n, 2]: log-probabilities of yes and no for one question on images uint8 [n, H, W, 3]."""
        pictures = torch.from_numpy(check_images(images).astype(np.float32) / 255)
        rows = [host.first_answer(self._clip, question, picture[None]) for picture in pictures]
        return yes_and_no(torch.stack(rows), self._yes, self._no) if rows else np.zeros((0, 2))
