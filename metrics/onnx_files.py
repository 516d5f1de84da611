"""Reads of an ONNX file what a library does not tell before it runs: its kind, and the names and shapes at its ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .errors import MetricsError

_GRAPH, _INPUT, _OUTPUT = 7, 11, 12
"""Numbers of ModelProto.graph, GraphProto.input and GraphProto.output (onnx.proto)."""
Shape = tuple[int, ...]


def check_onnx_file(path: Path, key: str, remedy: str) -> None:
    """Raises MetricsError, before a library opens it, for a file that is missing or is no ONNX model.

    key: the setting that names the file. remedy: the last sentence of the message.
    """
    if not path.is_file():
        raise MetricsError(f"{key} is {path}, which is no file. {remedy}")
    with path.open("rb") as file:
        start = file.read(40)
    if start.startswith(b"version https://git-lfs"):
        raise MetricsError(
            f"{key} is {path}, a Git LFS pointer ({path.stat().st_size} bytes of text), not the model. Fetch the file "
            "itself: `git lfs pull`, or download it again."
        )
    if path.suffix.lower() != ".onnx" or not start:
        what = "an empty file" if not start else f"a {path.suffix or 'nameless'} file"
        raise MetricsError(f"{key} is {path}, {what}, not an ONNX model. {remedy}")


def opencv_for(key: str, needed: tuple[str, ...] = ()):
    """The module cv2. Raises MetricsError, naming the setting, where it is not installed or lacks what is needed."""
    try:
        import cv2
    except ImportError as error:
        raise MetricsError(
            f"{key} needs OpenCV, which cannot be imported ({error}): pip install opencv-python-headless"
        ) from error
    if not all(hasattr(cv2, name) for name in needed):
        raise MetricsError(
            f"{key} needs OpenCV 4.8 or newer, and this is {cv2.__version__}: pip install --upgrade "
            "opencv-python-headless"
        )
    return cv2


def ends(data: bytes) -> tuple[dict[str, Shape], list[str]]:
    """Shapes of a model's inputs by name, 0 for a size that is left open, and the names of its outputs in order.

    Inputs that are weights are left out. Raises MetricsError for bytes that are no ONNX model.
    """
    inputs, outputs, weights = {}, [], set()
    try:
        graphs = [value for number, value in _fields(data) if number == _GRAPH]
        for number, value in _fields(graphs[0]):
            if number == _INPUT:
                inputs[_name(value, 1)] = _shape(value)
            elif number == _OUTPUT:
                outputs.append(_name(value, 1))
            elif number == 5:  # GraphProto.initializer; TensorProto.name is 8
                weights.add(_name(value, 8))
    except (IndexError, StopIteration, UnicodeDecodeError, TypeError, AttributeError) as error:
        raise MetricsError("the file is no ONNX model, or it is cut off: download it again.") from error
    return {name: shape for name, shape in inputs.items() if name not in weights}, outputs


def _name(message: memoryview, number: int) -> str:
    return bytes(next(v for n, v in _fields(message) if n == number)).decode()


def _shape(value: memoryview) -> Shape:
    """ValueInfoProto.type.tensor_type.shape.dim[].dim_value."""
    for number in (2, 1, 2):
        value = next((v for n, v in _fields(value) if n == number), memoryview(b""))
    return tuple(next((v for n, v in _fields(dim) if n == 1), 0) for n, dim in _fields(value) if n == 1)


def _fields(data: bytes | memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Number and value of each field of a protobuf message; IndexError where it is cut off."""
    view, at = memoryview(data), 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = view[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(view):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        size = varint() if kind == 2 else {1: 8, 5: 4}.get(kind)
        if size is None or at + size > len(view):
            raise IndexError
        yield key >> 3, view[at : at + size]
        at += size
