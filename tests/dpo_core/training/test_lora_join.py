"""Joined LoRAs: the change of every layer is the sum of the two, by hand and for random ranks, alphas and strengths."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.training.lora_join import (
    JOINED,
    Source,
    check_difference,
    file_dtype,
    join_layers,
    joined_metadata,
    joined_tensors,
    largest_difference,
)
from dreambooth_dpo.dpo_core.training.lora_layers import LoraLayer

SHAPES = {
    "unet.a": (5, 3),
    "unet.b": (4, 6),
    "unet.conv1x1": (3, 4, 1, 1),
    "unet.conv3x3": (4, 2, 3, 3),
    "text_encoder.encoder.layers.0.self_attn.q_proj": (3, 3),
}
HALVES = (torch.float16, torch.bfloat16)


def scalar(name: str, down: float, up: float, scale: float) -> LoraLayer:
    return LoraLayer(name, torch.tensor([[down]]), torch.tensor([[up]]), scale)


def delta(layer: LoraLayer) -> torch.Tensor:
    """scale * up @ down by hand, in double precision, in the weight's shape."""
    change = layer.up.double().flatten(1) @ layer.down.double().flatten(1)
    return layer.scale * change.reshape(len(layer.up), *layer.down.shape[1:])


def random_layer(name: str, rank: int, alpha: float, dtype: torch.dtype, seed: int) -> LoraLayer:
    shape, draws = SHAPES[name], torch.Generator().manual_seed(seed + sum(map(ord, name)))
    down = torch.randn(rank, *shape[1:], generator=draws).to(dtype)
    up = torch.randn(shape[0], rank, *[1] * (len(shape) - 2), generator=draws).to(dtype)
    return LoraLayer(name, down, up, alpha / rank)


def test_one_number_by_hand():
    """User: down 2, up 3, alpha 1, rank 1, strength 0.5: 0.5 * 1 * 3 * 2 = 3. Ours: down 5, up 7, alpha 2, strength 1:
    2 * 7 * 5 = 70. Joined: down [2, 5], up [1.5, 14], so 1.5 * 2 + 14 * 5 = 73, with no alpha to multiply in.
    """
    user = Source("user", {"unet.a": scalar("x", 2, 3, 1.0)}, 0.5)
    ours = Source("ours", {"unet.a": scalar("y", 5, 7, 2.0)}, 1.0)
    layer = join_layers([user, ours])["unet.a"]
    assert layer.down.tolist() == [[2], [5]] and layer.up.tolist() == [[1.5, 14]] and layer.scale == 1
    assert float(layer.up @ layer.down) == 73 and largest_difference([user, ours], {"unet.a": layer}) == 0


def test_layers_of_one_file_stay_and_are_filled_up_with_zeros():
    """Layer a is in both (rank 1 + 1), b in the user's alone: 3 * 2 = 6, by one rank or with a zero beside it."""
    user = Source("user", {"unet.a": scalar("a", 2, 3, 1.0), "unet.b": scalar("b", 2, 3, 1.0)})
    ours = Source("ours", {"unet.a": scalar("a", 5, 7, 2.0)})
    apart, filled = join_layers([user, ours], same_rank=False), join_layers([user, ours])
    assert apart["unet.b"].down.tolist() == [[2]] and apart["unet.b"].up.tolist() == [[3]]
    assert filled["unet.b"].down.tolist() == [[2], [0]] and filled["unet.b"].up.tolist() == [[3, 0]]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), same_rank=st.booleans())
def test_the_joined_change_is_the_sum(data, same_rank):
    sources = []
    for i in range(2):
        names = data.draw(st.lists(st.sampled_from(sorted(SHAPES)), min_size=1, unique=True))
        dtype = data.draw(st.sampled_from((torch.float32, *HALVES)))
        ranks, alphas = st.integers(1, 6), st.floats(0.25, 16)
        layers = {n: random_layer(n, data.draw(ranks), data.draw(alphas), dtype, i) for n in names}
        sources.append(Source(str(i), layers, data.draw(st.sampled_from((1.0, 0.7, -1.3, 0.1)))))
    joined, dtype = join_layers(sources, same_rank), file_dtype(sources)
    tolerance = 1e-2 if dtype in HALVES else 1e-5
    assert joined.keys() == {name for s in sources for name in s.layers}
    for name, layer in joined.items():
        parts = [s.strength * delta(s.layers[name]) for s in sources if name in s.layers]
        apart = (delta(layer) - sum(parts)).norm() / sum(part.norm() for part in parts)
        assert apart < tolerance and layer.down.dtype == layer.up.dtype == dtype and layer.scale == 1
        assert tuple(delta(layer).shape) == SHAPES[name]
    ranks = {len(layer.down) for layer in joined.values()}
    assert len(ranks) == 1 or not same_rank
    check_difference(largest_difference(sources, joined), dtype)


def test_the_dtype_is_the_wider_of_the_two():
    def of(*kinds: torch.dtype) -> torch.dtype:
        layers = [LoraLayer("a", torch.zeros(1, 1, dtype=k), torch.zeros(1, 1, dtype=k), 1.0) for k in kinds]
        return file_dtype([Source("x", {"unet.a": layer}) for layer in layers])

    assert of(torch.float16, torch.float32) == torch.float32 and of(torch.float16, torch.float16) == torch.float16
    assert of(*HALVES) == torch.float32 and of(torch.float8_e4m3fn, torch.float16) == torch.float32


def test_a_wrong_change_a_lost_layer_and_nan_are_seen():
    user = Source("user", {"unet.a": random_layer("unet.a", 2, 2, torch.float32, 0)})
    ours = Source("ours", {"unet.a": random_layer("unet.a", 2, 2, torch.float32, 1)})
    good = join_layers([user, ours])["unet.a"]
    wrong = {"unet.a": LoraLayer("a", good.down, good.up * 1.01, 1.0)}
    with pytest.raises(UserError, match=r"differs from the sum of the two by .*limit 0\.001"):
        check_difference(largest_difference([user, ours], wrong), torch.float32)
    with pytest.raises(UserError, match="limit"):
        check_difference(float("nan"), torch.float32)
    with pytest.raises(UserError, match=r"1 of 1 layers are not as joined \(first: unet\.a\)"):
        largest_difference([user, ours], {})


def test_what_cannot_be_joined_is_refused_by_name():
    user = Source("user.safetensors", {"unet.a": random_layer("unet.a", 2, 2, torch.float32, 0)})
    other = Source("ours.safetensors", {"unet.a": random_layer("unet.b", 2, 2, torch.float32, 0)})
    with pytest.raises(UserError, match=r"unet\.a has different shapes.*user\.safetensors: \[5, 3\]; ours.*\[4, 6\]"):
        join_layers([user, other])
    with pytest.raises(UserError, match="strength 0"):
        join_layers([Source("user", user.layers, 0.0)])
    large = LoraLayer("a", torch.ones(1, 1).half(), torch.full((1, 1), 6e4).half(), 1.0)
    with pytest.raises(UserError, match=r"unet\.a is too large for torch\.float16"):
        join_layers([Source("user", {"unet.a": large}, 4.0)])


def test_a_strength_of_0_leaves_a_lora_out():
    user = Source("user", {"unet.b": random_layer("unet.b", 2, 2, torch.float32, 0)}, 0.0)
    ours = Source("ours", {"unet.a": random_layer("unet.a", 3, 2, torch.float32, 0)})
    joined = join_layers([user, ours])
    assert list(joined) == ["unet.a"] and len(joined["unet.a"].down) == 3
    assert largest_difference([user, ours], joined) < 1e-6


def test_keys_and_header():
    text = "text_encoder.encoder.layers.0.self_attn.q_proj"
    layers = {n: random_layer(n, 2, 2, torch.float32, 0) for n in ("unet.a", text)}
    kohya = joined_tensors(layers)
    assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight" in kohya
    assert float(kohya["lora_unet_a.alpha"]) == 2 and len(kohya) == 6
    assert any(key.startswith("lora_te1_text_model_encoder") for key in joined_tensors(layers, one_text=False))
    mixed = {**layers, "unet.b": random_layer("unet.b", 3, 3, torch.float32, 0)}
    assert not any(key.endswith("alpha") for key in joined_tensors(mixed))
    moved = {"transformer.a.b": layers["unet.a"], text: layers[text]}
    assert set(joined_tensors(moved)) == {
        f"{key}.lora_{half}.weight"
        for key in ("transformer.a.b", "text_encoder.text_model.encoder.layers.0.self_attn.q_proj")
        for half in "AB"
    }
    headers = (
        {"ss_base_model_version": "sdxl", "ss_network_dim": "4", "lora_adapter_metadata": "{}", "sshs_model_hash": "1"},
        {"ss_network_dim": "8", "dreambooth_dpo.rounds": "2", "dreambooth_dpo.format": "diffusers"},
    )
    sources = [Source(f"{i}.safetensors", layers, 0.5, header) for i, header in enumerate(headers)]
    told = joined_metadata(sources, layers)
    assert json.loads(told.pop(JOINED)) == [{"file": f"{i}.safetensors", "strength": 0.5} for i in range(2)]
    assert told == {
        "format": "pt", "ss_base_model_version": "sdxl", "dreambooth_dpo.rounds": "2",
        "ss_network_module": "networks.lora", "ss_network_dim": "2", "ss_network_alpha": "2",
    }  # fmt: skip
    assert joined_metadata(sources, mixed)["ss_network_dim"] == "Dynamic"
    assert joined_metadata(sources, moved)["dreambooth_dpo.format"] == "diffusers"
