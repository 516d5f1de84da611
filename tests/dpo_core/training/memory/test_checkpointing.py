"""Gradient checkpointing: correct gradients with in-place writes, exact restoring, no memory leaks."""

from __future__ import annotations

import weakref
from contextlib import ExitStack, nullcontext
from functools import reduce

import pytest
import torch
from loops import FakeModel
from models import tiny_text_to_image
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.settings import AdapterSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.memory import checkpointing
from dreambooth_dpo.dpo_core.training.memory.checkpointing import checkpointed_blocks, gradient_checkpointing

WIDTH = 8
ADD = {
    "nothing": torch.add,
    "all": torch.Tensor.add_,
    "slices": lambda x, change: (x[:, :5].add_(change[:, :5]), x[:, 5:].add_(change[:, 5:]), x)[-1],
}
"""Ways of adding to a tensor, by what they write in place."""


class Block(nn.Module):
    """A transformer block that writes in place into its residual stream, as blocks of Flux and Chroma do.

    `writes`: what it writes in place.
    """

    def __init__(self, writes: str) -> None:
        super().__init__()
        self.writes = writes
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, elementwise_affine=False) for _ in range(2))
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))

    def forward(self, x: torch.Tensor, vec: torch.Tensor, options: dict | None = None) -> torch.Tensor:
        options = {"strength": 1.0, "calls": 0} if options is None else options
        options["calls"] += 1
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = ADD[self.writes](x, options["strength"] * torch.tanh(layer(norm(x) + vec)))
        return x


class Net(nn.Module):
    def __init__(self, writes: str = "nothing", blocks: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.start, self.end = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
            self.double_blocks = nn.ModuleList(Block(writes) for _ in range(blocks))

    def forward(self, x: torch.Tensor, options: dict | None = None) -> torch.Tensor:
        vec, x = x.mean(0, keepdim=True), self.start(x)
        for block in self.double_blocks:
            x = block(x, vec=vec, options=options)
        return self.end(x)


X = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(2))


def gradient(net: nn.Module) -> torch.Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(net(X).square().mean(), list(net.parameters()))])


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def under_torch(net: Net, copied: bool) -> torch.Tensor:
    """The gradient under torch.utils.checkpoint, with or without copies of the tensor that the blocks write into."""
    for block in net.double_blocks:
        plain = block.forward
        run = (
            (lambda given, plain=plain: plain(**{**given, "x": given["x"].clone()}))
            if copied
            else lambda given, plain=plain: plain(**given)
        )
        block.forward = lambda x, run=run, **others: checkpoint(run, {"x": x, **others}, use_reentrant=False)
    return gradient(net)


# --- exactness ---


@pytest.mark.parametrize("writes", ADD)
def test_gradients_are_exact_with_in_place_writes(writes: str) -> None:
    expected, net = gradient(Net()), Net(writes)
    with gradient_checkpointing(net):
        assert apart(gradient(net), expected) < 2e-7


@pytest.mark.parametrize("writes", ["all", "slices"])
def test_plain_autograd_and_torch_checkpoint_fail_on_these_blocks(writes: str) -> None:
    """Plain autograd raises; torch.utils.checkpoint gives silently wrong gradients, even with copied inputs."""
    expected = gradient(Net())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradient(Net(writes))
    assert apart(under_torch(Net(writes), copied=False), expected) > 0.05
    assert apart(under_torch(Net(writes), copied=True), expected) > 0.01


def test_gradients_are_wrong_without_copies_of_written_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointing._Call, "written", property(lambda _: set(), lambda *_: None), raising=False)
    net = Net("all")
    with gradient_checkpointing(net):
        assert apart(gradient(net), gradient(Net())) > 0.01


def test_modified_inputs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modified by the host between forward and backward, or by a block that got no copies."""
    net, vec = Net("all", blocks=1), X[:1].clone()
    with gradient_checkpointing(net):
        loss = net.double_blocks[0](net.start(X), vec=vec).sum()
        vec += 1
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
        monkeypatch.setattr(
            checkpointing._Call, "_run", lambda call, given: call.forward(given[0], given["vec"], given["options"])
        )
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            gradient(net)


def test_an_overwritten_layer_output_is_recomputed_as_it_was_saved() -> None:
    """tanh saves its result, not its input."""
    net, x = nn.Module(), X.clone().requires_grad_()
    net.blocks = nn.ModuleList([nn.Tanh()])
    net.blocks[0].forward = lambda x: torch.tanh(x).mul_(3)
    with gradient_checkpointing(net):
        (found,) = torch.autograd.grad(net.blocks[0](x).sum(), x)
    assert torch.allclose(found, 3 * (1 - torch.tanh(x) ** 2), atol=1e-5)


def test_a_second_backward_is_equal_and_a_second_derivative_is_refused() -> None:
    net = Net("all")
    weights = list(net.parameters())
    with gradient_checkpointing(net):
        loss = net(X).square().mean()
        first, again = (torch.autograd.grad(loss, weights, retain_graph=True) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        with pytest.raises(RuntimeError, match="first derivatives only"):
            torch.autograd.grad(loss, weights, create_graph=True)


def test_the_recompute_sees_dictionaries_as_they_were_in_forward() -> None:
    """The block writes into the host's dictionary once; the recompute gets its content at forward."""
    net, options = Net(), {"strength": 0.5, "calls": 0}
    weights = list(net.parameters())
    expected = torch.autograd.grad(net(X, dict(options)).sum(), weights)
    with gradient_checkpointing(net):
        loss = net(X, options).sum()
        options["strength"] = 9.0
        found = torch.autograd.grad(loss, weights)
    assert options["calls"] == 3
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))


# --- the adapter on a diffusers UNet ---


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def model(request: pytest.FixtureRequest):
    return tiny_text_to_image(precision=request.param)


@pytest.fixture(scope="module")
def inputs(model):
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    return noise, torch.tensor([40, 900]), model.encode_prompts(("a sks robot on grass", "a bear in snow"))


def moved_adapter(model) -> Adapter:
    """An adapter away from B = 0, so that `down` has a gradient too."""
    adapter = Adapter(model.denoiser, AdapterSettings(rank=3, alpha=6.0, targets="all"))
    draws = torch.Generator().manual_seed(4)
    for layer in adapter.policy.values():
        layer.up.data.normal_(0, 0.02, generator=draws)
    return adapter


def adapter_gradient(model, adapter: Adapter, inputs) -> torch.Tensor:
    """As in training: the reference forward without gradients, the policy forward, backward."""
    with adapter.attached():
        with torch.no_grad(), adapter.reference():
            reference = model.predict(*inputs)
        found = torch.autograd.grad((model.predict(*inputs) - 0.5 * reference).square().mean(), adapter.parameters())
    return torch.cat([g.flatten() for g in found])


def test_the_adapters_gradients_equal_the_plain_ones(model, inputs) -> None:
    adapter = moved_adapter(model)
    expected = adapter_gradient(model, adapter, inputs)
    with gradient_checkpointing(model.denoiser):
        found = adapter_gradient(model, adapter, inputs)
    # In bf16, sums in another order differ by rounding.
    assert apart(found, expected) < (1e-6 if model.precision == "fp32" else 5e-3)


@pytest.mark.parametrize("change", ["reference", "off", "detached"])
def test_backward_in_another_mode_is_refused(model, inputs, change: str) -> None:
    adapter = moved_adapter(model)
    with gradient_checkpointing(model.denoiser):
        with adapter.attached():
            loss = model.predict(*inputs).square().mean()
        with ExitStack() as later, pytest.raises(RuntimeError, match="mode changed between forward and backward"):
            if change != "detached":
                later.enter_context(adapter.attached())
                later.enter_context(getattr(adapter, change)())
            loss.backward()


def test_the_reference_pass_is_not_checkpointed(model, inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.no_grad():
        expected = model.predict(*inputs)
    monkeypatch.setattr(checkpointing, "_Call", None)
    with gradient_checkpointing(model.denoiser), torch.no_grad():
        assert torch.equal(model.predict(*inputs), expected)


def saved_bytes(model, adapter: Adapter, inputs) -> int:
    """Bytes that autograd keeps from forward to backward, without weights; each storage counts once."""
    weights = {p.untyped_storage().data_ptr() for p in (*model.denoiser.parameters(), *adapter.parameters())}
    kept: list[torch.UntypedStorage] = []
    with saved_tensors_hooks(lambda tensor: kept.append(tensor.untyped_storage()), lambda _: None), adapter.attached():
        model.predict(*inputs)
    return sum({s.data_ptr(): s.nbytes() for s in kept if s.data_ptr() not in weights}.values())


def test_less_memory_is_kept_for_backward(model, inputs) -> None:
    adapter = moved_adapter(model)
    plain = saved_bytes(model, adapter, inputs)
    with gradient_checkpointing(model.denoiser):
        assert 0 < saved_bytes(model, adapter, inputs) < plain / 4


def test_nothing_stays_alive_after_backward() -> None:
    """Freed by reference counts alone, since the garbage collector does not see a cycle through the graph."""
    net, inner = Net("all"), []
    net.double_blocks[1].layers[0].register_forward_hook(lambda _m, _a, out: inner.append(weakref.finalize(out, int)))
    with gradient_checkpointing(net):
        net(X).sum().backward()
        net(X)  # dropped without backward
    assert len(inner) == 3 and not any(still.alive for still in inner)


# --- names of blocks, and restoring ---


def named(*paths: str) -> nn.Module:
    """A module with an (empty) submodule at every path."""
    root = nn.Module()
    for path in paths:
        reduce(lambda at, part: at._modules.setdefault(part, nn.Module()), path.split("."), root)
    return root


@pytest.mark.parametrize(
    "path",
    [
        "down_blocks.0.resnets.1", "mid_block.attentions.0", "up_blocks.2.attentions.0", "input_blocks.4.1",
        "middle_block.0", "output_blocks.11.0", "double_blocks.18", "single_blocks.0", "joint_blocks.3",
        "transformer_blocks.7", "single_transformer_blocks.2", "blocks.0", "layers.31",
    ],
)  # fmt: skip
def test_blocks_are_found_by_name_and_not_nested(path: str) -> None:
    root = named(
        f"{path}.transformer_blocks.0",
        f"{path}.blocks.1.layers.0",
        f"deeper.{path}.x",
        "input_layer",
        "final_layer.blocks",
    )
    assert list(checkpointed_blocks(root)) == [path]


def test_the_blocks_of_a_unet(model) -> None:
    kinds = [type(m).__name__ for m in checkpointed_blocks(model.denoiser).values()]
    assert sorted(kinds) == ["ResnetBlock2D"] * 8 + ["Transformer2DModel"] * 4


def test_a_model_without_known_blocks_is_refused_by_name() -> None:
    with (
        pytest.raises(UserError, match=r"no blocks in TinyDenoiser.*without checkpointing"),
        gradient_checkpointing(FakeModel().denoiser),
    ):
        pass
    with pytest.raises(UserError):
        checkpointed_blocks(nn.ModuleDict({"blocks": nn.ModuleList([nn.ModuleList()])}))


@pytest.mark.parametrize("raises", [False, True])
def test_every_block_gets_its_forward_back(raises: bool) -> None:
    net = Net()
    own = lambda x, vec, options=None: x * 2  # noqa: E731
    net.double_blocks[1].forward = own
    with pytest.raises(KeyboardInterrupt) if raises else nullcontext():
        with gradient_checkpointing(net):
            assert all("forward" in b.__dict__ for b in net.double_blocks) and net.double_blocks[1].forward is not own
            net(X).sum().backward()
            if raises:
                raise KeyboardInterrupt
    assert ["forward" in b.__dict__ for b in net.double_blocks] == [False, True, False]
    assert net.double_blocks[1].forward is own
