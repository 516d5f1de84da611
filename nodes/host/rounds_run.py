"""The runs of DPO Rounds in this server: what its inner nodes report to the node's panel, and requests to stop.

An inner node knows its DPO Rounds node by its own id, which the host makes of both: "12.0.0.train_1" is in node 12. A
run lives in memory alone, from the node's execution to its next one; nothing of it is in a cache key.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from ...dpo_core.loop.time_left import WORDS, Meter
from .feed import PAUSE, running_server, send, watched, workflow_of

EVENT = "dreambooth_dpo.rounds"
STAGES = {
    "sample": "draw",
    "score": "score",
    "pairs": "pairs",
    "own": "pairs",
    "finish": "finish",
    "finished_score": "rescore",
    "finished_pairs": "pairs",
    "train": "train",
    "keep": "measure",
}
"""Stage of the plan by the stem of an inner node's id (schema/rounds.py)."""
TOKEN = re.compile(r"[0-9a-f]{32}")
_INNER = re.compile(rf"(.+)\.\d+\.\d+\.({'|'.join(STAGES)})_(\d+)")
_runs: dict[str, RoundsRun] = {}


class StopAsked(Exception):
    """The user asked to end the loop: the stage stops at its last checkpoint, and can be resumed."""


@dataclass
class RoundsRun:
    """One execution of a DPO Rounds node.

    widgets: those of the node. token: names this run alone, so that a late request reaches no other.
    """

    node: str
    run_name: str
    rounds: int
    widgets: Mapping[str, Any] = field(repr=False)
    workflow: str | None = None
    token: str = field(default_factory=lambda: uuid4().hex)
    meter: Meter | None = None
    chunk: int = 1
    """Pictures that are drawn between two reports."""
    lines: tuple[str, ...] = ()
    """The estimate before the start."""
    kept: Mapping[str, Any] = field(default_factory=dict)
    """What Keep Best Round has measured so far (rounds_view.py)."""
    stop: bool = False
    round: int = 0
    words: str = "starting"
    started: float = field(default_factory=time.monotonic)
    _server: Any = field(default_factory=running_server, repr=False)
    _timed: bool = False
    _sent: float = -1e9
    _timer: threading.Timer | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def measured(self) -> bool:
        """Whether a Keep Best Round follows each round."""
        return self.widgets.get("keep") != "last"

    def state(self) -> dict[str, Any]:
        """The whole state as JSON; each message holds all of it, so that a reloaded page misses nothing."""
        left = self.meter.left() if self.meter else None
        return {
            "node": self.node,
            "workflow": self.workflow,
            "token": self.token,
            "run": self.run_name,
            "rounds": self.rounds,
            "round": self.round + 1,
            "stage": self.words,
            "stopping": self.stop,
            "measured": self.measured,
            "share": round(self.meter.share(), 4) if self.meter else None,
            "elapsed": round(time.monotonic() - self.started, 1),
            "left": None if left is None or left.seconds is None else round(left.seconds, 1),
            "unmeasured": list(left.unmeasured) if left else [],
            "estimate": list(self.lines),
            **self.kept,
        }

    def log_time(self) -> None:
        """Log the time left once, as soon as the first batch has given a rate."""
        left = self.meter.left() if self.meter and not self._timed else None
        if left is not None and left.seconds is not None:
            self._timed = True
            logging.info("DreamBooth DPO, run %s: time: %s", self.run_name, left.words())

    def tell(self) -> None:
        """Send the state to the page, at most four times a second; the last of several changes is sent, too."""
        if not watched(self._server):
            return
        with self._lock:
            wait = self._sent + PAUSE - time.monotonic()
            if wait > 0:
                if self._timer is None:
                    self._timer = threading.Timer(wait, self._send)
                    self._timer.daemon = True
                    self._timer.start()
                return
        self._send()

    def _send(self) -> None:
        with self._lock:
            self._timer, self._sent = None, time.monotonic()
        if watched(self._server) and not send(self._server, EVENT, self.state()):
            self._server = None


@dataclass(frozen=True)
class Inner:
    """An inner node at work: its run, its stage, and its round (from 0)."""

    run: RoundsRun
    stem: str
    round: int

    def begin(self) -> None:
        """The node begins, unless the loop has ended: then it only passes on what there is."""
        if self.run.kept.get("ended") or (self.run.stop and self.round > 0):
            return
        self.run.round = self.round
        self._say(STAGES[self.stem])
        if self.run.meter:
            self.run.meter.begin(self.round, STAGES[self.stem], time.monotonic())
        self.run.tell()

    def report(self, name: str, done: int, of: int) -> None:
        """name: the progress's name of a stage, as "sample round_0". Raises StopAsked where the loop is to end."""
        stage, meter = self._stage(name), self.run.meter
        if name.startswith("reference "):
            self.run.words = "computing reference errors"
        elif stage is not None:
            self._say(stage)
            if meter:
                done, of, most = self._units(meter, stage, done, of)
                meter.report(self.round, stage, name, done, of, most, time.monotonic())
                self.run.log_time()
        self.run.tell()
        self.check()

    def partly(self, pictures: float) -> None:
        """Pictures of a batch that is being drawn, by its sampler steps. Raises StopAsked as `report`."""
        if self.run.meter:
            self.run.meter.partly(self.round, STAGES[self.stem], pictures)
        self.run.tell()
        self.check()

    def check(self) -> None:
        """Raises StopAsked where the loop is to end in this stage."""
        if self.ends:
            raise StopAsked

    @property
    def ends(self) -> bool:
        """Whether this stage is to end at once: a stop was asked for, and an earlier round has been measured.

        The first round goes on, because without it there is nothing to keep; a measurement goes on, because its round
        then counts.
        """
        return self.run.stop and self.round > 0 and self.stem != "keep"

    def end(self) -> None:
        """The round is measured."""
        if self.run.meter:
            self.run.meter.end(self.round, "judge")
        self.run.tell()

    def _say(self, stage: str) -> None:
        self.run.words = WORDS[stage]

    def _stage(self, name: str) -> str | None:
        kind = name.partition(" ")[0]
        if self.stem == "keep":
            return {"sample": "measure", "score": "judge"}.get(kind)
        return STAGES[self.stem] if kind in ("sample", "score", "pairs", "train") else None

    def _units(self, meter: Meter, stage: str, done: int, of: int) -> tuple[int, int, int]:
        """(units done, of all of the set, the most of one report); scoring reports blocks of pictures."""
        if stage == "train":
            return done, of, 1
        if stage not in ("score", "rescore", "judge"):
            return done, of, self.run.chunk
        units = next((p.units for p in meter.parts if (p.round, p.stage) == (self.round, stage)), 0)
        size = units // 2 if stage == "judge" and self.round == 0 else units
        return round(size * done / max(1, of)), size, size


def begin(hidden: Any, run_name: str, rounds: int, widgets: Mapping[str, Any]) -> None:
    """A DPO Rounds node is executed: its earlier run, with its requests, is forgotten.

    hidden: the node's hidden inputs; nothing is noted without an id, as outside a server.
    """
    if (node := getattr(hidden, "unique_id", None)) is None:
        return
    run = RoundsRun(str(node), run_name, rounds, dict(widgets), workflow_of(getattr(hidden, "extra_pnginfo", None)))
    _runs[run.node] = run
    run.tell()


def inner_of(unique_id: str | None) -> Inner | None:
    """The inner node with this id, or None for a node that is in no DPO Rounds of this server."""
    found = _INNER.fullmatch(str(unique_id))
    run = _runs.get(found[1]) if found else None
    return Inner(run, found[2], int(found[3])) if found and run else None


def ask_to_stop(run_name: str, token: str) -> bool:
    """Set the request to stop of the run with this name and token; False where there is none."""
    for run in list(_runs.values()):  # another thread may begin a run
        if (run.run_name, run.token) == (run_name, token):
            run.stop = True
            run.tell()
            return True
    return False
