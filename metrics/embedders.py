"""Embedders: map images and texts to unit vectors by open_clip, transformers (two_towers.py) or DINOv2 models.

Weights are local safetensors files. A model is downloaded from the hub only if the user names it with "hf-hub:".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from .model_files import TOWER_TYPES, check_dino_folder, read_json
from .model_parts import clip_parts, whole_model
from .pictures import Preprocess
from .torch_embedder import BATCH, TorchEmbedder, vision_preprocess
from .torch_embedder import Embedder as Embedder
from .torch_embedder import OnEmbedder as OnEmbedder
from .torch_embedder import innermost as innermost
from .torch_embedder import rest as rest
from .two_towers import TwoTowerEmbedder


class OpenClipEmbedder(TorchEmbedder):
    """A contrastive image-text model loaded through open_clip, in float32.

    `source` is one of
    - a folder with open_clip_config.json, open_clip_model.safetensors and, where the config names one, a tokenizer;
    - a .safetensors file, with `architecture`, its name in open_clip ("ViT-B-32"; "ViT-B-32-quickgelu" for OpenAI's
      weights). A weights file does not contain its preprocessing: `mean` and `std` (three each, of pixels in 0..1) are
      OpenAI's unless given;
    - "hf-hub:<organisation>/<model>", which is **downloaded** unless it is in the local cache. Nothing else is.
    Raises MetricsError that says which file is missing and how to get it, which architecture is unknown or needs more
    than a file, or that the weights do not fit.
    """

    def __init__(
        self,
        source: str | Path,
        device: str = "cpu",
        architecture: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        changes = {k: tuple(v) for k, v in (("mean", mean), ("std", std)) if v is not None}
        model, self._tokenizer, name, settings = clip_parts(str(source), architecture, changes)
        cfg = model.visual.preprocess_cfg
        height, width = cfg["size"] if isinstance(cfg["size"], (tuple, list)) else (cfg["size"], cfg["size"])
        shape, colours = (int(height), int(width)), (tuple(cfg["mean"]), tuple(cfg["std"]))
        preprocess = Preprocess(shape, *colours, cfg["resize_mode"], cfg["interpolation"], cfg["fill_color"])
        super().__init__(model, preprocess, f"open_clip {name}", settings, device)

    def _encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._model.encode_image(pixels, normalize=True)

    def _encode_patches(self, pixels: torch.Tensor) -> torch.Tensor:
        visual = self._model.visual
        tower = getattr(visual, "transformer", None) or getattr(visual, "trunk", None)
        blocks = getattr(tower, "resblocks", None) or getattr(tower, "blocks", None)
        if not blocks or not hasattr(visual, "forward_intermediates"):
            return super()._encode_patches(pixels)
        # The middle block: the patches of the last ones are not trained, only what the image's embedding takes of them.
        middle = [max(0, len(blocks) // 2 - 1)]
        found = visual.forward_intermediates(pixels, indices=middle, stop_early=True, intermediates_only=True)
        return found["image_intermediates"][0].movedim(1, -1)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [n, d] of norm 1; the tokenizer truncates texts longer than the tower's context."""
        self._wake()
        tokens = self._tokenizer(list(texts) or [""])
        parts = [self._model.encode_text(part.to(self.device), normalize=True) for part in tokens.split(BATCH)]
        return self._to_numpy(parts)[: len(texts)]


class DinoV2Embedder(TorchEmbedder):
    """The class token of DINOv2, or of another vision transformer that AutoModel loads from a folder, in float32.

    It has no text tower. `folder` holds config.json, preprocessor_config.json and model.safetensors. Raises
    MetricsError that says which file is missing and how to get it, or that the weights do not fit the config.
    """

    def __init__(self, folder: str | Path, device: str = "cpu") -> None:
        folder = Path(folder)
        config = check_dino_folder(folder)
        settings = read_json(folder / "preprocessor_config.json")
        model = whole_model(folder, ("mask_token",))
        super().__init__(
            model, vision_preprocess(settings, config), f"dinov2 {folder.name}", [config, settings], device
        )

    def _encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._model(pixel_values=pixels).last_hidden_state[:, 0]

    def _encode_patches(self, pixels: torch.Tensor) -> torch.Tensor:
        # Tokens: class, registers (DINOv2 with registers, DINOv3), patches row by row.
        config = self._model.config
        tokens = self._model(pixel_values=pixels).last_hidden_state
        side = getattr(config, "patch_size", None)
        rows, columns = (n // side for n in pixels.shape[2:]) if isinstance(side, int) else (0, 0)
        tokens = tokens[:, 1 + getattr(config, "num_register_tokens", 0) :]
        if tokens.shape[1] != rows * columns:
            return super()._encode_patches(pixels)
        return tokens.unflatten(1, (rows, columns))

    def embed_texts(self, texts: Sequence[str]) -> None:
        """None: there is no text tower."""
        return None


def load_embedder(source: str | Path, device: str = "cpu") -> Embedder:
    """Load the embedder named by `source`: a folder, "<architecture>=<file>.safetensors", or "hf-hub:<name>".

    A folder is of open_clip, else of CLIP or SigLIP in transformers' form, else of DINOv2. Raises MetricsError that
    says what is missing and where to put it.
    """
    folder = Path(source)
    architecture, equals, path = str(source).partition("=")
    if equals and not folder.exists():
        return OpenClipEmbedder(path, device, architecture)
    if (folder / "config.json").is_file() and not (folder / "open_clip_config.json").is_file():
        if read_json(folder / "config.json").get("model_type") in TOWER_TYPES:
            return TwoTowerEmbedder(folder, device)
        return DinoV2Embedder(folder, device)
    return OpenClipEmbedder(source, device)
