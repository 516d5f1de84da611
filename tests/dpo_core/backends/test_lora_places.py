"""A joined file on tiny pipelines: the same weights and pictures as both LoRAs, here and by load_lora_weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dreambooth_dpo.benchmarks.pipelines.tiny import BUILDERS, SIDE, tiny
from dreambooth_dpo.dpo_core.backends.diffusers import lora_places
from dreambooth_dpo.dpo_core.backends.diffusers.lora_places import join_files
from dreambooth_dpo.dpo_core.backends.diffusers.loras import merge_lora
from dreambooth_dpo.dpo_core.backends.diffusers.skeleton import skeleton
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.settings import AdapterSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.lora_files import read_metadata, save_lora

STRENGTHS = (0.8, 0.6)
TEXTS = ("text_encoder", "text_encoder_2")
FORMS = [
    ("StableDiffusionPipeline", "kohya", True),
    ("StableDiffusionXLPipeline", "kohya", True),
    ("StableDiffusionXLPipeline", "kohya", False),
    ("StableDiffusionXLPipeline", "diffusers", True),
    ("ZImagePipeline", "comfyui", True),
    ("ZImagePipeline", "comfyui", False),
    ("FluxPipeline", "diffusers", True),
]


def user_file(pipe, path: Path, form: str) -> Path:
    """A LoRA of all linear layers in the blocks and CLIP's attention, with a rank of 1 to 3 by turns.

    kohya: alphas 1, 2 and 3 by turns, and convolutions; diffusers: `<component>.<layer>.lora_A`; comfyui:
    `diffusion_model.<layer>.lora_A`.
    """
    tensors: dict[str, torch.Tensor] = {}
    draws = torch.Generator().manual_seed(7)
    for i, (part, name, weight) in enumerate(targets(pipe, form)):
        shape, rank = weight.shape, 1 + i % 3
        down = 0.2 * torch.randn(rank, *shape[1:], generator=draws)
        up = 0.2 * torch.randn(shape[0], rank, *[1] * (len(shape) - 2), generator=draws)
        if form == "kohya":
            start = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}[part]
            if start == "lora_te1_" and not hasattr(pipe, "text_encoder_2"):
                start = "lora_te_"
            key = start + name.replace(".", "_")
            tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
            tensors[f"{key}.alpha"] = torch.tensor(1.0 + (i // 2) % 3)
        else:
            key = f"diffusion_model.{name}" if form == "comfyui" else f"{part}.{name}"
            tensors |= {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}
    save_file(tensors, path, metadata={"ss_base_model_version": "tiny", "ss_network_dim": "3"})
    return path


def targets(pipe, form: str) -> list[tuple[str, str, torch.Tensor]]:
    """(component, layer as files name it, weight), CLIP's layers below text_model."""
    part = "unet" if hasattr(pipe, "unet") else "transformer"
    kinds = (torch.nn.Linear, torch.nn.Conv2d) if part == "unet" and form == "kohya" else (torch.nn.Linear,)
    layers = getattr(pipe, part).named_modules()
    found = [(part, n, m.weight) for n, m in layers if isinstance(m, kinds) and ("block" in n or ".attention.to" in n)]
    found = [entry for entry in found if "_mod" not in entry[1] and "norm" not in entry[1]]
    for text in TEXTS if form != "comfyui" else ():
        for n, m in getattr(pipe, text, torch.nn.Module()).named_modules():
            if n.endswith(("q_proj", "out_proj")):
                found.append((text, f"text_model.{n.removeprefix('text_model.')}", m.weight))
    return found


def our_file(pipe, path: Path) -> Path:
    part = "unet" if hasattr(pipe, "unet") else "transformer"
    adapter = Adapter(getattr(pipe, part), AdapterSettings(rank=4, alpha=3.0))
    draws = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.copy_(0.1 * torch.randn(weight.shape, generator=draws))
    save_lora(adapter, path, {"dreambooth_dpo.rounds": "2"}, part)
    return path


def state(pipe) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{key}".replace(".base_layer", ""): value
        for part in ("unet", "transformer", *TEXTS)
        if hasattr(pipe, part)
        for key, value in getattr(pipe, part).state_dict().items()
    }


def apart(one, other) -> float:
    one, other = state(one), state(other)
    assert one.keys() == other.keys()
    return max(float((one[key].float() - other[key].float()).abs().max()) for key in one)


def picture(pipe) -> torch.Tensor:
    draws = torch.Generator().manual_seed(0)
    done = pipe("a dog", num_inference_steps=2, width=SIDE, height=SIDE, generator=draws, output_type="pt")
    return done.images


@pytest.mark.parametrize(("name", "form", "same_rank"), FORMS)
def test_the_joined_file_gives_the_same_weights_and_pictures(name, form, same_rank, tmp_path):
    plain = tiny(name)
    plain.save_pretrained(tmp_path / "model")
    files = user_file(plain, tmp_path / "user ü.safetensors", form), our_file(plain, tmp_path / "ours.safetensors")
    out = tmp_path / "new" / "joined.safetensors"
    done = join_files(tmp_path / "model", None, list(zip(files, STRENGTHS, strict=True)), out, same_rank)
    assert done.difference < 1e-6 and done.layers >= max(done.sources) and done.dtype == torch.float32
    assert len(set(done.ranks)) == 1 or not same_rank

    both, joined, loaded = tiny(name), tiny(name), tiny(name)
    for file, strength in zip(files, STRENGTHS, strict=True):
        merge_lora(both, file, strength)
    merge_lora(joined, out, 1.0)
    assert apart(both, joined) < 1e-6 and apart(plain, joined) > 1e-2
    loaded.load_lora_weights(str(out.parent), weight_name=out.name)
    loaded_picture = picture(loaded)
    loaded.fuse_lora(components=type(loaded)._lora_loadable_modules)  # the default leaves text encoders of Flux out
    loaded.unload_lora_weights()
    assert apart(both, loaded) < 1e-6
    if name != "FluxPipeline":  # two draws of one tiny Flux.1 with these LoRAs differ by 5e-3
        wanted = picture(both)
        assert float((picture(plain) - wanted).abs().max()) > 1e-2
        torch.testing.assert_close(picture(joined), wanted, rtol=0, atol=1e-4)
        torch.testing.assert_close(loaded_picture, wanted, rtol=0, atol=1e-4)
    told = read_metadata(out)
    assert told["dreambooth_dpo.rounds"] == "2" and told["ss_base_model_version"] == "tiny"


@pytest.mark.parametrize("name", list(BUILDERS))
def test_a_skeleton_has_the_layers_of_the_model(name, tmp_path):
    pipe = tiny(name)
    pipe.save_pretrained(tmp_path)
    found = state(skeleton(tmp_path, None, with_text=True))
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in state(pipe).items()}
    assert all(value.is_meta for value in found.values())
    assert not hasattr(skeleton(tmp_path, None, with_text=False), "text_encoder")


def test_what_cannot_be_joined_is_refused_and_writes_nothing(tmp_path):
    pipe = tiny("ZImagePipeline")
    pipe.save_pretrained(tmp_path / "model")
    ours, out = our_file(pipe, tmp_path / "ours.safetensors"), tmp_path / "joined.safetensors"

    def refused(tensors: dict[str, torch.Tensor], words: str) -> None:
        save_file(tensors, tmp_path / "user.safetensors")
        with pytest.raises(UserError, match=words):
            join_files(tmp_path / "model", None, [(tmp_path / "user.safetensors", 1.0), (ours, 1.0)], out)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "ours.safetensors", "user.safetensors"]

    good = load_file(ours)
    foreign = {k.replace("layers.1.", "layers.7."): v for k, v in good.items()}
    refused(foreign, r"not there: transformer\.layers\.7\.")
    refused({**good, "transformer.layers.0.x.lokr_w1": torch.zeros(2, 2)}, "user.safetensors holds LoKr")
    refused({"transformer.layers.0.x.dora_scale": torch.zeros(2), **good}, "DoRA")


def test_layers_outside_the_blocks_of_a_unet(tmp_path):
    name, layers = "StableDiffusionXLPipeline", ("time_embedding.linear_1", "conv_in", "conv_out")
    plain, tensors = tiny(name), {}
    plain.save_pretrained(tmp_path / "model")
    for layer in layers:
        weight = plain.unet.get_submodule(layer).weight
        tensors[f"unet.{layer}.lora_A.weight"] = 0.1 * torch.ones(1, *weight.shape[1:])
        tensors[f"unet.{layer}.lora_B.weight"] = torch.ones(len(weight), 1, *[1] * (weight.ndim - 2))
    save_file(tensors, tmp_path / "user.safetensors")
    ours, out = our_file(plain, tmp_path / "ours.safetensors"), tmp_path / "joined.safetensors"
    join_files(tmp_path / "model", None, [(tmp_path / "user.safetensors", 1.0), (ours, 1.0)], out)
    loaded = tiny(name)
    loaded.load_lora_weights(str(tmp_path), weight_name=out.name)
    loaded.fuse_lora(components=["unet"])
    loaded.unload_lora_weights()
    for layer in layers:
        change = loaded.unet.get_submodule(layer).weight - plain.unet.get_submodule(layer).weight
        torch.testing.assert_close(change, torch.full_like(change, 0.1), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda k, v: (k.replace("layers.1.", "layers.7."), v),
            r"cannot be read again and was not kept: .*layers\.7\.",
        ),
        (
            lambda k, v: (k, 1.01 * v if "layers.1." in k and "lora_B" in k else v),
            r"from the sum of the two by 1\.0e-02",
        ),
        (
            lambda k, v: (k.replace("layers.1.", "layers.0."), v),
            r"layers are not as joined \(first: transformer\.layers\.[01]",
        ),
    ],
)
def test_a_file_that_is_not_the_sum_is_not_kept(spoil, words, tmp_path, monkeypatch):
    """The tensors are changed on their way to the file: a name, a value, layers that are lost."""
    pipe = tiny("ZImagePipeline")
    pipe.save_pretrained(tmp_path / "model")
    ours, user = (
        our_file(pipe, tmp_path / "ours.safetensors"),
        user_file(pipe, tmp_path / "user.safetensors", "comfyui"),
    )
    made = lora_places.joined_tensors
    monkeypatch.setattr(lora_places, "joined_tensors", lambda *a: dict(spoil(k, v) for k, v in made(*a).items()))
    with pytest.raises(UserError, match=words):
        join_files(tmp_path / "model", None, [(user, 1.0), (ours, 1.0)], tmp_path / "joined.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "ours.safetensors", "user.safetensors"]
