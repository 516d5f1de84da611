"""Seconds that the pack adds to ComfyUI's start."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import time

from ..common.comfyui_server import ROOT


def start_seconds() -> list[float]:
    """Seconds to import the pack as ComfyUI does and list its nodes, and until their schemas are made as well, which
    the first page asks for. ComfyUI is imported before.
    """
    for name in ("nodes", "comfy.samplers", "comfy_api.latest"):
        importlib.import_module(name)

    begun = time.perf_counter()
    spec = importlib.util.spec_from_file_location(
        "pack_under_test", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    extension = asyncio.run(module.comfy_entrypoint())
    classes = asyncio.run(extension.get_node_list())
    listed = time.perf_counter()
    for node in classes:
        node.GET_SCHEMA()
    return [listed - begun, time.perf_counter() - begun]
