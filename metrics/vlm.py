"""A vision-language model of transformers by local folder, asked yes/no questions (metrics/answers.py).

Classes of transformers' AutoModelForImageTextToText: Qwen2-VL, Qwen2.5-VL, Qwen3-VL, LLaVA, SmolVLM, ... No code of a
model's folder is run, and only safetensors are loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..dpo_core.hashing import update_with_tensor
from .errors import MetricsError
from .file_kinds import short_reason
from .model_files import check_vlm_folder
from .pictures import check_images
from .torch_embedder import LOADING_ERRORS

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FORMS = (("Yes", "No"), ("yes", "no"))
"""Spellings of the two answers; the probabilities of those that are one token each are added up."""


class VisionLanguageModel:
    """Log-probabilities of yes and no at the first token of the answer; an Answerer.

    folder: config.json, the processor's and tokenizer's files, a chat template, model.safetensors (or its parts with
    their index). precision: "fp32", "bf16", "fp16" or "auto" (bf16 on a GPU that has it, else fp16; fp32 on a CPU).
    batch: images of one question at a time. Images of a call have one size, so all rows of a batch have the same
    length: nothing is padded, and a batch changes answers by rounding only.

    The model is in main memory until the first question, and again after `rest`. Raises MetricsError for a folder that
    lacks a file, a model that transformers does not know or that does not fit, and a tokenizer to which neither
    spelling of yes and no is one token.
    """

    def __init__(self, folder: str | Path, device: str = "cpu", precision: str = "auto", batch: int = 8) -> None:
        folder = Path(folder)
        config = check_vlm_folder(folder)
        self.device, self._batch = torch.device(device), batch
        dtype = _dtype(precision, self.device)
        self._processor = _processor(folder)
        self._yes, self._no = answer_tokens(self._processor.tokenizer, folder.name)
        self._model = _model(folder, dtype).eval().requires_grad_(False)
        self.name = f"{config['model_type']} {folder.name}"
        digest = hashlib.sha256(f"vlm-1|{dtype}|{self._yes}|{self._no}|{self._prompt('?')}".encode())
        for file in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".jinja", ".txt", ".model")):
            digest.update(f"|{file.name}|".encode() + file.read_bytes())
        self.weights = _hash_weights(self._model)
        digest.update(self.weights.encode())
        self.fingerprint = digest.hexdigest()

    def rest(self) -> None:
        """Move the model off the GPU, if it is on one, until the next question."""
        if self.device.type != "cpu":
            self._model.to("cpu")

    def _prompt(self, question: str) -> str:
        """The text of a conversation with one image and one question, up to where the answer begins."""
        content = [{"type": "image"}, {"type": "text", "text": question}]
        return self._processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )

    @torch.inference_mode()
    def answers(self, images: np.ndarray, question: str) -> np.ndarray:
        """float64 [n, 2]: log-probabilities of yes and no for one question on images uint8 [n, H, W, 3]."""
        if self.device.type != "cpu":
            self._model.to(self.device)
        text, found = self._prompt(question), [np.zeros((0, 2))]
        for first in range(0, len(check_images(images)), self._batch):
            found.append(self._asked(text, images[first : first + self._batch]))
        return np.concatenate(found)

    def _asked(self, text: str, images: np.ndarray) -> np.ndarray:
        from PIL import Image

        pictures = [[Image.fromarray(image)] for image in images]
        given = self._processor(text=[text] * len(images), images=pictures, return_tensors="pt")
        given = {k: v.to(self.device, self._model.dtype if v.is_floating_point() else None) for k, v in given.items()}
        logits = self._model(**given, use_cache=False, logits_to_keep=1).logits[:, -1].float()
        return yes_and_no(logits, self._yes, self._no)


def yes_and_no(logits: torch.Tensor, yes: Sequence[int], no: Sequence[int]) -> np.ndarray:
    """Log-probabilities of two answers, float64 [n, 2], from logits [n, vocabulary] and the tokens of each answer."""
    logs = logits.double().log_softmax(dim=-1)
    return torch.stack([logs[:, list(ids)].logsumexp(dim=-1) for ids in (yes, no)], dim=1).cpu().numpy()


def answer_tokens(tokenizer: Any, name: str) -> tuple[list[int], list[int]]:
    """Token ids of yes and of no, one for each spelling in FORMS that is a single, different token for both.

    Raises MetricsError where there is none: the first token of the answer would not be the answer.
    """
    unknown, pairs, said = getattr(tokenizer, "unk_token_id", None), [], []
    for form in FORMS:
        ids = [tokenizer.encode(word, add_special_tokens=False) for word in form]
        said += [f"{word!r} is {len(i)} tokens" for word, i in zip(form, ids, strict=True)]
        if all(len(i) == 1 and i[0] != unknown for i in ids) and ids[0] != ids[1]:
            pairs.append((int(ids[0][0]), int(ids[1][0])))
    if not pairs:
        raise MetricsError(
            f"the tokenizer of {name} has no single known tokens for yes and no ({', '.join(said)}), so the first "
            "token of an answer does not say which one it is: choose another model."
        )
    yes, no = zip(*dict.fromkeys(pairs), strict=True)
    return sorted(set(yes)), sorted(set(no))


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if precision not in PRECISIONS:
        raise MetricsError(f"precision is {precision!r}: it must be auto, {', '.join(PRECISIONS)}.")
    return PRECISIONS[precision]


def _processor(folder: Path) -> Any:
    """The folder's processor. Raises MetricsError for one that does not load or lacks a chat template."""
    from transformers import AutoProcessor

    try:
        found = AutoProcessor.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (*LOADING_ERRORS, ImportError) as error:
        raise MetricsError(
            f"cannot load the processor in {folder}: {short_reason(error)}. Download all small files of the model's "
            "page again, tokenizer and preprocessor_config.json included."
        ) from error
    if not hasattr(found, "tokenizer") or not getattr(found, "chat_template", None):
        raise MetricsError(
            f"{folder} has no chat template for pictures (chat_template.json or .jinja), so it cannot be asked a "
            "question: download all small files of the model's page, or choose an instruct model."
        )
    return found


def _model(folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    """The model on the CPU, with every weight loaded. Raises MetricsError otherwise."""
    from transformers import AutoModelForImageTextToText

    try:
        model, info = AutoModelForImageTextToText.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=dtype,
            output_loading_info=True, ignore_mismatched_sizes=True,
        )  # fmt: skip
    except (*LOADING_ERRORS, ImportError) as error:
        raise MetricsError(
            f"cannot load {folder}: {short_reason(error)}. Do the weights and config.json belong together, and does "
            "the installed transformers know this kind of model?"
        ) from error
    for keys, what in ((info["missing_keys"], "are missing"), (info["mismatched_keys"], "have another shape")):
        if keys:
            raise MetricsError(
                f"{len(keys)} of the model's weights {what} in {folder} (first: {sorted(map(str, keys))[0]}). Download "
                "the weights and config.json from the same page."
            )
    return model


def _hash_weights(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"|{key} {value.dtype} {tuple(value.shape)}|".encode())
        update_with_tensor(digest, value)
    return digest.hexdigest()
