"""The pack's HTTP routes: a run's pictures, large and as small previews, and the family of a model file.

They only read: files in a run's folders of previews and images, and headers of files in the host's model folders.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PREVIEW = "/dreambooth_dpo/preview"
PICTURE = "/dreambooth_dpo/picture"
FAMILY = "/dreambooth_dpo/family"
KEEP = "private, max-age=31536000, immutable"
"""Cache header: a preview's name contains a hash of its content, so the file of a name never changes."""

Find = Callable[[Path, str, str], "Path | None"]


def register() -> None:
    """Add the routes to the running server; does nothing if there is none (a script that imports the pack)."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is not None:
        server.routes.get(PREVIEW)(preview)
        server.routes.get(PICTURE)(picture)
        server.routes.get(FAMILY)(family)


async def preview(request: Any) -> Any:
    """GET ?run=&set=&name= -> the picture as WebP; 400 for invalid names, 404 if there is no such picture."""
    from ...dpo_core.run.previews import find_preview

    return _file(request, find_preview, "preview", "image/webp", KEEP)


async def picture(request: Any) -> Any:
    """GET ?run=&set=&name= -> the candidate that the preview `name` is of, as PNG; errors as for `preview`."""
    from ...dpo_core.run.previews import find_picture

    return _file(request, find_picture, "picture", "image/png", "private, no-cache")


def _file(request: Any, find: Find, what: str, kind: str, keep: str) -> Any:
    """The answer with the file that `find` names. kind: its content type; keep: its cache header."""
    from aiohttp import web

    found = locate(*(request.query.get(part, "") for part in ("run", "set", "name")), find)
    if isinstance(found, int):
        return web.Response(status=found, text=f"no such {what}", headers={"X-Content-Type-Options": "nosniff"})
    return web.FileResponse(
        found, headers={"Content-Type": kind, "Cache-Control": keep, "X-Content-Type-Options": "nosniff"}
    )


async def family(request: Any) -> Any:
    """GET ?folder=&name= -> {"family", "values"} of a model file; 400 for a folder of no denoisers, 404 if unknown."""
    import asyncio

    from aiohttp import web

    from .families import of_file

    asked = [request.query.get(part, "") for part in ("folder", "name")]
    found = await asyncio.get_running_loop().run_in_executor(None, of_file, *asked)
    if isinstance(found, int):
        return web.Response(status=found, text="no such model", headers={"X-Content-Type-Options": "nosniff"})
    return web.json_response(found, headers={"X-Content-Type-Options": "nosniff"})


def locate(run: str, set_name: str, name: str, find: Find) -> Path | int:
    """The file that `find` names by a preview's name, or the HTTP status (400, 404) of the error."""
    from ...dpo_core.run.previews import NAME, SET
    from .runs import check_name, run_path

    if check_name(run) or not SET.fullmatch(set_name) or not NAME.fullmatch(name):
        return 400
    return find(run_path(run), set_name, name) or 404
