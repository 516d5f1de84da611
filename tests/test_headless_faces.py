"""Tests a headless run with identity by faces: pictures without exactly one face, from the config to the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from face_models import with_faces, write_detector, write_recognizer
from PIL import Image
from projects import config_of, make_project, write_photos

from dreambooth_dpo.dpo_core.config import RunConfig
from dreambooth_dpo.headless import loop_from_config, run_loop
from dreambooth_dpo.metrics.errors import MetricsError
from dreambooth_dpo.metrics.faces import FaceScorer

FACES = {"detector": "yunet.onnx", "recognizer": "sface.onnx", "min_confidence": 0.0262}
"""The tiny pipeline's pictures are dark: about a quarter of their cells are redder than this share."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose photos show one face each, with the models in its folder."""
    folder = tmp_path_factory.mktemp("gesicht") / "prøjekt"
    make_project(folder)
    write_detector(folder / "yunet.onnx")
    write_recognizer(folder / "sface.onnx")
    (folder / "portraits").mkdir()
    for i, colour in enumerate(((255, 0, 0), (255, 120, 0))):
        Image.fromarray(with_faces(colour)).save(folder / "portraits" / f"{i}.png")
    return folder


def config(project: Path, **changes: object) -> RunConfig:
    given = {
        "concept__class_noun": "man",
        "concept__references": "portraits",
        "scorers__faces": FACES,
        "sampling__candidates_per_prompt": 8,
        "evaluation__seeds_per_prompt": 6,
        "sweep": True,
        "strength": {"strengths": [0.0, 1.0], "seeds_per_prompt": 6},
    }
    return config_of(project, **{**given, **changes})


def strict(text: str) -> dict:
    """JSON without NaN and Infinity, which are no JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"the report holds {constant}")

    return json.loads(text, parse_constant=refuse)


def test_a_run_leaves_out_pictures_without_exactly_one_face(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = loop_from_config(config(project), resume=False)
    assert [s.name for s in loop.rewards] == ["fidelity", "alignment", "fidelity_2"]
    _, report = run_loop(loop)
    faces = loop.run.score_array("round_0", "fidelity_2")
    without = np.isnan(faces)
    assert 0 < without.sum() < len(faces) == 16
    pairs = loop.run.pairs("round_0")
    assert pairs and not any(without[[p.winner, p.loser]].any() for p in pairs)
    assert report["pairs"][0]["unscored"] == without.sum()

    before, after = (np.isnan(loop.run.score_array(f"evaluation_{k}", "fidelity_2")) for k in (0, 1))
    shares = report["unscored"]["fidelity_2"]
    assert (shares["before"], shares["after"]) == (before.mean(), after.mean()) and 0 < before.mean() < 1
    assert report["fidelity_2"]["images"] == (~(before | after)).sum() < report["fidelity"]["images"] == 12
    (said,) = [line for line in report["distrust"] if "have no score by fidelity (2nd scorer)" in line]
    assert said.startswith(f"{100 * before.mean():.0f} % of 12 held-out pictures before and")
    assert "(no face or several faces)" in said
    folder = loop.run.path / "report"
    assert strict((folder / "report.json").read_text(encoding="utf-8"))["unscored"] == report["unscored"]
    assert "have no score by" in (folder / "report.html").read_text(encoding="utf-8")
    loop.run.close()

    def not_again(*_: object) -> None:
        raise AssertionError("a picture was scored again")

    again = loop_from_config(config(project), resume=True)
    monkeypatch.setattr(FaceScorer, "score", not_again)
    assert run_loop(again)[1] == report


def test_faces_are_refused_where_the_class_noun_is_no_person(project: Path) -> None:
    changed = config(project, concept__class_noun="dog", output="other")
    with pytest.raises(MetricsError, match="class_noun is 'dog', which is not in the list of persons"):
        loop_from_config(changed, resume=False)
    assert not changed.output.exists()
    given = config(project, concept__class_noun="dog", scorers__faces={**FACES, "person": True}, output="other")
    assert "fidelity_2" in [s.name for s in loop_from_config(given, resume=False).rewards]


def test_photos_without_a_face_are_named_by_their_files(project: Path) -> None:
    write_photos(project / "gemischt", 1, 0)
    Image.fromarray(with_faces((255, 0, 0))).save(project / "gemischt" / "a.png")
    Image.fromarray(with_faces()).save(project / "gemischt" / "b.png")
    changed = config(project, concept__references="gemischt", output="third")
    with pytest.raises(MetricsError, match=r"2 of 3 have none or several: b\.png \(no face\), größe 0\.png \(\d faces"):
        loop_from_config(changed, resume=False)
    assert not changed.output.exists()


def test_a_missing_model_is_said_before_anything_is_loaded(project: Path) -> None:
    changed = config(project, scorers__faces={**FACES, "recognizer": "none.onnx"}, scorers__reward="not there")
    with pytest.raises(MetricsError, match=r"scorers\.faces\.recognizer is .*none\.onnx, which is no file"):
        loop_from_config(changed, resume=False)
