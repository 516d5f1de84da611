"""Inspect Pairs on a real ComfyUI: decisions, what runs again, training on the result, and the preview route."""

from __future__ import annotations

import io
import json
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from hosting import Server, comfyui_path, executed
from PIL import Image
from safetensors.torch import load_file
from toy_graphs import TOY_PROMPTS, toy_loop_graph

from dreambooth_dpo.dpo_core.pairs.rules import reward_direction
from dreambooth_dpo.dpo_core.records import Pair
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.settings import PairSettings

pytestmark = pytest.mark.usefixtures("comfyui")
WIDE = {"angle_low": 0, "angle_high": 90, "margin": 0.05, "max_pairs_per_prompt": 10, "max_uses": 10}
CLEAN, WRONG = 80, 20


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    with Server(tmp_path_factory.mktemp("inspect")) as running:
        yield running


def graph(edits: object = "", *more: str, **changes: dict) -> dict:
    """A toybox loop up to Inspect Pairs (`inspect`), followed by Preview Pairs.

    more: further nodes of the loop to keep.
    """
    text = edits if isinstance(edits, str) else json.dumps(edits)
    whole = toy_loop_graph(sample={"run_name": "inspect"}, pairs=WIDE, prompts=TOY_PROMPTS)
    kept = ("toy", "concept", "prompts", "sample", "scorer", "score", "pairs", "look", *more)
    part = {name: whole[name] for name in kept}
    part["inspect"] = {"class_type": "DBDPO_InspectPairs", "inputs": {"pairs": ["pairs", 0], "edits": text}}
    for name in ("look", "train"):
        if name in part:
            part[name]["inputs"]["pairs"] = ["inspect", 0]
    for name, inputs in changes.items():
        part[name]["inputs"].update(inputs)
    return part


def shown(history: dict, node: str = "inspect") -> dict:
    return history["outputs"][node]["dbdpo_inspect"][0]


@pytest.fixture(scope="module")
def payload(server: Server) -> dict:
    """The data of the panel without decisions."""
    return shown(server.run(graph()))


@pytest.fixture(scope="module")
def folder(server: Server) -> Path:
    return server.folder / "output" / "dreambooth_dpo" / "inspect"


def decided(payload: dict, pairs: dict | None = None, candidates: dict | None = None) -> dict:
    return {"version": 1, "fingerprint": payload["fingerprint"], "pairs": pairs or {}, "candidates": candidates or {}}


def edited_names(folder: Path) -> set[str]:
    """Names of the stored pair lists that decisions have changed."""
    with RunFolder(folder) as run:
        return {name.removeprefix("thumbs_") for name in run.facts("thumbs_")}


# --- what the panel gets ---


def test_the_panel_gets_all_that_it_shows(payload: dict, folder: Path):
    count = len(payload["prompt"])
    assert count == 120 and len(payload["prompts"]) == 30 and payload["taken"] == "" and payload["kept"] is None
    assert all(len(payload[column]) == count for column in ("seed", "x", "y", "fidelity", "alignment", "files"))
    assert len(payload["pairs"]) > CLEAN and payload["window"] == [0, 90] and payload["rule"] == "angle_window"
    assert payload["way"] is None
    assert [p["near"] for p in payload["pairs"]] == sorted(p["near"] for p in payload["pairs"])
    for pair in payload["pairs"]:
        assert pair["id"] == f"{pair['winner']}-{pair['loser']}"
        assert payload["prompt"][pair["winner"]] == payload["prompt"][pair["loser"]]
    assert len(payload["references"]) == 5
    made = {p.name for p in (folder / payload["set"] / "previews").iterdir()}
    assert made == {*payload["files"], *payload["references"]}


@pytest.mark.parametrize("rule", ["lambda_harmonic", "weighted_sum", "random"])
def test_rules_with_a_reward_have_a_direction_instead_of_a_window(server: Server, rule: str):
    given = shown(server.run(graph(pairs={"rule": rule})))
    columns = (np.asarray(given[name]) for name in ("prompt", "fidelity", "alignment"))
    way = reward_direction(*columns, PairSettings(rule=rule))
    assert given["window"] is None and given["rule"] == rule
    assert given["way"] == (None if way is None else pytest.approx(way, abs=0.5))
    assert (given["way"] is None) == (rule == "random")


def test_pairs_that_variety_counts_for_can_be_reviewed(server: Server, payload: dict):
    """The distance to the boundary needs the latents then, as the rule does."""
    drawn = {"run_name": "varied", "candidates_per_prompt": 6}
    varied, plain = (
        shown(server.run(graph(sample=drawn, pairs={"rule": "lambda_harmonic", "diversity": d}))) for d in (3.0, 0.0)
    )
    assert varied["pairs"] and varied["pairs"] != plain["pairs"]


def test_without_decisions_the_pairs_are_unchanged(server: Server, payload: dict, folder: Path):
    kept = decided(payload, {payload["pairs"][0]["id"]: "keep"})
    for edits, confirmed in (("", 0), (kept, 1)):
        history = server.run(graph(edits))
        said = f"{len(payload['pairs'])} pairs go to training: {confirmed} confirmed, 0 swapped; 0 rejected"
        assert said in history["outputs"]["inspect"]["text"][0]
    assert edited_names(folder) == set()


# --- decisions ---


def test_a_decision_reruns_only_the_inspector_and_later_nodes(server: Server, payload: dict, folder: Path):
    first, second = payload["pairs"][:2]
    edits = decided(payload, {first["id"]: "swap", second["id"]: "reject"}, {"3": "up"})
    server.run(graph())
    before = edited_names(folder)
    history = server.run(graph(edits))
    assert executed(history) == {"inspect", "look"}
    said = history["outputs"]["inspect"]["text"][0]
    assert said.startswith(
        f"{len(payload['pairs']) - 1} pairs go to training: 0 confirmed, 1 swapped; 1 rejected. Thumbs: 1 up, 0 down"
    )
    again = shown(history)
    assert again["pairs"] == payload["pairs"], "the panel goes on showing the pairs that came in"
    assert again["taken"] == json.dumps(edits) and again["stale"] == 0
    (name,) = edited_names(folder) - before
    with RunFolder(folder) as run:
        pairs = {(p.winner, p.loser) for p in run.pairs(name)}
    assert (first["loser"], first["winner"]) in pairs and (first["winner"], first["loser"]) not in pairs
    assert (second["winner"], second["loser"]) not in pairs and len(pairs) == len(payload["pairs"]) - 1
    assert executed(server.run(graph(edits))) == set(), "equal decisions are cached"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ('{"pairs": {"1-1": "keep"}}', "with itself"),
        ('{"pairs": {"1-2": "burn"}}', "pairs.1-2"),
    ],
)
def test_wrong_text_is_refused_before_anything_runs(server: Server, text: str, said: str):
    with pytest.raises(ValueError) as error:
        server.queue(graph(text))
    assert said in str(error.value) and "Empty the text to drop all decisions" in str(error.value)


def test_decisions_on_other_candidates_are_dropped_and_counted(server: Server, payload: dict):
    edits = {**decided(payload, {payload["pairs"][0]["id"]: "reject"}, {"1": "down"}), "fingerprint": "0" * 16}
    history = server.run(graph(edits))
    assert "0 confirmed, 0 swapped; 0 rejected" in history["outputs"]["inspect"]["text"][0]
    assert "2 decisions dropped: made on other candidates." in history["outputs"]["inspect"]["text"][0]
    assert shown(history)["stale"] == 2


def test_decisions_on_pairs_that_another_window_does_not_make_are_dropped(server: Server, payload: dict):
    low = min(payload["pairs"], key=lambda p: p["angle"])
    history = server.run(graph(decided(payload, {low["id"]: "reject"}), pairs={"angle_low": low["angle"] + 5}))
    assert "1 decision dropped" in history["outputs"]["inspect"]["text"][0] and shown(history)["stale"] == 1


def test_rejecting_all_pairs_is_reported_and_later_nodes_say_why_they_fail(server: Server, payload: dict):
    history = server.wait(server.queue(graph(decided(payload, {p["id"]: "reject" for p in payload["pairs"]}))))
    assert "pairs are rejected, so no pairs are left to train on" in history["outputs"]["inspect"]["text"][0]
    assert history["status"]["status_str"] == "error"
    failed = dict(history["status"]["messages"])["execution_error"]
    assert failed["node_id"] == "look" and "Undo rejections in Inspect Pairs" in failed["exception_message"]


def test_incoming_handles_without_pairs_are_reported(server: Server):
    part = graph("", pairs={"margin": 10})
    del part["look"]
    history = server.run(part)
    assert (
        "0 pairs go to training: 0 confirmed" in history["outputs"]["inspect"]["text"][0]
        and "no pair fits the window" in history["outputs"]["inspect"]["text"][0]
    )
    assert shown(history)["pairs"] == [] and len(shown(history)["files"]) == 120


def test_saved_decisions_are_offered_but_not_applied(server: Server, payload: dict):
    """With a new server: the candidates are looked up again and found."""
    edits = decided(payload, {payload["pairs"][3]["id"]: "swap"}, {"7": "down"})
    server.run(graph(edits))
    server.stop()
    server.start()
    history = server.run(graph())
    assert "sample" in executed(history)
    seen = shown(history)
    assert seen["fingerprint"] == payload["fingerprint"] and seen["files"] == payload["files"]
    assert seen["kept"] == edits and "0 confirmed, 0 swapped; 0 rejected" in history["outputs"]["inspect"]["text"][0]


def test_two_inspectors_in_a_row(server: Server, payload: dict):
    first, second = payload["pairs"][:2]
    both = graph(decided(payload, {first["id"]: "swap"}))
    turned = f"{first['loser']}-{first['winner']}"
    edits = json.dumps(decided(payload, {turned: "reject", second["id"]: "reject"}))
    both["after"] = {"class_type": "DBDPO_InspectPairs", "inputs": {"pairs": ["inspect", 0], "edits": edits}}
    history = server.run(both)
    assert turned in {p["id"] for p in shown(history, "after")["pairs"]}
    assert (
        f"{len(payload['pairs']) - 2} pairs go to training: 0 confirmed, 0 swapped; 2 rejected"
        in history["outputs"]["after"]["text"][0]
    )


# --- agreement ---


def test_after_twenty_decisions_scorers_judge_and_rule_are_compared_with_them(
    server: Server, payload: dict, folder: Path
):
    """The person decides by the judge's fidelity, which the run then holds: the judge agrees in all of them."""
    part = graph()
    part["judge"] = toy_loop_graph()["judge"]
    ids = [p["id"] for p in payload["pairs"][:24]]
    few = graph(decided(payload, dict.fromkeys(ids[:19], "keep")))
    assert "19 of 20 decisions; 1 more decision to be measured" in server.run(few)["outputs"]["inspect"]["text"][0]
    for ways in (dict.fromkeys(ids, "keep"), None):
        if ways is None:
            with RunFolder(folder) as run:
                name = next(n for n in score_names(folder) if n.startswith("judge_fidelity_"))
                values = run.score_array(payload["set"], name)
            both = [(i, *map(int, i.split("-"))) for i in ids]
            ways = {i: "keep" if values[w] > values[el] else "swap" for i, w, el in both}
        part["inspect"]["inputs"].update(edits=json.dumps(decided(payload, ways)), judge=["judge", 0])
        history = server.run(part)
    said = history["outputs"]["inspect"]["text"][0]
    kept = list(ways.values()).count("keep")
    assert f"Agreement with your 24 preferences ({kept} kept, {24 - kept} swapped; 0 rejected" in said
    assert "- Fidelity (judge): 24 of 24 (100 %, 86 to 100)" in said and "- Alignment (judge): " in said
    assert f"- The pair rule (angle_window): {kept} of 24" in said
    assert shown(history)["agreement"] == said.splitlines()[1:] and shown(history)["enough"] == 20


def score_names(folder: Path) -> set[str]:
    """Names of all scorers of a run."""
    with sqlite3.connect(folder / "records.sqlite") as records:
        return {row[0] for row in records.execute("SELECT DISTINCT scorer FROM scores")}


# --- into training ---


def trained(server: Server, part: dict) -> tuple[dict[str, torch.Tensor], str]:
    """The saved LoRA, and the summary of the train step."""
    history = server.run(part)
    name = history["outputs"]["save"]["text"][0].splitlines()[0].removeprefix("saved as ")
    return load_file(server.folder / "models" / "loras" / name), history["outputs"]["train"]["text"][0]


def same(left: dict, right: dict) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_rejecting_wrong_pairs_trains_like_the_right_pairs_only(server: Server, payload: dict, folder: Path):
    """Of 100 pairs, 20 are wrong: losers of the rule's pairs as winners, spread over the list.

    Rejecting them gives the LoRA of the 80 right pairs, bit for bit.
    """
    server.run(graph())
    with RunFolder(folder) as run:
        names = [name.removeprefix("yield_") for name in run.facts("yield_")]
        name = next(
            n
            for n in names
            if {(p.winner, p.loser) for p in run.pairs(n)} == {(p["winner"], p["loser"]) for p in payload["pairs"]}
        )
        rule = run.pairs(name)
        assert len(rule) >= CLEAN + WRONG
        clean, wrong = (
            rule[:CLEAN],
            [Pair(p.loser, p.winner, -p.d_fidelity, -p.d_alignment) for p in rule[CLEAN : CLEAN + WRONG]],
        )
        planted = list(clean)
        for i, pair in enumerate(wrong):
            planted.insert(5 * i, pair)
        run.set_pairs(name, planted)
        try:
            reject = decided(payload, {f"{p.winner}-{p.loser}": "reject" for p in wrong})
            mended, said = trained(server, graph(reject, "train", "save"))
            spoilt, _ = trained(server, graph(decided(payload, {}, {"0": "up"}), "train", "save"))
            run.set_pairs(name, clean)
            straight = graph(
                decided(payload, {}, {"1": "up"}), "train", "save"
            )  # the changed text makes the inspector read the list again
            pure, _ = trained(server, straight)
        finally:
            run.set_pairs(name, rule)
    assert f"on {CLEAN} pairs" in said
    assert same(mended, pure) and not same(mended, spoilt)


def test_thumbs_change_what_kto_learns(server: Server, payload: dict):
    objective = {"objective": "kto", "beta": 2000.0}
    thumbs = decided(payload, {}, {str(i): "up" if i % 2 else "down" for i in range(0, 40, 3)})
    plain, said = trained(server, graph("", "train", "save", train=objective))
    thumbed, told = trained(server, graph(thumbs, "train", "save", train=objective))
    assert "Thumbs" not in said and "Thumbs on single candidates were used: 14." in told
    assert not same(plain, thumbed)
    _, told = trained(server, graph(thumbs, "train", "save"))
    assert "Thumbs on single candidates were not used (14): the objective dpo trains on pairs only" in told


# --- the route ---


def fetch(server: Server, prefix: str = "", route: str = "preview", **parts: str) -> tuple[int, dict, bytes]:
    address = f"{server.url}{prefix}/dreambooth_dpo/{route}?{urllib.parse.urlencode(parts)}"
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_a_preview_is_served_as_webp_with_its_headers(server: Server, payload: dict, prefix: str):
    status, headers, data = fetch(server, prefix, run="inspect", set=payload["set"], name=payload["files"][0])
    assert status == 200 and headers["Content-Type"] == "image/webp" and headers["X-Content-Type-Options"] == "nosniff"
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "WEBP" and picture.size == (64, 64)


def test_a_candidate_is_served_in_full_as_png(server: Server, payload: dict, folder: Path):
    parts = {"run": "inspect", "set": payload["set"], "route": "picture"}
    status, headers, data = fetch(server, name=payload["files"][7], **parts)
    assert status == 200 and headers["Content-Type"] == "image/png" and headers["X-Content-Type-Options"] == "nosniff"
    assert data == (folder / payload["set"] / "images" / "00007.png").read_bytes()
    assert fetch(server, name=payload["references"][0], **parts)[0] == 404
    assert fetch(server, name="../images/00007.png", **parts)[0] == 400


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "../../records.sqlite"}, {"name": "..%2f..%2frecords.sqlite"}, {"name": "../images/00000.png"},
        {"name": ""},
        {"name": "/etc/passwd"}, {"name": "00000.webp"}, {"set": ".."}, {"set": "../inspect"}, {"set": ""},
        {"run": ".."},
        {"run": "../dreambooth_dpo/inspect"}, {"run": "/etc"}, {"run": ""}, {"run": "inspect/."}, {"run": "con"},
        {"name": "<script>alert(1)</script>"},
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(server: Server, payload: dict, wrong: dict):
    status, headers, data = fetch(
        server, **{"run": "inspect", "set": payload["set"], "name": payload["files"][0], **wrong}
    )
    assert status == 400 and data == b"no such preview" and headers["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize(
    "wrong", [{"run": "nobody"}, {"set": "candidates_000000000000"}, {"name": f"99999_{'0' * 12}.webp"}]
)
def test_what_is_not_there_is_not_found(server: Server, payload: dict, wrong: dict):
    assert fetch(server, **{"run": "inspect", "set": payload["set"], "name": payload["files"][0], **wrong})[0] == 404
    assert not (server.folder / "output" / "dreambooth_dpo" / "nobody").exists()


def test_the_route_only_reads(server: Server):
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(
            urllib.request.Request(f"{server.url}/dreambooth_dpo/preview", b"", method="POST"), timeout=30
        )
