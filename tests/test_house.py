"""Tests the repository: metadata, layout, and that the package imports without side effects."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dreambooth_dpo.dpo_core.supported_hosts import NEWEST, OLDEST

tomllib = pytest.importorskip("tomllib", reason="reading pyproject.toml needs the tomllib of Python 3.11 or newer")

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES: list[str] = PYPROJECT["tool"]["setuptools"]["packages"]
HEAVY = (
    "torch",
    "numpy",
    "diffusers",
    "transformers",
    "open_clip",
    "matplotlib",
    "jinja2",
    "pydantic",
    "typer",
    "comfy_api",
)


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in the repository; skip where there is none (an unpacked archive)."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a checkout, to list the repository's files")
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, encoding="utf-8", check=False
    )


def repository_files() -> list[Path]:
    """Every file that is tracked or would be by `git add .`, relative to the root."""
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    assert listed.returncode == 0, listed.stderr
    return [Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def folder_of(package: str) -> Path:
    """`dreambooth_dpo.toybox.train` -> `toybox/train`; the root package -> `.`"""
    return Path(*package.split(".")[1:])


def requirement_name(requirement: str) -> str:
    """`pydantic>=2` -> `pydantic`, normalised as package indexes do."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;@]", requirement, maxsplit=1)[0]).lower()


def test_requirements_equal_the_dependencies() -> None:
    lines = (
        line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    )
    assert [line for line in lines if line] == PYPROJECT["project"]["dependencies"]


def test_dependencies_leave_the_hosts_torch_alone() -> None:
    names = {requirement_name(requirement) for requirement in PYPROJECT["project"]["dependencies"]}
    assert names.isdisjoint({"torch", "torchvision", "torchaudio", "xformers", "triton"})


def test_every_folder_of_code_is_a_listed_package() -> None:
    code = {
        path.parent
        for path in repository_files()
        if path.suffix == ".py" and path.parts[0] not in ("tests", "tools", ".ci")
    }
    assert code == {folder_of(package) for package in PACKAGES}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_listed_package_is_imported_from_its_folder(package: str) -> None:
    assert (ROOT / folder_of(package) / "__init__.py").is_file()
    found = importlib.util.find_spec(package)
    assert found is not None and found.origin is not None
    assert Path(found.origin).resolve() == ROOT / folder_of(package) / "__init__.py"


def test_names_follow_the_registry() -> None:
    """docs.comfy.org/registry/specifications: what `comfy node publish` refuses, or a user would see."""
    project, comfy = PYPROJECT["project"], PYPROJECT["tool"]["comfy"]
    assert re.fullmatch(r"[a-z]+([-_.][a-z0-9]+)*", project["name"]) and len(project["name"]) < 100
    assert "comfyui" not in project["name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert comfy["PublisherId"] and comfy["DisplayName"]
    assert project["urls"]["Repository"].startswith("https://")
    assert (ROOT / project["readme"]).is_file()


def test_supported_hosts_are_the_same_everywhere() -> None:
    """In pyproject.toml as in the nodes, and in the tests' list of hosts."""
    hosts = tomllib.loads((ROOT / "tools" / "hosts.toml").read_text(encoding="utf-8"))["host"]
    assert PYPROJECT["tool"]["comfy"]["requires-comfyui"] == f">={OLDEST}"
    assert [hosts[0]["version"], hosts[-1]["version"]] == [OLDEST, NEWEST]


def test_no_text_file_names_a_folder_of_one_machine() -> None:
    # Assembled here, so that this file does not contain them.
    homes = [f"/{top}/" for top in ("work", "root", "home", "Users")]
    pattern = re.compile("|".join(rf"(?<![\w.~)}}\]/-]){home}\w" for home in homes))
    found = []
    for path in repository_files():
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # weights and pictures
        found += [f"{path}:{number}" for number, line in enumerate(text.splitlines(), 1) if pattern.search(line)]
    assert found == []


def test_the_shipped_weights_are_not_ignored() -> None:
    # check-ignore exits with 1 when no rule ignores the path, 0 when one does.
    for part in (
        "pipeline/unet/diffusion_pytorch_model.safetensors",
        "judge/open_clip_config.json",
        "reward/tokenizer.json",
    ):
        assert git("check-ignore", "--no-index", "-q", f"toybox/weights/{part}").returncode == 1
    assert git("check-ignore", "--no-index", "-q", "runs/demo/run.sqlite").returncode == 0


def test_package_init_is_short() -> None:
    assert len((ROOT / "__init__.py").read_text(encoding="utf-8").splitlines()) <= 45


@pytest.mark.parametrize("name", ["dreambooth_dpo", "__init__", "_srv_x_custom_nodes_dreambooth-dpo_x_1"])
def test_package_import_loads_nothing_heavy(name: str) -> None:
    """Imported as pip's package, as pytest does (no package), and as ComfyUI does (any name, registered beforehand)."""
    program = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location({name!r}, {str(ROOT / "__init__.py")!r})
module = importlib.util.module_from_spec(spec)
sys.modules[{name!r}] = module
before = set(sys.modules)
spec.loader.exec_module(module)
loaded = {{m.partition(".")[0] for m in set(sys.modules) - before}}
print(*sorted(loaded & set({HEAVY!r})))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


def test_the_installed_package_imports_from_anywhere(tmp_path: Path) -> None:
    program = "import sys, dreambooth_dpo; print(dreambooth_dpo.__file__); sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).resolve() == ROOT / "__init__.py"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no executable bit")
def test_continuous_integration_script_is_executable() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_web_version_equals_the_packs_version() -> None:
    """Saved graphs contain it."""
    assert f'export const VERSION = "{PYPROJECT["project"]["version"]}"' in (ROOT / "web" / "version.js").read_text(
        encoding="utf-8"
    )


def test_files_named_in_where_md_exist() -> None:
    """docs/where.md: a full path, a name in the folder of the path before it, or a folder of its room."""
    text = (ROOT / "docs" / "where.md").read_text(encoding="utf-8")
    names = [
        n.replace("C/", "dpo_core/", 1) if n.startswith("C/") else n
        for n in re.findall(r"`([\w/.]+\.(?:py|md|js|html|toml))`", text)
    ]
    files = {path.as_posix() for path in repository_files()}
    assert len(names) > 60
    lost = [n for n in names if n not in files and ("/" in n or not any(f.endswith(f"/{n}") for f in files))]
    assert lost == []
