"""Low-rank adapter on forward hooks, with a frozen copy of its weights as the reference of a round."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import UserError
from ..protocols import TextToImage
from ..settings import AdapterSettings
from .blocks import weight_shape
from .targets import target_layers


class LowRank(nn.Module):
    """LoRA branch of one linear or 2-d convolution layer: scale * B(A(x)), scale = alpha / rank.

    B (`up`) starts at zero (arXiv 2106.09685, eq. 3). Both matrices are float32.
    """

    def __init__(
        self, layer: nn.Module, rank: int, alpha: float, generator: torch.Generator, device: torch.device | None = None
    ) -> None:
        super().__init__()
        shape, device = weight_shape(layer.weight), device or layer.weight.device
        self.scale = alpha / rank
        self.alpha = alpha
        self.convolution = (layer.stride, layer.padding, layer.dilation) if len(shape) == 4 else None
        down = torch.empty(rank, *shape[1:], dtype=torch.float32)
        bound = 1 / math.sqrt(down[0].numel())
        down.uniform_(-bound, bound, generator=generator)
        up = torch.zeros(shape[0], rank, *([1] * (len(shape) - 2)), dtype=torch.float32)
        self.down = nn.Parameter(down.to(device))
        self.up = nn.Parameter(up.to(device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.change(x, self.down, self.up)

    def change(self, x: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """The change of the layer's output with the given A (`down`) and B (`up`), in their dtype."""
        x = x.to(down.dtype)
        if self.convolution is None:
            change = F.linear(F.linear(x, down), up)
        else:
            stride, padding, dilation = self.convolution
            change = F.conv2d(F.conv2d(x, down, None, stride, padding, dilation), up)
        # Multiplying by 1 would cost one read and write of the whole output.
        return change if self.scale == 1 else self.scale * change

    def weight_change(self) -> torch.Tensor:
        """The weight change that is equivalent to `forward`, in the shape of the layer's weight."""
        return self.scale * (self.up.flatten(1) @ self.down.flatten(1)).view(len(self.up), *self.down.shape[1:])


def _is_exact(weight: torch.Tensor) -> bool:
    """Whether a change can be added to a weight without rounding: plain float32, not quantized from it."""
    return weight.dtype == torch.float32 and not hasattr(weight, "__tensor_flatten__")


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
    """Sort key that puts diffusers layer names in the order of diffusers' UNets.

    Names that are not of a diffusers UNet sort alphabetically.
    """
    return tuple((int(part) if part.isdigit() else _ORDER.get(part, 99), part) for part in name.split("."))


def adapter_values(denoiser: nn.Module, settings: AdapterSettings) -> int:
    """Number of weights of an adapter with these settings, without making it."""
    shapes = (weight_shape(layer.weight) for layer in target_layers(denoiser, settings.targets).values())
    return sum(settings.rank * (math.prod(shape[1:]) + shape[0]) for shape in shapes)


class Adapter:
    """Policy and reference weights for every target layer of one denoiser.

    The forward hooks exist only inside `attached()`. `reference()` and `off()` switch the weights in use and restore
    the previous state on exit. The base weights are not modified, except inside `merged()`.

    `device`: device of the adapter's weights; None: the device of each layer's weight. `names`: the diffusers name of
    each layer that has another name in this denoiser. Initial weights are drawn in diffusers' order, so the same seed
    gives the same adapter in both backends where these hold the same layers, in one order of names (not Krea 2, nor
    where ComfyUI has query, key and value in one layer).
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
        layers = target_layers(denoiser, settings.targets)
        self.layers = dict(
            sorted(layers.items(), key=lambda item: diffusers_order((names or {}).get(item[0], item[0])))
        )
        self.policy = {n: LowRank(m, settings.rank, settings.alpha, generator, device) for n, m in self.layers.items()}
        self._mode = "policy"
        self._placed = False
        self.freeze_reference()

    def parameters(self) -> list[nn.Parameter]:
        return [p for layer in self.policy.values() for p in layer.parameters()]

    def freeze_reference(self) -> None:
        """Copy the policy weights into the reference. Called once at the start of each round."""
        self._set_frozen({n: (p.down.detach().clone(), p.up.detach().clone()) for n, p in self.policy.items()})

    def _set_frozen(self, frozen: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        self._frozen = frozen
        # With up = 0 the branch adds nothing, so its computation is skipped (the reference of the first round).
        self._zero = frozenset(n for n, (_, up) in frozen.items() if not up.any())

    def state(self) -> dict[str, torch.Tensor]:
        """Copies of the policy weights: `<layer>.down`, `<layer>.up`."""
        return {
            f"{n}.{k}": v.detach().clone() for n, p in self.policy.items() for k, v in (("down", p.down), ("up", p.up))
        }

    def reference_state(self) -> dict[str, torch.Tensor]:
        """Copies of the reference weights, with the keys of `state`."""
        return {
            f"{n}.{k}": v.clone() for n, pair in self._frozen.items() for k, v in zip(("down", "up"), pair, strict=True)
        }

    @torch.no_grad()
    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Set the policy weights. Raises UserError when the layers or the rank do not match."""
        own = {f"{n}.{k}": t for n, p in self.policy.items() for k, t in (("down", p.down), ("up", p.up))}
        self._check(own, state)
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def load_reference(self, state: dict[str, torch.Tensor]) -> None:
        """Set the reference weights. Raises UserError as `load` does."""
        own = self.reference_state()
        self._check(own, state)
        self._set_frozen(
            {n: (state[f"{n}.down"].to(p.down), state[f"{n}.up"].to(p.up)) for n, p in self.policy.items()}
        )

    @staticmethod
    def _check(own: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> None:
        unknown, missing = sorted(set(state) - set(own)), sorted(set(own) - set(state))
        if unknown or missing:
            raise UserError(
                f"this adapter is of another model or target choice: {len(missing)} weights are missing (first: "
                f"{missing[:1]}) and {len(unknown)} are unknown (first: {unknown[:1]}). Use the model and the adapter "
                "targets that it was trained with."
            )
        for name, tensor in own.items():
            if tensor.shape != state[name].shape:
                raise UserError(
                    f"adapter weight {name} has shape {tuple(state[name].shape)}, expected {tuple(tensor.shape)}: "
                    "another rank or another model. Use the rank and the model that it was trained with."
                )

    @contextmanager
    def attached(self) -> Iterator[Adapter]:
        """Register the forward hooks; remove them on exit, also after an error.

        Raises RuntimeError inside another `attached()` or `merged()`.
        """
        with self._placing():
            handles = [module.register_forward_hook(self._hook(name)) for name, module in self.layers.items()]
            try:
                yield self
            finally:
                for handle in handles:
                    handle.remove()

    @contextmanager
    def _placing(self) -> Iterator[None]:
        """Raises RuntimeError when the adapter is already on the model: it would be applied twice."""
        if self._placed:
            raise RuntimeError("the adapter is already on the model; attached() and merged() do not nest")
        self._placed = True
        try:
            yield
        finally:
            self._placed = False

    @contextmanager
    def merged(self) -> Iterator[Adapter]:
        """Merge the policy into the layers' weights for sampling: same output up to rounding, without the hooks' cost.

        On exit, also after an error, every layer gets its original weight tensor back, so the base model stays
        bit-identical. Needs memory for one copy of the adapted layers. Layers below float32 and quantized ones keep
        hooks, since a merged weight would be rounded (5e-3 relative for bf16). Inside, `reference()` and `off()` raise
        RuntimeError: a merged weight cannot be switched.
        """
        with self._placing(), self._switched("merged"):
            with self._weights_merged():
                yield self

    @contextmanager
    def _weights_merged(self) -> Iterator[None]:
        exact = {n: m for n, m in self.layers.items() if _is_exact(m.weight)}
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
        """Inside, the denoiser predicts with the reference weights (the adapter at the start of the round)."""
        with self._switched("reference"):
            yield

    @contextmanager
    def off(self) -> Iterator[None]:
        """Inside, the denoiser predicts without the adapter, as the incoming model."""
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
            if self._mode == "off" or (self._mode == "reference" and name in self._zero):
                return output
            if self._mode == "reference":
                down, up = self._frozen[name]
                change = layer.change(args[0], down, up)
            else:
                change = layer(args[0])
            return output + change.to(output.dtype)

        return hook


def drawing(model: TextToImage, adapter: Adapter) -> AbstractContextManager:
    """Context that applies the adapter for sampling: merged where the model allows it, else by hooks."""
    return adapter.merged() if model.merges_adapter else adapter.attached()
