"""LoRA files: diffusers gives the output of the live adapter, and wrong files are refused."""

from __future__ import annotations

import re

import pytest
import torch
from models import tiny_pipeline, tiny_stable_diffusion, tiny_text_to_image
from safetensors import safe_open
from safetensors.torch import save_file

from dreambooth_dpo.dpo_core.backends.diffusers.model import DiffusersTextToImage, load_pipeline
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.settings import AdapterSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.lora_files import load_into_adapter, read_lora, save_lora

TARGETS = ("attention", "attention+ff", "all")


@pytest.fixture(scope="module")
def model():
    return tiny_text_to_image()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_pipeline(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def inputs(model):
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    return noise, torch.tensor([40, 900]), model.encode_prompts(["a sks robot on grass", "a bear in snow"])


def trained(model, targets: str = "all", rank: int = 3, alpha: float = 5.0) -> Adapter:
    """An adapter with random B, which changes the prediction by at least a tenth."""
    adapter = Adapter(model.denoiser, AdapterSettings(rank=rank, alpha=alpha, targets=targets), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for layer in adapter.policy.values():
            layer.up.normal_(0, 0.1, generator=generator)
    return adapter


@torch.no_grad()
def live(model, adapter: Adapter, inputs, strength: float = 1.0) -> torch.Tensor:
    for layer in adapter.policy.values():
        layer.scale = strength * layer.alpha / adapter.settings.rank
    with adapter.attached():
        return model.predict(*inputs)


@torch.no_grad()
def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def text_encoder_lora() -> dict[str, torch.Tensor]:
    """A kohya LoRA of the tiny text encoder (2 layers of width 128), as written by DreamBooth trainers."""
    shapes = {f"self_attn_{p}_proj": (128, 128) for p in ("q", "k", "v", "out")} | {
        "mlp_fc1": (128, 512),
        "mlp_fc2": (512, 128),
    }
    tensors = {}
    for name, (width_in, width_out) in shapes.items():
        for layer in range(2):
            key = f"lora_te_text_model_encoder_layers_{layer}_{name}"
            tensors[f"{key}.lora_down.weight"] = torch.full((2, width_in), 0.1)
            tensors[f"{key}.lora_up.weight"] = torch.full((width_out, 2), 0.1)
            tensors[f"{key}.alpha"] = torch.tensor(2.0)
    return tensors


def test_keys_are_kohya_keys_over_diffusers_layer_names(model, tmp_path):
    """The keys that ComfyUI's stock loader reads; rank 3, alpha 5."""
    adapter = trained(model)
    save_lora(adapter, tmp_path / "a.safetensors", {})
    tensors = read_lora(tmp_path / "a.safetensors")
    layers = {
        f"lora_unet_{name.replace('.', '_')}": layer
        for name, layer in model.denoiser.named_modules()
        if name in adapter.layers
    }
    assert set(tensors) == {f"{k}.{end}" for k in layers for end in ("lora_down.weight", "lora_up.weight", "alpha")}
    assert "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_up.weight" in tensors
    for key, layer in layers.items():
        out, *rest = layer.weight.shape
        assert tensors[f"{key}.lora_down.weight"].shape == (3, *rest)
        assert tensors[f"{key}.lora_up.weight"].shape == (out, 3, *[1] * (layer.weight.ndim - 2))
        assert tensors[f"{key}.alpha"].item() == 5.0


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("targets", TARGETS)
def test_diffusers_gives_the_output_of_the_live_adapter(model, inputs, tmp_path, targets, strength):
    """Alpha 5 and rank 3, so a reader that ignores or swaps them would be far off."""
    adapter = trained(model, targets)
    path = tmp_path / f"mein Hund – {targets} – 犬.safetensors"
    save_lora(adapter, path, {})
    expected = live(model, adapter, inputs, strength)
    pipe = tiny_stable_diffusion()
    pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="ours")
    pipe.set_adapters("ours", strength)
    assert sum(hasattr(m, "lora_A") for m in pipe.unet.modules()) == len(adapter.layers)
    with torch.no_grad():
        found = pipe.unet(inputs[0], inputs[1], **inputs[2]).sample
        without = model.predict(*inputs)
    assert distance(found, expected) <= 1e-5
    assert distance(without, expected) > 0.01


@pytest.mark.parametrize("strength", [1.0, 0.5, 0.0])
def test_load_pipeline_merges_the_lora(model, folder, inputs, tmp_path, strength):
    adapter = trained(model)
    save_lora(adapter, tmp_path / "犬.safetensors", {})
    pipe = load_pipeline(folder, lora=tmp_path / "犬.safetensors", lora_strength=strength)
    assert [n for n, _ in pipe.unet.named_parameters()] == [n for n, _ in model.denoiser.named_parameters()]
    merged = DiffusersTextToImage(pipe)
    with torch.no_grad():
        found = merged.predict(*inputs)
    assert distance(found, live(model, adapter, inputs, strength)) <= 1e-5
    assert (merged.fingerprint == model.fingerprint) == (strength == 0.0)


def test_load_pipeline_merges_the_text_encoders_part_too(model, folder, tmp_path):
    save_lora(trained(model, "attention"), tmp_path / "unet.safetensors", {})
    save_file({**read_lora(tmp_path / "unet.safetensors"), **text_encoder_lora()}, tmp_path / "both.safetensors")
    pipe = load_pipeline(folder, lora=tmp_path / "both.safetensors")
    weight, before = (
        dict(p.text_encoder.named_parameters())["encoder.layers.0.mlp.fc1.weight"] for p in (pipe, model.pipe)
    )
    # Each element of B A is 2 * 0.1 * 0.1 = 0.02, at alpha 2 and rank 2.
    assert torch.allclose(weight, before + 0.02, atol=1e-6)


def test_metadata_is_in_the_header(model, tmp_path):
    save_lora(trained(model), tmp_path / "a.safetensors", {"prompt": "ein Foto – 犬", "round": "2"})
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        found = file.metadata()
    assert found == {
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "3",
        "ss_network_alpha": "5.0",
        "prompt": "ein Foto – 犬",
        "round": "2",
    }


def test_a_file_continues_an_adapter(model, inputs, tmp_path):
    adapter = trained(model)
    save_lora(adapter, tmp_path / "a.safetensors", {})
    fresh = Adapter(model.denoiser, adapter.settings, seed=8)
    load_into_adapter(fresh, tmp_path / "a.safetensors")
    assert all(torch.equal(v, fresh.state()[k]) for k, v in adapter.state().items())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rank": 4}, "rank"),
        ({"alpha": 3.0}, "alpha 5.*adapter has 3"),
        ({"targets": "attention"}, "unknown"),
        ({"targets": "all"}, "missing"),
    ],
)
def test_a_file_of_another_adapter_is_refused(model, tmp_path, changes, reason):
    save_lora(trained(model, "attention+ff"), tmp_path / "a.safetensors", {})
    other = Adapter(model.denoiser, AdapterSettings(**{"rank": 3, "alpha": 5.0, "targets": "attention+ff", **changes}))
    before = other.state()
    with pytest.raises(UserError, match=reason):
        load_into_adapter(other, tmp_path / "a.safetensors")
    assert all(torch.equal(before[k], v) for k, v in other.state().items())


def test_a_failed_write_keeps_the_old_file(model, tmp_path, monkeypatch):
    import safetensors.torch
    from safetensors import SafetensorError

    path = tmp_path / "a.safetensors"
    save_lora(trained(model, "attention"), path, {})
    before = path.read_bytes()

    def full(tensors, file, metadata):
        file.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(UserError, match=r"cannot write .*a\.safetensors.*No space left.*Free disk space"):
        save_lora(trained(model), path, {})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_lora(tmp_path / "none.safetensors")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a pickle, say", b"\xff" * 64], ids=["empty", "zip", "noise"])
def test_a_file_that_is_not_safetensors_is_refused(folder, tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(str(path)) + ".*not a readable safetensors"):
        read_lora(path)
    with pytest.raises(UserError, match="not a readable safetensors"):
        load_pipeline(folder, lora=path)


def test_a_checkpoint_is_refused_as_a_lora(tmp_path):
    save_file({"conv_in.weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"holds no LoRA weights \(first key: conv_in\.weight\)"):
        read_lora(tmp_path / "a.safetensors")


def renamed(tensors: dict[str, torch.Tensor], old: str, new: str) -> dict[str, torch.Tensor]:
    return {k.replace(old, new): v for k, v in tensors.items()}


@pytest.mark.parametrize("kind", ["other width", "other depth", "other architecture", "other family"])
def test_a_lora_of_another_model_is_refused(model, folder, tmp_path, kind):
    """diffusers raises for other shapes, only logs missing layers, and ignores keys of another family."""
    path = tmp_path / "other.safetensors"
    if kind == "other width":
        save_lora(trained(DiffusersTextToImage(tiny_stable_diffusion(channels=(48, 96)))), path, {})
    else:
        save_lora(trained(model), path, {})
        tensors = read_lora(path)
        if kind == "other depth":
            tensors = renamed(tensors, "up_blocks_1", "up_blocks_3")
        elif kind == "other architecture":
            tensors = {
                "lora_unet_nowhere.lora_down.weight": torch.zeros(2, 4),
                "lora_unet_nowhere.lora_up.weight": torch.zeros(4, 2),
            }
        else:
            tensors = {f"transformer.blocks.0.attn.to_q.lora_{x}.weight": torch.zeros(2, 2) for x in "AB"}
        save_file(tensors, path)
    with pytest.raises(
        UserError, match=r"other\.safetensors does not fit this model: .*Give a LoRA that was trained on this model"
    ):
        load_pipeline(folder, lora=path)
