"""The run of a DPO Rounds node in the server: whose inner node it is, what is sent and when, and requests to stop."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from dreambooth_dpo.dpo_core.loop.time_left import Meter, Part
from dreambooth_dpo.nodes.host import rounds_run
from dreambooth_dpo.nodes.host.rounds_run import EVENT, StopAsked, ask_to_stop, begin, inner_of

PARTS = (
    Part(0, "draw", 4, 10), Part(0, "score", 4), Part(0, "pairs", 0), Part(0, "train", 5, 8),
    Part(0, "measure", 4, 10), Part(0, "judge", 4), Part(1, "draw", 4, 10),
)  # fmt: skip
HIDDEN = SimpleNamespace(unique_id="5:12", extra_pnginfo={"workflow": {"id": "a-graph"}})


class FakeServer:
    def __init__(self) -> None:
        self.client_id, self.sent = "page", []

    def send_sync(self, event: str, data: dict, client: str) -> None:
        self.sent.append((event, json.loads(json.dumps(data, allow_nan=False)), client))


class FakeTimer:
    """A timer that the test lets fire."""

    def __init__(self, wait: float, act) -> None:
        self.wait, self.act = wait, act
        timers.append(self)

    def start(self) -> None:
        pass


timers: list[FakeTimer] = []


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A fake ComfyUI server, and a clock that only the test advances."""
    fake = FakeServer()
    fake.now = 100.0
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=fake)))
    monkeypatch.setattr(rounds_run.time, "monotonic", lambda: fake.now)
    monkeypatch.setattr(rounds_run.threading, "Timer", FakeTimer)
    timers.clear()
    yield fake
    rounds_run._runs.clear()


def begun(**widgets: object) -> rounds_run.RoundsRun:
    begin(HIDDEN, "my run", 2, widgets)
    run = rounds_run._runs["5:12"]
    run.started = 100.0
    run.meter, run.chunk = Meter(PARTS, 100.0), 2
    return run


@pytest.mark.parametrize(
    ("unique_id", "found"),
    [
        ("5:12.0.0.sample_0", ("sample", 0)),
        ("5:12.0.0.finished_score_11", ("finished_score", 11)),
        ("5:12.0.0.keep_1", ("keep", 1)),
        ("5:12", None),
        ("12.0.0.sample_0", None),
        ("5:12.0.0.other_0", None),
        (None, None),
    ],
)
def test_an_inner_node_knows_its_run_by_its_id(server: FakeServer, unique_id: str | None, found: tuple | None) -> None:
    begun()
    inner = inner_of(unique_id)
    assert (inner and (inner.stem, inner.round)) == found


def test_the_first_message_has_no_number_without_a_basis(server: FakeServer) -> None:
    begin(HIDDEN, "my run", 2, {})
    [(event, state, client)] = server.sent
    assert (event, client, state["node"], state["workflow"]) == (EVENT, "page", "5:12", "a-graph")
    assert (state["share"], state["left"], state["round"], state["rounds"]) == (None, None, 1, 2)


def test_four_messages_a_second_and_the_last_change_is_sent(server: FakeServer) -> None:
    begun()
    inner = inner_of("5:12.0.0.sample_0")
    for _ in range(10):
        server.now += 0.02
        inner.report("sample round_0", 2, 4)
    assert len(server.sent) == 1 and len(timers) == 1 and timers[0].wait == pytest.approx(0.23)
    server.now = 100.25
    timers[0].act()
    assert len(server.sent) == 2 and server.sent[-1][1]["stage"] == "sampling candidates"
    server.now = 100.5
    inner.report("sample round_0", 4, 4)
    assert len(server.sent) == 3


def test_nothing_is_sent_without_a_page(server: FakeServer) -> None:
    server.client_id = None
    begun()
    inner_of("5:12.0.0.sample_0").report("sample round_0", 2, 4)
    assert server.sent == [] and timers == []


def test_rates_of_batches_steps_and_blocks(server: FakeServer) -> None:
    """2 pictures of 10 forwards in 4 s; 4 scores, one block, in 2 s; two steps of 8 forwards in 1.6 s each; sets of 2
    held-out pictures, before and after.
    """
    run = begun()
    for unique_id, name, done, of, took in (
        ("sample_0", "sample round_0", 2, 4, 4.0),
        ("score_0", "score round_0", 1, 1, 2.0),
        ("train_0", "train round_0", 1, 5, 1.6),
        ("train_0", "train round_0", 2, 5, 1.6),
    ):
        server.now += took
        inner_of(f"5:12.0.0.{unique_id}").report(name, done, of)
    assert run.meter.rates() == {"draw": pytest.approx(0.2), "score": pytest.approx(0.5), "train": pytest.approx(0.2)}
    keep = inner_of("5:12.0.0.keep_0")
    keep.report("sample start", 2, 2)
    keep.report("sample after", 1, 2)
    assert run.meter.done == [4, 4, 0, 5, 3, 0, 0] and run.words == "drawing held-out pictures"
    keep.report("score start", 1, 1)
    keep.report("score after", 1, 2)
    assert run.meter.done == [4, 4, 0, 5, 4, 3, 0]
    keep.end()
    assert run.meter.left().seconds == pytest.approx(4 * 10 * 0.2)


def test_a_stop_ends_later_rounds_at_once_but_neither_the_first_nor_a_measurement(server: FakeServer) -> None:
    run = begun()
    assert not ask_to_stop("my run", "0" * 32) and not ask_to_stop("other", run.token) and not run.stop
    assert ask_to_stop("my run", run.token)
    for going_on in ("sample_0", "train_0", "keep_0", "keep_1"):
        inner_of(f"5:12.0.0.{going_on}").report("sample x", 1, 4)
    for ending in ("sample_1", "finish_1", "score_1", "finished_pairs_1", "train_1"):
        inner = inner_of(f"5:12.0.0.{ending}")
        with pytest.raises(StopAsked):
            inner.report("sample x", 1, 4)
        with pytest.raises(StopAsked):
            inner.partly(0.5)
    begin(HIDDEN, "my run", 2, {})
    inner_of("5:12.0.0.train_1").report("train round_1", 1, 4)
    assert not ask_to_stop("my run", run.token), "a request of the earlier run reaches the new one"


def test_what_is_measured_is_sent_and_an_ended_loop_begins_no_stage(server: FakeServer) -> None:
    run = begun()
    run.kept = {"points": [[0, 0.1, 0.2]], "ended": True}
    inner_of("5:12.0.0.keep_1").begin()
    assert run.round == 0 and run.state()["points"] == [[0, 0.1, 0.2]]


def test_the_time_is_logged_once_after_the_first_batch(server: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    """2 of 4 pictures in 4 s, 0.2 s a forward. Left: 20 + 40 forwards of drawing, 40 of training, 40 of measuring."""
    begun()
    with caplog.at_level("INFO"):
        for done in (2, 4):
            server.now += 4
            inner_of("5:12.0.0.sample_0").report("sample round_0", done, 4)
    said = [record.message for record in caplog.records]
    assert said == ["DreamBooth DPO, run my run: time: about 28 s left (not measured yet: training, scoring)"]
