"""Masks of the reference photos by a model of the U2Net, IS-Net or BiRefNet class, from a local ONNX file.

Preprocessing is that of rembg (https://github.com/danielgatis/rembg, sessions u2net, dis_general_use and birefnet):
the picture divided by its highest value, less a mean, by a deviation; the result stretched to 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import MetricsError
from .onnx_files import check_onnx_file, ends, opencv_for

KEY = "concept.mask_model.path"
REMEDY = "Name the .onnx file of a background remover, such as u2net.onnx or isnet-general-use.onnx of rembg."


@dataclass(frozen=True)
class Kind:
    """Side of the square picture in pixels (where the file leaves it open), mean and deviation of values in 0..1."""

    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KINDS = {
    "u2net": Kind(320, *_IMAGENET),
    "isnet": Kind(1024, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)),
    "birefnet": Kind(1024, *_IMAGENET),
}
FLAT = 1e-3
"""Range of a result below which the model saw nothing in the picture."""


def kind_of(path: Path, kind: str = "auto") -> str:
    """The kind of a file: as given, or by its name; "u2net" for an unknown name."""
    if kind != "auto":
        return kind
    return next((name for name in ("birefnet", "isnet") if name in path.name.lower()), "u2net")


class MaskModel:
    """Finds the subject of a photo. Runs on the CPU, by onnxruntime where it is installed, else by OpenCV.

    Raises MetricsError for a missing file, one that is no ONNX model of pictures, and without OpenCV.
    """

    def __init__(self, path: Path, kind: str = "auto") -> None:
        path = Path(path)
        check_onnx_file(path, KEY, REMEDY)
        self._path, self._kind = path, KINDS[kind_of(path, kind)]
        data = path.read_bytes()
        try:
            inputs, outputs = ends(data)
        except MetricsError as error:
            raise MetricsError(f"{KEY} is {path}: {error}") from error
        shapes = [shape for shape in inputs.values() if len(shape) == 4 and shape[1] in (0, 3)]
        if len(inputs) != 1 or not shapes or not outputs:
            raise MetricsError(f"{KEY} is {path}, a model that does not take one RGB picture alone. {REMEDY}")
        self._size = tuple(n or self._kind.side for n in shapes[0][2:])
        self._input, self._output = next(iter(inputs)), outputs[0]
        self._run = self._onnxruntime() or self._opencv()

    def _onnxruntime(self) -> Any:
        try:
            import onnxruntime
        except ImportError:
            return None
        session = onnxruntime.InferenceSession(str(self._path), providers=["CPUExecutionProvider"])
        return lambda pixels: session.run([self._output], {self._input: pixels})[0]

    def _opencv(self) -> Any:
        cv2 = opencv_for(KEY)
        try:
            net = cv2.dnn.readNetFromONNX(str(self._path))
        except cv2.error as error:
            raise self._failed(error) from error
        names = list(net.getUnconnectedOutLayersNames())
        own = [n for n in names if n == self._output or n.endswith(f"!{self._output}")] or names
        if len(own) != 1:
            raise MetricsError(
                f"{KEY} is {self._path}, of whose {len(names)} outputs OpenCV does not tell the first: pip install "
                "onnxruntime"
            )

        def run(pixels: np.ndarray) -> np.ndarray:
            net.setInput(pixels)
            try:
                return net.forward(own[0])
            except cv2.error as error:
                raise self._failed(error) from error

        return run

    def _failed(self, error: Exception) -> MetricsError:
        text = " ".join(str(error).split())
        return MetricsError(
            f"{KEY} is {self._path}, which OpenCV cannot run ({text[:160]}): pip install onnxruntime, which knows more "
            "models, or take another file."
        )

    def __call__(self, photo: np.ndarray) -> np.ndarray:
        """The mask uint8 [H, W], subject white, of a photo uint8 [H, W, 3].

        Raises MetricsError where the model gives no picture, NaN, or the same value everywhere.
        """
        from PIL import Image

        height, width = photo.shape[:2]
        rows, columns = self._size
        resized = Image.fromarray(photo).resize((columns, rows), Image.Resampling.LANCZOS)
        values = np.asarray(resized, np.float32)
        values = (values / max(float(values.max()), 1e-6) - np.float32(self._kind.mean)) / np.float32(self._kind.std)
        found = np.asarray(self._run(np.ascontiguousarray(values.transpose(2, 0, 1)[None])), np.float64)
        if found.ndim not in (3, 4) or min(found.shape[-2:]) < 2 or found.size != found.shape[-1] * found.shape[-2]:
            raise MetricsError(f"{KEY} is {self._path}, whose result {list(found.shape)} is no mask. {REMEDY}")
        return _stretched(found.reshape(found.shape[-2:]), (width, height), self._path)


def _stretched(found: np.ndarray, size: tuple[int, int], path: Path) -> np.ndarray:
    """A result [h, w], of probabilities or logits, stretched to 0..255 and resized to (width, height)."""
    from PIL import Image

    if not np.isfinite(found).all():
        raise MetricsError(f"{KEY} is {path}, which gave NaN: the file is damaged. Download it again.")
    if found.min() < -1e-3 or found.max() > 1 + 1e-3:
        found = 1 / (1 + np.exp(-found.clip(-60, 60)))
    low, high = float(found.min()), float(found.max())
    if high - low < FLAT:
        raise MetricsError("the mask model sees no subject: its result is the same everywhere.")
    mask = Image.fromarray(np.rint((found - low) / (high - low) * 255).astype(np.uint8))
    return np.asarray(mask.resize(size, Image.Resampling.BILINEAR))
