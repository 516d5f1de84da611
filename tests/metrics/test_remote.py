"""Tests the scorer on another machine: the example server of the docs, and a server that fails in every way."""

from __future__ import annotations

import json
import re
import runpy
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from projects import config_of, make_project

from dreambooth_dpo.headless import loop_from_config, run_loop
from dreambooth_dpo.metrics.errors import MetricsError
from dreambooth_dpo.metrics.remote import RemoteScorer

DOCS = Path(__file__).resolve().parents[2] / "docs" / "http_scorer.md"
PHOTOS = np.zeros((2, 8, 8, 3), np.uint8)
INFO = {"name": "a model", "fingerprint": "v1"}
Answer = tuple[int, object]


@contextmanager
def serving(answer: Callable[[str, dict], Answer]) -> Iterator[str]:
    """A server on the loopback; answer(path, body) gives status and value. Yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def _send(self, body: dict) -> None:
            status, value = answer(self.path, body)
            data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self._send({})

        def do_POST(self) -> None:
            self._send(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The example of the docs, saved as a file as a reader would, and served by uvicorn."""
    import uvicorn

    file = tmp_path_factory.mktemp("docs") / "scorer_server.py"
    code = re.search(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)[1]
    file.write_text(code, encoding="utf-8")
    app = runpy.run_path(str(file))["app"]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def test_the_example_of_the_docs_scores(example: str) -> None:
    """Red pictures for "red": 1; for another prompt: -1; grey: 0."""
    scorer = RemoteScorer(example, "alignment_2", PHOTOS, batch=2)
    assert scorer.title == "redness"
    images = np.zeros((3, 8, 8, 3), np.uint8)
    images[:2, ..., 0], images[2] = 255, 90
    np.testing.assert_allclose(scorer.score(images, ["a red dog", "a dog", "a red dog"]), [1, -1, 0], atol=1e-6)


def test_a_run_is_trained_on_a_remote_scorer(example: str, tmp_path: Path) -> None:
    make_project(tmp_path)
    remote = [{"url": example, "axis": "alignment"}]
    config = config_of(tmp_path, scorers__remote=remote)
    _, report = run_loop(loop_from_config(config, resume=False))
    assert {"before", "after"} <= report["alignment_2"].keys()


def test_batches_references_and_the_fingerprint() -> None:
    asked: list[dict] = []

    def answer(path: str, body: dict) -> Answer:
        if path == "/info":
            return 200, {**INFO, "references": True}
        asked.append(body)
        return 200, {"scores": [len(asked)] * len(body["images"])}

    with serving(answer) as url:
        scorer = RemoteScorer(url + "/", "fidelity_2", PHOTOS, batch=2)
        assert scorer.score(np.zeros((5, 8, 8, 3), np.uint8), list("abcde")).tolist() == [1, 1, 2, 2, 3]
        assert [body["prompts"] for body in asked] == [["a", "b"], ["c", "d"], ["e"]]
        assert all(len(body["references"]) == 2 for body in asked)
        other = RemoteScorer(url, "fidelity_2", PHOTOS + 1)
        assert scorer.fingerprint != other.fingerprint
        assert scorer.fingerprint == RemoteScorer(url, "fidelity_2", PHOTOS).fingerprint


def test_failures_on_the_way_are_tried_again() -> None:
    answers = iter([(503, "busy"), (200, INFO), (500, "oops"), (429, "later"), (200, {"scores": [2.5]})])
    waited: list[float] = []
    with serving(lambda *_: next(answers)) as url:
        scorer = RemoteScorer(url, "alignment_2", PHOTOS, sleep=waited.append)
        assert scorer.score(PHOTOS[:1], ["a"]).tolist() == [2.5]
    assert waited == [1, 1, 2]


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([(404, "no such page")], "it answers 404 Not Found: no such page"),
        ([(200, "<html>")], "it answers <html>, which is no JSON"),
        ([(200, [1])], r"it answers \[1\], and a JSON object is needed"),
        ([(200, {"name": "x"})], "without name and fingerprint"),
        ([(503, "busy")] * 3, "it answers 503 Service Unavailable: busy; tried 3 times"),
        ([(200, INFO), (200, {"scores": [1.0]})], "for 2 pictures, and 2 numbers are needed"),
        ([(200, INFO), (200, {"scores": ["a", "b"]})], "2 numbers are needed"),
        ([(200, INFO), (422, "a picture cannot be read")], "422 Unprocessable .*: a picture cannot be read"),
    ],
)
def test_an_answer_that_is_no_score_is_refused_in_the_servers_words(answers: list[Answer], said: str) -> None:
    rest = iter(answers)
    with serving(lambda *_: next(rest)) as url, pytest.raises(MetricsError, match=said):
        RemoteScorer(url, "alignment_2", PHOTOS, retries=2, sleep=lambda _: None).score(PHOTOS, ["a", "b"])


def test_addresses_without_a_server_are_refused() -> None:
    with serving(lambda *_: (200, INFO)) as url:
        pass
    with pytest.raises(MetricsError, match=rf"the scorer at {url} cannot be used: .*tried 2 times\. Check that the"):
        RemoteScorer(url, "alignment_2", PHOTOS, retries=1, sleep=lambda _: None)
    with pytest.raises(MetricsError, match="must begin with http"):
        RemoteScorer("gpu2:8000", "alignment_2", PHOTOS, retries=0)


def test_a_slow_server_is_given_up() -> None:
    def answer(path: str, _: dict) -> Answer:
        time.sleep(0 if path == "/info" else 1.0)
        return 200, INFO

    with serving(answer) as url:
        scorer = RemoteScorer(url, "alignment_2", PHOTOS, timeout=0.2, retries=1, sleep=lambda _: None)
        with pytest.raises(MetricsError, match=r"no answer within 0\.2 s; tried 2 times"):
            scorer.score(PHOTOS, ["a", "b"])


def test_a_second_judge_of_an_axis_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    make_project(tmp_path)
    config = config_of(tmp_path, scorers__remote=[{"url": "http://127.0.0.1:9", "axis": "fidelity", "role": "judge"}])
    with pytest.raises(MetricsError, match="would be a second judge of fidelity: make it a reward"):
        loop_from_config(config, resume=False)
    assert not config.output.exists()
