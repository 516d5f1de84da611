"""A training's numbers for the browser: sent while it trains, and whole with the node's output."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...dpo_core.settings import TrainSettings
from ...dpo_core.training.objectives import NO_PREFERENCE

EVENT = "dreambooth_dpo.curve"
_FIELDS = ("loss", "margin", "winner_error", "winner_alarm")
_MOST = 400
"""Points of a whole curve; longer ones are thinned."""
_PAUSE = 0.25
"""Between two messages. Unit: seconds."""
_WHOLE = 10.0
"""Between two messages that hold the whole curve: what a page missed while it was loaded anew comes with the next.

Unit: seconds.
"""


def curve(records: Sequence[Mapping[str, float]], settings: TrainSettings) -> dict[str, Any]:
    """All that the page draws of a training: points [step, loss, margin, winner error, its mean of 20 steps], and the
    lines beside them.
    """
    return {
        "steps": settings.steps,
        "level": NO_PREFERENCE.get(settings.objective),
        "warning": settings.winner_error_warning,
        "collapse": settings.winner_error_collapse,
        "points": thinned([_point(r) for r in records]),
    }


def thinned(points: list[list], most: int = _MOST) -> list[list]:
    """At most `most` points: each the mean of as many neighbours, under the last one's step; of the alarm the highest."""
    size = -(-len(points) // most)
    if size <= 1:
        return points
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return [
        [part[-1][0], *(_mean(column) for column in list(zip(*part, strict=True))[1:-1]), _highest(part)]
        for part in parts
    ]


def _point(record: Mapping[str, float]) -> list:
    return [int(record["step"]), *(_plain(float(record.get(name, math.nan))) for name in _FIELDS)]


def _plain(value: float) -> float | None:
    """Six digits are enough to draw; JSON has no NaN."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _mean(values: Sequence[float | None]) -> float | None:
    there = [v for v in values if v is not None]
    return _plain(sum(there) / len(there)) if there else None


def _highest(part: list[list]) -> float | None:
    return max((point[-1] for point in part if point[-1] is not None), default=None)


class CurveFeed:
    """Sends a training's new points to the page that queued it.

    Where there is no server or no page, it does nothing.
    """

    def __init__(self, node_id: str | None, graph: Any = None) -> None:
        """node_id: as the host gives it to the node. graph: the host's extra_pnginfo, whose workflow has an id."""
        self._node, self._server = node_id, _server()
        workflow = graph.get("workflow") if isinstance(graph, Mapping) else None
        self._workflow = workflow.get("id") if isinstance(workflow, Mapping) else None

    def watch(self, settings: TrainSettings) -> Callable[[Mapping[str, float]], None] | None:
        """What to call with each step's record; None where nobody looks."""
        if self._node is None or getattr(self._server, "client_id", None) is None:
            return None
        records: list[Mapping[str, float]] = []
        sent, last, whole = 0, -math.inf, -math.inf

        def tell(record: Mapping[str, float]) -> None:
            nonlocal sent, last, whole
            records.append(record)
            now = time.monotonic()
            if now - last < _PAUSE and int(record["step"]) + 1 < settings.steps:
                return
            all_of_it = now - whole > _WHOLE
            self._send({**curve(records if all_of_it else records[sent:], settings), "whole": all_of_it})
            sent, last, whole = len(records), now, now if all_of_it else whole

        return tell

    def _send(self, message: dict[str, Any]) -> None:
        """To the client that queued the prompt, under the node that it sees: a node of an expanded loop stands for the
        loop's node.
        """
        try:
            server = self._server
            shown = getattr(server, "last_node_id", None) or self._node
            message |= {"node": str(shown), "source": str(self._node), "workflow": self._workflow}
            server.send_sync(EVENT, message, server.client_id)
        except Exception as error:  # a curve that cannot be shown must not end a training
            logging.debug("DreamBooth DPO: the curve was not sent (%s)", error)
            self._server = None


def _server() -> Any:
    """ComfyUI's running server, or None: outside of it nothing is imported."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
