"""Training curves sent to the browser: format, thinning, and message rate."""

from __future__ import annotations

import json
import math
import sys
from types import SimpleNamespace

import pytest

from dreambooth_dpo.dpo_core.settings import TrainSettings
from dreambooth_dpo.nodes.host import curve as module
from dreambooth_dpo.nodes.host.curve import EVENT, CurveFeed, curve, thinned

SETTINGS = TrainSettings(steps=6)
GRAPH = {"workflow": {"id": "a-graph"}}


def record(step: int, loss: float = 0.5) -> dict[str, float]:
    return {
        "step": step,
        "loss": loss,
        "margin": 0.001 * step,
        "winner_error": -0.002,
        "winner_alarm": 0.001,
        "accuracy": 1.0,
    }


class FakeServer:
    def __init__(self, client: str | None = "page") -> None:
        self.client_id, self.last_node_id, self.sent = client, "7", []

    def send_sync(self, event: str, data: dict, client: str) -> None:
        self.sent.append((event, data, client))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    """A fake ComfyUI server, and a clock that only the test advances."""
    fake = FakeServer()
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=fake)))
    monkeypatch.setattr(module.time, "monotonic", lambda: fake.now)
    fake.now = 100.0
    return fake


def test_a_curve_is_plain_json_with_its_lines():
    found = json.loads(json.dumps(curve([record(0, math.nan), record(1)], SETTINGS), allow_nan=False))
    assert found["points"] == [[0, None, 0.0, -0.002, 0.001], [1, 0.5, 0.001, -0.002, 0.001]]
    assert (found["steps"], found["warning"], found["collapse"]) == (
        6,
        SETTINGS.winner_error_warning,
        SETTINGS.winner_error_collapse,
    )
    assert found["level"] == pytest.approx(math.log(2))


def test_an_objective_without_a_level_has_none():
    assert curve([record(0)], TrainSettings(objective="raft"))["level"] is None


def test_a_long_curve_is_thinned_to_means_and_the_highest_alarm():
    points = [[i, float(i), None if i % 2 else 2.0, 0.0, i / 10] for i in range(10)]
    assert thinned(points, 10) == points
    assert thinned(points, 5) == [[2 * i + 1, 2 * i + 0.5, 2.0, 0.0, (2 * i + 1) / 10] for i in range(5)]
    long = thinned([[i, 0.0, None, 0.0, None] for i in range(10_001)])
    assert len(long) <= 400 and long[-1] == [10_000, 0.0, None, 0.0, None]


def test_new_points_go_to_the_page_that_queued_at_a_limited_rate(server: FakeServer):
    tell = CurveFeed("3", GRAPH).watch(SETTINGS)
    tell(record(0))
    tell(record(1))
    server.now += 0.2
    tell(record(2))
    assert [data["points"] for _, data, _ in server.sent] == [[[0, 0.5, 0.0, -0.002, 0.001]]]
    server.now += 0.1
    tell(record(3))
    event, data, client = server.sent[-1]
    assert (event, client) == (EVENT, "page")
    assert [point[0] for point in data["points"]] == [1, 2, 3] and not data["whole"]
    assert (data["node"], data["source"], data["workflow"]) == ("7", "3", "a-graph")


def test_the_last_step_is_sent_at_once_and_the_whole_curve_every_ten_seconds(server: FakeServer):
    tell = CurveFeed("3", GRAPH).watch(SETTINGS)
    for step in range(4):
        tell(record(step))
    tell(record(5))
    assert [point[0] for point in server.sent[-1][1]["points"]] == [1, 2, 3, 5]
    server.now += 11
    tell(record(5))
    assert server.sent[-1][1]["whole"] and len(server.sent[-1][1]["points"]) == 6


@pytest.mark.parametrize("node", [None, "3"])
def test_without_a_page_nothing_is_sent(node: str | None, server: FakeServer):
    server.client_id = None if node else "page"
    assert CurveFeed(node, GRAPH).watch(SETTINGS) is None


def test_without_a_server_nothing_is_imported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "server", raising=False)
    assert CurveFeed("3").watch(SETTINGS) is None
    assert "server" not in sys.modules


def test_a_failed_message_does_not_stop_training(server: FakeServer, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise RuntimeError("the loop is closed")

    monkeypatch.setattr(server, "send_sync", refuse)
    tell = CurveFeed("3").watch(SETTINGS)
    tell(record(0))
    server.now += 1
    tell(record(1))
