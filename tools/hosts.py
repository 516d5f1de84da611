"""Runs the host and browser tests on every ComfyUI of this machine.

    python tools/hosts.py [pytest's arguments]      # on all of them, one after another
    python tools/hosts.py --list                    # list them

Each ComfyUI gets a virtual environment of its own under .hosts/. COMFYUI_PATH names one or several folders, separated
as in PATH; by default ~/ComfyUI and ~/ComfyUI-* are used. tools/hosts.toml lists the supported versions and the
packages each is installed with. A host that cannot be imported is skipped, with a line that says why; if COMFYUI_PATH
names it, that is a failure.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

try:
    import tomllib
except ImportError:  # Python 3.10: pytest depends on the same module under its older name
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ROOT / ".hosts"
NEWEST_FRONT_END = "1.58.1"
"""The newest release of comfyui-frontend-package when the browser tests were last reviewed."""
_TORCH = ("torch", "torchvision", "torchaudio")
_IMPORTS = """
import sys
sys.path.append({folder!r})
import comfy.options
comfy.options.enable_args_parsing(False)
from comfy.cli_args import args
args.cpu = True
import comfy.sd, comfy_api.latest
"""


@dataclass(frozen=True)
class Host:
    """One ComfyUI on this machine, and how it is installed (tools/hosts.toml)."""

    folder: Path
    version: str
    listed: bool
    """Whether hosts.toml lists exactly this version; else the entry of the next older one is used."""
    entry: dict

    @property
    def environment(self) -> Path:
        return ENVIRONMENTS / self.version

    @property
    def python(self) -> Path:
        return self.environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def title(self) -> str:
        return f"ComfyUI {self.version} in {self.folder}"


def supported() -> list[dict]:
    """The entries of hosts.toml, the oldest first."""
    return tomllib.loads((ROOT / "tools" / "hosts.toml").read_text(encoding="utf-8"))["host"]


def numbers(version: str) -> tuple[int, ...]:
    """ "0.3.64" -> (0, 3, 64)"""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def version_of(folder: Path) -> str | None:
    """The version in comfyui_version.py; None if the folder holds no ComfyUI."""
    file = folder / "comfyui_version.py"
    found = re.search(r'__version__\s*=\s*"([^"]+)"', file.read_text(encoding="utf-8")) if file.is_file() else None
    return found[1] if found and (folder / "main.py").is_file() else None


def named_folders() -> list[Path]:
    """The folders of COMFYUI_PATH, else ~/ComfyUI and ~/ComfyUI-*."""
    if given := os.environ.get("COMFYUI_PATH"):
        return [Path(part).expanduser().resolve() for part in given.split(os.pathsep) if part]
    home = Path.home()
    return [p for p in (home / "ComfyUI", *sorted(home.glob("ComfyUI-*"))) if p.is_dir()]


def found_hosts() -> tuple[list[Host], list[str]]:
    """The hosts on this machine, newest first, and a line for each folder that is refused."""
    hosts, refused = {}, []
    entries = supported()
    for folder in named_folders():
        version = version_of(folder)
        if version is None:
            refused.append(f"{folder} holds no ComfyUI (no main.py or comfyui_version.py)")
            continue
        fitting = [e for e in entries if numbers(e["version"]) <= numbers(version)]
        if not fitting:
            refused.append(
                f"ComfyUI {version} in {folder} is older than {entries[0]['version']}, the oldest that is supported"
            )
        elif version in hosts:
            refused.append(f"{folder} holds ComfyUI {version}, as {hosts[version].folder} does")
        else:
            hosts[version] = Host(folder, version, fitting[-1]["version"] == version, fitting[-1])
    return sorted(hosts.values(), key=lambda h: numbers(h.version), reverse=True), refused


def interpreter(versions: list[str]) -> str:
    """The first of these Python versions that starts, by name or from pyenv; else the current interpreter."""
    for version in versions:
        homes = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
        for candidate in (f"python{version}", *map(str, reversed(homes))):
            if (path := shutil.which(candidate)) and subprocess.run(
                [path, "-c", ""], capture_output=True, check=False
            ).returncode == 0:
                return path
    return sys.executable


def install(host: Host) -> None:
    """Create or reuse the host's environment: its torch, its requirements, this package, what host tests need."""
    requirements = host.folder / "requirements.txt"
    torch = [f"{name}=={host.entry[name]}" for name in _TORCH]
    recipe = [*torch, requirements.read_text(encoding="utf-8"), (ROOT / "pyproject.toml").read_text(encoding="utf-8")]
    stamp = host.environment / f".installed-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]}"
    if stamp.exists():
        return
    if not host.python.exists():
        subprocess.run([interpreter(host.entry["python"]), "-m", "venv", str(host.environment)], check=True)
    pip = [str(host.python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, *torch, "-r", str(requirements), "-e", f"{ROOT}[host-test]"], check=True)
    stamp.touch()


def front_end() -> Path:
    """Folder of the newest front end, for --front-end-root; it is not installed in any environment."""
    return ENVIRONMENTS / f"front_end_{NEWEST_FRONT_END}"


def install_front_end() -> None:
    """Install the newest front end once. Without a connection, report that only the pinned front ends are tested."""
    if front_end().is_dir():
        return
    pip = [sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--no-deps", "-q"]
    with tempfile.TemporaryDirectory() as beside:
        done = subprocess.run([*pip, "--target", beside, f"comfyui-frontend-package=={NEWEST_FRONT_END}"], check=False)
        found = Path(beside) / "comfyui_frontend_package" / "static"
        if done.returncode != 0 or not (found / "index.html").is_file():
            say(
                f"front end {NEWEST_FRONT_END} could not be installed: the browser tests run on each host's own front "
                "end only"
            )
            return
        front_end().parent.mkdir(parents=True, exist_ok=True)
        shutil.move(found, front_end())  # moved when complete


def cannot_import(host: Host) -> str | None:
    """The last line of the import error, or None if the host can be imported."""
    done = subprocess.run(
        [str(host.python), "-c", _IMPORTS.format(folder=str(host.folder))],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT / "tests",
    )
    return (
        None if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    )


def selected(host: Host) -> list[str]:
    """pytest's arguments that select the tests of this host.

    On the oldest host: tests of its internals, every example, and one browser pass.
    """
    if host.entry["scope"] == "all":
        return ["tests/host", "tests/browser"]
    return [*host.entry["tests"], "--front-ends", "pinned"]


def test(host: Host, arguments: list[str]) -> int:
    """Run the tests on this host; return pytest's exit status."""
    environment = {**os.environ, "COMFYUI_PATH": str(host.folder)}
    command = [str(host.python), "-m", "pytest", "-n", "2", "--dist", "loadfile", *selected(host), *arguments]
    started = time.monotonic()
    code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    say(f"{host.title}: {'passed' if code in (0, 5) else f'FAILED ({code})'} in {time.monotonic() - started:.0f} s")
    return 0 if code == 5 else code  # 5: no test was selected


def say(line: str) -> None:
    print(f"\n*** host tests: {line}", flush=True)


def main(arguments: list[str]) -> int:
    hosts, refused = found_hosts()
    for line in refused:
        say(f"SKIPPED: {line}")
    if not hosts:
        say("NONE RUN: no ComfyUI was found. Set COMFYUI_PATH to its folder, or put one into ~/ComfyUI.")
    if arguments == ["--list"]:
        for host in hosts:
            say(f"{host.title}, {host.entry['scope']} tests, environment {host.environment}")
        return 0
    named = int(bool(os.environ.get("COMFYUI_PATH")))  # a host that was asked for by name must be tested
    failed = named if refused or not hosts else 0
    for host in hosts:
        if not host.listed:
            say(f"{host.title} is not in tools/hosts.toml: it is tested like {host.entry['version']}")
        try:
            install(host)
        except (subprocess.CalledProcessError, OSError) as error:
            say(f"SKIPPED: {host.title} could not be installed: {error}")
            failed = failed or named
            continue
        if reason := cannot_import(host):
            say(f"SKIPPED: {host.title} cannot be imported: {reason}")
            failed = failed or named
            continue
        install_front_end()
        failed = test(host, arguments) or failed
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
