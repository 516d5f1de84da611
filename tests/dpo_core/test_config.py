"""Tests settings and the YAML file: every setting has a description and limits, and wrong values are named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from dreambooth_dpo.dpo_core import settings as all_settings
from dreambooth_dpo.dpo_core.config import EXAMPLE, FacesConfig, RunConfig, example_yaml, read_config
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.settings import LoopSettings, PairSettings, SamplingSettings, Settings


def leaves(kind: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted name, field) of every setting that is not a group."""
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


LEAVES = dict(leaves(RunConfig))
NUMBERS = [n for n, f in LEAVES.items() if f.annotation in (int, float)]


def changed(dotted: str, value: object) -> dict:
    """The example with one value set."""
    data = RunConfig.model_validate(EXAMPLE).model_dump(mode="json")
    *groups, name = dotted.split(".")
    place = data
    for group in groups:
        place = place[group]
    place[name] = value
    return data


def written(tmp_path: Path, data: object) -> Path:
    path = tmp_path / "mein Lauf – 犬.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    return path


def refusal(tmp_path: Path, data: object) -> str:
    with pytest.raises(UserError) as error:
        read_config(written(tmp_path, data))
    return str(error.value)


def limits(field) -> dict[str, float]:
    return {
        n: getattr(m, n) for m in field.metadata for n in ("ge", "gt", "le", "lt") if getattr(m, n, None) is not None
    }


def test_settings_are_found():
    assert {"sampling.steps", "pairs.angle_low", "train.beta", "model.path", "personalize.curve"} <= set(LEAVES)


@pytest.mark.parametrize("name", LEAVES)
def test_every_setting_is_described_by_a_sentence(name):
    text = LEAVES[name].description
    assert text and len(text) > 3 and text.endswith("."), f"{name}: {text!r}"


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_both_limits_and_a_default_within(name):
    field = LEAVES[name]
    found = limits(field)
    assert set(found) & {"ge", "gt"} and set(found) & {"le", "lt"}, f"{name} has the limits {found}"
    assert found.get("ge", found.get("gt")) <= field.default <= found.get("le", found.get("lt"))


def test_every_group_has_a_description():
    groups = [v for v in vars(all_settings).values() if isinstance(v, type) and issubclass(v, Settings)]
    assert len(groups) >= 7 and all(g.__doc__ and "Settings" not in g.__doc__.splitlines()[0] for g in groups)


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        SamplingSettings().steps = 3


def test_the_window_must_be_ordered():
    for low, high in ((70, 20), (30, 30)):
        with pytest.raises(ValidationError, match="angle_low .* must be below angle_high"):
            PairSettings(angle_low=low, angle_high=high)


# --- the file ---


def test_the_example_round_trips(tmp_path):
    """It contains every setting at its default, with its description above it."""
    text = example_yaml()
    config = read_config(written(tmp_path, text))
    assert config.loop() == LoopSettings()
    assert config.model.path == tmp_path / "my-model" and config.model.lora is None and config.concept.masks is None
    assert config.output == tmp_path / "runs/my-dog"
    assert list(leaves_of(yaml.safe_load(text))) == sorted(LEAVES)
    for name, field in LEAVES.items():
        assert f"# {field.description}" in text, name
    assert "[>= 2, <= 256]" in text and "[> 0.0, <= 1.0]" in text and "[fp32 | bf16]" in text


def leaves_of(data: dict) -> list[str]:
    found = []
    for name, value in data.items():
        found += [f"{name}.{inner}" for inner in leaves_of(value)] if isinstance(value, dict) else [name]
    return sorted(found)


def test_only_required_fields_must_be_given(tmp_path):
    data = {
        "model": {"path": "m"},
        "concept": {"identifier": "sks", "class_noun": "dog", "references": "photos"},
        "scorers": {"reward": "clip"},
        "prompts": "p.txt",
        "output": "out",
    }
    assert read_config(written(tmp_path, data)).loop() == LoopSettings()


def test_paths_are_relative_to_the_files_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    data = changed("concept.references", "fotos/Hündchen 犬")
    data["concept"]["held_out"] = "~/more"
    data["concept"]["masks"] = "masken ß"
    data["scorers"]["judge"] = str(tmp_path / "judge")
    (tmp_path / "sub").mkdir()
    config = read_config(written(tmp_path / "sub", data))
    assert config.concept.references == tmp_path / "sub" / "fotos/Hündchen 犬"
    assert config.concept.held_out == tmp_path / "home" / "more"
    assert config.concept.masks == tmp_path / "sub" / "masken ß"
    assert config.scorers.judge == tmp_path / "judge"
    assert config.prompts == tmp_path / "sub" / "prompts.txt" and config.held_out_prompts is None


def test_several_reward_folders_are_relative_to_the_files_folder(tmp_path):
    one, two, none = (
        changed("scorers.reward", "a"),
        changed("scorers.reward", ["ä b", str(tmp_path / "c")]),
        changed("scorers.reward", []),
    )
    assert read_config(written(tmp_path, one)).scorers.reward == tmp_path / "a"
    assert read_config(written(tmp_path, two)).scorers.reward == (tmp_path / "ä b", tmp_path / "c")
    assert "at least 1 item" in refusal(tmp_path, none)


def test_number_without_a_decimal_point_is_accepted(tmp_path):
    """YAML 1.1 reads 1e-4 as text; it is accepted as a number."""
    text = example_yaml().replace("learning_rate: 0.0002", "learning_rate: 3e-4")
    assert read_config(written(tmp_path, text)).train.learning_rate == 3e-4


GROUPS = ("scorers.faces", "scorers.quality", "scorers.vlm", "own_pairs", "concept.mask_model")
"""Leaves that are a group of settings, or empty."""


@pytest.mark.parametrize("name", LEAVES)
def test_a_wrong_value_is_refused_by_its_dotted_name(tmp_path, name):
    wrong = ["no value"] if name in GROUPS else {"no": "value"}
    message = refusal(tmp_path, changed(name, wrong))
    assert any(line.startswith(f"{name}:") or line.startswith(f"{name}.") for line in message.splitlines()), message
    assert str(wrong) in message


def test_the_settings_of_faces_are_described_checked_and_located(tmp_path):
    for name, field in FacesConfig.model_fields.items():
        assert field.description.endswith("."), name
    given = {"detector": "a/yunet.onnx", "recognizer": "/b/sface.onnx"}
    path = written(tmp_path, changed("scorers.faces", given))
    faces = read_config(path).scorers.faces
    assert (faces.detector, faces.recognizer) == (path.parent / "a/yunet.onnx", Path("/b/sface.onnx"))
    for confidence in (0, 1, "high"):
        said = refusal(tmp_path, changed("scorers.faces", {**given, "min_confidence": confidence}))
        assert "scorers.faces.min_confidence: " in said and f"{confidence!r}" in said
    assert "scorers.faces.recognizer: is required" in refusal(tmp_path, changed("scorers.faces", {"detector": "a"}))


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-1e9, 1e12, ".nan", "many"])
def test_a_number_out_of_range_is_refused_by_name_with_the_value(tmp_path, name, value):
    given = float("nan") if value == ".nan" else value
    message = refusal(tmp_path, changed(name, given))
    assert f"\n{name}: " in message and f"given: {given!r}" in message


@pytest.mark.parametrize(
    "place",
    ["", "sampling.", "pairs.", "adapter.", "train.", "evaluation.", "model.", "concept.", "scorers.", "personalize."],
)
def test_an_unknown_field_is_refused_by_name(tmp_path, place):
    message = refusal(tmp_path, changed(f"{place}learning_rat", 1))
    assert f"\n{place}learning_rat: is not a setting" in message


@pytest.mark.parametrize(
    "name", ["model", "concept", "scorers", "prompts", "output", "model.path", "concept.identifier", "scorers.reward"]
)
def test_a_missing_field_is_refused_by_name(tmp_path, name):
    data = changed(name, None)
    *groups, last = name.split(".")
    (data[groups[0]] if groups else data).pop(last)
    assert f"\n{name}: is required" in refusal(tmp_path, data)


def test_every_wrong_field_is_named_at_once(tmp_path):
    data = changed("sampling.steps", 0)
    data["train"]["beta"] = -1
    data["bogus"] = 3
    message = refusal(tmp_path, data)
    assert all(f"\n{name}: " in message for name in ("sampling.steps", "train.beta", "bogus"))


def test_window_with_swapped_ends_is_named(tmp_path):
    message = refusal(tmp_path, changed("pairs.angle_low", 80))
    assert "\npairs: " in message and "angle_low 80.0 must be below angle_high 70.0" in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no settings"),
        ("- a\n- b\n", "it is a list"),
        ("a: [1\n", "not valid YAML"),
        ("a: b: c", "not valid YAML"),
    ],
)
def test_text_that_is_no_config_is_refused(tmp_path, text, reason):
    assert reason in refusal(tmp_path, text)


def test_yaml_tag_that_would_run_code_is_refused(tmp_path):
    assert "not valid YAML" in refusal(tmp_path, "model: !!python/object/apply:os.getcwd []\n")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml does not exist"):
        read_config(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        read_config(tmp_path)


def test_another_encoding_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_bytes("output: Hündchen".encode("latin-1"))
    with pytest.raises(UserError, match="not valid YAML"):
        read_config(tmp_path / "a.yaml")
