"""The adapter: bit-exact at B = 0, the correct reference in later rounds, and the base model restored."""

from __future__ import annotations

import copy
from contextlib import contextmanager

import pytest
import torch
from models import tiny_text_to_image
from torch import nn

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.settings import AdapterSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter, LowRank
from dreambooth_dpo.dpo_core.training.targets import target_layers

SETTINGS = AdapterSettings(rank=3, alpha=6.0, targets="all")
PROMPTS = ("a sks robot on grass", "a bear in snow")


@pytest.fixture(scope="module")
def model():
    return tiny_text_to_image()


@pytest.fixture(scope="module")
def inputs(model):
    """Noised latents, times and conditioning of two prompts."""
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    return noise, torch.tensor([40, 900]), model.encode_prompts(PROMPTS)


def predict(model, inputs) -> torch.Tensor:
    with torch.no_grad():
        return model.predict(*inputs)


def predictions(model, adapter, inputs) -> dict[str, torch.Tensor]:
    """Predictions in all three modes, within one attachment."""
    with adapter.attached():
        found = {"policy": predict(model, inputs)}
        with adapter.reference():
            found["reference"] = predict(model, inputs)
        with adapter.off():
            found["off"] = predict(model, inputs)
    return found


def train(model, adapter, inputs, steps: int = 2, seed: int = 0) -> None:
    """A few real optimizer steps towards noise."""
    target = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(seed))
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.02)
    with adapter.attached():
        for _ in range(steps):
            optimizer.zero_grad()
            (model.predict(*inputs) - target).square().mean().backward()
            optimizer.step()


def hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


@contextmanager
def untouched(module: nn.Module):
    """Fails when a weight or a hook of the base model has changed inside."""
    before = copy.deepcopy(module.state_dict())
    pointers = {n: p.data_ptr() for n, p in module.named_parameters()}
    yield
    after = module.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
    assert pointers == {n: p.data_ptr() for n, p in module.named_parameters()}
    assert hooks(module) == 0


class Two(nn.Module):
    """A convolution and a linear layer whose names match the targets."""

    def __init__(self) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleDict({"conv": nn.Conv2d(2, 4, 3, stride=2, padding=1), "linear": nn.Linear(4, 5)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_blocks["linear"](self.down_blocks["conv"](x).mean((2, 3)))


def test_low_rank_of_a_linear_layer_by_hand():
    """A = [1 2], B = [3; 4], alpha 6 at rank 1 scales by 6: x = [1, 1] -> A x = 3 -> B A x = [9, 12] -> [54, 72]."""
    layer = LowRank(nn.Linear(2, 2), 1, 6.0, torch.Generator())
    with torch.no_grad():
        layer.down.copy_(torch.tensor([[1.0, 2.0]]))
        layer.up.copy_(torch.tensor([[3.0], [4.0]]))
    assert layer(torch.ones(1, 2)).tolist() == [[54.0, 72.0]]


@pytest.mark.parametrize(
    "base",
    [
        nn.Linear(6, 5, bias=False),
        nn.Conv2d(6, 5, 3, 2, 1, bias=False),
        nn.Conv2d(6, 5, 1, bias=False),
        nn.Conv2d(6, 5, 3, 1, 2, 2, bias=False),
    ],
    ids=["linear", "stride-2", "one-by-one", "dilated"],
)
def test_low_rank_equals_a_change_of_the_weight(base):
    """W x + scale B A x equals the layer with the weight W + scale B A, with strides and dilation too."""
    generator = torch.Generator().manual_seed(0)
    layer = LowRank(base, 2, 3.0, generator)
    with torch.no_grad():
        layer.up.normal_(generator=generator)
    merged = copy.deepcopy(base)
    flat = 3.0 / 2 * layer.up.flatten(1) @ layer.down.flatten(1)
    merged.weight.data += flat.view_as(base.weight)
    x = (
        torch.randn(3, 6, generator=generator)
        if base.weight.ndim == 2
        else torch.randn(3, 6, 7, 7, generator=generator)
    )
    with torch.no_grad():
        assert torch.allclose(base(x) + layer(x), merged(x), atol=1e-5)
        assert torch.allclose(layer.weight_change(), flat.view_as(base.weight), atol=1e-6)


def test_targets_of_the_diffusers_unet(model):
    """Attention has 8 projections per transformer block; four blocks (down, mid, two up) make 32.

    No layer outside the blocks is a target.
    """
    attention, ff, everything = (target_layers(model.denoiser, t) for t in ("attention", "attention+ff", "all"))
    assert len(attention) == 32 and all(n.rsplit(".", 1)[-1] in ("to_q", "to_k", "to_v", "0") for n in attention)
    assert len(ff) == 32 + 4 * 4 and set(attention) < set(ff) < set(everything)
    weights = {n for n, m in model.denoiser.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    assert weights - set(everything) == {"conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2"}


def test_targets_that_match_nothing_are_refused():
    with pytest.raises(UserError, match="attention.*match no layer of Linear"):
        target_layers(nn.Linear(2, 2), "attention")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_at_zero_all_modes_equal_the_incoming_model_bit_for_bit(model, inputs, precision, monkeypatch):
    monkeypatch.setattr(model, "precision", precision)
    incoming = predict(model, inputs)
    found = predictions(model, Adapter(model.denoiser, SETTINGS, seed=3), inputs)
    assert all(torch.equal(incoming, prediction) for prediction in found.values())


def test_the_reference_is_the_adapter_at_the_rounds_start_and_not_adapter_off(model, inputs):
    """Round 0 trains from zero; round 1 freezes the result of round 0 as the reference and continues.

    In round 1 the reference must predict as the policy did at the start of the round. "Off" predicts as the incoming
    model: the last two assertions fail for an adapter that uses it as the reference.
    """
    with untouched(model.denoiser):
        adapter = Adapter(model.denoiser, SETTINGS)
        incoming = predict(model, inputs)
        train(model, adapter, inputs)
        first = predictions(model, adapter, inputs)
        assert torch.equal(first["reference"], incoming) and torch.equal(first["off"], incoming)
        assert not torch.allclose(first["policy"], incoming, atol=1e-3)

        adapter.freeze_reference()
        assert torch.equal(predictions(model, adapter, inputs)["reference"], first["policy"])
        train(model, adapter, inputs, seed=1)
        second = predictions(model, adapter, inputs)
        assert torch.equal(second["off"], incoming)
        assert not torch.allclose(second["policy"], first["policy"], atol=1e-3)
        assert torch.equal(second["reference"], first["policy"])
        assert not torch.allclose(second["reference"], second["off"], atol=1e-3)


def test_hooks_are_removed_after_an_exception(model, inputs):
    adapter = Adapter(model.denoiser, SETTINGS)
    with untouched(model.denoiser):
        with pytest.raises(RuntimeError, match="interrupt"), adapter.attached():
            assert hooks(model.denoiser) == len(adapter.layers)
            raise RuntimeError("interrupt")
        with adapter.attached():
            pass


@pytest.mark.parametrize("mode", ["reference", "off"])
def test_the_policy_is_restored_after_an_exception_in_another_mode(model, inputs, mode):
    adapter = Adapter(model.denoiser, SETTINGS)
    train(model, adapter, inputs)
    with adapter.attached():
        policy = predict(model, inputs)
        with pytest.raises(RuntimeError, match="out of memory"), getattr(adapter, mode)():
            raise RuntimeError("out of memory")
        assert torch.equal(predict(model, inputs), policy)


def test_modes_nest(model, inputs):
    adapter = Adapter(model.denoiser, SETTINGS)
    train(model, adapter, inputs)
    adapter.freeze_reference()
    train(model, adapter, inputs, seed=1)
    flat = predictions(model, adapter, inputs)
    with adapter.attached(), adapter.off():
        with adapter.reference():
            assert torch.equal(predict(model, inputs), flat["reference"])
        assert torch.equal(predict(model, inputs), flat["off"])


def test_merged_predicts_as_attached_and_restores_the_weights(model, inputs):
    adapter = Adapter(model.denoiser, SETTINGS)
    incoming = predict(model, inputs)
    with untouched(model.denoiser):
        with adapter.merged():
            assert torch.equal(predict(model, inputs), incoming)
        train(model, adapter, inputs)
        with adapter.attached():
            live = predict(model, inputs)
        with adapter.merged():
            merged = predict(model, inputs)
        assert (merged - live).abs().max() <= 1e-5 * live.abs().max() < (live - incoming).abs().max()
        with pytest.raises(RuntimeError, match="interrupt"), adapter.merged():
            raise RuntimeError("interrupt")


def test_gradients_reach_every_adapter_weight_and_no_base_weight(model, inputs):
    """At B = 0 only B has a gradient (that of A is multiplied by B); after one step every A has one too."""
    adapter = Adapter(model.denoiser, SETTINGS)
    with adapter.attached():
        model.predict(*inputs).square().sum().backward()
    assert all(p.up.grad.abs().max() > 0 for p in adapter.policy.values())
    assert all(p.down.grad.abs().max() == 0 for p in adapter.policy.values())
    train(model, adapter, inputs, steps=1)
    for parameter in adapter.parameters():
        parameter.grad = None
    with adapter.attached():
        model.predict(*inputs).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in adapter.parameters())
    assert all(p.grad is None for p in model.denoiser.parameters())


def test_gradients_equal_finite_differences():
    """Convolution and linear layer in float64: d loss / d weight against (loss(w + h) - loss(w - h)) / 2h."""
    torch.manual_seed(0)
    net = Two().double()
    adapter = Adapter(net, AdapterSettings(rank=2, alpha=3.0, targets="all"))
    for layer in adapter.policy.values():
        layer.double()
        nn.init.normal_(layer.up)
    x = torch.randn(3, 2, 6, 6, dtype=torch.float64)

    def loss() -> torch.Tensor:
        return net(x).square().sum()

    with adapter.attached():
        loss().backward()
        for parameter in adapter.parameters():
            place = (0,) * parameter.ndim
            with torch.no_grad():
                parameter[place] += 1e-5
                above = loss()
                parameter[place] -= 2e-5
                below = loss()
                parameter[place] += 1e-5
            assert float((above - below) / 2e-5) == pytest.approx(float(parameter.grad[place]), rel=1e-6)


def test_weights_depend_on_the_seed_alone(model):
    one, same, other = (Adapter(model.denoiser, SETTINGS, seed=s).state() for s in (5, 5, 6))
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not any(torch.equal(one[k], other[k]) for k in one if k.endswith(".down"))


def test_state_and_load_round_trip(model, inputs):
    adapter, fresh = Adapter(model.denoiser, SETTINGS), Adapter(model.denoiser, SETTINGS, seed=9)
    train(model, adapter, inputs)
    adapter.freeze_reference()
    kept = adapter.state()
    train(model, adapter, inputs, seed=1)
    fresh.load(adapter.state())
    fresh.load_reference(adapter.reference_state())
    before, after = predictions(model, adapter, inputs), predictions(model, fresh, inputs)
    assert all(torch.equal(before[mode], after[mode]) for mode in before)
    # `state` returned copies: further training has not changed them.
    assert all(torch.equal(kept[k], v) for k, v in adapter.reference_state().items())
    assert any(not torch.equal(kept[k], v) for k, v in adapter.state().items())


@pytest.mark.parametrize("load", ["load", "load_reference"])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rank": 4}, r"adapter weight .*\.down has shape \(4,.*rank"),
        ({"targets": "attention"}, "another model or target choice: .* weights are missing"),
        ({"targets": "all"}, "another model or target choice: .* unknown"),
    ],
)
def test_an_adapter_of_another_shape_is_refused(model, load, changes, reason):
    settings = {"rank": 3, "alpha": 6.0, "targets": "attention+ff"}
    adapter = Adapter(model.denoiser, AdapterSettings(**settings))
    before, reference = adapter.state(), adapter.reference_state()
    with pytest.raises(UserError, match=reason):
        getattr(adapter, load)(Adapter(model.denoiser, AdapterSettings(**(settings | changes))).state())
    assert all(torch.equal(before[k], v) for k, v in adapter.state().items())
    assert all(torch.equal(reference[k], v) for k, v in adapter.reference_state().items())


def test_another_model_is_refused(model):
    with pytest.raises(UserError, match="another model"):
        Adapter(model.denoiser, SETTINGS).load(Adapter(Two(), SETTINGS).state())
