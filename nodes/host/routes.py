"""The pack's one route: small pictures of a run, for the inspector.

It reads, and only what lies in a run's folder of previews.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

PREVIEW = "/dreambooth_dpo/preview"
KEEP = "private, max-age=31536000, immutable"
"""A preview's name holds a mark of its content, so that it never changes."""


def register() -> None:
    """Add the route to the running server.

    Where there is none (a script that opens the pack) there is nothing to add to.
    """
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is not None:
        server.routes.get(PREVIEW)(preview)


async def preview(request: Any) -> Any:
    """GET run, set, name -> the picture; 400 for names that are none, 404 where there is no such picture."""
    from aiohttp import web

    found = locate(*(request.query.get(part, "") for part in ("run", "set", "name")))
    if isinstance(found, int):
        return web.Response(status=found, text="no such preview", headers={"X-Content-Type-Options": "nosniff"})
    return web.FileResponse(
        found, headers={"Content-Type": "image/webp", "Cache-Control": KEEP, "X-Content-Type-Options": "nosniff"}
    )


def locate(run: str, set_name: str, name: str) -> Path | int:
    """The file of a preview, or the HTTP status that says why there is none."""
    from ...dpo_core.run.previews import NAME, SET, find_preview
    from .runs import check_name, run_path

    if check_name(run) or not SET.fullmatch(set_name) or not NAME.fullmatch(name):
        return 400
    return find_preview(run_path(run), set_name, name) or 404
