"""ComfyUI's side of the table of LoRA loaders: the live adapter against the loaders, and the files for diffusers.

Must run in a process that can import ComfyUI.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...dpo_core.backends.comfyui import ComfyTextToImage, lora_prefixes
from ...dpo_core.backends.comfyui.diffusers_layers import export_of
from ...dpo_core.errors import UserError
from ...dpo_core.settings import AdapterSettings
from ...dpo_core.training.adapter import Adapter
from ...dpo_core.training.lora_export import diffusers_tensors
from ...dpo_core.training.lora_files import lora_tensors
from ..families.zoo import build

SETTINGS = AdapterSettings(rank=4, alpha=2, targets="all")
SIZES: dict[str, dict[str, Any]] = {"Z-Image": {"dim": 384, "n_heads": 12, "n_kv_heads": 12}}
"""Where diffusers cannot hold the zoo's tiny model: it rounds the width of Z-Image's feed-forward another way."""
PROMPT = "a photo of a sks dog on a beach"


class Lora:
    """A random adapter of every layer on a tiny model of the zoo, and its files' tensors by form."""

    def __init__(self, name: str) -> None:
        self.patcher, self.clip, self.vae, self.side = build(name, **SIZES.get(name, {}))
        model = self.patcher.model
        with torch.inference_mode(False), torch.no_grad():
            self.adapter = Adapter(model.diffusion_model, SETTINGS)
            draws = torch.Generator().manual_seed(3)
            for layer in self.adapter.policy.values():
                layer.up.copy_(0.3 * torch.randn(layer.up.shape, generator=draws))
        self.prefixes = lora_prefixes(model, self.adapter.layers)
        self.forms = {"kohya": lora_tensors(self.adapter, self.prefixes)}
        try:
            self.forms["diffusers"] = diffusers_tensors(self.forms["kohya"], export_of(model, self.prefixes))
            self.refused = None
        except UserError as refused:
            self.refused = str(refused)

    def _predict(self, patcher: Any, adapted: bool = False) -> torch.Tensor:
        model = ComfyTextToImage(patcher, self.clip, self.vae, self.side, self.side, "euler", "simple")
        model.encode_texts([PROMPT])
        draws = torch.Generator().manual_seed(7)
        x0, noise = (torch.randn(1, *model.latent_shape, generator=draws) for _ in range(2))
        with model.training(), torch.no_grad():
            times = model.draw_timesteps(1, draws)
            noised, cond = model.noised(x0, noise, times)[0], model.encode_prompts([PROMPT])
            if not adapted:
                return model.predict(noised, times, cond)
            with self.adapter.attached():
                return model.predict(noised, times, cond)

    def apart(self, load: Any, form: str = "kohya") -> float:
        """Difference of the prediction by a stock loader from the live adapter's, relative to the adapter's effect.

        load: comfy.sd.load_lora_for_models or load_bypass_lora_for_models.
        """
        base, live = self._predict(self.patcher), self._predict(self.patcher, adapted=True)
        loaded = self._predict(load(self.patcher, None, self.forms[form], 1.0, 0.0)[0])
        return float((loaded - live).norm() / (live - base).norm())

    def write(self, folder: Path) -> None:
        """native.safetensors, merged.safetensors (adapted layers alone) and one file of each form."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True)
        weights = self.patcher.model.diffusion_model.state_dict()
        changes = {f"{name}.weight": layer.weight_change() for name, layer in self.adapter.policy.items()}
        native = {key: value.detach().clone().contiguous() for key, value in weights.items()}
        merged = {key: (weights[key] + change).detach().contiguous() for key, change in changes.items()}
        for name, tensors in {"native": native, "merged": merged, **self.forms}.items():
            save_file(tensors, folder / f"{name}.safetensors", metadata={"format": "pt"})
