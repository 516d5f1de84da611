"""Messages of the nodes to the page that queued the prompt; nothing is sent without a server or a page."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

PAUSE = 0.25
"""Least time between two messages of one kind. Unit: seconds."""


def running_server() -> Any:
    """ComfyUI's running server, or None outside ComfyUI; imports nothing."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def workflow_of(graph: Any) -> str | None:
    """The id of the workflow. graph: the host's extra_pnginfo."""
    workflow = graph.get("workflow") if isinstance(graph, Mapping) else None
    return workflow.get("id") if isinstance(workflow, Mapping) else None


def watched(server: Any) -> bool:
    """Whether a page is connected that queued the running prompt."""
    return getattr(server, "client_id", None) is not None


def send(server: Any, event: str, message: Mapping[str, Any]) -> bool:
    """Send to that page. False where it failed: a failed message must not end a run."""
    try:
        server.send_sync(event, message, server.client_id)
    except Exception as error:
        logging.debug("DreamBooth DPO: %s was not sent (%s)", event, error)
        return False
    return True
