"""LoRA files through diffusers' own loaders, on tiny models that hold the same weights as ComfyUI's.

Run as a script by a Python that has diffusers and no ComfyUI: `python in_diffusers.py FOLDER`. For each subfolder that
`hosted.write` made, diffusers' own converter turns ComfyUI's weights W and the merged ones W + change into its layout;
each LoRA file is loaded by the loader class of the family's pipeline and fused. Prints one JSON object: {family: {form:
largest relative difference of a layer's change, or what went wrong}}.
"""

from __future__ import annotations

import json
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple

import torch


class Family(NamedTuple):
    """How diffusers holds a family.

    model: class; config: that of the zoo's tiny model; loader: the pipeline's loader class; converter: of checkpoints,
    in single_file_utils, "" where diffusers' layout is the checkpoint's own; sizes: numbers of the published model that
    diffusers' functions have written in, and those of the tiny one.
    """

    model: str
    config: Mapping[str, Any]
    loader: str
    converter: str
    sizes: Mapping[int, int] = {}


FAMILIES = {
    name: Family(**about | {"sizes": {int(k): v for k, v in about.get("sizes", {}).items()}})
    for name, about in json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8")).items()
}
"""By their names in benchmarks/families/zoo.json."""


def resized(function: Callable, sizes: Mapping[int, int]) -> Callable:
    """The function with other numbers in place of those of the published model."""

    def change(value: Any) -> Any:
        if isinstance(value, CodeType):
            return value.replace(co_consts=tuple(change(v) for v in value.co_consts))
        if isinstance(value, tuple):
            return tuple(change(v) for v in value)
        return sizes.get(value, value) if type(value) is int else value

    made = FunctionType(change(function.__code__), function.__globals__, function.__name__, function.__defaults__)
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _published(family: Family, key: str) -> str:
    """The key in a published checkpoint: ComfyUI 0.33 calls the scales of Flux' norms weights."""
    scales = r"((?:query|key)_norm|distilled_guidance_layer\.norms\.\d+)\.weight$"
    return re.sub(scales, r"\1.scale", key) if family.converter.startswith(("convert_flux_", "convert_chroma")) else key


def converted(family: Family, weights: Mapping[str, torch.Tensor], config: Any) -> dict[str, torch.Tensor]:
    """ComfyUI's weights in diffusers' layout, by diffusers' converter."""
    from diffusers.loaders import single_file_utils

    if not family.converter:
        return dict(weights)
    convert = resized(getattr(single_file_utils, family.converter), family.sizes)
    weights = {_published(family, key): value for key, value in weights.items() if not key.startswith("llm_adapter.")}
    if family.model == "UNet2DConditionModel":
        return convert({f"model.diffusion_model.{k}": v.clone() for k, v in weights.items()}, config)
    return convert({k: v.clone() for k, v in weights.items()})


def loaded(family: Family, file: Path, weights: Mapping[str, torch.Tensor]) -> tuple[Any, dict[str, torch.Tensor]]:
    """(diffusers' model of these native weights, its weights with the LoRA file fused)."""
    import diffusers
    from diffusers.loaders import lora_pipeline

    model = getattr(diffusers, family.model)(**family.config)
    load_weights(model, converted(family, weights, model.config))
    for name in [n for n in dir(lora_pipeline) if n.startswith("_convert") and family.sizes]:
        setattr(lora_pipeline, name, resized(getattr(lora_pipeline, name), family.sizes))
    loader, where = getattr(lora_pipeline, family.loader), {"weight_name": file.name, "local_files_only": True}
    if family.model == "UNet2DConditionModel":
        state, alphas = loader.lora_state_dict(str(file.parent), unet_config=model.config, **where)[:2]
        loader.load_lora_into_unet(state, alphas, model)
    elif family.loader == "FluxLoraLoaderMixin":
        state, alphas = loader.lora_state_dict(str(file.parent), return_alphas=True, **where)[:2]
        loader.load_lora_into_transformer(state, alphas, model)
    else:
        loader.load_lora_into_transformer(loader.lora_state_dict(str(file.parent), **where), model)
    before = {k: v.clone() for k, v in plain(model).items()}
    if hasattr(model, "peft_config"):
        model.fuse_lora()
    return before, plain(model)


def load_weights(model: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Raises ValueError where linear or convolution weights of either side are without a partner.

    Weights of another size than the tiny model's stay as they are; `difference` refuses those that a LoRA changes.
    """
    known = model.state_dict()
    apart = sorted(k for k in known.keys() ^ weights.keys() if k.endswith(".weight") and "norm" not in k)
    if apart:
        raise ValueError(f"{len(apart)} weights of the converted model and diffusers' differ in name: {apart[:4]}")
    model.load_state_dict({k: v for k, v in weights.items() if k in known and v.shape == known[k].shape}, strict=False)


def plain(model: Any) -> dict[str, torch.Tensor]:
    """The model's base weights under the names that they have without an adapter."""
    return {k.replace(".base_layer", ""): v for k, v in model.state_dict().items() if ".lora_" not in k}


def difference(family: Family, folder: Path, form: str) -> float:
    """Largest relative difference of a layer's change between the fused file and the merged weights.

    1 for a layer that the loader passed over.
    """
    import diffusers
    from safetensors.torch import load_file

    native, merged = (load_file(folder / f"{name}.safetensors") for name in ("native", "merged"))
    config = getattr(diffusers, family.model)(**family.config).config
    held, wanted = (converted(family, weights, config) for weights in (native, native | merged))
    changed = {key for key, weight in wanted.items() if not torch.equal(weight, held[key])}
    before, fused = loaded(family, folder / f"{form}.safetensors", native)
    apart = [key for key in changed if key not in before or before[key].shape != wanted[key].shape]
    apart += [key for key in before.keys() - changed if not torch.equal(fused[key], before[key])]
    if apart:
        raise ValueError(f"{len(apart)} layers are not those that the LoRA changes: {sorted(apart)[:3]}")
    return max(float((fused[k] - wanted[k]).norm() / (wanted[k] - before[k]).norm()) for k in changed)


def main(folder: Path) -> dict[str, dict[str, float | str]]:
    found: dict[str, dict[str, float | str]] = {}
    for name, family in FAMILIES.items():
        for form in ("kohya", "diffusers"):
            if not (folder / name / f"{form}.safetensors").is_file():
                continue
            try:
                with torch.no_grad():
                    result: float | str = difference(family, folder / name, form)
            except Exception as error:  # what a loader says is a result
                last = traceback.extract_tb(error.__traceback__)[-1]
                result = f"{type(error).__name__}: {error}"[:300] + f" ({Path(last.filename).name}:{last.lineno})"
            found.setdefault(name, {})[form] = result
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
