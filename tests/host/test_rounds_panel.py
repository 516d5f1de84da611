"""DPO Rounds as its panel sees it: messages, "Stop, keep the best", the run after it, and the report's route."""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable

import pytest
from event_loop import in_a_loop
from hosting import Server, comfyui_path, executed, run_path
from toy_graphs import tiny_rounds

pytestmark = pytest.mark.usefixtures("comfyui")
RUN = "panel"


def graph() -> dict:
    return tiny_rounds(RUN, 3, 4)


def watched(server: Server, act: Callable[[dict], dict | None] = lambda state: None) -> tuple[list[dict], list, dict]:
    """Run the graph as a page does: (the panel's messages, statuses of the posts that `act` asked for, the history).

    act: of a message, the body to post to the stop route, or None.
    """
    import aiohttp

    client, states, statuses = uuid.uuid4().hex, [], []

    async def listen() -> str:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{server.url}/ws?clientId={client}") as socket,
        ):
            await socket.receive()  # it is known to the server now
            async with session.post(f"{server.url}/prompt", json={"prompt": graph(), "client_id": client}) as answer:
                prompt = (await answer.json())["prompt_id"]
            async for message in socket:
                event = message.json() if message.type == aiohttp.WSMsgType.TEXT else {"type": "picture"}
                if event["type"] == "dreambooth_dpo.rounds":
                    states.append(event["data"])
                    if body := act(states[-1]):
                        async with session.post(f"{server.url}/dreambooth_dpo/rounds/stop", json=body) as answer:
                            statuses.append(answer.status)
                if event["type"] in ("execution_success", "execution_error"):
                    return prompt
        raise ConnectionError("the server ended the connection")

    return states, statuses, server.wait(in_a_loop(listen(), 400))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run that is stopped in its second round before training, and the one after it."""
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    asked = []

    def stop(state: dict) -> dict | None:
        if state["round"] < 2 or asked:
            return None
        asked.append(state["stage"])
        return {"run": RUN, "token": state["token"]}

    with Server(tmp_path_factory.mktemp("panel")) as server:
        first = watched(server, stop)
        folder = run_path(server, RUN)
        trained = len(list(folder.glob("training/*")))
        late = server.post("/dreambooth_dpo/rounds/stop", {"run": RUN, "token": "0" * 32})[0]
        yield server, first, trained, late, watched(server)


def test_the_messages_count_up_and_name_what_is_unmeasured(runs):
    states = runs[1][0]
    assert {state["node"] for state in states} == {"rounds"} and {state["rounds"] for state in states} == {3}
    shares = [state["share"] for state in states if state["share"] is not None]
    assert shares == sorted(shares)
    going = [state for state in states if not state.get("ended")]
    assert 0.3 < going[-1]["share"] < 0.8 and going[-1]["left"] > 0 and going[-1]["unmeasured"] == []
    planned = next(state for state in states if state["estimate"])
    assert planned["left"] is None and planned["estimate"][0] == (
        "Pictures to draw: 72 candidates and 32 on held-out prompts."
    )
    assert planned["estimate"][1].startswith("Disk: about ")
    elapsed = [state["elapsed"] for state in states]
    # Over the whole run: on a busy machine the time between two messages is also that of their making.
    assert elapsed == sorted(elapsed) and len(states) <= 4 * elapsed[-1] + 4, "more than 4 a second"
    measured = next(state for state in states if state.get("points"))
    assert [point[0] for point in measured["points"]] == [0, 1]
    assert [side["round"] for side in measured["pictures"]["sides"]] == [0, 1]
    assert len(measured["pictures"]["prompts"]) == 4


def test_a_stop_gives_the_best_round_so_far_and_saves_it(runs):
    server, (_, statuses, history), trained, late, _ = runs
    assert statuses == [200] and late == 404
    assert history["status"]["status_str"] == "success", history["status"]
    assert trained == 1, "the second round was trained"
    assert "Stopped: by you, after round 1." in history["outputs"]["said"]["text"][0]
    assert history["outputs"]["save"]["text"][0].startswith(f"saved as {RUN}_00001.safetensors")
    assert (server.folder / "models" / "loras" / f"{RUN}_00001.safetensors").is_file()


def test_the_run_after_a_stop_goes_on_with_all_rounds(runs):
    server, _, _, _, (states, _, history) = runs
    assert "rounds" in executed(history) and not any(state["stopping"] for state in states)
    assert "by you" not in history["outputs"]["said"]["text"][0]
    assert len(list(run_path(server, RUN).glob("training/*"))) == 3
    assert "\nRound 3: " in history["outputs"]["said"]["text"][0]


def fetch(
    server: Server, path: str, data: bytes | None = None, kind: str = "application/json"
) -> tuple[int, dict, str]:
    request = urllib.request.Request(f"{server.url}/dreambooth_dpo/{path}", data, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read().decode()


def test_the_report_is_written_when_it_is_asked_for(runs):
    server = runs[0]
    assert not (run_path(server, RUN) / "report").exists()
    status, headers, page = fetch(server, f"report?run={RUN}")
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "sandbox" in policy and "<script" not in page
    assert "data:image/png;base64," in page and "3 rounds" in page
    names = {path.stem for path in (run_path(server, RUN) / "report").glob("*.png")}
    assert {"references", "path", "watch", "training", "cloud_0", "cloud_2", "pairs_1"} <= names
    written = (run_path(server, RUN) / "report" / "report.html").stat().st_mtime_ns
    assert fetch(server, f"report?run={RUN}")[0] == 200
    assert (run_path(server, RUN) / "report" / "report.html").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("path", "body", "kind", "status"),
    [
        ("report?run=gone", None, "", 404),
        ("report?run=" + urllib.parse.quote("../panel"), None, "", 400),
        ("report", None, "", 400),
        ("rounds/stop", b"{}", "application/json", 400),
        ("rounds/stop", b"[1", "application/json", 400),
        ("rounds/stop", b'{"run": "../x", "token": "' + b"0" * 32 + b'"}', "application/json", 400),
        ("rounds/stop", b'{"run": "panel", "token": "../"}', "application/json", 400),
        ("rounds/stop", b'{"run": "panel", "token": "' + b"0" * 32 + b'"}', "text/plain", 415),
    ],
)
def test_wrong_requests_are_refused(runs, path: str, body: bytes | None, kind: str, status: int):
    found, headers, _ = fetch(runs[0], path, body, kind)
    assert found == status and headers["X-Content-Type-Options"] == "nosniff"
    assert not (run_path(runs[0], "gone")).exists()
