"""The pack's HTTP routes: a run's pictures, the family of a model file, a run's report, and the request to stop a loop.

They read files in a run's folders of previews and images, and headers of files in the host's model folders. The report
is written into the run's folder "report" when it is asked for. A request to stop is kept in memory alone.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

PREVIEW = "/dreambooth_dpo/preview"
PICTURE = "/dreambooth_dpo/picture"
FAMILY = "/dreambooth_dpo/family"
STOP = "/dreambooth_dpo/rounds/stop"
REPORT = "/dreambooth_dpo/report"
PLAIN = {"X-Content-Type-Options": "nosniff"}
SANDBOX = {
    **PLAIN,
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-cache",
}
"""Headers of the report: no script, no form, no request to anywhere."""
KEEP = "private, max-age=31536000, immutable"
"""Cache header: a preview's name contains a hash of its content, so the file of a name never changes."""

_writing = threading.Lock()
"""One report is written at a time."""
Find = Callable[[Path, str, str], "Path | None"]


def register() -> None:
    """Add the routes to the running server; does nothing if there is none (a script that imports the pack)."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is not None:
        server.routes.get(PREVIEW)(preview)
        server.routes.get(PICTURE)(picture)
        server.routes.get(FAMILY)(family)
        server.routes.get(REPORT)(report)
        server.routes.post(STOP)(stop)


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
        return web.Response(status=found, text=f"no such {what}", headers=PLAIN)
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
        return web.Response(status=found, text="no such model", headers=PLAIN)
    return web.json_response(found, headers=PLAIN)


async def stop(request: Any) -> Any:
    """POST {"run", "token"} as JSON: end this run of DPO Rounds with its best round so far.

    415 for another content type (a page of another site cannot send this one unasked), 400 for wrong names, 404 where
    no such run is known.
    """
    import json

    from aiohttp import web

    if request.content_type != "application/json":
        return web.Response(status=415, text="send application/json", headers=PLAIN)
    try:
        asked = json.loads(await request.text())
    except ValueError:
        asked = None
    status = stop_run(asked)
    said = {200: "the loop ends", 400: "run and token are not valid", 404: "no such run"}[status]
    return web.json_response({"said": said}, status=status, headers=PLAIN)


def stop_run(asked: Any) -> int:
    """Set the request {"run", "token"}; the HTTP status. The run's nodes then get another cache key (runs.renew)."""
    from .rounds_run import TOKEN, ask_to_stop
    from .runs import check_name, renew

    given = [asked.get(part) for part in ("run", "token")] if isinstance(asked, dict) else [None]
    if not all(isinstance(part, str) for part in given):
        return 400
    name, token = given
    if check_name(name) or not TOKEN.fullmatch(token):
        return 400
    if not ask_to_stop(name, token):
        return 404
    renew(name)
    return 200


async def report(request: Any) -> Any:
    """GET ?run= -> the run's report as HTML, written first where a round was measured since.

    400 for an invalid name, 404 where there is no run or nothing was measured.
    """
    import asyncio

    from aiohttp import web

    name = request.query.get("run", "")
    found = await asyncio.get_running_loop().run_in_executor(None, report_of, name)
    if isinstance(found, Path):
        return web.FileResponse(found, headers={**SANDBOX, "Content-Type": "text/html; charset=utf-8"})
    return web.Response(status=found[0], text=found[1], headers=PLAIN)


def report_of(run: str) -> Path | tuple[int, str]:
    """The report's file, or the HTTP status and the reason; only <run>/report/report.html itself is given."""
    from ...dpo_core.errors import UserError
    from ...dpo_core.report.page import write_report
    from ...dpo_core.run.named import NamedRun
    from .runs import check_name, run_path

    if check_name(run):
        return 400, "not a valid run name"
    folder = run_path(run).resolve()
    page = (folder / "report" / "report.html").resolve()
    if not (folder / "records.sqlite").is_file() or page.parent != folder / "report":
        return 404, "no such run"
    try:
        with _writing, NamedRun(folder) as stored:
            if not page.is_file() or page.stat().st_mtime < stored.names.at:
                write_report(stored)
    except UserError as error:
        return 404, str(error)
    return page


def locate(run: str, set_name: str, name: str, find: Find) -> Path | int:
    """The file that `find` names by a preview's name, or the HTTP status (400, 404) of the error."""
    from ...dpo_core.run.previews import NAME, SET
    from .runs import check_name, run_path

    if check_name(run) or not SET.fullmatch(set_name) or not NAME.fullmatch(name):
        return 400
    return find(run_path(run), set_name, name) or 404
