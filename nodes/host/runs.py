"""Names and folders of runs, progress of nodes, and conversion of pictures to and from IMAGE."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...dpo_core.backends.comfyui import host
from ...dpo_core.errors import UserError
from ...dpo_core.report.plots.theme import DARK
from .rounds_run import Inner, RoundsRun, inner_of

_NAME = re.compile(r"[^<>:\"/\\|?*\x00-\x1f\ud800-\udfff]{1,100}")
_BYTES = 200
"""Longest name in UTF-8. Most file systems allow 255 bytes; temporary names and numbers need the rest."""
_RESERVED = {
    "con",
    "prn",
    "aux",
    "nul",
    "conin$",
    "conout$",
    *(f"{d}{i}" for d in ("com", "lpt") for i in "123456789¹²³"),
}
_generations: dict[Path, int] = {}
_there: set[Path] = set()
_PREVIEW = 512
_PARTS = 100
"""Steps of the progress bar per picture, so that it moves within a batch, too."""


def check_name(name: str) -> str | None:
    """Why `name` cannot be a folder name on every operating system, or None if it can."""
    stem = name.split(".")[0].strip().lower()
    plain = _NAME.fullmatch(name) and name == name.strip() and not name.endswith(".")
    if not plain or not stem or stem in _RESERVED or len(name.encode()) > _BYTES:
        return (
            f'run_name {name!r} cannot be a folder name: use letters, digits, spaces, "-" and "_", up to 100 '
            f"characters ({_BYTES} bytes), no path."
        )
    return None


def run_path(name: str) -> Path:
    """The run's folder: <ComfyUI output>/dreambooth_dpo/<name>. Raises UserError for an invalid name."""
    import folder_paths

    if wrong := check_name(name):
        raise UserError(wrong)
    return Path(folder_paths.get_output_directory()) / "dreambooth_dpo" / name


def generation(name: str) -> int:
    """How often this run's folder was deleted, or its loop stopped by the user, since the server started.

    It is part of the nodes' cache key, so that deleted candidates are drawn again and a stopped loop goes on.
    """
    if check_name(name):
        return 0
    path = run_path(name)
    if path in _there and not (path / "records.sqlite").is_file():
        # Counted once until the folder is filled again, so that all nodes of the run get the same key.
        _there.discard(path)
        _generations[path] = _generations.get(path, 0) + 1
    return _generations.get(path, 0)


def renew(name: str) -> None:
    """Change the nodes' cache key of this run: their next execution reads the folder again, and goes on with it."""
    path = run_path(name)
    _generations[path] = _generations.get(path, 0) + 1


def remember(path: Path) -> None:
    """Note that this run's folder exists with its records, so that its deletion is noticed."""
    _there.add(path)


def mark(*parts: Any) -> str:
    """A hash of `parts` (12 hex digits); values that JSON lacks count by their str()."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str, ensure_ascii=False).encode()).hexdigest()[:12]


class NodeProgress:
    """The core's Progress on ComfyUI's bar, with previews; raises ComfyUI's interrupt when the user cancels.

    pictures: False for a node with its own view, because front ends keep showing the last preview beside it. Inside DPO
    Rounds it also reports to that node's panel, and raises StopAsked where its user asked to end the loop.
    """

    def __init__(self, node_id: str | None, pictures: bool = True) -> None:
        self._pictures = pictures
        self._bar, self._done, self._total = host.progress_bar(1, node_id), 0, 1
        self._inner: Inner | None = inner_of(node_id)
        if self._inner:
            self._inner.begin()

    @property
    def loop(self) -> RoundsRun | None:
        """The run of the DPO Rounds that the node is in, or None."""
        return self._inner.run if self._inner else None

    def __call__(self, stage: str, done: int, total: int, preview: np.ndarray | None = None, note: str = "") -> None:
        host.check_interrupt()
        self._done, self._total = done, total
        preview = preview if self._pictures else None
        self._bar.update_absolute(
            done * _PARTS, total * _PARTS, None if preview is None else ("JPEG", tiles(preview), _PREVIEW)
        )
        if self._inner:
            self._inner.report(stage, done, total)

    def again(self) -> None:
        """Tell the panel of DPO Rounds that the stage begins, now that its run is planned."""
        if self._inner:
            self._inner.begin()

    def measured(self, kept: Any) -> None:
        """Tell the panel of DPO Rounds what is measured so far. kept: as JSON (rounds_view.py)."""
        if self._inner:
            self._inner.run.kept = kept
            self._inner.end()

    @property
    def stopped(self) -> bool:
        """Whether the user asked to end the loop of the DPO Rounds that the node is in."""
        return self._inner is not None and self._inner.run.stop

    def show(self, picture: Any) -> None:
        """Show a finished PIL picture as the last preview.

        Front ends keep showing the last preview in place of the node's output pictures.
        """
        self._bar.update_absolute(self._total * _PARTS, self._total * _PARTS, ("JPEG", picture, 2 * _PREVIEW))

    def watch(self, model: Any) -> Any:
        """The backend's callback after each sampler step: moves the bar and previews the batch's first picture."""
        previewer = host.previewer(model) if self._pictures else None

        def after_step(step: int, steps: int, denoised: Any) -> None:
            host.check_interrupt()
            picture = previewer.decode_latent_to_preview_image("JPEG", denoised[:1]) if previewer else None
            done = self._done % max(1, self._total) + len(denoised) * step / steps
            self._bar.update_absolute(int(done * _PARTS), max(self._total, len(denoised)) * _PARTS, picture)
            if self._inner:
                self._inner.partly(len(denoised) * step / steps)

        return after_step


def tiles(images: np.ndarray, most: int = 16) -> Any:
    """Up to `most` pictures, uint8 [n, H, W, 3], as a grid in one PIL picture; tiny pictures are enlarged."""
    from PIL import Image, ImageColor

    times = max(1, 128 // max(images.shape[1:3]))
    shown = images[:most].repeat(times, axis=1).repeat(times, axis=2)
    columns = int(np.ceil(np.sqrt(len(shown))))
    height, width = shown.shape[1:3]
    sheet = np.full((-(-len(shown) // columns) * height, columns * width, 3), ImageColor.getrgb(DARK.paper), np.uint8)
    for i, picture in enumerate(shown):
        top, left = i // columns * height, i % columns * width
        sheet[top : top + height, left : left + width] = picture
    return Image.fromarray(sheet)


def to_image(pictures: Sequence[Any]) -> Any:
    """PIL pictures of one size -> IMAGE, float32 [n, H, W, 3], 0..1."""
    import torch

    return torch.from_numpy(np.stack([np.asarray(p.convert("RGB")) for p in pictures])).float() / 255


def to_pixels(image: Any) -> np.ndarray:
    """IMAGE [n, H, W, 3 or 4] -> uint8 [n, H, W, 3]."""
    return (image[..., :3].float().clamp(0, 1) * 255).round().byte().cpu().numpy()
