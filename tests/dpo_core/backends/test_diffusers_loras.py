"""LoRA files of every tool: merged as diffusers loads them from the file, or refused by the feature's name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from models import tiny_pipeline
from safetensors.torch import load_file, save_file

from dreambooth_dpo.dpo_core.backends.diffusers.folder import load_parts
from dreambooth_dpo.dpo_core.backends.diffusers.loras import merge_lora, plan_merge
from dreambooth_dpo.dpo_core.backends.diffusers.model import load_pipeline
from dreambooth_dpo.dpo_core.errors import UserError

ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
LAYERS = (
    f"{ATTENTION}.to_q", f"{ATTENTION}.to_out.0", "down_blocks.1.attentions.0.proj_in", "mid_block.resnets.0.conv1",
)  # fmt: skip
"""Two linear layers, a 1x1 and a 3x3 convolution of the tiny UNet."""
TEXT, TEXT_OUT = "encoder.layers.0.self_attn.q_proj", "encoder.layers.0.self_attn.out_proj"
RANK = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_pipeline(tmp_path_factory.mktemp("lora") / "Modell – 犬")


@pytest.fixture(scope="module")
def weights(folder) -> dict[str, torch.Tensor]:
    return state(load_pipeline(folder))


def state(pipe) -> dict[str, torch.Tensor]:
    """Weights of UNet and text encoder, by "unet.<layer>.weight"."""
    parts = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    return {f"{part}.{k}": v.clone() for part, m in parts.items() for k, v in m.state_dict().items()}


def matrices(weights, layer: str, rank: int = RANK, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    shape = weights[f"{layer}.weight"].shape
    draws = torch.Generator().manual_seed(seed + sum(map(ord, layer)))
    down = torch.randn(rank, *shape[1:], generator=draws)
    return down, torch.randn(shape[0], rank, *[1] * (len(shape) - 2), generator=draws)


def delta(down: torch.Tensor, up: torch.Tensor, scale: float) -> torch.Tensor:
    """scale * up @ down by hand, in double precision, in the weight's shape."""
    flat = up.double().flatten(1) @ down.double().flatten(1)
    return scale * flat.reshape(len(up), *down.shape[1:])


def peft_file(weights, layers=LAYERS, seed: int = 0) -> dict[str, torch.Tensor]:
    """A LoRA with diffusers' own keys, `unet.<layer>.lora_A.weight`."""
    made = {}
    for layer in layers:
        down, up = matrices(weights, f"unet.{layer}", seed=seed)
        made |= {f"unet.{layer}.lora_A.weight": down, f"unet.{layer}.lora_B.weight": up}
    return made


def by_diffusers(folder: Path, file: Path, strength: float = 1.0) -> dict[str, torch.Tensor]:
    """The weights after diffusers' own load_lora_weights of the file, and its fuse_lora."""
    pipe = load_pipeline(folder)
    pipe.load_lora_weights(str(file.parent), weight_name=file.name)
    pipe.fuse_lora(lora_scale=strength)
    pipe.unload_lora_weights()
    return state(pipe)


def merged(folder: Path, file: Path, strength: float = 1.0) -> dict[str, torch.Tensor]:
    return state(load_pipeline(folder, lora=file, lora_strength=strength))


def assert_merged(found, weights, expected: dict[str, torch.Tensor]) -> None:
    """Exactly the weights in `expected` have changed, each by the given amount."""
    for name, before in weights.items():
        change = expected.get(name.removesuffix(".weight"))
        if change is None:
            assert torch.equal(found[name], before), name
        else:
            assert torch.allclose((found[name] - before).double(), change, atol=1e-5), name
    assert set(expected) <= {name.removesuffix(".weight") for name in weights}


# --- the same weights as diffusers', to the last bit ---


@pytest.mark.parametrize("strength", [1.0, 0.7, -1.0])
def test_alpha_of_the_header_counts(folder, weights, tmp_path, strength):
    """alpha 8, rank 4: the LoRA has twice the strength that its tensors alone say."""
    config = {"unet.r": RANK, "unet.lora_alpha": 8, "unet.target_modules": list(LAYERS)}
    file = tmp_path / "a.safetensors"
    save_file(peft_file(weights), file, metadata={"format": "pt", "lora_adapter_metadata": json.dumps(config)})
    found = merged(folder, file, strength)
    assert_merged(found, weights, {f"unet.{n}": delta(*matrices(weights, f"unet.{n}"), 2.0 * strength) for n in LAYERS})
    theirs = by_diffusers(folder, file, strength)
    assert all(torch.equal(found[name], theirs[name]) for name in theirs)


def test_patterns_of_the_header_count(folder, weights, tmp_path):
    """One layer has alpha 2 by alpha_pattern, the others 8; rank 4 gives strengths 0.5 and 2."""
    config = {
        "unet.r": RANK, "unet.lora_alpha": 8, "unet.alpha_pattern": {LAYERS[0]: 2}, "unet.target_modules": list(LAYERS),
    }  # fmt: skip
    file = tmp_path / "a.safetensors"
    save_file(peft_file(weights), file, metadata={"lora_adapter_metadata": json.dumps(config)})
    found, theirs = merged(folder, file), by_diffusers(folder, file)
    scales = {n: 0.5 if n == LAYERS[0] else 2.0 for n in LAYERS}
    assert_merged(found, weights, {f"unet.{n}": delta(*matrices(weights, f"unet.{n}"), scales[n]) for n in LAYERS})
    assert all(torch.equal(found[name], theirs[name]) for name in theirs)


def test_rslora_of_the_header_counts(folder, weights, tmp_path):
    """alpha / sqrt(rank) = 8 / 2 = 4."""
    config = {"unet.r": RANK, "unet.lora_alpha": 8, "unet.use_rslora": True, "unet.target_modules": list(LAYERS)}
    file = tmp_path / "a.safetensors"
    save_file(peft_file(weights), file, metadata={"lora_adapter_metadata": json.dumps(config)})
    found, theirs = merged(folder, file), by_diffusers(folder, file)
    assert_merged(found, weights, {f"unet.{n}": delta(*matrices(weights, f"unet.{n}"), 4.0) for n in LAYERS})
    assert all(torch.equal(found[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_without_alpha_the_strength_is_1(folder, weights, tmp_path, dtype):
    file = tmp_path / "a.safetensors"
    save_file({k: v.to(dtype) for k, v in peft_file(weights).items()}, file)
    found, theirs = merged(folder, file), by_diffusers(folder, file)
    changes = {f"unet.{n}": [m.to(dtype) for m in matrices(weights, f"unet.{n}")] for n in LAYERS}
    assert_merged(found, weights, {n: delta(*pair, 1.0) for n, pair in changes.items()})
    assert all(torch.equal(found[name], theirs[name]) for name in theirs)


def kohya_file(weights, alphas: tuple[float, ...]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A LoRA with kohya's keys, with these alphas in turn; and the changes that it makes."""
    tensors, changes = {}, {}
    for i, layer in enumerate((*(f"unet.{n}" for n in LAYERS), f"text_encoder.{TEXT}", f"text_encoder.{TEXT_OUT}")):
        start = "lora_unet_" if layer.startswith("unet.") else "lora_te_text_model_"
        key, alpha = start + layer.partition(".")[2].replace(".", "_"), alphas[i % len(alphas)]
        down, up = matrices(weights, layer)
        tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(alpha)}
        changes[layer] = delta(down, up, alpha / RANK)
    return tensors, changes


@pytest.mark.parametrize("strength", [1.0, 0.7])
@pytest.mark.parametrize("alphas", [(3.0,), (2.0, 3.0, 4.0)])
def test_kohya_files(folder, weights, tmp_path, strength, alphas):
    """Alphas that differ count layer by layer, as in kohya's tools; diffusers ignores those of attention layers."""
    tensors, changes = kohya_file(weights, alphas)
    save_file(tensors, tmp_path / "a.safetensors")
    found = merged(folder, tmp_path / "a.safetensors", strength)
    assert_merged(found, weights, {name: strength * change for name, change in changes.items()})
    if len(alphas) == 1:
        theirs = by_diffusers(folder, tmp_path / "a.safetensors", strength)
        assert all(torch.equal(found[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("start", ["", "unet."])
def test_old_diffusers_keys(folder, weights, tmp_path, start):
    """`processor.to_q_lora.down.weight`, as diffusers wrote them until version 0.20, with and without "unet."."""
    layers, tensors = (f"{ATTENTION}.to_q", f"{ATTENTION}.to_out.0"), {}
    for layer, end in zip(layers, ("to_q", "to_out"), strict=True):
        down, up = matrices(weights, f"unet.{layer}")
        key = f"{start}{ATTENTION}.processor.{end}_lora"
        tensors |= {f"{key}.down.weight": down, f"{key}.up.weight": up}
    save_file(tensors, tmp_path / "a.safetensors")
    found = merged(folder, tmp_path / "a.safetensors")
    assert_merged(found, weights, {f"unet.{n}": delta(*matrices(weights, f"unet.{n}"), 1.0) for n in layers})
    if start:  # without it, diffusers finds no layer and says nothing
        theirs = by_diffusers(folder, tmp_path / "a.safetensors")
        assert all(torch.equal(found[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("end", ["self_attn.q_proj.lora_linear_layer", "self_attn.to_q_lora", "self_attn.q_proj.lora"])
def test_the_text_encoders_part_in_diffusers_keys(folder, weights, tmp_path, end):
    down, up = matrices(weights, f"text_encoder.{TEXT}")
    key = f"text_encoder.text_model.encoder.layers.0.{end}"
    save_file({f"{key}.down.weight": down, f"{key}.up.weight": up}, tmp_path / "a.safetensors")
    assert_merged(merged(folder, tmp_path / "a.safetensors"), weights, {f"text_encoder.{TEXT}": delta(down, up, 1.0)})


# --- folders and PEFT's own files ---


def peft_folder(weights, folder: Path, config: dict | None) -> Path:
    folder.mkdir()
    tensors = {k.replace("unet.", "base_model.model.", 1): v for k, v in peft_file(weights).items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_a_peft_folder_is_loaded_with_its_config(folder, weights, tmp_path):
    """Merged as PEFT's own PeftModel.from_pretrained does it."""
    from peft import PeftModel

    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 6, "target_modules": list(LAYERS)}
    lora = peft_folder(weights, tmp_path / "lora", config)
    found = merged(folder, lora)
    assert_merged(found, weights, {f"unet.{n}": delta(*matrices(weights, f"unet.{n}"), 1.5) for n in LAYERS})
    theirs = PeftModel.from_pretrained(load_parts(folder)["unet"], lora).merge_and_unload().state_dict()
    assert all(torch.equal(found[f"unet.{name}"], value) for name, value in theirs.items())


def test_peft_keys_without_their_config_are_refused(folder, weights, tmp_path):
    with pytest.raises(UserError, match=r"PEFT's own keys.*adapter_config\.json, which holds its strength, is not"):
        load_pipeline(folder, lora=peft_folder(weights, tmp_path / "lora", None))


def test_a_folder_with_one_lora_file(folder, weights, tmp_path):
    (tmp_path / "lora").mkdir()
    save_file(peft_file(weights), tmp_path / "lora" / "pytorch_lora_weights.safetensors")
    save_file(peft_file(weights, seed=1), tmp_path / "lora" / "other.safetensors")
    found = merged(folder, tmp_path / "lora")
    assert_merged(found, weights, {f"unet.{n}": delta(*matrices(weights, f"unet.{n}"), 1.0) for n in LAYERS})


# --- refused by name ---


@pytest.mark.parametrize(
    ("key", "feature"),
    [
        ("lora_unet_x.dora_scale", r"DoRA \(dora_scale\)"),
        ("unet.x.lora_magnitude_vector.weight", "DoRA"),
        ("lora_unet_x.hada_w1_a", "LoHa"),
        ("lora_unet_x.lokr_w1", "LoKr"),
        ("lora_unet_x.lora_mid.weight", "Tucker decomposition"),
        ("lora_unet_x.oft_blocks", "OFT"),
        ("lora_unet_x.diff", r"full weights \(\.diff\)"),
        ("lora_unet_x.diff_b", r"full weights \(\.diff\)"),
        ("lora_unet_x.on_input", "IA3"),
        ("bundle_emb.dog.string_to_param.*", "embeddings of textual inversion"),
        ("unet.x.lora_B.bias", "biases"),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_features_beside_plain_lora_layers_are_refused_by_name(folder, weights, tmp_path, key, feature, alone):
    tensors = {key: torch.zeros(2, 2)} | ({} if alone else kohya_file(weights, (2.0,))[0])
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=rf"a\.safetensors holds .*{feature}.*1 of its {len(tensors)} tensors"):
        load_pipeline(folder, lora=tmp_path / "a.safetensors")


def test_a_tensor_of_no_layer_is_refused(folder, weights, tmp_path):
    save_file(peft_file(weights) | {"unet.conv_in.weight": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"1 tensors that belong to no LoRA layer \(first: unet\.conv_in\.weight\)"):
        load_pipeline(folder, lora=tmp_path / "a.safetensors")


def test_half_a_layer_and_nan_are_refused(folder, weights, tmp_path):
    tensors = peft_file(weights)
    lost = {k: v for k, v in tensors.items() if not k.endswith("proj_in.lora_B.weight")}
    save_file(lost, tmp_path / "half.safetensors")
    with pytest.raises(UserError, match=r"proj_in has only its down matrix"):
        load_pipeline(folder, lora=tmp_path / "half.safetensors")
    tensors[f"unet.{LAYERS[0]}.lora_A.weight"][0, 0] = float("nan")
    save_file(tensors, tmp_path / "nan.safetensors")
    with pytest.raises(UserError, match=r"to_q holds NaN or infinite values"):
        load_pipeline(folder, lora=tmp_path / "nan.safetensors")


def test_layers_that_the_model_lacks_are_counted_and_named(folder, weights, tmp_path):
    tensors = peft_file(weights)
    tensors |= {f"unet.down_blocks.9.to_q.lora_{x}.weight": torch.zeros(4, 4) for x in "AB"}
    save_file(tensors, tmp_path / "a.safetensors")
    pipe = load_pipeline(folder)
    with pytest.raises(UserError, match=r"4 of its 5 layers are in the model; not there: unet\.down_blocks\.9\.to_q"):
        plan_merge(pipe, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="not there"):
        merge_lora(pipe, tmp_path / "a.safetensors", 1.0)
    assert all(torch.equal(v, weights[k]) for k, v in state(pipe).items()), "a refused file changes nothing"


@pytest.mark.parametrize("name", ["a.pt", "a.bin", "a.ckpt"])
def test_pickles_are_refused_by_name(folder, tmp_path, name):
    torch.save({"x": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(UserError, match=rf"{name} is a \.\w+ file\. Only \.safetensors is loaded"):
        load_pipeline(folder, lora=tmp_path / name)


def test_folders_without_one_file_are_refused(folder, weights, tmp_path):
    with pytest.raises(UserError, match=r"holds no \.safetensors file"):
        load_pipeline(folder, lora=tmp_path)
    for name in "ab":
        save_file(peft_file(weights), tmp_path / f"{name}.safetensors")
    with pytest.raises(UserError, match=r"holds 2 LoRA files \(a\.safetensors, b\.safetensors"):
        load_pipeline(folder, lora=tmp_path)


def test_alpha_and_header_that_disagree_are_refused(folder, weights, tmp_path):
    config = {"unet.r": RANK, "unet.lora_alpha": 8}
    tensors = peft_file(weights) | {f"unet.{LAYERS[0]}.alpha": torch.tensor(4.0)}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"lora_adapter_metadata": json.dumps(config)})
    with pytest.raises(UserError, match=r"strength 1 by its alpha and 2 by the config in the header"):
        load_pipeline(folder, lora=tmp_path / "a.safetensors")
    assert load_file(tmp_path / "a.safetensors"), "the file itself is whole"
