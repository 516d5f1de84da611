"""Tests the command line: commands, their output, and the messages about wrong input."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import Result
from loops import difference
from models import tiny_stable_diffusion
from projects import make_project, write_config
from typer.testing import CliRunner

from dreambooth_dpo import headless
from dreambooth_dpo.cli import app
from dreambooth_dpo.dpo_core.config import EXAMPLE, RunConfig, read_config
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.settings import AdapterSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.lora_files import read_lora, save_lora


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def succeeds(*arguments: object) -> Result:
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result


def fails(*arguments: object, code: int = 2) -> str:
    """The message on stderr of a command that is refused without a traceback."""
    result = call(*arguments)
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit) and "Traceback" not in result.output
    return result.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project whose own `output` no test uses."""
    folder = tmp_path_factory.mktemp("cli") / "projekt é"
    make_project(folder)
    return folder


@pytest.fixture(scope="module")
def finished(project: Path) -> tuple[Path, Result]:
    """A finished `run`: (output folder, result)."""
    result = succeeds("run", write_config(project, "fertig.yaml", output="läufe/fertig"))
    return project / "läufe" / "fertig", result


# --- config ---


def test_config_prints_yaml_that_reads_back(tmp_path: Path) -> None:
    text = succeeds("config").output
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    defaults = RunConfig.model_validate(EXAMPLE)
    assert RunConfig.model_validate(yaml.safe_load(text)) == defaults
    assert read_config(path).loop() == defaults.loop() and read_config(path).output == tmp_path / "runs" / "my-dog"
    assert "auto, as usual for the model's family. Unit: steps. [>= 1, <= 1000]\n  steps: 16" in text.replace(
        "  #", "#"
    )


def test_config_prints_its_schema() -> None:
    assert "sampling" in json.loads(succeeds("config", "--schema").output)["properties"]


def test_help_lists_the_commands() -> None:
    said = succeeds("--help").output
    commands = ("demo", "personalize", "run", "evaluate", "report", "doctor", "config", "export", "join")
    assert all(name in said for name in commands)


# --- run, and what follows it ---


def test_run_prints_the_answer_and_writes_lora_and_report(finished: tuple[Path, Result]) -> None:
    folder, result = finished
    report = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["answer"][:30] in " ".join(result.stdout.split())
    assert "fidelity" in result.stdout and str(folder / "report" / "report.html") in result.stdout
    assert (folder / "report" / "report.html").is_file()
    assert {"before", "after", "gain", "ci95"} <= report["alignment"].keys()
    tensors = read_lora(folder / "dreambooth_dpo_lora.safetensors")
    assert any(float(v.abs().max()) > 0 for k, v in tensors.items() if k.endswith("lora_up.weight"))


def test_existing_run_continues_only_with_resume(finished: tuple[Path, Result], project: Path) -> None:
    folder, first = finished
    config = write_config(project, "fertig.yaml", output="läufe/fertig")
    before = read_lora(folder / "dreambooth_dpo_lora.safetensors")
    assert "already holds this run. Add --resume" in fails("run", config)
    again = succeeds("run", config, "--resume")
    assert difference(read_lora(folder / "dreambooth_dpo_lora.safetensors"), before) == 0
    assert again.stdout[again.stdout.index("Held-out") :] == first.stdout[first.stdout.index("Held-out") :]


def test_changed_settings_of_a_run_are_refused_by_name(finished: tuple[Path, Result], project: Path) -> None:
    config = write_config(project, "anders.yaml", output="läufe/fertig", sampling__steps=3)
    said = fails("run", config, "--resume")
    assert "settings.sampling.steps was 2, is 3" in said and "Choose another output folder" in said


def test_report_writes_the_report_again(finished: tuple[Path, Result]) -> None:
    folder, _ = finished
    page = folder / "report" / "report.html"
    page.unlink()
    assert str(page) in succeeds("report", folder).stdout
    assert page.is_file()


def test_export_writes_the_lora_under_diffusers_names(finished: tuple[Path, Result], tmp_path: Path) -> None:
    lora = next(finished[0].glob("*.safetensors"))
    said = succeeds("export", lora, "--out", tmp_path / "out.safetensors").output
    found, before = read_lora(tmp_path / "out.safetensors"), read_lora(lora)
    assert f"{len(before) // 3} layers" in said and len(found) == len(before) * 2 // 3
    assert all(key.startswith("unet.") for key in found)
    assert "is the LoRA itself" in fails("export", lora, "--out", lora)


def test_evaluate_measures_a_lora(finished: tuple[Path, Result], project: Path) -> None:
    """The images equal those of the run's own evaluation: the LoRA file acts as the trained adapter."""
    folder, _ = finished
    config = write_config(project, "messen.yaml", output="läufe/messen")
    result = succeeds("evaluate", config, "--lora", folder / "dreambooth_dpo_lora.safetensors")
    measured = RunFolder(project / "läufe" / "messen_evaluate")
    run = RunFolder(folder)
    for name in ("evaluation_0", "evaluation_1"):
        assert torch.equal(measured.latents(name), run.latents(name))
        assert measured.scores(name, "fidelity") == run.scores(name, "fidelity")
    assert str(measured.path / "report" / "report.html") in result.stdout


def test_personalize_by_config(project: Path) -> None:
    out = project / "anfang [1]"
    said = " ".join(succeeds("personalize", write_config(project), "--out", out).stdout.split())
    assert "Personalized in" in said and str(out / "start.safetensors") in said and str(out / "curve.png") in said
    assert (out / "curve.png").is_file() and (out / "start.json").is_file()
    said = succeeds("personalize", write_config(project), "--out", out).stdout
    lines = said[said.index("  lora: ") :]
    assert yaml.safe_load(lines) == {"lora": str(out / "start.safetensors"), "lora_strength": 1.0}


@pytest.fixture
def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the report, whose plots take most of a small run's time."""
    monkeypatch.setattr(headless, "run_loop", lambda loop: (loop.run.path / f"{loop.go()} rounds", {"answer": "Done."}))


@pytest.mark.usefixtures("without_report")
def test_interrupt_message_says_how_to_resume(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_config(project, "halb.yaml", output="läufe/halb")

    def interrupt(*_, **__) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(headless.Loop, "train", interrupt)
        assert "--resume" in fails("run", config, code=130)
    before = RunFolder(project / "läufe" / "halb").candidates("round_0")
    assert len(before) == 6
    assert "1 rounds" in succeeds("run", config, "--resume").stdout
    assert RunFolder(project / "läufe" / "halb").candidates("round_0") == before


# --- wrong input is refused before anything is sampled ---


def of_another_model(project: Path) -> str:
    """A LoRA of a wider UNet."""
    adapter = Adapter(tiny_stable_diffusion(channels=(48, 96)).unet, AdapterSettings(rank=2, alpha=2.0))
    save_lora(adapter, project / "fremd.safetensors", {})
    return "fremd.safetensors"


def corrupt_photo(project: Path) -> str:
    folder = project / "kaputt"
    shutil.copytree(project / "fotos ü", folder, dirs_exist_ok=True)
    photo = folder / "größe 1.png"
    photo.write_bytes(photo.read_bytes()[:200])
    return "kaputt"


def empty_folder(project: Path) -> str:
    (project / "leer").mkdir(exist_ok=True)
    return "leer"


def prompt_file(text: str):
    def write(project: Path) -> str:
        (project / "andere prompts.txt").write_text(text, encoding="utf-8")
        return "andere prompts.txt"

    return write


def plain_file(project: Path) -> str:
    (project / "datei").write_text("x", encoding="utf-8")
    return "datei"


WRONG = {
    "no prompt": (
        "prompts",
        prompt_file("# nothing\n\n"),
        ["andere prompts.txt holds no prompt", "Write one per line"],
    ),
    "no prompt file": ("prompts", "fehlt.txt", ["fehlt.txt does not exist", "Write a text file"]),
    "prompt without the concept": (
        "prompts",
        prompt_file("a photo of a dog\n"),
        ["'a photo of a dog' does not name the concept"],
    ),
    "one prompt": (
        "prompts",
        prompt_file("a {identifier} {class_noun}\n"),
        ["no held_out prompt", "Write at least five prompts"],
    ),
    "no photos": ("concept__references", empty_folder, ["leer holds no reference photos", "Put at least one"]),
    "no photo folder": ("concept__references", "nirgends", ["nirgends does not exist", "Give a folder"]),
    "corrupt photo": ("concept__references", corrupt_photo, ["größe 1.png cannot be read as a picture", "Replace it"]),
    "corrupt held-out photo": (
        "concept__held_out",
        corrupt_photo,
        ["größe 1.png cannot be read as a picture", "Replace it"],
    ),
    "one candidate": (
        "sampling__candidates_per_prompt",
        1,
        ["sampling.candidates_per_prompt", "greater than or equal to 2", "given: 1"],
    ),
    "window the wrong way": ("pairs__angle_low", 180.0, ["pairs: ", "angle_low 180.0 must be below angle_high 180.0"]),
    "unknown setting": ("sampling__stepz", 3, ["sampling.stepz: is not a setting"]),
    "lora of another model": (
        "model__lora",
        of_another_model,
        ["fremd.safetensors does not fit this model", "trained on this model"],
    ),
    "no lora": ("model__lora", "fehlt.safetensors", ["fehlt.safetensors does not exist"]),
    "no model": ("model__path", "nirgends", ["nirgends has no model_index.json", "diffusers folder"]),
    "no scorer": ("scorers__reward", "nirgends", ["nirgends does not exist", "Put an open_clip model there"]),
    "no judge": ("scorers__judge", "nirgends", ["nirgends does not exist", "Put an open_clip model there"]),
    "no such device": ("model__device", "gpu", ["device 'gpu' is unknown", "Use auto"]),
    "output is a file": ("output", plain_file, ["datei cannot be opened", "Choose a writable folder"]),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_input_is_refused_before_sampling(project: Path, what: str) -> None:
    name, value, said = WRONG[what]
    changes = {"output": "läufe/nie", name: value(project) if callable(value) else value}
    message = fails("run", write_config(project, "falsch.yaml", **changes))
    assert message.startswith("Error: ")
    assert [words for words in said if words not in message] == [], message
    assert not (project / "läufe" / "nie").exists()


@pytest.mark.usefixtures("without_report")
def test_window_without_pairs_keeps_the_candidates_and_can_be_widened(project: Path) -> None:
    config = write_config(project, "eng.yaml", output="läufe/eng", pairs__margin=9.0, pairs__rule="angle_window")
    message = fails("run", config)
    assert (
        "no pair fits the window -90..180 degrees" in message
        and "lower the margin" in message
        and "6 below the margin" in message
    )
    kept = RunFolder(project / "läufe" / "eng").candidates("round_0")
    assert len(kept) == 6
    succeeds("run", write_config(project, "eng.yaml", output="läufe/eng", pairs__rule="angle_window"), "--resume")
    assert RunFolder(project / "läufe" / "eng").candidates("round_0") == kept


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("run", "fehlt.yaml"), "fehlt.yaml does not exist. `dreambooth-dpo config` prints one"),
        (("run", "."), "cannot be read"),
        (("report", "fotos ü"), "is not a run folder"),
        (("evaluate", "config.yaml", "--lora", "fehlt.safetensors"), "fehlt.safetensors does not exist"),
        (("personalize", "fehlt.yaml"), "fehlt.yaml does not exist"),
    ],
)
def test_wrong_files_are_named(
    project: Path, command: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    write_config(project)
    assert said in fails(*command)


def test_evaluate_refuses_the_lora_of_another_model(project: Path) -> None:
    config = write_config(project, output="läufe/fremd")
    assert "was trained on this model" in fails("evaluate", config, "--lora", project / of_another_model(project))
    assert not (project / "läufe" / "fremd_evaluate").exists()


def test_report_of_an_empty_run_folder_is_refused(project: Path) -> None:
    RunFolder(project / "läufe" / "angefangen").close()
    assert "nothing to report" in fails("report", project / "läufe" / "angefangen")


# --- the installed script ---


def script(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the console script, with UTF-8 output on every system."""
    path = shutil.which("dreambooth-dpo", path=str(Path(sys.executable).parent))
    assert path, "the console script is not installed beside this Python: pip install -e ."
    environment = {**os.environ, "PYTHONUTF8": "1", "COLUMNS": "100"}
    return subprocess.run(
        [path, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )


def test_installed_script_writes_a_config_and_refuses_a_wrong_one(tmp_path: Path) -> None:
    done = script("config", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    text = done.stdout.replace("candidates_per_prompt: 8", "candidates_per_prompt: 1")
    (tmp_path / "über.yaml").write_text(text, encoding="utf-8")
    wrong = script("run", "über.yaml", cwd=tmp_path)
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
    assert "wrong settings in über.yaml:\nsampling.candidates_per_prompt" in wrong.stderr
