"""What users feed a run, from the config on: photos, cut-outs and prompts, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mask_models import red_square, write_mask_model
from PIL import Image
from projects import config_of, make_project

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.headless import config_concept, config_prompts, loop_from_config, parts_from_config


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs") / "prøjekt"
    make_project(folder)
    return folder


def test_cut_outs_beside_other_files(project: Path, caplog) -> None:
    folder = project / "freigestellt"
    folder.mkdir()
    cut = Image.new("RGBA", (80, 80), (255, 0, 255, 0))
    cut.paste((20, 120, 20, 255), (20, 20, 60, 60))
    cut.save(folder / "a.png")
    (folder / "a.txt").write_text("a sks robot", encoding="utf-8")
    concept = config_concept(config_of(project, concept__references=folder.name, concept__held_out=None))
    assert concept.masks.shape == (1, 64, 64) and np.isclose((concept.masks > 128).mean(), 0.25, atol=0.02)
    assert concept.references[0, 2, 2].tolist() == [128] * 3
    assert caplog.messages == [
        "using 1 photo, skipped: a.txt (a caption: prompts come from the prompt file)",
        "a.png: cut out, so the opaque part is the subject's mask; the rest is grey",
        "masks cover 25 % of a.png",
        "one reference photo: fidelity has no scale, as nothing says how alike other photos of the subject are. Three "
        "to five photos are usual",
    ]


def test_masks_made_by_a_model(project: Path, caplog) -> None:
    """Where there are none; a folder of masks beside the model is refused, and so is an empty result."""
    folder = project / "rot"
    folder.mkdir()
    for name in ("a", "b"):
        Image.fromarray(red_square(96, 96)).save(folder / f"{name}.png")
    write_mask_model(project / "u2net.onnx")
    given = {"concept__references": "rot", "concept__held_out": None, "concept__mask_model": {"path": "u2net.onnx"}}
    concept = config_concept(config_of(project, **given))
    assert concept.masks.shape == (2, 64, 64)
    assert (concept.masks[:, 20:44, 20:44] >= 250).all() and (concept.masks[:, :12] <= 5).all()
    assert "masks are made by a model: masks cover 25 % of a.png, 25 % of b.png" in caplog.messages
    with pytest.raises(UserError, match=r"concept\.masks .* and concept\.mask_model .* are both set"):
        config_concept(config_of(project, **given, concept__masks="rot"))
    Image.new("RGB", (96, 96), (0, 0, 90)).save(folder / "c.png")
    with pytest.raises(UserError, match=r"c\.png: the mask model sees no subject.*Give this photo's mask by hand"):
        config_concept(config_of(project, **given))


def test_the_projects_photos_and_prompts_say_nothing(project: Path, caplog) -> None:
    concept = config_concept(config_of(project))
    config_prompts(config_of(project), concept)
    assert caplog.messages == [] and concept.masks is None


def test_syntax_in_a_prompt_file_is_refused(project: Path) -> None:
    (project / "other.txt").write_text("a (red:1.3) {identifier} {class_noun}\n" * 2, encoding="utf-8")
    config = config_of(project, prompts="other.txt")
    with pytest.raises(UserError, match=r"'\(red:1\.3\)' is a weight"):
        config_prompts(config, config_concept(config_of(project)))


def test_prompts_that_the_text_encoder_cannot_tell_apart_are_refused(project: Path, caplog) -> None:
    """They differ in words after the tokenizer's limit; one such prompt alone is only said."""
    long = "a {identifier} {class_noun} " + "on very green grass " * 40
    lines = [f"a {{identifier}} {{class_noun}} {place}" for place in ("on sand", "at sea", "in snow", "on a table")]
    (project / "long.txt").write_text("\n".join([*lines, f"{long} now"]), encoding="utf-8")
    parts_from_config(config_of(project, prompts="long.txt"))
    (said,) = [m for m in caplog.messages if "is longer than the text encoder's" in m]
    assert "'grass on " in said and said.endswith("' is cut off"), "the toybox's tokenizer reads other words as <unk>"
    (project / "long.txt").write_text("\n".join([*lines, f"{long} now", f"{long} then"]), encoding="utf-8")
    with pytest.raises(UserError, match="are one prompt to the model; both are cut after"):
        parts_from_config(config_of(project, prompts="long.txt"))


def test_own_pairs_of_a_config_are_trained_on_and_part_of_the_run(project: Path, caplog) -> None:
    for side, colour in (("winner", 200), ("loser", 20)):
        (project / "own" / side).mkdir(parents=True)
        Image.new("RGB", (96, 64), (colour, 40, 40)).save(project / "own" / side / "a.png")
    given = {"source": "own", "prompt": "a {identifier} {class_noun} at sea", "weight": 2.0}
    config = config_of(project, own_pairs=given, output="runs/own")
    loop = loop_from_config(config, resume=False)
    assert "1 own pair; 2 of 2 pictures cropped and resized to 64x64: 96x64." in caplog.messages
    loop.improve(0)
    data = loop.pair_data(0)
    assert (data.own, data.weight) == (1, 2.0) and "a sks robot at sea" in data.prompts
    assert loop.run.training(0)
    with pytest.raises(UserError, match="own_pairs was"):
        loop_from_config(config_of(project, own_pairs={**given, "weight": 1.0}, output="runs/own"), resume=True)
