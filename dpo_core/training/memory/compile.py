"""Compile the denoiser's forward, including the adapter's hooks, with torch.compile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ...errors import UserError

_checked: set[str] = set()
"""Device types on which torch.compile was tested successfully in this process."""


def check_compiler(device: torch.device) -> None:
    """Test torch.compile on the device with a one-line function, once per process and device type.

    Raises UserError that names what to install when it does not work.
    """
    if device.type in _checked:
        return
    values = torch.linspace(0, 1, 8, device=device)
    try:
        correct = torch.allclose(torch.compile(_probe)(values), _probe(values))
    except Exception as error:  # compilers and their drivers raise many types
        raise UserError(_refusal(device, str(error))) from error
    if not correct:
        raise UserError(_refusal(device, "the compiled test function returns wrong numbers"))
    _checked.add(device.type)


def _probe(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1


def _refusal(device: torch.device, reason: str) -> str:
    needs = "a C++ compiler (g++, clang or MSVC)" if device.type == "cpu" else "Triton and a C compiler"
    short = " ".join(reason.split())[:300]
    return (
        f"compile is on, but torch.compile does not work on this machine's {device.type}: {short}. "
        f"Install {needs}, or turn compile off."
    )


@contextmanager
def compiled(denoiser: nn.Module, device: torch.device) -> Iterator[None]:
    """Inside, the denoiser's forward is compiled at its first call, with the hooks that its layers then have.

    Hooks and the adapter's mode are guarded: when they change, the forward is recompiled. A model that needs too many
    variants raises an error of torch._dynamo instead of running uncompiled. On exit the denoiser gets its own forward
    back, also after an error. Raises UserError as `check_compiler` does.
    """
    check_compiler(device)
    import torch._dynamo

    before = denoiser.__dict__.get("forward")
    # By default hooks are not guarded, so the compiled code of one adapter would be used for another.
    strict = torch._dynamo.config.patch(
        skip_nnmodule_hook_guards=False, fail_on_recompile_limit_hit=True, suppress_errors=False
    )
    try:
        with strict:
            denoiser.forward = torch.compile(denoiser.forward, dynamic=False)
            yield
    finally:
        denoiser.__dict__.pop("forward", None)
        if before is not None:
            denoiser.forward = before


@contextmanager
def uncompiled(denoiser: nn.Module) -> Iterator[None]:
    """Inside `compiled`: the denoiser's own forward, so that inputs of other shapes compile nothing."""
    kept = denoiser.forward
    denoiser.forward = kept.__wrapped__
    try:
        yield
    finally:
        denoiser.forward = kept
