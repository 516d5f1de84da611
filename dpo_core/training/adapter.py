"""The adapter: low-rank weights on forward hooks, with a frozen copy as the round's reference."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import UserError
from ..protocols import TextToImage
from ..settings import AdapterSettings

_TARGETS = {
    "attention": r"(\.(to_q|to_k|to_v|to_out\.0|qkv)|attn\.proj)$",
    "attention+ff": r"(\.(to_q|to_k|to_v|to_out\.0|qkv|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2|linear[12])|attn\.proj|mlp\.\w+)$",
    # ComfyUI's UNets keep their first convolution, which is in no block of diffusers', in input_blocks.0.
    "all": r"^(?!input_blocks\.0\.).*(_blocks|_block)\.|^(blocks|layers)\.",
}


class LowRank(nn.Module):
    """scale * B(A(x)) for a linear or 2-d convolution layer; B starts at zero (LoRA, arXiv 2106.09685, eq. 3)."""

    def __init__(
        self, layer: nn.Module, rank: int, alpha: float, generator: torch.Generator, device: torch.device | None = None
    ) -> None:
        super().__init__()
        weight, device = layer.weight, device or layer.weight.device
        self.scale = alpha / rank
        self.alpha = alpha
        self.convolution = (layer.stride, layer.padding, layer.dilation) if weight.ndim == 4 else None
        down = torch.empty(rank, *weight.shape[1:], dtype=torch.float32)
        bound = 1 / math.sqrt(down[0].numel())
        down.uniform_(-bound, bound, generator=generator)
        up = torch.zeros(weight.shape[0], rank, *([1] * (weight.ndim - 2)), dtype=torch.float32)
        self.down = nn.Parameter(down.to(device))
        self.up = nn.Parameter(up.to(device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.change(x, self.down, self.up)

    def change(self, x: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """The change of the layer's output by the given matrices, in their type."""
        x = x.to(down.dtype)
        if self.convolution is None:
            change = F.linear(F.linear(x, down), up)
        else:
            stride, padding, dilation = self.convolution
            change = F.conv2d(F.conv2d(x, down, None, stride, padding, dilation), up)
        # A factor of 1 would read and write the whole output for nothing.
        return change if self.scale == 1 else self.scale * change

    def weight_change(self) -> torch.Tensor:
        """The change of the layer's weight that `forward` amounts to, in the weight's shape."""
        return self.scale * (self.up.flatten(1) @ self.down.flatten(1)).view(len(self.up), *self.down.shape[1:])


_ORDER = {
    part: place
    for parts in (
        ("down_blocks", "up_blocks", "mid_block"),
        ("attentions", "resnets", "downsamplers", "upsamplers"),
        ("proj_in", "transformer_blocks", "proj_out"),
        ("attn1", "attn2", "ff"),
        ("to_q", "to_k", "to_v", "to_out"),
        ("conv1", "time_emb_proj", "conv2", "conv_shortcut"),
    )
    for place, part in enumerate(parts)
}


def diffusers_order(name: str) -> tuple[tuple[int, str], ...]:
    """Sorts layers, by what diffusers calls them, as diffusers' UNets list them. Other names sort as they read."""
    return tuple((int(part) if part.isdigit() else _ORDER.get(part, 99), part) for part in name.split("."))


def target_layers(denoiser: nn.Module, targets: str) -> dict[str, nn.Module]:
    """Names and layers that the adapter sits on: those with a 2-d or 4-d weight whose name fits the setting."""
    pattern = re.compile(_TARGETS[targets])
    found = {
        name: module
        for name, module in denoiser.named_modules()
        if pattern.search(name)
        and getattr(module, "weight", None) is not None
        and module.weight.ndim in (2, 4)
        and not isinstance(module, nn.Embedding)
    }
    if not found:
        raise UserError(
            f"adapter targets {targets!r} match no layer of {type(denoiser).__name__}; choose one of {sorted(_TARGETS)}."
        )
    return found


class Adapter:
    """Policy and reference weights for every target layer of one denoiser.

    Hooks live only inside `attached()`; which weights answer is switched by `reference()` and `off()`, which restore in
    finally. The base weights are never touched. `device`: where the adapter's weights live; None: where each layer's
    weight is now. `names`: what diffusers calls a layer that goes by another name here. Initial weights are drawn in
    diffusers' order, so that one seed gives one adapter wherever the model is loaded.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        settings: AdapterSettings,
        seed: int = 0,
        device: torch.device | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.settings = settings
        found = target_layers(denoiser, settings.targets)
        self.layers = dict(sorted(found.items(), key=lambda item: diffusers_order((names or {}).get(item[0], item[0]))))
        self.policy = {n: LowRank(m, settings.rank, settings.alpha, generator, device) for n, m in self.layers.items()}
        self._mode = "policy"
        self._placed = False
        self.freeze_reference()

    def parameters(self) -> list[nn.Parameter]:
        return [p for layer in self.policy.values() for p in layer.parameters()]

    def freeze_reference(self) -> None:
        """Make the reference a copy of the adapter as it stands now: once at each round's start."""
        self._set_frozen({n: (p.down.detach().clone(), p.up.detach().clone()) for n, p in self.policy.items()})

    def _set_frozen(self, frozen: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        self._frozen = frozen
        # Where up is 0 the change is 0: the reference of a first round need not compute it.
        self._silent = frozenset(n for n, (_, up) in frozen.items() if not up.any())

    def state(self) -> dict[str, torch.Tensor]:
        """Copies of the policy weights: `<layer>.down`, `<layer>.up`."""
        return {
            f"{n}.{k}": v.detach().clone() for n, p in self.policy.items() for k, v in (("down", p.down), ("up", p.up))
        }

    def reference_state(self) -> dict[str, torch.Tensor]:
        return {
            f"{n}.{k}": v.clone() for n, pair in self._frozen.items() for k, v in zip(("down", "up"), pair, strict=True)
        }

    @torch.no_grad()
    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Set the policy weights. Raises UserError when the state is of other layers, another rank or another model."""
        own = {f"{n}.{k}": t for n, p in self.policy.items() for k, t in (("down", p.down), ("up", p.up))}
        self._check(own, state)
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def load_reference(self, state: dict[str, torch.Tensor]) -> None:
        own = self.reference_state()
        self._check(own, state)
        self._set_frozen(
            {n: (state[f"{n}.down"].to(p.down), state[f"{n}.up"].to(p.up)) for n, p in self.policy.items()}
        )

    @staticmethod
    def _check(own: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> None:
        strange, missing = sorted(set(state) - set(own)), sorted(set(own) - set(state))
        if strange or missing:
            raise UserError(
                f"this adapter is of another model or target choice: {len(missing)} layers missing (first: {missing[:1]}), "
                f"{len(strange)} unknown (first: {strange[:1]}). Use the model and targets it was trained with."
            )
        for name, tensor in own.items():
            if tensor.shape != state[name].shape:
                raise UserError(
                    f"adapter weight {name} has shape {tuple(state[name].shape)}, expected {tuple(tensor.shape)}: "
                    "another rank or another model. Use the rank and model it was trained with."
                )

    @contextmanager
    def attached(self) -> Iterator[Adapter]:
        """Put the hooks on; take them off in any case."""
        with self._placing():
            handles = [module.register_forward_hook(self._hook(name)) for name, module in self.layers.items()]
            try:
                yield self
            finally:
                for handle in handles:
                    handle.remove()

    @contextmanager
    def _placing(self) -> Iterator[None]:
        """Raises RuntimeError when the adapter is on the model already: it would act twice."""
        if self._placed:
            raise RuntimeError("the adapter is on the model already; attached() and merged() do not nest")
        self._placed = True
        try:
            yield
        finally:
            self._placed = False

    @contextmanager
    def merged(self) -> Iterator[Adapter]:
        """Policy weights added into the layers for the time of sampling: the same output (to rounding) without the
        hooks' cost.

        Every layer gets its very own weight tensor back in any case, so the base stays bit-identical. Needs memory for
        one copy of the adapted layers. Layers below float32 keep hooks: a merged weight would be rounded to their type
        (5e-3 relative for bf16). Inside, `reference()` and `off()` raise RuntimeError: a merged weight cannot be
        switched.
        """
        with self._placing(), self._switched("merged"):
            with self._weights_merged():
                yield self

    @contextmanager
    def _weights_merged(self) -> Iterator[None]:
        exact = {n: m for n, m in self.layers.items() if m.weight.dtype == torch.float32}
        base = {n: m.weight.data for n, m in exact.items()}
        handles = [m.register_forward_hook(self._hook(n)) for n, m in self.layers.items() if n not in exact]
        try:
            with torch.no_grad():
                for name, module in exact.items():
                    module.weight.data = base[name] + self.policy[name].weight_change()
            yield
        finally:
            for name, module in exact.items():
                module.weight.data = base[name]
            for handle in handles:
                handle.remove()

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the denoiser answers as the reference (the adapter at the round's start)."""
        with self._switched("reference"):
            yield

    @contextmanager
    def off(self) -> Iterator[None]:
        """Inside, the denoiser answers as the incoming model."""
        with self._switched("off"):
            yield

    @contextmanager
    def _switched(self, mode: str) -> Iterator[None]:
        if self._mode == "merged":
            raise RuntimeError(f"a merged adapter cannot be switched to {mode!r}; use attached()")
        before, self._mode = self._mode, mode
        try:
            yield
        finally:
            self._mode = before

    def _hook(self, name: str):
        layer = self.policy[name]

        def hook(_module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
            if self._mode == "off" or (self._mode == "reference" and name in self._silent):
                return output
            if self._mode == "reference":
                down, up = self._frozen[name]
                change = layer.change(args[0], down, up)
            else:
                change = layer(args[0])
            return output + change.to(output.dtype)

        return hook


def drawing(model: TextToImage, adapter: Adapter) -> AbstractContextManager:
    """Puts the adapter on for sampling, the way that the model allows."""
    return adapter.merged() if model.merges_adapter else adapter.attached()
