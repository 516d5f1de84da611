"""A real ComfyUI server with the pack in it, on a port and in folders of its own; and graphs for it."""

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

ROOT = Path(__file__).parents[1]


def comfyui_path() -> Path:
    return Path(os.environ.get("COMFYUI_PATH") or Path.home() / "ComfyUI")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """`with Server(folder) as server:` runs main.py with base directory `folder`; the pack is linked into its custom_nodes."""

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

    def start(self, timeout: float = 120) -> None:
        python = os.environ.get("COMFYUI_PYTHON") or sys.executable
        self.log = (self.folder / "server.log").open("a", encoding="utf-8")
        command = [python, str(comfyui_path() / "main.py"), "--cpu", "--port", str(self.port), "--base-directory", str(self.folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        self.process = subprocess.Popen(
            [*command, *self.arguments], stdout=self.log, stderr=subprocess.STDOUT, cwd=self.folder, env=environment
        )
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
    """Ids of the nodes that ran, and were not taken from the cache."""
    messages = dict((name, data) for name, data in history["status"]["messages"])
    cached = set(messages.get("execution_cached", {}).get("nodes", []))
    return {node for node in history["prompt"][2] if node not in cached}


def toy_loop_graph(**changes: dict) -> dict:
    """One round on a toybox concept, small: {node id: {class_type, inputs}}. `changes`: inputs by node id."""
    graph = {
        "toy": {"class_type": "DBDPO_LoadToybox", "inputs": {"concept": 0, "personalized": True, "steps": 20}},
        "concept": {
            "class_type": "DBDPO_Concept",
            "inputs": {
                "identifier": ["toy", 6],
                "class_noun": ["toy", 7],
                "references": ["toy", 3],
                "held_out": ["toy", 4],
                "masks": ["toy", 5],
            },
        },
        "prompts": {
            "class_type": "DBDPO_PromptSet",
            "inputs": {
                "concept": ["concept", 0],
                "preset": "own text",
                "text": ["toy", 8],
                "held_out_text": ["toy", 9],
                "held_out_share": 0.4,
                "seed": 0,
            },
        },
        "sample": {
            "class_type": "DBDPO_SampleCandidates",
            "inputs": {
                "model": ["toy", 0],
                "clip": ["toy", 1],
                "vae": ["toy", 2],
                "concept": ["concept", 0],
                "prompts": ["prompts", 0],
                "run_name": "quick",
                "candidates_per_prompt": 4,
                "seed": 0,
                "steps": 6,
                "cfg": 1.0,
                "sampler_name": "dpmpp_2m",
                "scheduler": "normal",
                "width": 64,
                "height": 64,
                "batch_size": 32,
                "negative": "",
            },
        },
        "scorer": {"class_type": "DBDPO_LoadScorer", "inputs": {"scorer": "toybox reward", "architecture": ""}},
        "judge": {"class_type": "DBDPO_LoadScorer", "inputs": {"scorer": "toybox judge", "architecture": ""}},
        "score": {"class_type": "DBDPO_Score", "inputs": {"candidates": ["sample", 0], "scorer": ["scorer", 0]}},
        "pairs": {
            "class_type": "DBDPO_BuildPairs",
            "inputs": {
                "scored": ["score", 0],
                "angle_low": 20,
                "angle_high": 70,
                "margin": 0.5,
                "max_pairs_per_prompt": 6,
                "max_uses": 3,
            },
        },
        "look": {"class_type": "DBDPO_PreviewPairs", "inputs": {"pairs": ["pairs", 0], "page": 1, "pairs_per_page": 4}},
        "train": {
            "class_type": "DBDPO_TrainStep",
            "inputs": {"model": ["toy", 0], "clip": ["toy", 1], "pairs": ["pairs", 0], **TRAINING},
        },
        "save": {"class_type": "DBDPO_SaveLora", "inputs": {"lora": ["train", 1], "filename_prefix": "dreambooth_dpo/quick"}},
        "evaluate": {
            "class_type": "DBDPO_Evaluate",
            "inputs": {
                "before": ["toy", 0],
                "after": ["train", 0],
                "clip": ["toy", 1],
                "vae": ["toy", 2],
                "candidates": ["sample", 0],
                "scorer": ["scorer", 0],
                "judge": ["judge", 0],
                "seeds_per_prompt": 2,
                "seed": 1_000_003,
            },
        },
    }
    for node, inputs in changes.items():
        graph[node]["inputs"].update(inputs)
    return graph


TRAINING = {
    "rank": 8,
    "alpha": 8.0,
    "targets": "all",
    "train_steps": 8,
    "pairs_per_step": 4,
    "accumulation": 1,
    "learning_rate": 1e-4,
    "beta": 2000.0,
    "checkpointing": False,
    "train_seed": 0,
}
