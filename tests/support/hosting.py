"""A real ComfyUI server with the pack, on its own port and folders. Graphs for it: toy_graphs.py."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

ROOT = Path(__file__).parents[2]


def comfyui_path() -> Path:
    """The folder of the ComfyUI under test ($COMFYUI_PATH, set by tools/hosts.py, else ~/ComfyUI)."""
    return Path(os.environ.get("COMFYUI_PATH") or Path.home() / "ComfyUI")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A ComfyUI server as a context manager: `with Server(folder) as server:`.

    It runs main.py with base directory `folder`; the pack is linked into its custom_nodes.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder, self.arguments, self.port = folder, arguments, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        packs = folder / "custom_nodes"
        packs.mkdir(parents=True, exist_ok=True)
        if not (packs / "dreambooth_dpo").exists():
            (packs / "dreambooth_dpo").symlink_to(ROOT, target_is_directory=True)
        for name in ("output", "input", "temp", "user", "models"):
            (folder / name).mkdir(exist_ok=True)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, timeout: float = 300) -> None:
        self.log = (self.folder / "server.log").open("a", encoding="utf-8")
        command = [
            sys.executable,
            str(comfyui_path() / "main.py"),
            "--cpu",
            "--port",
            str(self.port),
            "--base-directory",
            str(self.folder),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        self.process = subprocess.Popen(
            [*command, *self.arguments], stdout=self.log, stderr=subprocess.STDOUT, cwd=self.folder, env=environment
        )
        try:
            self._come_up(timeout)
        except BaseException:  # an interrupt, too: nobody else would end the process
            self.stop(kill=True)
            raise

    def _come_up(self, timeout: float) -> None:
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended with {self.process.returncode}: {self.said()[-2000:]}")
            try:
                self.get("/system_stats")
                return
            except OSError:
                time.sleep(0.3)
        raise TimeoutError(f"ComfyUI did not come up in {timeout:g} s: {self.said()[-2000:]}")

    def stop(self, kill: bool = False) -> None:
        (self.process.kill if kill else self.process.terminate)()
        self.process.wait(20)
        self.log.close()

    def said(self) -> str:
        return (self.folder / "server.log").read_text(encoding="utf-8", errors="replace")

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.load(answer)

    def post(self, path: str, data: dict) -> tuple[int, dict]:
        body = json.dumps(data).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else {}
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"{}")

    def queue(self, graph: dict) -> str:
        status, answer = self.post("/prompt", {"prompt": graph, "client_id": uuid.uuid4().hex})
        if status != 200:
            raise ValueError(json.dumps(answer))
        return answer["prompt_id"]

    def wait(self, prompt_id: str, timeout: float = 600) -> dict:
        """The history entry of a finished prompt."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if found := self.get(f"/history/{prompt_id}").get(prompt_id):
                return found
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended with {self.process.returncode}: {self.said()[-2000:]}")
            time.sleep(0.2)
        raise TimeoutError(f"prompt {prompt_id} did not end in {timeout:g} s: {self.said()[-2000:]}")

    def run(self, graph: dict, timeout: float = 600) -> dict:
        """Queue a graph and wait; raises AssertionError with the node's message when it fails."""
        found = self.wait(self.queue(graph), timeout)
        assert found["status"]["status_str"] == "success", json.dumps(found["status"])[:3000]
        return found


def executed(history: dict) -> set[str]:
    """Ids of the nodes that ran and were not cached."""
    cached = set(messages(history).get("execution_cached", {}).get("nodes", []))
    return {node for node in history["prompt"][2] if node not in cached}


def messages(history: dict) -> dict:
    """Messages of the server about a prompt, by kind, e.g. "execution_error"."""
    return dict((name, data) for name, data in history["status"]["messages"])


def run_path(server: Server, name: str) -> Path:
    """The folder of a run by its name."""
    return server.folder / "output" / "dreambooth_dpo" / name
