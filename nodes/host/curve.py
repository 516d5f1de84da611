"""Training curves for the browser: new points are sent during training, the whole curve with the node's output."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...dpo_core.settings import TrainSettings
from ...dpo_core.training.objectives import NO_PREFERENCE
from .feed import PAUSE, running_server, send, watched, workflow_of

EVENT = "dreambooth_dpo.curve"
_FIELDS = ("loss", "margin", "winner_error", "winner_alarm")
_MOST = 400
"""The most points of a whole curve; longer curves are thinned."""
_WHOLE = 10.0
"""Time between two messages with the whole curve, so that a reloaded page gets the points that it missed.

Unit: seconds.
"""


def curve(records: Sequence[Mapping[str, float]], settings: TrainSettings) -> dict[str, Any]:
    """The page's training plot as JSON: the points and the levels of its horizontal lines.

    A point is [step, loss, margin, winner error, mean winner error of 20 steps]; None stands for NaN. beta: the last
    step's, its floor and its ceiling, where it is adapted.
    """
    beta = records[-1].get("beta") if records else None
    return {
        "steps": settings.steps,
        "level": NO_PREFERENCE.get(settings.objective),
        "warning": settings.winner_error_warning,
        "collapse": settings.winner_error_collapse,
        "beta": None if beta is None else [_plain(beta), settings.beta_floor, settings.beta_ceiling],
        "points": thinned([_point(r) for r in records]),
    }


def thinned(points: list[list], most: int = _MOST) -> list[list]:
    """At most `most` points, each the mean of a group of neighbours.

    A point has the step of the last of its group; the winner alarm (last column) is the group's highest.
    """
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
    """Rounded to six significant digits; None for NaN and infinity, which JSON lacks."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _mean(values: Sequence[float | None]) -> float | None:
    there = [v for v in values if v is not None]
    return _plain(sum(there) / len(there)) if there else None


def _highest(part: list[list]) -> float | None:
    return max((point[-1] for point in part if point[-1] is not None), default=None)


class CurveFeed:
    """Sends new points of a training to the page that queued it; does nothing without a server or page."""

    def __init__(self, node_id: str | None, graph: Any = None) -> None:
        """node_id: the host's unique_id. graph: the host's extra_pnginfo, which holds the workflow's id."""
        self._node, self._server = node_id, running_server()
        self._workflow = workflow_of(graph)

    def watch(self, settings: TrainSettings) -> Callable[[Mapping[str, float]], None] | None:
        """The function to call with each step's record; None if no page is connected."""
        if self._node is None or not watched(self._server):
            return None
        records: list[Mapping[str, float]] = []
        sent, last, whole = 0, -math.inf, -math.inf

        def tell(record: Mapping[str, float]) -> None:
            nonlocal sent, last, whole
            records.append(record)
            now = time.monotonic()
            if now - last < PAUSE and int(record["step"]) + 1 < settings.steps:
                return
            all_of_it = now - whole > _WHOLE
            self._send({**curve(records if all_of_it else records[sent:], settings), "whole": all_of_it})
            sent, last, whole = len(records), now, now if all_of_it else whole

        return tell

    def _send(self, message: dict[str, Any]) -> None:
        """Send to the client that queued the prompt, under the node that the page shows.

        For a node inside DPO Rounds that is the DPO Rounds node.
        """
        shown = getattr(self._server, "last_node_id", None) or self._node
        message |= {"node": str(shown), "source": str(self._node), "workflow": self._workflow}
        if not send(self._server, EVENT, message):
            self._server = None
