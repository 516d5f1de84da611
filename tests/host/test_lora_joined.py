"""Save DPO LoRA with join_lora: one file in place of the user's LoRA and ours, on real MODELs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from native_models import ADAPTER, adapter_state, noise, random_model
from safetensors.torch import load_file, safe_open, save_file

from dreambooth_dpo.dpo_core.backends.comfyui import export_of, host, lora_prefixes
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.lora_export import diffusers_tensors
from dreambooth_dpo.dpo_core.training.lora_files import lora_tensors

TEXT = "lora_te1_text_model_encoder_layers_0_mlp_fc1"


@pytest.fixture
def loras(comfyui: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import folder_paths

    known = ([str(tmp_path)], folder_paths.folder_names_and_paths["loras"][1])
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", known)
    return tmp_path


def made(model, targets: str, rank: int, alpha: float, seed: int) -> tuple[dict, object]:
    """(a random LoRA of the kohya form, its export)"""
    settings = ADAPTER.model_copy(update={"rank": rank, "alpha": alpha, "targets": targets})
    with torch.inference_mode(False):
        adapter = Adapter(model.model.diffusion_model, settings, seed=seed)
        adapter.load(adapter_state(adapter, 0.05 * seed))
    prefixes = lora_prefixes(model.model, adapter.layers)
    return lora_tensors(adapter, prefixes), export_of(model.model, prefixes)


def users_file(folder: Path, model, form: str = "kohya", name: str = "mine.safetensors") -> dict:
    """The user's LoRA of rank 3, alpha 2, with text-encoder weights in the form kohya."""
    tensors, export = made(model, "all", 3, 2.0, 2)
    if form == "diffusers":
        tensors = diffusers_tensors(tensors, export)
    else:
        tensors |= {f"{TEXT}.lora_down.weight": noise(2, 8), f"{TEXT}.lora_up.weight": noise(32, 2, seed=1)}
    save_file(tensors, folder / name, metadata={"ss_tag": "mine", "ss_network_dim": "3"})
    return tensors


def weights(model, *loras: tuple[dict, float]) -> dict[str, torch.Tensor]:
    """The merged weights that the host computes of a MODEL with these LoRAs, float32."""
    for tensors, strength in loras:
        model = host.with_lora(model, tensors, strength)
    base = model.model.state_dict()
    return {
        key: host.change_of(entries, key, base[key].shape) + base[key].float()
        for key, entries in host.weight_patches(model).items()
    }


def save(model, lora, join: str, form: str | None = None):
    from dreambooth_dpo.nodes.stages.save_joined import save as written

    return written(lora, "x", form, model, join)


@pytest.mark.parametrize("join", ["auto", "mine.safetensors"])
@pytest.mark.parametrize(
    ("kind", "form"), [("sd", "kohya"), ("sdxl", "kohya"), ("flux", "kohya"), ("flux", "diffusers")]
)
def test_the_joined_file_replaces_both(loras, kind, form, join):
    """Merged weights by the host: the user's at 0.7 and ours, against the one file at 1."""
    model = random_model(kind)
    mine, (ours, _) = users_file(loras, model, form), made(model, "attention", 4, 2.0, 3)
    saved = save(host.with_lora(model, mine, 0.7), ours, join)
    joined = load_file(loras / saved.name)
    two, one = weights(model, (mine, 0.7), (ours, 1.0)), weights(model, (joined, 1.0))
    assert two.keys() == one.keys() and len(two) > 3
    assert max(float((two[k] - one[k]).norm() / two[k].norm()) for k in two) < 1e-6
    assert all(torch.equal(joined[key], mine[key]) for key in mine if key.startswith("lora_te"))
    assert "Joined: mine.safetensors (strength 0.7" in saved.words and "equal to the sum" in saved.words
    assert ("text encoders are unchanged" in saved.words) == (form == "kohya")


def test_the_pictures_are_those_of_both(loras):
    from native_models import DRAWING, PROMPTS, furthest

    from dreambooth_dpo.dpo_core.backends.comfyui import ComfyTextToImage
    from dreambooth_dpo.toybox.native import native_toybox

    model, clip, vae = native_toybox()
    mine, (ours, _) = users_file(loras, model), made(model, "attention", 4, 2.0, 3)
    carrying = host.with_lora(model, mine, 0.7)
    joined = load_file(loras / save(carrying, ours, "auto").name)

    def drawn(given):
        return ComfyTextToImage(given, clip, vae, 64, 64).sample(PROMPTS[:1], [5], DRAWING)

    both, one = drawn(host.with_lora(carrying, ours)), drawn(host.with_lora(model, joined))
    assert furthest(both, one) < 1e-3 < furthest(one, drawn(carrying))


def test_the_header_says_what_was_joined(loras):
    model = random_model("sd")
    mine, (ours, _) = users_file(loras, model), made(model, "attention", 4, 2.0, 3)
    with safe_open(loras / save(host.with_lora(model, mine, 0.5), ours, "auto").name, "pt") as file:
        header = file.metadata()
    told = json.loads(header["dreambooth_dpo.joined"])
    assert told == [{"file": "mine.safetensors", "strength": 0.5}, {"file": "DPO LoRA", "strength": 1.0}]
    assert header["ss_tag"] == "mine" and header["ss_network_dim"] == "7"


def test_two_loras_and_one_that_was_loaded_twice_are_found(loras):
    model = random_model("flux")
    first, second = users_file(loras, model, "diffusers"), made(model, "attention", 2, 1.0, 5)[0]
    save_file(second, loras / "second.safetensors")
    carrying = host.with_lora(host.with_lora(host.with_lora(model, first, 0.5), second, 0.25), second, 0.5)
    ours = made(model, "attention", 4, 2.0, 3)[0]
    saved = save(carrying, ours, "auto")
    assert "mine.safetensors (strength 0.5" in saved.words and "second.safetensors (strength 0.75" in saved.words
    two = weights(model, (first, 0.5), (second, 0.75), (ours, 1.0))
    one = weights(model, (load_file(loras / saved.name), 1.0))
    assert max(float((two[k] - one[k]).norm() / two[k].norm()) for k in two) < 1e-6
    named = save(carrying, ours, "second.safetensors")
    assert named.name == "x_00002.safetensors" and "load them as before" in named.words


def test_a_lora_that_is_not_on_the_model_is_refused(loras):
    model = random_model("sd")
    mine, (ours, _) = users_file(loras, model), made(model, "attention", 4, 2.0, 3)
    save_file(made(model, "all", 3, 2.0, 7)[0], loras / "other.safetensors")
    carrying = host.with_lora(model, mine, 0.7)
    for given, join, said in (
        (None, "auto", "no MODEL is connected to model"),
        (model, "auto", "the MODEL carries no LoRA"),
        (carrying, "other.safetensors", "none of its .* layers has the weights that are on the MODEL"),
        (carrying, "gone.safetensors", "not in models/loras"),
        (host.with_lora(carrying, made(model, "all", 2, 2.0, 8)[0]), "auto", "changed by a LoRA that is not among"),
    ):
        with pytest.raises(UserError, match=said):
            save(given, ours, join)
    assert sorted(f.name for f in loras.iterdir()) == ["mine.safetensors", "other.safetensors"]


def test_a_merge_after_the_lora_is_refused(loras):
    model = random_model("sd")
    carrying = host.with_lora(model, users_file(loras, model), 0.7)
    key = next(iter(host.weight_patches(carrying)))
    carrying.add_patches({key: (model.model.state_dict()[key],)}, 0.5, 0.5)
    with pytest.raises(UserError, match="models were merged after mine.safetensors"):
        save(carrying, made(model, "attention", 4, 2.0, 3)[0], "auto")


@pytest.mark.parametrize(("ending", "named"), [("hada_w1_a", "LoHa"), ("lokr_w1", "LoKr"), ("dora_scale", "DoRA")])
def test_more_than_a_lora_is_refused_by_name(loras, ending, named):
    model = random_model("flux")
    layer, shape = "lora_unet_double_blocks_0_img_attn_proj", (64, 64)
    tensors = {
        "hada_w1_a": {f"{layer}.hada_w{n}_{h}": noise(*((64, 2) if h == "a" else (2, 64))) for n in "12" for h in "ab"},
        "lokr_w1": {f"{layer}.lokr_w1": noise(8, 8), f"{layer}.lokr_w2": noise(8, 8, seed=1)},
        "dora_scale": {
            f"{layer}.lora_up.weight": noise(64, 2),
            f"{layer}.lora_down.weight": noise(2, 64),
            f"{layer}.dora_scale": noise(shape[0], 1),
        },
    }[ending]
    save_file(tensors, loras / "mine.safetensors")
    with pytest.raises(UserError, match=named):
        save(host.with_lora(model, tensors), made(model, "attention", 4, 2.0, 3)[0], "auto")
    assert len(list(loras.iterdir())) == 1


def test_the_diffusers_form_of_a_joined_lora(loras):
    model = random_model("flux")
    mine, (ours, _) = users_file(loras, model, "diffusers"), made(model, "attention", 4, 2.0, 3)
    joined = load_file(loras / save(host.with_lora(model, mine, 0.7), ours, "auto", "diffusers").name)
    assert all(key.startswith("transformer.") for key in joined)
    two, one = weights(model, (mine, 0.7), (ours, 1.0)), weights(model, (joined, 1.0))
    assert max(float((two[k] - one[k]).norm() / two[k].norm()) for k in two) < 1e-6


def test_the_node_joins_in_inference_mode(loras, nodes, as_nodes_run):
    model = random_model("flux")
    carrying = host.with_lora(model, users_file(loras, model, "diffusers"), 0.7)
    shown = nodes["DBDPO_SaveLora"].execute(made(model, "attention", 4, 2.0, 3)[0], "x", "kohya", carrying, "auto")
    assert "Joined: mine.safetensors" in shown.ui.as_dict()["text"][0] and shown.args[0] == "x_00001.safetensors"
