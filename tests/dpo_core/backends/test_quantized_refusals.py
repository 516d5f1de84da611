"""Quantizations that are refused by name: missing packages, devices, and folders that are quantized already."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from dreambooth_dpo.benchmarks.pipelines.tiny import SIDE, tiny
from dreambooth_dpo.dpo_core.backends.diffusers import quantized
from dreambooth_dpo.dpo_core.backends.diffusers.loading import check_quantized, load_model
from dreambooth_dpo.dpo_core.backends.diffusers.quantized import KINDS, check_quantize
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.settings import SamplingSettings

SAMPLING = SamplingSettings(steps=2, guidance=1.0, width=SIDE, height=SIDE, batch_size=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder of a tiny Flux."""
    path = tmp_path_factory.mktemp("größe") / "modèle"
    tiny("FluxPipeline").save_pretrained(path)
    return path


def load(folder: Path, kind: str | None = None):
    return load_model(folder, None, "cpu", "fp32", SAMPLING, {}, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_package_is_named_before_anything_is_loaded(kind: str, folder, monkeypatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(quantized, "version", missing)
    with pytest.raises(UserError, match=f"model.quantize is {kind}, .*pip install {KINDS[kind].package}"):
        load(folder, kind)
    monkeypatch.setattr(quantized, "version", lambda _name: "0.9.1")
    with pytest.raises(UserError, match=r"or newer, and 0\.9\.1 is installed"):
        check_quantized(folder, None, "cpu", kind)


def test_a_device_that_cannot_is_named() -> None:
    with pytest.raises(UserError, match="torchao-fp8, which mps cannot compute. Use bnb-nf4, torchao-int8"):
        check_quantize("torchao-fp8", "mps")


def _with_config(folder: Path, to: Path, part: str, config: dict) -> Path:
    shutil.copytree(folder, to)
    path = to / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": config}))
    return to


@pytest.mark.parametrize(
    "part, config, message",
    [
        ("transformer", {"quant_method": "quanto", "weights_dtype": "int8"}, "quantized by quanto, which is not"),
        ("transformer", {"quant_method": "bitsandbytes", "load_in_8bit": True}, "by bitsandbytes int8, which is not"),
        ("transformer", {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}},
         "by torchao Int4WeightOnlyConfig, which is not"),
        ("transformer", {"quant_method": "torchao", "quant_type": "int8wo"}, "by torchao int8wo, which is not"),
        ("transformer", {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
         "which diffusers loads on a GPU alone"),
        ("text_encoder_2", {"quant_method": "bitsandbytes", "load_in_8bit": True}, "its text_encoder_2 is quantized"),
    ],
)  # fmt: skip
def test_a_stored_quantization_that_is_not_trained_is_refused(part, config, message, folder, tmp_path) -> None:
    changed = _with_config(folder, tmp_path / "changed", part, config)
    with pytest.raises(UserError, match=message):
        load(changed)
