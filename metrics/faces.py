"""Identity of a person by faces: YuNet finds them, SFace compares them, both through OpenCV from local ONNX files.

Sources: opencv_zoo's face_detection_yunet (MIT) and face_recognition_sface (Apache-2.0); OpenCV's FaceDetectorYN and
FaceRecognizerSF. As in ID-Aligner (arXiv 2404.15449) the reward is the cosine of the face's features alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .errors import MetricsError
from .onnx_files import check_onnx_file, opencv_for
from .pictures import check_images

PERSONS = frozenset(
    "person human man woman boy girl child kid baby toddler teenager guy lady gentleman male female "
    "actor actress singer bride groom father mother dad mom son daughter brother sister grandfather grandmother "
    "mann frau junge mädchen mensch homme femme garçon fille hombre mujer persona".split()
)
"""Class nouns of a person: English, and a few of German, French and Spanish."""
LONGEST = 640
"""Longest side of the picture in which faces are looked for; YuNet knows faces of about 10 to 300. Unit: pixels."""
OVERLAP, MOST = 0.3, 5000
"""OpenCV's defaults: overlap (0..1) from which two boxes are one face, and most boxes before that."""
DETECTOR_OUTPUTS = frozenset(f"{name}_{stride}" for name in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32))
_SOURCE = "https://github.com/opencv/opencv_zoo (models/{})"
_FILES = {
    "detector": ("YuNet", _SOURCE.format("face_detection_yunet")),
    "recognizer": ("SFace", _SOURCE.format("face_recognition_sface")),
}


def check_person(class_noun: str, person: bool = False) -> None:
    """Raises MetricsError unless the class noun names a person by its last word, or the user says so (`person`)."""
    words = re.findall(r"\w+", class_noun.casefold())
    if not person and (not words or words[-1] not in PERSONS):
        raise MetricsError(
            f"scorers.faces is set, but class_noun is {class_noun!r}, which is not in the list of persons (man, woman, "
            "boy, girl, person, ...): faces say nothing about another subject. Leave scorers.faces out, or set "
            "scorers.faces.person: true if the subject is a person."
        )


def check_onnx(path: Path, part: str) -> None:
    """Raises MetricsError, before a library opens it, for a file that is missing or is no ONNX model.

    part: "detector" or "recognizer".
    """
    model, source = _FILES[part]
    remedy = f"Download the .onnx file of {model} from {source}, and name it in the config."
    check_onnx_file(path, f"scorers.faces.{part}", remedy)


class Faces:
    """Finds faces and gives their features. Runs on the CPU.

    detector, recognizer: .onnx files. min_confidence: 0..1, from which a detection is a face. `fingerprint`: of the
    files' contents and the settings. Raises MetricsError for a missing file, one that is no ONNX model, a model of
    another kind (such as the recognizer given as detector), or without OpenCV.
    """

    def __init__(self, detector: Path, recognizer: Path, min_confidence: float = 0.6) -> None:
        files = {"detector": Path(detector), "recognizer": Path(recognizer)}
        for part, path in files.items():
            check_onnx(path, part)
        self._cv2 = opencv_for("scorers.faces", ("FaceDetectorYN", "FaceRecognizerSF"))
        for part, path in files.items():
            self._check_kind(path, part)
        marks = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files.values()]
        given = f"faces-1|{'|'.join(marks)}|{min_confidence}|{LONGEST}|{OVERLAP}"
        self.fingerprint = hashlib.sha256(given.encode()).hexdigest()
        self._detector = self._cv2.FaceDetectorYN.create(
            str(detector), "", (LONGEST, LONGEST), min_confidence, OVERLAP, MOST
        )
        self._recognizer = self._cv2.FaceRecognizerSF.create(str(recognizer), "")
        self._try(files)

    def _check_kind(self, path: Path, part: str) -> None:
        """Raises MetricsError unless OpenCV reads the model, and its outputs are those of this part."""
        model, source = _FILES[part]
        try:
            outputs = set(self._cv2.dnn.readNetFromONNX(str(path)).getUnconnectedOutLayersNames())
        except self._cv2.error as error:
            raise MetricsError(
                f"scorers.faces.{part} is {path}, which OpenCV cannot read as an ONNX model ({_short(error)}): it is "
                f"damaged or something else. Download {model} again from {source}."
            ) from error
        if part == "detector" and not outputs >= DETECTOR_OUTPUTS:
            raise self._another(path, part, f"it lacks outputs such as {min(DETECTOR_OUTPUTS - outputs)}")
        if part == "recognizer" and len(outputs) != 1:
            raise self._another(path, part, f"it has {len(outputs)} outputs, and one is needed")

    @staticmethod
    def _another(path: Path, part: str, reason: str) -> MetricsError:
        model, source = _FILES[part]
        return MetricsError(
            f"scorers.faces.{part} is {path}, which is not {model} ({reason}): are detector and recognizer exchanged? "
            f"{model} of 2023 or later is at {source}."
        )

    def _try(self, files: dict[str, Path]) -> None:
        """Run both models once. Raises MetricsError for one that fails."""
        for part, run in (
            ("detector", lambda: self.find(np.zeros((64, 64, 3), np.uint8))),
            ("recognizer", lambda: self._recognizer.feature(np.zeros((112, 112, 3), np.uint8))),
        ):
            try:
                run()
            except self._cv2.error as error:
                raise self._another(files[part], part, f"OpenCV says {_short(error)}") from error

    def find(self, image: np.ndarray) -> np.ndarray:
        """The faces of an image uint8 [H, W, 3] (RGB), float32 [k, 15], in pixels of the image.

        A row: left, top, width, height, five points (x, y), confidence 0..1. Larger images are searched at `LONGEST`.
        """
        height, width = image.shape[:2]
        scale = min(1.0, LONGEST / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        seen = np.ascontiguousarray(image[..., ::-1])
        if size != (width, height):
            seen = self._cv2.resize(seen, size, interpolation=self._cv2.INTER_AREA)
        self._detector.setInputSize(size)
        rows = self._detector.detect(seen)[1]
        if rows is None:
            return np.zeros((0, 15), np.float32)
        rows = np.array(rows, np.float32)
        rows[:, 0:14:2] *= width / size[0]
        rows[:, 1:14:2] *= height / size[1]
        return rows

    def features(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features of unit length, float64 [n, d], and numbers of faces, int [n], of images uint8 [n, H, W, 3].

        A row without exactly one face is NaN. Raises MetricsError for another shape or type, and for features that are
        zero or not finite.
        """
        found = [self.find(image) for image in check_images(images)]
        counts = np.asarray([len(rows) for rows in found], int)
        features = [
            self._feature(image, rows[0]) if len(rows) == 1 else None for image, rows in zip(images, found, strict=True)
        ]
        length = next((len(row) for row in features if row is not None), 1)
        return np.asarray([np.full(length, np.nan) if row is None else row for row in features]), counts

    def _feature(self, image: np.ndarray, face: np.ndarray) -> np.ndarray:
        seen = np.ascontiguousarray(image[..., ::-1])
        row = self._recognizer.feature(self._recognizer.alignCrop(seen, face))[0].astype(np.float64)
        norm = float(np.linalg.norm(row))
        if not np.isfinite(norm) or norm == 0:
            raise MetricsError(
                "scorers.faces.recognizer gave a face no features (zero, or not finite): its file is damaged, or of "
                "another model. Download it again."
            )
        return row / norm


class FaceScorer:
    """Mean cosine (-1..1) between the one face of an image and the faces of the reference photos.

    An image with no face or with several has no score: NaN, see `unscored` in `protocols.Scorer`. references: uint8
    [r, H, W, 3], each with exactly one face; files: their names, for the message. Raises MetricsError for a photo
    without exactly one face.
    """

    unscored = "no face or several faces"

    def __init__(self, faces: Faces, references: np.ndarray, name: str, files: Sequence[str] = ()) -> None:
        rows, counts = faces.features(references)
        if (counts != 1).any():
            raise MetricsError(_without_one_face(counts, files))
        digest = hashlib.sha256(f"face-fidelity-1|{faces.fingerprint}|{references.shape}|".encode())
        digest.update(references.tobytes())
        self.name, self.fingerprint = name, digest.hexdigest()
        self._faces, self._mean = faces, rows.mean(axis=0)

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        """float64 [n], -1..1, or NaN without exactly one face, for uint8 images [n, H, W, 3]. Ignores prompts."""
        rows, counts = self._faces.features(images)
        found = np.full(len(counts), np.nan)
        if (one := counts == 1).any():
            found[one] = rows[one] @ self._mean
        return found


def _without_one_face(counts: np.ndarray, files: Sequence[str]) -> str:
    """The refusal of reference photos without exactly one face, with their names and numbers of faces."""
    bad = [(files[i] if i < len(files) else f"number {i + 1}", int(n)) for i, n in enumerate(counts) if n != 1]
    said = ", ".join(f"{file} ({'no face' if n == 0 else f'{n} faces'})" for file, n in bad)
    return (
        f"scorers.faces needs exactly one face in each reference photo, as cropped to the sampling size, and "
        f"{len(bad)} of {len(counts)} have none or several: {said}. Take these photos out or crop them, change "
        "scorers.faces.min_confidence, or leave scorers.faces out."
    )


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 160 else f"{text[:160]}..."
