"""Tests the doctor command: refused options, exit status, the JSON file, and processes that fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from comfyui_folders import make_comfyui
from typer.testing import CliRunner

from dreambooth_dpo.cli import app
from dreambooth_dpo.doctor import command, launch, run
from dreambooth_dpo.doctor.command import WrongOptions, check_options, examine, ways_of
from dreambooth_dpo.doctor.findings import FAILED, OK, WARNING, Finding
from dreambooth_dpo.doctor.in_comfyui import memory_finding
from dreambooth_dpo.doctor.launch import ProcessFailed, ask
from dreambooth_dpo.doctor.options import HELP, Options

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_comfyui(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.chdir(tmp_path)


def found(monkeypatch: pytest.MonkeyPatch, *lines: Finding) -> None:
    """Make the examination yield these findings."""
    monkeypatch.setattr(run, "examine", lambda *_: iter([("Part", line) for line in lines]))


GOOD, SO_SO, BAD = (
    Finding("a", OK, "fine"),
    Finding("b", WARNING, "so-so", "mend b"),
    Finding("c", FAILED, "broken", "mend c"),
)


def test_every_option_has_a_help_text() -> None:
    assert list(HELP) == list(vars(Options()))


@pytest.mark.parametrize(("lines", "code"), [((GOOD,), 0), ((GOOD, SO_SO), 0), ((GOOD, SO_SO, BAD), 1)])
def test_exit_status_is_0_only_if_nothing_failed(
    monkeypatch, tmp_path: Path, lines: tuple[Finding, ...], code: int
) -> None:
    found(monkeypatch, *lines)
    result = CliRunner().invoke(app, ["doctor", "--json", "report.json"])
    assert result.exit_code == code, result.output
    kept = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [line["status"] for line in kept["lines"]] == [f.status for f in lines] and kept["status"] == lines[
        -1
    ].status
    assert all(f"remedy: {f.remedy}" in result.stdout for f in lines if f.remedy)
    assert ("It will work here" in result.stdout) == (code == 0)


def test_log_has_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, GOOD, SO_SO)
    said = CliRunner().invoke(app, ["doctor"]).stdout
    assert said.splitlines()[1:5] == [
        "Part",
        f"{'ok':<9}{'a':<18}fine",
        f"{'warning':<9}{'b':<18}so-so",
        f"{'':<27}remedy: mend b",
    ]
    assert said.endswith("It will work here: 1 ok, 1 warning, 0 failed.\n")


def test_existing_json_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("mine", encoding="utf-8")
    result = CliRunner().invoke(app, ["doctor", "--json", "report.json"])
    assert result.exit_code == 2 and "report.json exists and is not overwritten. Name another file" in result.stderr
    assert (tmp_path / "report.json").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            Options(family="flux"),
            "family 'flux': the tiny models for diffusers are toybox, sd15; for another one give a ComfyUI",
        ),
        (Options(comfyui=Path("x"), family="wan"), "for ComfyUI are toybox, sd15, sdxl, flux."),
        (Options(json=Path("no/such/report.json")), "does not exist. Create it, or name another file"),
    ],
)
def test_invalid_options_are_refused_before_any_check(options: Options, words: str) -> None:
    with pytest.raises(WrongOptions, match=words):
        check_options(options)


def test_an_interrupt_keeps_what_was_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: object):
        yield "Part", GOOD
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "examine", interrupted)
    result = CliRunner().invoke(app, ["doctor", "--json", "report.json"])
    assert result.exit_code == 130 and "Interrupted" in result.stderr
    kept = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert kept["status"] == "interrupted" and len(kept["lines"]) == 1


def test_report_ends_at_a_folder_without_a_comfyui(tmp_path: Path) -> None:
    lines = list(examine(Options(comfyui=tmp_path / "nowhere")))
    assert [(f.name, f.status) for _, f in lines] == [("ComfyUI", FAILED)]


def test_without_a_comfyui_the_backend_is_diffusers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answers(python, module, request, limit):
        asked.append((module, request))
        yield from [launch.Said("device", "cpu")] if module == "probe" else []

    monkeypatch.setattr(command, "ask", answers)
    lines = list(examine(Options(full=True)))
    assert "none was checked" in lines[0][1].said
    assert [(module, request.get("full")) for module, request in asked] == [
        ("probe", None), ("in_diffusers", None), ("in_diffusers", "sd15"), ("in_diffusers", "sdxl"),
    ]  # fmt: skip


def test_a_comfyui_that_cannot_be_imported_is_a_failed_line(tmp_path: Path) -> None:
    folder = make_comfyui(tmp_path / "ComfyUI")
    (folder / "comfy" / "options.py").write_text("import not_installed_here\n", encoding="utf-8")
    lines = dict((f.name, f) for _, f in examine(Options(comfyui=folder)))
    broken = lines["ComfyUI starts"]
    assert (
        broken.status == FAILED
        and "No module named 'not_installed_here'" in broken.said
        and "Traceback" not in broken.said
    )
    assert "-m pip install -r" in broken.remedy and "training" not in lines


def test_a_comfyui_that_refuses_its_switches_is_a_failed_line(tmp_path: Path) -> None:
    folder = make_comfyui(tmp_path / "ComfyUI")
    (folder / "comfy" / "options.py").write_text("def enable_args_parsing(): raise SystemExit(2)\n", encoding="utf-8")
    request = {"comfyui": str(folder), "args": "--no-such-switch", "device": "cpu", "family": "toybox"}
    said = next(ask(sys.executable, "in_comfyui", request))
    assert (
        "--no-such-switch --cpu (exit status 2)" in said.value["said"]
        and said.value["remedy"] == "correct --comfyui-args"
    )


def test_failed_start_crash_and_timeout_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed, match="cannot be started") as missing:
        list(ask(tmp_path / "python", "probe", {}))
    assert "--python" in missing.value.remedy
    with pytest.raises(ProcessFailed, match="exit status 1; its last line: KeyError: 'headless'"):
        list(ask(sys.executable, "probe", {}))
    with pytest.raises(ProcessFailed, match="took longer than 0 s and was ended"):
        list(ask(sys.executable, "probe", {"headless": True}, limit=0.05))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals")
def test_process_killed_by_the_system_is_reported_as_out_of_memory(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -9 $$\n", encoding="utf-8")
    python.chmod(0o755)
    lines = list(command.Asked(python, lambda _: None).lines("Training", "in_comfyui", {}, 10))
    assert (
        lines[0][1].status == FAILED and "signal 9" in lines[0][1].said and "close other programs" in lines[0][1].remedy
    )


def test_memory_systems_to_measure() -> None:
    assert list(ways_of("classic", "--lowvram").values()) == ["--lowvram"]
    assert list(ways_of("dynamic", "--fast").values()) == ["--fast --disable-dynamic-vram", "--fast"]


def test_memory_system_is_reported_with_the_switches_that_turn_it_off() -> None:
    switches = {"--disable-dynamic-vram": False, "--novram": False, "--cpu": False}
    on = memory_finding("dynamic", switches, "cuda:0").said
    assert (
        on.startswith("dynamic VRAM: training loads the model a second time")
        and "--disable-dynamic-vram, --novram" in on
    )
    assert "off by --novram" in memory_finding("classic", {**switches, "--novram": True}, "cuda:0").said
    assert "not on this device (mps)" in memory_finding("classic", switches, "mps").said
    assert "has no dynamic VRAM" in memory_finding("classic", {}, "cuda:0").said


def imported(*arguments: str, cwd: Path) -> tuple[str, set[str]]:
    """Output of a command, and the heavy modules it imported."""
    program = (
        "import runpy, sys\nsys.argv[1:] = sys.argv[2:]\n"
        "try:\n    runpy.run_module('dreambooth_dpo.cli', run_name='__main__')\nexcept SystemExit: pass\n"
        "print('HEAVY', *sorted({'torch', 'numpy', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "-", *arguments], cwd=cwd, capture_output=True, text=True, check=True
    )
    said, _, heavy = done.stdout.rpartition("HEAVY")
    return said, set(heavy.split())


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    said, heavy = imported("doctor", "--help", cwd=tmp_path)
    assert "--comfyui" in said and heavy == set()


def test_doctor_runs_with_the_standard_library_only(tmp_path: Path) -> None:
    """Without site packages this Python need only start."""
    given = [sys.executable, "-I", "-S", str(ROOT / "doctor"), "--comfyui", str(tmp_path)]
    done = subprocess.run(given, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1 and "no ComfyUI in" in done.stdout and done.stderr == ""


@pytest.mark.skipif(os.name == "nt", reason="Windows lets only administrators make links")
def test_pack_linked_into_custom_nodes_checks_that_comfyui(tmp_path: Path) -> None:
    folder = make_comfyui(tmp_path / "ComfyUI", "0.3.1")
    (folder / "custom_nodes" / "pack").symlink_to(ROOT, target_is_directory=True)
    given = [sys.executable, "-I", "-S", str(folder / "custom_nodes" / "pack" / "doctor")]
    done = subprocess.run(given, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1 and f"this is 0.3.1 ({folder})" in done.stdout
