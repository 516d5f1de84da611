"""Widgets that are auto say whose value they take, from the file of the loader, before anything has run."""

from __future__ import annotations

import json
import struct

from browsing import load
from hosting import Server
from workflows import FOLDER

LABELS = """() => {
  const node = app.graph._nodes.find(n => n.type === 'DBDPO_TrainStep')
  const drawn = app.graph._nodes.find(n => n.type === 'DBDPO_SampleCandidates')
  const of = (n, name) => { const w = n.widgets.find(w => w.name === name); return w.label ?? w.name }
  return [of(node, 'rank'), of(node, 'beta'), of(node, 'time_shift'), of(drawn, 'steps'), of(drawn, 'sampler_name')]
}"""
KEYS = {
    "double_blocks.0.img_attn.norm.key_norm.scale": [4],
    "double_blocks.0.img_attn.norm.key_norm.weight": [4],
    "single_blocks.0.linear2.weight": [4, 4],
    "img_in.weight": [64, 64],
    "txt_in.weight": [64, 4096],
    "vector_in.in_layer.weight": [64, 768],
    "guidance_in.in_layer.weight": [64, 256],
    "double_blocks.0.img_attn.qkv.weight": [192, 64],
    "double_blocks.0.img_mlp.0.weight": [256, 64],
    "img_in.bias": [64],
}
"""Names and shapes by which the host knows a Flux.1 model."""


def write_flux(path) -> None:
    """A safetensors file with these tensors, all zero."""
    header, end = {}, 0
    for name, shape in KEYS.items():
        size = 4
        for part in shape:
            size *= part
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


def test_auto_widgets_name_the_family_of_the_loaders_file(view, server: Server):
    """Flux.1: 20 steps, euler, rank 16, beta adapted, shift by size; a value that is given names no family."""
    write_flux(server.folder / "models" / "diffusion_models" / "flux1-dev.safetensors")
    load(view, json.loads((FOLDER / "flux1_lora_improve.json").read_text(encoding="utf-8")))
    view.wait_for_function(f"() => ({LABELS})()[0].includes('Flux.1')", timeout=15_000)
    assert view.evaluate(LABELS) == [
        "rank: auto (Flux.1: 16)",
        "beta: auto (Flux.1: adapted)",
        "time_shift: auto (Flux.1: by size)",
        "steps: auto (Flux.1: 20)",
        "sampler_name: auto (Flux.1: euler)",
    ]
    view.evaluate(
        "() => { const w = app.graph._nodes.find(n => n.type === 'DBDPO_TrainStep')"
        ".widgets.find(w => w.name === 'rank'); w.value = 8; w.callback?.(8) }"
    )
    view.wait_for_function(f"() => !({LABELS})()[0].includes('auto')", timeout=15_000)
    assert view.evaluate(LABELS)[1] == "beta: auto (Flux.1: adapted)"
