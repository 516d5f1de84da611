"""Tests masks by a model on tiny ONNX files that OpenCV loads and runs as a background remover."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from face_models import write_detector
from mask_models import red_square, write_mask_model

from dreambooth_dpo.metrics.errors import MetricsError
from dreambooth_dpo.metrics.mask_model import MaskModel, kind_of
from dreambooth_dpo.metrics.onnx_files import ends


@pytest.mark.parametrize("given", [{}, {"side": None}, {"logits": True}])
def test_the_mask_is_the_models_first_output(tmp_path: Path, given: dict) -> None:
    """Red less green is 1 in the middle and 0 around it; as logits 5 and -5. Stretched: 255 and 0. The model sees the
    photo at its own size (320 where it is open), and the mask has the photo's."""
    mask = MaskModel(write_mask_model(tmp_path / "u2net.onnx", **given))(red_square())
    assert (mask.dtype, mask.shape) == (np.uint8, (48, 64))
    inside = np.zeros((48, 64), bool)
    inside[12:36, 16:48] = True
    near = np.zeros((48, 64), bool)  # edges are resampled
    near[9:39, 13:51], near[15:33, 19:45] = True, False
    assert (mask[inside & ~near] >= 250).all()
    assert (mask[~inside & ~near] <= 5).all()


def test_names_and_shapes_are_read_from_the_file(tmp_path: Path) -> None:
    import onnx

    path = write_mask_model(tmp_path / "a.onnx", side=None)
    assert ends(path.read_bytes()) == ({"picture": (1, 3, 0, 0)}, ["mask", "other"])
    graph = onnx.load(str(path)).graph
    graph.input.append(onnx.helper.make_tensor_value_info("red", onnx.TensorProto.FLOAT, [1, 3, 1, 1]))
    model = onnx.helper.make_model(graph)
    assert list(ends(model.SerializeToString())[0]) == ["picture"]  # older files list their weights as inputs


def test_the_kind_is_told_by_the_name() -> None:
    names = ("isnet-general-use.onnx", "BiRefNet-general-lite.onnx", "u2netp.onnx", "mine.onnx")
    assert [kind_of(Path(n)) for n in names] == ["isnet", "birefnet", "u2net", "u2net"]
    assert kind_of(Path("mine.onnx"), "isnet") == "isnet"


def test_what_is_no_mask_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = write_mask_model(tmp_path / "u2net.onnx")
    cut, text = tmp_path / "cut.onnx", tmp_path / "model.pt"
    cut.write_bytes(good.read_bytes()[:100])
    text.write_text("x", encoding="utf-8")
    for path, said in (
        (tmp_path / "none.onnx", r"concept\.mask_model\.path is .*none\.onnx, which is no file\. Name the \.onnx"),
        (text, r"a \.pt file, not an ONNX model"),
        (cut, "no ONNX model, or it is cut off: download it again"),
    ):
        with pytest.raises(MetricsError, match=said):
            MaskModel(path)
    with pytest.raises(MetricsError, match="sees no subject: its result is the same everywhere"):
        MaskModel(good)(np.full((8, 8, 3), 90, np.uint8))
    broken = MaskModel(good)
    monkeypatch.setattr(broken, "_run", lambda pixels: np.full_like(pixels[:, :1], np.nan))
    with pytest.raises(MetricsError, match="gave NaN"):
        broken(red_square())
    with pytest.raises(MetricsError, match=r"is no mask\. Name the"):
        MaskModel(write_detector(tmp_path / "yunet.onnx"))(red_square())
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MetricsError, match="mask_model.path needs OpenCV.*pip install opencv-python-headless"):
        MaskModel(good)
