"""Level "stream" on a device stand-in (benchmarks/common/device_stand_in.py): weights are NaN outside their turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
import torch
from models import tiny_text_to_image
from torch import nn
from torch.nn import functional as F

from dreambooth_dpo.benchmarks.common.device_stand_in import StandIn, block_sizes, spoil, spoiled
from dreambooth_dpo.dpo_core.backends.diffusers.model import DiffusersTextToImage, load_pipeline
from dreambooth_dpo.dpo_core.settings import AdapterSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.memory import checkpointing, frozen_layers, stream
from dreambooth_dpo.dpo_core.training.memory.checkpointing import checkpointed_blocks, gradient_checkpointing
from dreambooth_dpo.dpo_core.training.memory.levels import at_level
from dreambooth_dpo.dpo_core.training.memory.stream import Mover, streamed
from dreambooth_dpo.toybox.models import weights_folder

WIDTH = 8


def net(kind: str):
    """A model behind the TextToImage protocol with tiny random weights, or the toybox's trained ones."""
    return tiny_text_to_image() if kind == "tiny" else DiffusersTextToImage(load_pipeline(weights_folder("pipeline")))


def full_adapter(denoiser: nn.Module) -> Adapter:
    """An adapter of all layers whose B is not 0, so that every weight has a gradient."""
    adapter = Adapter(denoiser, AdapterSettings(rank=2, alpha=2.0, targets="all"), seed=0)
    draws = torch.Generator().manual_seed(2)
    for layer in adapter.policy.values():
        layer.up.data.normal_(0, 0.1, generator=draws)
    return adapter


def gradients(model, adapter: Adapter, level: str, mover: Mover | None = None, passes: int = 2) -> list[torch.Tensor]:
    """Gradients of the last of some passes, each with a reference forward before it as in a training step."""
    draws = torch.Generator().manual_seed(1)
    x, target = (torch.randn(2, 4, 16, 16, generator=draws) for _ in range(2))
    given = x, torch.tensor([10, 500]), model.encode_prompts(["a robot", "a red robot at night"])
    with at_level(model.denoiser, level, mover=mover), adapter.attached():
        for _ in range(passes):
            with torch.no_grad(), adapter.reference():
                model.predict(*given)
            loss = (model.predict(*given) - target).square().mean()
            found = torch.autograd.grad(loss, adapter.parameters(), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(adapter.parameters(), found, strict=True)]


def call_order(model) -> list[str]:
    """Names of the streamed blocks in the order in which a forward calls them."""
    called: list[str] = []
    blocks = checkpointed_blocks(model.denoiser, layers=True)
    hooks = [m.register_forward_pre_hook(lambda *_, n=n: called.append(n)) for n, m in blocks.items()]
    with torch.no_grad():
        model.predict(torch.randn(1, 4, 16, 16), torch.tensor([10]), model.encode_prompts(["a robot"]))
    for hook in hooks:
        hook.remove()
    assert sorted(called) == sorted(blocks)
    return called


@pytest.mark.parametrize("ahead", [False, True], ids=["one block", "and the next"])
@pytest.mark.parametrize("kind", ["tiny", "toybox"])
def test_gradients_are_those_of_low_and_one_block_is_on_the_device(kind: str, ahead: bool, capsys) -> None:
    model = net(kind)
    adapter = full_adapter(model.denoiser)
    expected = gradients(model, adapter, "low")
    outside, sizes = block_sizes(model.denoiser)
    by_name = dict(zip(checkpointed_blocks(model.denoiser, layers=True), sizes, strict=True))
    ordered = [by_name[name] for name in call_order(model)]
    with spoiled(model.denoiser, ahead) as mover:
        found = gradients(model, adapter, "stream", mover)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    pairs = [a + b for a, b in pairwise(ordered)]
    # In the first pass the order is not known. After a reference pass the first block follows on the last.
    limit = max(*pairs, ordered[-1] + ordered[0]) if ahead else max(sizes)
    with capsys.disabled():
        print(f"\nstand-in, {kind}, ahead {ahead}: {mover.peak} of {outside + sum(sizes)} bytes, {outside} outside")
    assert mover.peak == outside + limit
    assert mover.bytes_there() == 0, "something still holds a copy"


def test_without_turns_the_stand_in_shows_wrong_gradients() -> None:
    """Control: at another level, and with a block's weights that leave after its forward, gradients are NaN."""
    model = tiny_text_to_image()
    adapter = full_adapter(model.denoiser)
    with spoiled(model.denoiser):
        assert any(g.isnan().any() for g in gradients(model, adapter, "low"))


def test_weights_that_leave_too_early_are_seen(monkeypatch) -> None:
    """Control: a SiLU recomputes its norm in backward, which needs the weights after the block's forward."""
    model = tiny_text_to_image()
    adapter = full_adapter(model.denoiser)
    monkeypatch.setattr(frozen_layers, "MIN_BYTES", 0)
    expected = gradients(model, adapter, "low")
    with spoiled(model.denoiser) as mover:
        found = gradients(model, adapter, "stream", mover)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    monkeypatch.setattr(stream._Turns, "expect", stream._Turns._end)
    with spoiled(model.denoiser) as mover:
        assert any(g.isnan().any() for g in gradients(model, adapter, "stream", mover))


class Half(nn.Module):
    """A block with a second output that nothing uses, and a bias that two layers share."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.unused = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.two.bias = self.one.bias
        self.register_buffer("scale", torch.full((1,), 0.5))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.tanh(self.one(x)) * self.scale
        return x + self.two(y), torch.tanh(self.unused(y)).square()


class Halves(nn.Module):
    def __init__(self, blocks: int = 4) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.start, self.layers = nn.Linear(WIDTH, WIDTH), nn.ModuleList(Half() for _ in range(blocks))
        self.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.start(x)
        for layer in self.layers:
            x, _ = layer(x)
        return x


@contextmanager
def on_stand_in(denoiser: nn.Module, ahead: bool = False) -> Iterator[StandIn]:
    with spoiled(denoiser, ahead) as mover, streamed(denoiser, mover), gradient_checkpointing(denoiser, layers=True):
        yield mover


def input_gradient(denoiser: nn.Module, inputs: torch.Tensor, graph: bool = False) -> torch.Tensor:
    loss = denoiser(inputs).square().sum()
    if graph:
        torch.autograd.grad(loss, inputs, retain_graph=True)
    return torch.autograd.grad(loss, inputs)[0]


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("ahead", [False, True])
def test_layers_without_a_gradient_hold_no_weights(ahead: bool, graph: bool) -> None:
    """Tensors that backward never asks for go with their block; a retained graph is walked twice."""
    denoiser, x = Halves(), torch.linspace(-1, 1, 3 * WIDTH).view(3, WIDTH).requires_grad_()
    expected = input_gradient(denoiser, x)
    outside, sizes = block_sizes(denoiser)
    with on_stand_in(denoiser, ahead) as mover:
        found = [input_gradient(denoiser, x, graph) for _ in range(2)]
    assert all(torch.equal(g, expected) for g in found)
    assert mover.peak == outside + (2 if ahead else 1) * max(sizes)


def test_unused_tensors_would_hold_weights(monkeypatch) -> None:
    """Control: in a retained graph, if checkpointing did not drop what backward does not ask for."""
    monkeypatch.setattr(checkpointing._Latest, "begins", lambda *_: None)
    denoiser, x = Halves(), torch.ones(1, WIDTH, requires_grad=True)
    outside, sizes = block_sizes(denoiser)
    with on_stand_in(denoiser) as mover:
        input_gradient(denoiser, x, graph=True)
    assert mover.peak > outside + max(sizes)


def test_each_block_is_copied_twice_in_a_step() -> None:
    """Four blocks: four copies forward, three backward (the last block is there), three forward in the next step."""
    denoiser, x = Halves(), torch.ones(1, WIDTH, requires_grad=True)
    outside, sizes = block_sizes(denoiser)
    for ahead in (False, True):
        with on_stand_in(denoiser, ahead) as mover:
            for copies in (4 + 3, 4 + 3 + 3 + 3):
                input_gradient(denoiser, x)
                assert mover.moved == outside + copies * sizes[0] + (sizes[0] if ahead and copies > 7 else 0)


class Packed(torch.Tensor):
    """A weight whose class holds its type, as GGUF weights do: `.to` keeps the attribute, other operations do not."""

    def to(self, *args, **kwargs):
        moved = super().to(*args, **kwargs)
        moved.scale = self.scale
        return moved


class PackedLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            weight = torch.randn(WIDTH, WIDTH).as_subclass(Packed)
        weight.scale = 0.25
        self._parameters["weight"] = weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight
        return x + F.linear(x, weight.as_subclass(torch.Tensor) * weight.scale)


def test_a_weight_of_a_class_of_its_own_moves_by_its_own_method() -> None:
    denoiser = nn.Module()
    denoiser.blocks = nn.ModuleList(PackedLayer() for _ in range(3))
    denoiser.forward = lambda x: denoiser.blocks[2](denoiser.blocks[1](denoiser.blocks[0](x)))
    x = torch.ones(1, WIDTH, requires_grad=True)
    expected = input_gradient(denoiser, x)
    with on_stand_in(denoiser):
        assert torch.equal(input_gradient(denoiser, x), expected)
    assert all(type(block.weight) is Packed and block.weight.scale == 0.25 for block in denoiser.blocks)


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("place", ["forward", "backward", "copy"])
def test_an_interrupt_puts_everything_back(place: str, ahead: bool) -> None:
    """`spoiled` checks that every module has its own, unwritten tensors; here the methods too."""
    denoiser, x = Halves(), torch.ones(1, WIDTH, requires_grad=True)
    expected, parts = input_gradient(denoiser, x), [vars(m).keys() for m in denoiser.modules()]
    before = [set(part) for part in parts]

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), on_stand_in(denoiser, ahead) as mover:
        input_gradient(denoiser, x)
        handle = None
        if place == "copy":
            mover.to_device = stop
        elif place == "forward":
            handle = denoiser.layers[2].one.register_forward_hook(stop)
        else:
            handle = denoiser.layers[1].register_forward_hook(lambda _m, _a, y: y[0].register_hook(stop) and None)
        try:
            input_gradient(denoiser, x)
        finally:
            if handle is not None:
                handle.remove()
    assert [set(part) for part in parts] == before and mover.bytes_there() == 0
    assert torch.equal(input_gradient(denoiser, x), expected)


class Card(nn.Linear):
    """A layer on a device that is not there: a stand-in that notes where it is moved."""

    def __init__(self) -> None:
        super().__init__(2, 2, device="meta")
        self.moves: list[str] = []

    def to(self, device):
        self.moves.append(str(device))
        return self


def test_blocks_on_the_device_leave_it_for_the_level_and_return() -> None:
    denoiser = nn.Module()
    denoiser.blocks, denoiser.last = nn.ModuleList([Card(), nn.Linear(2, 2)]), Card()
    with pytest.raises(KeyboardInterrupt), streamed(denoiser, Mover("meta")):
        assert denoiser.blocks[0].moves == ["cpu"] and denoiser.last.moves == []
        raise KeyboardInterrupt
    assert denoiser.blocks[0].moves == ["cpu", "meta"] and denoiser.last.moves == []


def test_a_spoiled_tensor_is_nan_whatever_its_type() -> None:
    for kind in (torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2):
        tensor = torch.ones(2, 3).to(kind)
        spoil(tensor)
        assert tensor.float().isnan().all()
    whole = torch.zeros(2, dtype=torch.int64)
    spoil(whole)
    assert whole.tolist() == [2**63 - 1] * 2
