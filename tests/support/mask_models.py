"""Tiny ONNX models with the ends of a background remover, whose masks are worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_mask_model(path: Path, side: int | None = 32, logits: bool = False) -> Path:
    """Write a model whose first output is red less green, as it was before normalisation; its second is blue.

    logits: the first output is 10 times that, less 5. side: of its input; None: open.
    """
    mean, std = (0.485, 0.456), (0.229, 0.224)
    red, blue = np.zeros((1, 3, 1, 1), np.float32), np.zeros((1, 3, 1, 1), np.float32)
    red[0, :2, 0, 0] = std[0], -std[1]
    blue[0, 2] = 1
    shift = np.asarray([mean[0] - mean[1]], np.float32)
    if logits:
        red, shift = 10 * red, 10 * shift - 5
    weights = {"red": red, "shift": shift, "blue": blue}
    nodes = [
        helper.make_node("Conv", ["picture", "blue"], ["other"], kernel_shape=[1, 1]),
        helper.make_node("Conv", ["picture", "red", "shift"], ["mask"], kernel_shape=[1, 1]),
    ]
    size = [side, side] if side else ["height", "width"]
    given = [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, *size])]
    out = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, *size]) for name in ("mask", "other")]
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "tiny", given, out, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def red_square(height: int = 48, width: int = 64) -> np.ndarray:
    """A photo uint8 [height, width, 3], dark blue, whose middle quarter is red."""
    photo = np.full((height, width, 3), (0, 0, 90), np.uint8)
    photo[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = (255, 0, 0)
    return photo
