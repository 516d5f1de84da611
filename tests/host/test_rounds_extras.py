"""DPO Rounds with a person's own pairs and a quality guard, on a real ComfyUI."""

from __future__ import annotations

import pytest
from hosting import Server, comfyui_path, executed, run_path
from judge_models import write_towers
from subject_files import write_own_pairs
from toy_graphs import PAIRS, SAMPLING, TRAINING, node, tiny_rounds

from dreambooth_dpo.dpo_core.pairs.own import own_of
from dreambooth_dpo.dpo_core.run.folder import RunFolder

pytestmark = pytest.mark.usefixtures("comfyui")
RUN = "extras"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    folder = tmp_path_factory.mktemp("extras")
    write_own_pairs(folder / "input" / "mine", "a", (64, 64))
    write_towers(folder / "models" / "dreambooth_dpo_scorers" / "pick", "clip")
    with Server(folder) as running:
        yield running


def graph(**given: object) -> dict:
    return {**tiny_rounds(RUN, 2, 2, **given), "pick": node("LoadScorer", scorer="pick", architecture="")}


def test_every_round_trains_on_own_pairs_and_measures_the_quality(server: Server):
    own = {"own_pairs": "mine", "own_prompt": "a sks robot in a box", "own_weight": 2.0}
    history = server.run(graph(quality=["pick", 0], **own))
    said = history["outputs"]["said"]["text"][0]
    assert {"own_0", "own_1"} <= {name.rsplit(".", 1)[-1] for name in history["outputs"]}
    with RunFolder(run_path(server, RUN)) as run:
        owns = [own_of(run, name.removeprefix("own_")) for name in run.facts("own_")]
        assert len(owns) == 2 and {(o.weight, o.set_name) for o in owns} == {(2.0, owns[0].set_name)}
        assert [c.prompt for c in run.candidates(owns[0].set_name)] == ["a sks robot in a box"] * 2
    assert said.count("Quality (by people's preferences)") == 2, said
    assert "rounds" not in executed(server.run(graph(quality=["pick", 0], **own)))
    (server.folder / "input" / "mine" / "winner" / "a.txt").write_text("a sks robot at sea", encoding="utf-8")
    assert "rounds" in executed(server.run(graph(quality=["pick", 0], **own))), "another file"
    with RunFolder(run_path(server, RUN)) as run:
        sets = {own_of(run, name.removeprefix("own_")).set_name for name in run.facts("own_")}
        assert {run.candidates(name)[0].prompt for name in sets} == {"a sks robot in a box", "a sks robot at sea"}


def test_without_them_the_rounds_have_no_such_nodes(nodes):
    links = {name: [name, 0] for name in ("model", "clip", "vae", "concept", "prompts", "scorer")}
    rounds, given = nodes["DBDPO_Rounds"], {**links, **SAMPLING, **PAIRS, **TRAINING, "rounds": 1, "run_name": "x"}
    plain, more = rounds.execute(**given).expand, rounds.execute(**given, own_pairs="", own_weight=3.0).expand
    kinds = sorted(part["class_type"] for part in plain.values())
    assert kinds == sorted(part["class_type"] for part in more.values()) and "DBDPO_OwnPairs" not in kinds
    assert not any("quality" in part["inputs"] for part in plain.values())


@pytest.mark.parametrize("source", ["..", "../output", "/etc"])
def test_a_source_outside_the_input_folder_is_refused_at_the_door(server: Server, source: str):
    with pytest.raises(ValueError, match="is not inside ComfyUI's input folder"):
        server.queue(graph(own_pairs=source))
