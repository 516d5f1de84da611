"""Tests the checks of a Python: version, packages, PyTorch, device and free memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from dreambooth_dpo.doctor import packages
from dreambooth_dpo.doctor.findings import FAILED, OK, WARNING, Finding, worst
from dreambooth_dpo.doctor.packages import CORE, HEADLESS, lacking, package_finding
from dreambooth_dpo.doctor.probe import (
    built_for,
    device_of,
    memory_finding,
    memory_findings,
    python_finding,
    torch_finding,
)

ROOT = Path(__file__).resolve().parents[2]


def test_packages_equal_the_projects_dependencies() -> None:
    tomllib = pytest.importorskip("tomllib", reason="reading pyproject.toml needs the tomllib of Python 3.11 or newer")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert list(CORE) == project["dependencies"]
    assert list(HEADLESS) == project["optional-dependencies"]["headless"]


def test_missing_and_old_packages_are_lacking() -> None:
    versions = {"pydantic": "1.10.2", "numpy": "2.0", "jinja2": None}
    assert lacking({"pydantic>=2": "", "numpy": "", "jinja2": ""}, versions) == {
        "pydantic>=2": "1.10.2 is too old",
        "jinja2": "missing",
    }


def test_missing_package_is_named_with_its_install_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packages, "installed", lambda name: None if name == "open_clip_torch" else "2.1")
    from_wheel = package_finding(CORE, "/opt/python", tmp_path, headless=True)
    assert from_wheel.remedy == '"/opt/python" -m pip install "open_clip_torch"', "a wheel has no pyproject.toml"
    (tmp_path / "pyproject.toml").touch()
    found = package_finding(CORE, "/opt/python", tmp_path, headless=False)
    assert found.status == FAILED and found.said == "not installed: open_clip_torch (missing; for scorers)"
    assert found.remedy == f'"/opt/python" -m pip install -r "{tmp_path / "requirements.txt"}"'
    assert "[headless]" in package_finding(CORE, "/opt/python", tmp_path, headless=True).remedy


def test_installed_packages_are_listed() -> None:
    found = package_finding({"pydantic>=2": "settings"}, "python", ROOT, headless=False)
    assert found.status == OK and found.said.startswith("pydantic 2.")


@pytest.mark.parametrize(("version", "status"), [((3, 9, 18), FAILED), ((3, 10, 0), OK), ((3, 13, 1), OK)])
def test_an_old_python_is_refused(version: tuple[int, ...], status: str) -> None:
    found = python_finding(version, "/opt/python")
    assert found.status == status and (status == OK or found.remedy == "use Python 3.10 or newer")


@pytest.mark.parametrize(
    ("version", "device", "driver", "status", "words"),
    [
        ("2.4.1+cu121", "cuda", True, FAILED, "2.4.1+cu121 is too old"),
        ("2.11.0+cpu", "cpu", True, WARNING, "sees no GPU, although this machine has an NVIDIA driver"),
        ("2.11.0+cpu", "cpu", False, OK, "2.11.0+cpu, built for CPUs"),
        ("2.11.0+cu130", "cuda", True, OK, "built for"),
    ],
)
def test_status_of_pytorch_versions_and_builds(
    version: str, device: str, driver: bool, status: str, words: str
) -> None:
    found = torch_finding(version, "CPUs", device, driver)
    assert found.status == status and words in found.said


def test_platform_of_a_pytorch_build() -> None:
    assert built_for(SimpleNamespace(cuda="13.0", hip=None)) == "CUDA 13.0"
    assert (
        built_for(SimpleNamespace(cuda=None, hip="7.1")) == "ROCm 7.1"
        and built_for(SimpleNamespace(cuda=None)) == "CPUs"
    )


@pytest.mark.parametrize(
    ("free", "status", "words"),
    [
        (1e9, FAILED, "1.0 GB free of 24.0: too little to train"),
        (5e9, WARNING, "little for training"),
        (20e9, OK, "20.0 GB free"),
    ],
)
def test_low_free_memory_is_reported(free: float, status: str, words: str) -> None:
    found = memory_finding("GPU", "a card", free, 24e9)
    assert found.status == status and words in found.said and "a card" in found.said
    assert status == OK or "close other programs that use it" in found.remedy


def fake_torch(cuda: bool, free: float = 20e9) -> SimpleNamespace:
    card = SimpleNamespace(
        is_available=lambda: cuda, mem_get_info=lambda: (free, 24e9), get_device_name=lambda: "a card"
    )
    return SimpleNamespace(
        cuda=card, backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False)), get_num_threads=lambda: 4
    )


def test_gpu_is_named_with_its_memory_and_its_absence_is_a_warning() -> None:
    assert device_of(fake_torch(True)) == "cuda" and device_of(fake_torch(False)) == "cpu"
    gpu, main = memory_findings(fake_torch(True), "cuda")
    assert (gpu.name, gpu.status, gpu.said) == (
        "GPU",
        OK,
        "a card: 20.0 GB free of 24.0",
    ) and main.name == "main memory"
    none, _ = memory_findings(fake_torch(False), "cpu")
    assert none.status == WARNING and "4 threads" in none.said and "machine with a GPU" in none.remedy


def test_every_line_that_is_not_ok_has_a_remedy() -> None:
    with pytest.raises(ValueError, match="remedy"):
        Finding("x", FAILED, "broken")
    with pytest.raises(ValueError, match="remedy"):
        Finding("x", OK, "fine", "nothing")
    lines = [Finding("a", OK, ""), Finding("b", WARNING, "", "r")]
    assert worst([]) == OK and worst(lines) == WARNING and worst([*lines, Finding("c", FAILED, "", "r")]) == FAILED
