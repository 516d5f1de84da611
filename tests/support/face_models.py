"""Tiny ONNX models with the inputs and outputs of YuNet and SFace, whose results are worked out by hand.

The detector sees a face in every cell of 32 x 32 pixels that is red: its confidence is the cell's mean red / 255. The
box is the cell, and the five points are those of OpenCV's aligned face, so that the aligned face is the cell. The
recognizer's features are the mean colours of the quarters of the aligned face, so two plain cells have the cosine of
their colours.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

POINTS = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
"""Eyes, nose and corners of the mouth in OpenCV's aligned face of 112 x 112 pixels."""
CHANNELS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}


def _saved(path: Path, nodes: list, shapes: tuple[dict, dict], weights: dict[str, np.ndarray]) -> Path:
    given, out = ([helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in part.items()] for part in shapes)
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "tiny", given, out, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def write_detector(path: Path) -> Path:
    """Write the detector; BGR pixels 0..255, as OpenCV gives them to YuNet."""
    nodes, weights = [], {}
    for stride in (8, 16, 32):
        red = np.zeros((1, 3, stride, stride), np.float32)
        red[:, 2] = 1 / (255 * stride * stride)
        weights[f"red{stride}"] = red
        nodes.append(
            helper.make_node(
                "Conv", ["input", f"red{stride}"], [f"mean{stride}"], kernel_shape=[stride] * 2, strides=[stride] * 2
            )
        )
        for name, count in CHANNELS.items():
            own = f"{name}_{stride}"
            scale, shift = np.zeros((count, 1, 1, 1), np.float32), np.zeros(count, np.float32)
            if name in ("cls", "obj") and stride == 32:
                scale += 1
            if name == "bbox":
                shift[:2] = 0.5  # the box's middle, in cells; its size is exp(0) cells
            if name == "kps":
                shift[:] = np.asarray(POINTS, np.float32).ravel() / 112
            weights |= {f"w{own}": scale, f"b{own}": shift, f"s{own}": np.asarray([1, -1, count])}
            nodes += [
                helper.make_node("Conv", [f"mean{stride}", f"w{own}", f"b{own}"], [f"c{own}"], kernel_shape=[1, 1]),
                helper.make_node("Transpose", [f"c{own}"], [f"t{own}"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"t{own}", f"s{own}"], [own]),
            ]
    outputs = {f"{name}_{stride}": [1, None, count] for name, count in CHANNELS.items() for stride in (8, 16, 32)}
    return _saved(path, nodes, ({"input": [1, 3, "height", "width"]}, outputs), weights)


def write_recognizer(path: Path, scale: float = 1.0) -> Path:
    """Write the recognizer: 112 x 112 to 128 features, of which 12 are not zero. scale: of all features."""
    weights = {"w": scale * np.eye(12, 128, dtype=np.float32)}
    nodes = [
        helper.make_node("AveragePool", ["data"], ["pool"], kernel_shape=[56, 56], strides=[56, 56]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["fc1"]),
    ]
    return _saved(path, nodes, ({"data": [1, 3, 112, 112]}, {"fc1": [1, 128]}), weights)


def with_faces(*colours: tuple[int, int, int], size: int = 64) -> np.ndarray:
    """A black picture uint8 [size, size, 3] whose first cells, row by row, have these colours."""
    picture = np.zeros((size, size, 3), np.uint8)
    for i, colour in enumerate(colours):
        row, column = divmod(i, size // 32)
        picture[32 * row : 32 * row + 32, 32 * column : 32 * column + 32] = colour
    return picture
