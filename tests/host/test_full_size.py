"""The examples for a user's own model, on full-size checkpoints of random weights.

Every layer, name and shape is that of the real model.
On two CPU cores: SD1.5 takes two minutes and 9 GB, SDXL eight minutes and 10.5 GB, and 7 GB of page cache for its file.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import psutil
import pytest
from full_size import fill_server
from hosting import Server, comfyui_path
from safetensors import safe_open
from workflows import FOLDER, to_api

from dreambooth_dpo.dpo_core.backends.comfyui.random_models import UNETS, checkpoint_layout, lora_layers

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("comfyui")]
PLACES = ("on a beach", "in the snow", "on a chair", "at night")
# Smaller sizes, and the widest angle window, so that any two different candidates make a pair.
SMALL = {
    "candidates_per_prompt": 3, "steps": 2, "train_steps": 2, "pairs_per_step": 1, "accumulation": 1,
    "seeds_per_prompt": 1,
    "angle_low": -90, "angle_high": 180, "margin": 0.0, "preset": "own text", "held_out_share": 0.5,
    "text": "\n".join(f"a {{identifier}} {{class_noun}} {place}" for place in PLACES),
}  # fmt: skip
PIXELS = {"sd15": 64, "sdxl": 128}
# SDXL's UNet takes 10 GB in float32, ComfyUI's choice on a CPU, and 5 GB in bf16. With bf16 ComfyUI casts every layer
# to float32 when it is used, as on a graphics card without bf16: checkpointing must then not keep the casts in memory.
ARGUMENTS = {"sd15": (), "sdxl": ("--bf16-unet",)}
WEIGHTS = {"sd15": 859_520_964, "sdxl": 2_567_463_684}  # of the published UNets
# The stock path keeps two copies of every weight that a LoRA changes, so SDXL is only loaded by it, which checks names
# and shapes, and not sampled with.
MEMORY = {"sd15": 10, "sdxl": 14}  # GB that must be free
DISK = {"sd15": 4, "sdxl": 9}
MINUTES = 45


def example(kind: str, info: dict) -> dict:
    """The shipped workflow in API form, with smaller sizes."""
    graph = to_api(json.loads((FOLDER / f"{kind}_lora_improve.json").read_text(encoding="utf-8")), info)
    for node in graph.values():
        for key in node["inputs"].keys() & {*SMALL, "width", "height"}:
            node["inputs"][key] = SMALL.get(key, PIXELS[kind])
    return graph


def stock_graph(checkpoint: str, lora: str, pixels: int | None) -> dict:
    """The checkpoint and a LoRA loaded by core nodes, with one sampler step if `pixels` gives a size."""
    loaded = {
        "model": ["checkpoint", 0],
        "clip": ["checkpoint", 1],
        "lora_name": lora,
        "strength_model": 1.0,
        "strength_clip": 1.0,
    }
    graph = {
        "checkpoint": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}},
        "lora": {"class_type": "LoraLoader", "inputs": loaded},
        "loaded": {"class_type": "PreviewAny", "inputs": {"source": ["lora", 0]}},
    }
    if pixels:
        drawn = {"seed": 0, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
        drawn |= {"model": ["lora", 0], "positive": ["text", 0], "negative": ["text", 0], "latent_image": ["latent", 0]}
        graph |= {
            "text": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["lora", 1], "text": "a sks dog"}},
            "latent": {
                "class_type": "EmptyLatentImage",
                "inputs": {"width": pixels, "height": pixels, "batch_size": 1},
            },
            "sample": {"class_type": "KSampler", "inputs": drawn},
            "picture": {"class_type": "VAEDecode", "inputs": {"samples": ["sample", 0], "vae": ["checkpoint", 2]}},
            "look": {"class_type": "PreviewImage", "inputs": {"images": ["picture", 0]}},
        }
    return graph


@pytest.fixture
def folder(tmp_path: Path):
    yield tmp_path
    shutil.rmtree(tmp_path / "models", ignore_errors=True)  # pytest would keep these gigabytes


@pytest.mark.parametrize("kind", list(UNETS))
def test_an_example_runs_on_a_checkpoint_of_full_size(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    memory, disk = psutil.virtual_memory().available / 1e9, shutil.disk_usage(folder).free / 1e9
    if memory < MEMORY[kind] or disk < DISK[kind]:
        pytest.skip(
            f"{kind} needs {MEMORY[kind]} GB of free memory and {DISK[kind]} GB of free disk; "
            f"here are {memory:.0f} and {disk:.0f}"
        )
    layout = checkpoint_layout(kind)
    assert sum(t.numel() for n, t in layout.items() if n.startswith("model.diffusion_model.")) == WEIGHTS[kind]
    shipped = json.loads((FOLDER / f"{kind}_lora_improve.json").read_text(encoding="utf-8"))
    checkpoint = next(n["widgets_values"][0] for n in shipped["nodes"] if n["type"] == "CheckpointLoaderSimple")
    fill_server(folder, kind, checkpoint)
    # glibc's allocator keeps freed blocks below 32 MB: gigabytes of casts that were freed.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1000000")

    with Server(folder, *ARGUMENTS[kind]) as server:
        start = len(server.said())  # the host's own startup messages come before
        graph = example(kind, server.get("/object_info"))
        shown = server.run(graph, MINUTES * 60)["outputs"]
        shown = {graph[n]["class_type"]: shown[n] for n in shown if n in graph}
        lora = shown["DBDPO_SaveLora"]["text"][0].splitlines()[0].removeprefix("saved as ")
        server.run(stock_graph(checkpoint, lora, PIXELS[kind] if kind == "sd15" else None), MINUTES * 60)
        log = server.said()[start:]

    summary = shown["DBDPO_TrainStep"]["text"][0]
    numbers = [float(n) for n in re.findall(r"(?:loss|error|accuracy) ([-+]?[\d.a-z]*[\da-z])", summary)]
    assert summary.startswith("2 steps on ") and len(numbers) == 3 and all(map(math.isfinite, numbers)), summary
    assert shown["DBDPO_Evaluate"]["text"][0] and shown["DBDPO_Evaluate"]["images"]
    with safe_open(folder / "models" / "loras" / lora, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    layers = {name.split(".")[0] for name in tensors}
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert all(tensors[f"{layer}.lora_up.weight"].any() for layer in layers), "a layer was not trained"
    shapes = lora_layers(kind)
    for layer in layers:
        up, down = (tensors[f"{layer}.lora_{side}.weight"] for side in ("up", "down"))
        assert (up.shape[0], *down.shape[1:]) == shapes[layer], layer
    for complaint in (
        "lora key not loaded",
        "NOT LOADED",
        "ERROR lora",
        "SHAPE MISMATCH",
        "Traceback",
        "DreamBooth DPO:",
    ):
        assert complaint not in log
    assert not re.search(r"dreambooth_dpo/\S*: \w*Warning", log)
