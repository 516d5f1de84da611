"""Target layers of transformers: by structure, with the layers of each choice."""

from __future__ import annotations

import pytest
from torch import nn

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.training.blocks import is_layer, is_unet, numbered_blocks
from dreambooth_dpo.dpo_core.training.targets import target_layers


class Gate(nn.Module):
    """A module with a 2-d weight that is no layer: a mixture of experts' gate gives a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.Linear(4, 2).weight.detach())


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"qkv": nn.Linear(4, 12), "out": nn.Linear(4, 4), "q_norm": nn.Linear(4, 4)})
        self.feed_forward = nn.ModuleDict({"w1": nn.Linear(4, 8), "w2": nn.Linear(8, 4)})
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(4, 8))
        self.gate = Gate()


def transformer(*names: str) -> nn.Module:
    """Two blocks in a list of each name, an embedder outside of them, and a list of plain layers."""
    model = nn.Module()
    for name in names:
        model.add_module(name, nn.ModuleList([Block(), Block()]))
    model.t_embedder = nn.ModuleDict({"mlp": nn.Linear(4, 4)})
    model.heads = nn.ModuleList([nn.Linear(4, 4)])
    return model


ATTENTION = {"attention.qkv", "attention.out"}
FEED_FORWARD = {"feed_forward.w1", "feed_forward.w2"}
REST = {"attention.q_norm", "adaLN_modulation.1"}


@pytest.mark.parametrize("name", ["layers", "double_layers"])
@pytest.mark.parametrize(
    ("targets", "expected"),
    [("attention", ATTENTION), ("attention+ff", ATTENTION | FEED_FORWARD), ("all", ATTENTION | FEED_FORWARD | REST)],
)
def test_layers_of_blocks_of_known_and_unknown_names(name: str, targets: str, expected: set[str]):
    found = target_layers(transformer(name), targets)
    assert set(found) == {f"{name}.{i}.{part}" for i in range(2) for part in expected}


def test_layers_that_only_a_reference_image_uses_are_left_out():
    found = target_layers(transformer("double_layers", "ref_image_refiner"), "all")
    assert {name.split(".")[0] for name in found} == {"double_layers"}


def test_numbered_blocks_are_the_outermost_with_parts():
    model = transformer("double_layers")
    model.double_layers[0].inner = nn.ModuleList([Block()])
    assert list(numbered_blocks(model)) == ["double_layers.0", "double_layers.1"]
    assert numbered_blocks(nn.Linear(2, 2)) == {}


def test_what_a_layer_and_a_unet_are():
    assert is_layer(nn.Linear(2, 2)) and is_layer(nn.Conv2d(1, 1, 1)) and is_layer(type("Linear", (Gate,), {})())
    assert not any(map(is_layer, (Gate(), nn.Embedding(2, 2), nn.LayerNorm(2), nn.SiLU())))
    assert (
        not is_unet(transformer("layers"))
        and is_unet(transformer("input_blocks"))
        and is_unet(transformer("down_blocks"))
    )


def test_a_denoiser_without_such_layers_is_refused():
    with pytest.raises(UserError, match="adapter targets 'attention' match no layer of Linear"):
        target_layers(nn.Linear(2, 2), "attention")
