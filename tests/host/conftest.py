"""Fixtures of the host tests: ComfyUI's modules, on the CPU and without pytest's command line."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from event_loop import in_a_loop

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HOW = "set COMFYUI_PATH to a ComfyUI folder and install its requirements.txt into this environment"


@pytest.hookimpl(tryfirst=True)  # before -m selects by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:  # those of the whole run, not of this folder alone
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.host)


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """ComfyUI's folder ($COMFYUI_PATH, else ~/ComfyUI), with its modules importable and set to the CPU."""
    folder = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "ComfyUI").resolve()
    if not (folder / "comfy" / "sd.py").is_file():
        pytest.skip(f"no ComfyUI in {folder}: {HOW}")
    # `python -m pytest` puts the working folder first; there `import nodes`, by ComfyUI's code too, would find this
    # pack's.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    # Last: ComfyUI has folders named tests, utils and models.
    sys.path.append(str(folder))
    try:
        import comfy.options

        comfy.options.enable_args_parsing(False)
        from comfy.cli_args import args

        args.cpu = True  # read once, when comfy.model_management is imported
        import comfy.sd
    except (ImportError, OSError) as error:  # OSError: a library built for another CUDA
        pytest.skip(f"ComfyUI in {folder} cannot be imported ({error}): {HOW}")
    return folder


@pytest.fixture
def as_nodes_run(comfyui: Path) -> Iterator[None]:
    """Inference mode, as ComfyUI executes nodes; models are unloaded afterwards."""
    import comfy.model_management as management
    import torch

    with torch.inference_mode():
        yield
        management.unload_all_models()


# --- the pack, opened as ComfyUI opens it ---


def spec_of(name: str) -> importlib.machinery.ModuleSpec:
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py")
    assert spec is not None and spec.loader is not None
    return spec


@pytest.fixture(scope="module")
def pack(comfyui: Path) -> Iterator[ModuleType]:
    """The pack, imported under the module name that ComfyUI gives it: its path."""
    name = str(ROOT).replace(".", "_x_")
    spec = spec_of(name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    for other in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
        del sys.modules[other]


@pytest.fixture(scope="module")
def extension(pack: ModuleType):
    return in_a_loop(pack.comfy_entrypoint())


@pytest.fixture(scope="module")
def nodes(extension) -> dict[str, type]:
    """Node classes by node id, in the pack's order."""
    return {node.GET_SCHEMA().node_id: node for node in in_a_loop(extension.get_node_list())}
