"""Tests that the commands in README and docs are understood by the programs they call, and that the headless
quickstart runs as it is written.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer.main
import yaml
from commands import call
from projects import make_project, write_lora

from dreambooth_dpo.cli import app
from dreambooth_dpo.dpo_core.config import read_config
from dreambooth_dpo.headless_compare import config_model

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
QUICKSTART = ROOT / "docs" / "quickstart_headless.md"
_OWN = re.compile(r"^(?:\.venv/bin/)?dreambooth-dpo (.+)$|^torchrun .*-m dreambooth_dpo (.+)$")
_MODULE = re.compile(r"^(?:.venv/bin/)?python -m (dreambooth_dpo\.[\w.]+)(.*)$")


def lines(page: Path) -> list[str]:
    """The command lines of a page's code blocks, without comments, environment variables and optional parts."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^(?: {4}| {7})(\S.*)$", text, re.MULTILINE)
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        blocks += block.split("\n")
    rows = (re.sub(r"\s*>\s*\S+$", "", re.sub(r"\s+#\s.*$", "", row)) for row in blocks)
    return [re.sub(r"^(?:[A-Z_]+=\S+ )+", "", row).replace("[", "").replace("]", "").strip() for row in rows]


def found(pattern: re.Pattern[str]) -> list[tuple[str, ...]]:
    matches = (pattern.match(row) for page in PAGES for row in lines(page))
    return sorted({tuple(g for g in m.groups() if g is not None) for m in matches if m})


@pytest.mark.parametrize("command", [own[0] for own in found(_OWN)])
def test_the_command_line_understands_a_command(command: str) -> None:
    """Options, their kinds and required arguments, without running it; placeholders stand for files."""
    name, *arguments = shlex.split(command)
    known = typer.main.get_command(app)
    kind = known.commands[name]
    context = kind.make_context(name, list(arguments))
    assert context.params


class _Parsed(Exception):
    pass


@pytest.mark.parametrize(("module", "arguments"), found(_MODULE))
def test_a_benchmark_understands_its_arguments(module: str, arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.find_spec(module)
    main = importlib.import_module(f"{module}.__main__" if spec.submodule_search_locations else module).main
    parse = argparse.ArgumentParser.parse_args

    def parsed(self, *_: object):
        parse(self, shlex.split(arguments))
        raise _Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    with pytest.raises(_Parsed):
        main()


def test_most_commands_were_found() -> None:
    assert len(found(_OWN)) >= 15 and len(found(_MODULE)) >= 30


# --- the headless quickstart, as it is written ---


def quickstart() -> list[list[str]]:
    """The dreambooth-dpo commands of the page, after its installation."""
    text = QUICKSTART.read_text(encoding="utf-8").split("## 3. ")[1]
    rows = re.findall(r"^    dreambooth-dpo (.+)$", text, re.MULTILINE)
    return [shlex.split(re.sub(r"\s+#\s.*$", "", row)) for row in rows]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A tiny model, LoRAs, photos and prompts under the names that the config has and the page uses."""
    config = make_project(tmp_path / "made")
    model = config_model(read_config(config), "cpu")
    for seed, name in enumerate(("mine", *(Path(a).stem for a in quickstart()[-1][2:]))):
        write_lora(model, tmp_path / "loras" / f"{name}.safetensors", seed)
    for made, name in (("modèle", "my-model"), ("fotos ü", "photos"), ("prompts ß.txt", "prompts.txt")):
        (tmp_path / "made" / made).rename(tmp_path / name)
    return tmp_path


def edited(text: str, project: Path) -> str:
    """The config as a user would edit it, with the small sizes of a test."""
    config, small = (yaml.safe_load(t) for t in (text, (project / "made" / "config.yaml").read_text(encoding="utf-8")))
    config["model"] |= {"device": "cpu", "lora": "loras/mine.safetensors"}
    groups = ("sampling", "pairs", "adapter", "train", "evaluation", "stop", "rounds", "scorers")
    return yaml.safe_dump(config | {name: small[name] for name in groups})


def test_the_headless_quickstart_runs_as_it_is_written(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    ran = []
    for command in quickstart():
        written = command.index(">") if ">" in command else len(command)
        result = call(*command[:written])
        ran.append((command[0], result.exit_code, result.output[-500:] if result.exit_code else ""))
        if written < len(command):
            (project / command[-1]).write_text(edited(result.stdout, project), encoding="utf-8")
    assert ran == [(command[0], 0, "") for command in quickstart()]
    assert (project / "runs" / "my-dog" / "report" / "report.html").is_file()
    assert {"config", "run", "strength", "join", "compare"} == {command[0] for command in quickstart()}
