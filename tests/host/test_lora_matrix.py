"""LoRA files of each family through real loaders: ComfyUI's two, diffusers' own, and kohya's names.

The diffusers part runs in a Python that has it (DIFFUSERS_PYTHON, else this one, else .venv of the repository).
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from dreambooth_dpo.benchmarks.families.zoo import NotHere
from dreambooth_dpo.benchmarks.lora_loaders import in_diffusers
from dreambooth_dpo.benchmarks.lora_loaders.hosted import Lora

pytestmark = pytest.mark.usefixtures("comfyui")
ROOT = Path(__file__).resolve().parents[2]
CLOSE = 1e-5
"""Of a prediction: rounding of float32 in the merged weights, through a few layers."""
EXACT = 1e-6
"""Of a weight's change."""
HOSTED = (*in_diffusers.FAMILIES, "HunyuanImage21", "HunyuanDiT", "PixArtSigma", "Omnigen2", "LongCatImage")
READ_BY_DIFFUSERS = ("SD15", "SD2-v", "SDXL", "Flux-dev", "Chroma", "Flux2-klein", "Z-Image", "Qwen-Image", "WAN21_T2V")
"""Families whose files of the form kohya diffusers 0.42 reads right."""
ALSO_IN_COMFYUI = (
    "SD3.5-medium", "Flux-dev", "Chroma", "Flux2-klein", "Z-Image", "Qwen-Image", "Krea2", "ErnieImage", "HiDream",
    "AuraFlow", "Kandinsky5Image",
)  # fmt: skip
"""Families whose files of the form diffusers ComfyUI 0.33 reads right as well."""


@pytest.fixture(scope="module", autouse=True)
def let_go():
    """Models that live until the process ends cannot be taken down by ComfyUI."""
    yield
    lora.cache_clear()


@cache
def lora(name: str) -> Lora:
    try:
        return Lora(name)
    except NotHere as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("name", HOSTED)
def test_the_patching_loader_gives_the_live_adapters_output(name):
    import comfy.sd

    assert lora(name).apart(comfy.sd.load_lora_for_models) < CLOSE


@pytest.mark.parametrize("name", HOSTED)
def test_the_bypass_loader_gives_the_live_adapters_output(name):
    import comfy.sd

    if not hasattr(comfy.sd, "load_bypass_lora_for_models"):
        pytest.skip("this ComfyUI has no loader in bypass mode")
    assert lora(name).apart(comfy.sd.load_bypass_lora_for_models) < CLOSE


@pytest.mark.parametrize("name", ALSO_IN_COMFYUI)
def test_comfyui_reads_the_diffusers_form_of_these_too(name):
    import comfy.sd

    if (made := lora(name)).refused:
        pytest.skip(made.refused)
    if not hasattr(comfy.sd, "load_bypass_lora_for_models"):
        pytest.skip("an earlier ComfyUI, which knows fewer of diffusers' names")
    assert made.apart(comfy.sd.load_lora_for_models, "diffusers") < CLOSE


def test_a_family_that_diffusers_cannot_load_is_refused_by_name():
    made = lora("HunyuanImage21")
    assert "no known place in diffusers' model of HunyuanImage21 (first: lora_unet_double_blocks_0" in made.refused


# --- diffusers ---


def diffusers_python() -> str | None:
    if given := os.environ.get("DIFFUSERS_PYTHON"):
        return given
    if importlib.util.find_spec("diffusers") and importlib.util.find_spec("peft"):
        return sys.executable
    own = ROOT / ".venv" / "bin" / "python"
    return str(own) if own.exists() else None


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> dict[str, dict[str, float | str]]:
    """What diffusers made of the files: {family: {form: largest relative difference, or why not}}."""
    python, folder, here = diffusers_python(), tmp_path_factory.mktemp("files"), 0
    if python is None:
        pytest.skip("no Python with diffusers and peft: set DIFFUSERS_PYTHON")
    for name in in_diffusers.FAMILIES:
        try:
            Lora(name).write(folder / name)
            here += 1
        except NotHere:
            continue
    assert here > 5
    done = subprocess.run([python, in_diffusers.__file__, str(folder)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", in_diffusers.FAMILIES)
def test_diffusers_loads_the_diffusers_form(loaded, name):
    """diffusers' conversion of W + change equals its conversion of W with the file loaded and fused, in every layer."""
    if name not in loaded:
        pytest.skip("this ComfyUI has no such model")
    if (made := lora(name)).refused:
        pytest.skip(made.refused)
    assert loaded[name]["diffusers"] < EXACT


@pytest.mark.parametrize("name", READ_BY_DIFFUSERS)
def test_diffusers_loads_the_kohya_form_of_these(loaded, name):
    if name not in loaded:
        pytest.skip("this ComfyUI has no such model")
    assert loaded[name]["kohya"] < EXACT


@pytest.mark.parametrize("name", [name for name in in_diffusers.FAMILIES if name not in READ_BY_DIFFUSERS])
def test_diffusers_passes_over_the_kohya_form_of_the_others(loaded, name):
    """Why the diffusers form exists; docs/lora.md's table is to be corrected where this fails."""
    if name not in loaded:
        pytest.skip("this ComfyUI has no such model")
    result = loaded[name]["kohya"]
    assert isinstance(result, str) or result > 0.99


# --- kohya's sd-scripts ---


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        # networks/lora.py: "lora_unet" + path of the module in its own model, points as underscores. library/
        # original_unet.py (SD 1 and 2) has diffusers' modules, the others the checkpoint's.
        ("SD15", "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"),
        ("SD15", "lora_unet_mid_block_attentions_0_proj_in"),
        ("SD15", "lora_unet_up_blocks_0_resnets_0_time_emb_proj"),
        ("SDXL", "lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_q"),
        ("SDXL", "lora_unet_middle_block_1_transformer_blocks_0_ff_net_0_proj"),
        ("SDXL", "lora_unet_output_blocks_0_0_in_layers_2"),
        ("Flux-dev", "lora_unet_double_blocks_0_img_attn_qkv"),
        ("Flux-dev", "lora_unet_single_blocks_0_linear1"),
        ("SD3.5-medium", "lora_unet_joint_blocks_0_context_block_attn_qkv"),
        ("Lumina2", "lora_unet_layers_0_attention_qkv"),
        ("Anima", "lora_unet_blocks_0_self_attn_q_proj"),
        ("HunyuanImage21", "lora_unet_double_blocks_0_img_attn_qkv"),
    ],
)
def test_names_are_those_of_kohyas_sd_scripts(name, prefix):
    found = set(lora(name).prefixes.values())
    assert prefix in found and all(key.startswith("lora_unet_") for key in found)
