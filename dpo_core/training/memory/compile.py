"""The denoiser's forward by torch.compile, with the adapter's hooks inside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ...errors import UserError

_able: set[str] = set()


def check_compiler(device: torch.device) -> None:
    """Compile and run a line on the device, once a process.

    Raises UserError, with what is missing, where that does not work.
    """
    if device.type in _able:
        return
    values = torch.linspace(0, 1, 8, device=device)
    try:
        right = torch.allclose(torch.compile(_probe)(values), _probe(values))
    except Exception as error:  # compilers and their drivers fail in ways of their own
        raise UserError(_refusal(device, str(error))) from error
    if not right:
        raise UserError(_refusal(device, "what it compiles gives wrong numbers"))
    _able.add(device.type)


def _probe(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1


def _refusal(device: torch.device, reason: str) -> str:
    needs = "a C++ compiler (g++, clang or MSVC)" if device.type == "cpu" else "Triton and a C compiler"
    short = " ".join(reason.split())[:300]
    return f"compile is on, and torch.compile does not work on this machine's {device.type}: {short}. Install {needs}, or turn compile off."


@contextmanager
def compiled(denoiser: nn.Module, device: torch.device) -> Iterator[None]:
    """Inside, the denoiser's forward is compiled at its first call; hooks that are on its layers then are compiled with
    it.

    Hooks and the adapter's mode are guarded: where they differ from those compiled, it compiles anew. A model that
    cannot be compiled in few variants raises (torch._dynamo's errors) and never runs as it is instead. The denoiser
    gets its own forward back in any case. Raises UserError as `check_compiler` does.
    """
    check_compiler(device)
    import torch._dynamo

    before = denoiser.__dict__.get("forward")
    # By default hooks are not guarded: another adapter's would be taken for those that were compiled.
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
