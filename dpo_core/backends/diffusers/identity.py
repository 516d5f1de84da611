"""What a pipeline's pictures depend on: one hash of it all, and its parts by name, so that a change can be named."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping

import torch

from ...hashing import update_with_tensor
from .quantized import SOURCE, quantization_of, raw_parts

_UNRELATED = (
    "transformers_version", "torch_dtype", "dtype", "architectures", "model_type", "sample_size", "quantization_config",
)  # fmt: skip
"""Settings in configs that change no picture, and the one that `quantization_of` names."""
TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3", "tokenizer_4")
"""Names of a pipeline's tokenizers."""


class _Several:
    """Updates several hashlib objects with the same bytes."""

    def __init__(self, *digests) -> None:
        self.digests = digests

    def update(self, data: bytes) -> None:
        for digest in self.digests:
            digest.update(data)


def hash_weights(
    parts: Mapping[str, torch.nn.Module], prediction_type: str, alphas: torch.Tensor
) -> tuple[str, dict[str, str]]:
    """Hash (16 hex digits) of weights, prediction type and noise schedule, and one of each part's weights.

    Independent of device and threads. parts: by name, in the order of the hash. Each weight is read once. A denoiser
    that was quantized here counts by the weights before and the name of its quantization.
    """
    whole = hashlib.sha256(prediction_type.encode() + alphas.cpu().half().numpy().tobytes())
    each: dict[str, str] = {}
    for part, module in parts.items():
        own = hashlib.sha256()
        both = _Several(whole, own)
        if source := getattr(module, SOURCE, None):
            both.update(" ".join(source).encode())
        for name, weight in () if source else module.named_parameters():
            both.update(f"{name}{tuple(weight.shape)}".encode())
            for raw in raw_parts(weight):
                update_with_tensor(both, raw.float())
        each[part] = own.hexdigest()[:16]
    return whole.hexdigest()[:16], each


def described_pipeline(pipe, weights: Mapping[str, str]) -> dict[str, dict]:
    """Scheduler, tokenizer and models of a pipeline as plain JSON, by part and setting.

    `weights`: hashes by part, from `hash_weights`.
    """
    tokenizers = {name: getattr(pipe, name, None) for name in TOKENIZERS}
    return {
        "scheduler": {"class": type(pipe.scheduler).__name__, **_settings(pipe.scheduler.config)},
        **{name: described_tokenizer(found) for name, found in tokenizers.items() if found is not None},
        **{
            part: {
                "class": type(module).__name__,
                "weights": weights[part],
                "quantization": quantization_of(module),
                **_settings(_config(module)),
            }
            for part in weights
            for module in [getattr(pipe, part)]
        },
    }


def model_parts(pipe) -> dict[str, torch.nn.Module]:
    """The models of a pipeline by the names of its parts, in alphabetical order."""
    return {name: part for name, part in sorted(pipe.components.items()) if isinstance(part, torch.nn.Module)}


def _config(module: torch.nn.Module) -> Mapping:
    config = module.config
    return config if isinstance(config, Mapping) else config.to_dict()


def _settings(config: Mapping) -> dict[str, object]:
    """The settings of a config that can change a picture, as plain JSON."""
    return {k: _plain(v) for k, v in sorted(config.items()) if not k.startswith("_") and k not in _UNRELATED}


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in sorted(value.items(), key=lambda item: str(item[0]))}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no word for it
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def described_tokenizer(tokenizer) -> dict[str, object]:
    """Hashes of what a tokenizer does: vocabulary, merges, further rules, special tokens; and its longest row."""
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # of a processor of pictures and texts
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else {}
    model = rules.get("model") or {}
    merges = model.get("merges", getattr(tokenizer, "bpe_ranks", None))
    more = {name: rules.get(name) for name in ("normalizer", "pre_tokenizer", "post_processor")}
    return {
        "longest": int(tokenizer.model_max_length),
        "vocabulary": _hash(sorted(tokenizer.get_vocab().items())),
        "merges": _hash(sorted(map(str, merges)) if isinstance(merges, dict) else merges),
        "rules": _hash(more),
        "special_tokens": _hash(sorted((k, str(v)) for k, v in tokenizer.special_tokens_map.items())),
    }


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
