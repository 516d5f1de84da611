"""Tests identity by faces on tiny ONNX models that OpenCV loads and runs as YuNet and SFace."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from face_models import with_faces, write_detector, write_recognizer

from dreambooth_dpo.metrics.errors import MetricsError
from dreambooth_dpo.metrics.faces import Faces, FaceScorer, check_person

RED, YELLOW, PINK = (255, 0, 0), (255, 255, 0), (255, 0, 255)
GREEN = (0, 255, 0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("gesichter ü")
    return write_detector(folder / "yunet.onnx"), write_recognizer(folder / "sface.onnx")


@pytest.fixture(scope="module")
def faces(files: tuple[Path, Path]) -> Faces:
    return Faces(*files)


def test_the_score_is_the_cosine_with_the_references(faces: Faces) -> None:
    """References red and yellow: unit vectors (1, 0, 0) and (1, 1, 0)/sqrt 2, mean (.853553, .353553, 0).

    Red: .853553. Yellow: (.853553 + .353553)/sqrt 2 = .853553. Pink, (1, 0, 1)/sqrt 2: .603553.
    """
    scorer = FaceScorer(faces, np.stack([with_faces(RED), with_faces(YELLOW)]), "fidelity_2")
    images = np.stack([with_faces(RED), with_faces(YELLOW), with_faces(PINK)])
    np.testing.assert_allclose(scorer.score(images, [""] * 3), [0.853553, 0.853553, 0.603553], atol=1e-5)
    assert scorer.score(images[:0], []).shape == (0,)


def test_no_face_and_several_have_no_score(faces: Faces) -> None:
    scorer = FaceScorer(faces, with_faces(RED)[None], "fidelity_2")
    images = np.stack([with_faces(GREEN), with_faces(GREEN, RED), with_faces(RED, RED), with_faces()])
    np.testing.assert_allclose(scorer.score(images, [""] * 4), [np.nan, 1, np.nan, np.nan], atol=1e-5)
    assert np.isnan(scorer.score(images[[0, 2]], [""] * 2)).all()
    assert faces.features(images)[1].tolist() == [0, 1, 2, 0]


def test_confidence_decides_what_a_face_is(files: tuple[Path, Path]) -> None:
    """A cell of red 128 has confidence 128/255 = .502."""
    dim = with_faces((128, 0, 0))
    assert [len(Faces(*files, confidence).find(dim)) for confidence in (0.45, 0.55)] == [1, 0]


def test_boxes_are_in_pixels_of_the_image_at_any_size(faces: Faces) -> None:
    """1280 x 1280 is searched at 640, where the cell of 64 pixels at (64, 0) is one of 32."""
    picture = np.zeros((1280, 1280, 3), np.uint8)
    picture[:64, 64:128] = RED
    (row,) = faces.find(picture)
    np.testing.assert_allclose(row[:4], [64, 0, 64, 64], atol=0.01)
    np.testing.assert_allclose(row[4:6], [64 + 64 * 38.2946 / 112, 64 * 51.6963 / 112], atol=0.01)
    (small,) = faces.find(with_faces(GREEN, RED))
    np.testing.assert_allclose(small[:4], [32, 0, 32, 32], atol=0.01)


def test_fingerprints_depend_on_contents_settings_and_photos(files: tuple[Path, Path], tmp_path: Path) -> None:
    detector, recognizer = files
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(recognizer.read_bytes())
    photos = with_faces(RED)[None]

    def mark(*given: object, seen: np.ndarray = photos) -> str:
        return FaceScorer(Faces(*given), seen, "fidelity_2").fingerprint

    first = mark(detector, recognizer)
    assert first == mark(detector, copy)
    other = write_recognizer(tmp_path / "other.onnx", scale=2.0)
    changed = [mark(detector, other), mark(detector, recognizer, 0.5), mark(detector, recognizer, seen=photos // 2 * 2)]
    assert len({first, *changed}) == 4


def test_photos_without_exactly_one_face_are_named(faces: Faces) -> None:
    photos = np.stack([with_faces(RED), with_faces(), with_faces(RED, PINK)])
    with pytest.raises(MetricsError, match=r"2 of 3 have none or several: b\.png \(no face\), c\.png \(2 faces\)\."):
        FaceScorer(faces, photos, "fidelity_2", ["a.png", "b.png", "c.png"])
    with pytest.raises(MetricsError, match=r"number 2 \(no face\)"):
        FaceScorer(faces, photos, "fidelity_2")


def test_wrong_files_are_refused_in_a_sentence(files: tuple[Path, Path], tmp_path: Path) -> None:
    detector, recognizer = files
    pointer, empty, text, cut = (tmp_path / n for n in ("lfs.onnx", "empty.onnx", "model.pt", "cut.onnx"))
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n", encoding="utf-8")
    empty.touch()
    text.write_text("x", encoding="utf-8")
    cut.write_bytes(detector.read_bytes()[:3000])
    for given, said in (
        ((recognizer, recognizer), r"detector is .*sface\.onnx, which is not YuNet .*exchanged\?"),
        ((detector, detector), r"recognizer is .*yunet\.onnx, which is not SFace \(it has 12 outputs.*exchanged\?"),
        ((tmp_path / "none.onnx", recognizer), r"detector is .*none\.onnx, which is no file\. Download .*YuNet"),
        ((detector, pointer), r"recognizer is .*lfs\.onnx, a Git LFS pointer .*git lfs pull"),
        ((empty, recognizer), "an empty file, not an ONNX model"),
        ((text, recognizer), r"a \.pt file, not an ONNX model"),
        ((cut, recognizer), "which OpenCV cannot read as an ONNX model"),
    ):
        with pytest.raises(MetricsError, match=said):
            Faces(*given)


def test_a_face_without_features_is_an_error(files: tuple[Path, Path], tmp_path: Path) -> None:
    broken = Faces(files[0], write_recognizer(tmp_path / "zero.onnx", scale=0.0))
    with pytest.raises(MetricsError, match="gave a face no features"):
        broken.features(with_faces(RED)[None])


def test_without_opencv_the_package_is_named(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MetricsError, match="pip install opencv-python-headless"):
        Faces(*files)


def test_only_persons() -> None:
    for noun in ("man", "Old Woman", "girl", "young person", "Mann"):
        check_person(noun)
    for noun in ("dog", "robot", "girl doll", "snowman", "man's dog", "?"):
        with pytest.raises(MetricsError, match=r"not in the list of persons .* scorers\.faces\.person: true"):
            check_person(noun)
        check_person(noun, person=True)
