"""Candidates of rounds before in ComfyUI: by a link between two Sample Candidates, and in DPO Rounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hosting import Server, comfyui_path, run_path
from native_models import PROMPTS
from toy_graphs import SAMPLING, rounds_by_hand, tiny_rounds

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.toybox.native import native_toybox

pytestmark = pytest.mark.usefixtures("comfyui")


@pytest.fixture(scope="module")
def toybox(comfyui):
    with torch.inference_mode():
        return native_toybox()


@pytest.fixture
def handle(tmp_path: Path):
    """Makes the handle of a round before it is drawn, as Sample Candidates does."""
    from dreambooth_dpo.dpo_core.concept import Concept
    from dreambooth_dpo.dpo_core.prompts import PromptSet
    from dreambooth_dpo.nodes.sockets import Candidates
    from dreambooth_dpo.nodes.stages.sample import sampling_of

    concept = Concept("sks", "robot", np.full((2, 64, 64, 3), 90, np.uint8))

    def made(number: int = 0, earlier=None, prompts: tuple[str, ...] = tuple(PROMPTS[:2]), **widgets):
        settings, sampler = sampling_of({**SAMPLING, "earlier_rounds": 1, **widgets}, earlier)
        split = PromptSet(prompts, (PROMPTS[3],))
        return Candidates(tmp_path, "", concept, split, settings, sampler, number, earlier)

    return made


def draw(toybox, given):
    from dreambooth_dpo.nodes.host.runs import NodeProgress
    from dreambooth_dpo.nodes.stages.sample import draw_candidates

    return draw_candidates(*toybox, given, NodeProgress(None))[0]


@pytest.mark.usefixtures("as_nodes_run")
def test_linked_candidates_join_and_name_the_set(toybox, handle, tmp_path):
    """Without a link the widget does nothing, so older graphs find their sets; 2 goes on along the links."""
    each = SAMPLING["candidates_per_prompt"]
    first = draw(toybox, handle())
    assert first.settings.earlier_rounds == 0 and "earlier_rounds" not in first.settings.described()
    second = draw(toybox, handle(1, first))
    third, both = draw(toybox, handle(2, second)), draw(toybox, handle(2, second, earlier_rounds=2))
    assert len({found.set_name for found in (first, second, third, both, draw(toybox, handle(1)))}) == 5
    with RunFolder(tmp_path) as run:
        joined = {
            c.set_name: [s.earlier for s in run.candidates(c.set_name) if s.earlier] for c in (second, third, both)
        }
        assert joined[second.set_name] == [(first.set_name, p) for p in range(2 * each)]
        places = [c.position for c in run.candidates(second.set_name) if c.sampled]
        assert joined[third.set_name] == [(second.set_name, p) for p in places]
        assert sorted(set(joined[both.set_name])) == sorted(joined[second.set_name] + joined[third.set_name])
        for c in run.candidates(both.set_name):
            if c.earlier:
                stored = run.latents(c.earlier[0], [c.earlier[1]])[0]
                assert torch.equal(run.latents(both.set_name, [c.position])[0], stored)


@pytest.mark.usefixtures("as_nodes_run")
def test_what_cannot_join_is_refused_before_it_is_drawn(toybox, handle, tmp_path):
    first = draw(toybox, handle())
    before = {path.name for path in tmp_path.iterdir()}
    elsewhere = replace(first, folder=tmp_path / "other")
    with pytest.raises(UserError, match="the earlier candidates are of run 'other' and these of .*same run_name"):
        draw(toybox, handle(1, elsewhere))
    with pytest.raises(UserError, match=r"are 64x64 \(latents \[.*\]\) and these 128x64"):
        draw(toybox, handle(1, first, width=128))
    with pytest.raises(UserError, match="of other prompts, so none of them can join"):
        draw(toybox, handle(1, first, prompts=(PROMPTS[2],)))
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    with Server(tmp_path_factory.mktemp("earlier")) as running:
        yield running


def sets_of(server: Server, run_name: str) -> dict[str, int]:
    """Number of candidates taken over in each set of a run."""
    folder = run_path(server, run_name)
    with RunFolder(folder) as run:
        names = [path.name for path in folder.iterdir() if path.name.startswith("candidates_")]
        return {name: sum(c.earlier is not None for c in run.candidates(name)) for name in names}


def test_dpo_rounds_links_its_rounds_as_a_user_would(server: Server):
    """Three rounds: none, one and one more are taken over; without the setting, the first round's set is the same."""
    server.run(tiny_rounds("plain", 1, 2))
    (plain,) = sets_of(server, "plain")
    server.run(tiny_rounds("again", 3, 2, earlier_rounds=1))
    found = sets_of(server, "again")
    assert found.pop(plain) == 0, "the first round has another name"
    with RunFolder(run_path(server, "again")) as run:
        fresh = {name: sum(c.sampled for c in run.candidates(name)) for name in found}
    assert len(found) == 2 and found == fresh


def test_two_rounds_by_hand(server: Server):
    """A graph that lacks the widget takes one round, as the widget's default: a link does something.

    Inspect Pairs says which candidates are of the round before.
    """
    graph = rounds_by_hand("by_hand", 2, train_steps=2, learning_rate=1e-5)
    graph["sample_2"]["inputs"]["earlier"] = ["sample_1", 0]
    graph["inspect"] = {"class_type": "DBDPO_InspectPairs", "inputs": {"pairs": ["pairs_2", 0], "edits": ""}}
    shown = server.run(graph)["outputs"]["inspect"]["dbdpo_inspect"][0]
    found = sets_of(server, "by_hand")
    first = next(name for name, taken in found.items() if not taken)
    with RunFolder(run_path(server, "by_hand")) as run:
        assert sorted(found.values()) == [0, len(run.candidates(first))]
        joined = run.candidates(next(name for name, taken in found.items() if taken))
        assert shown["earlier"] == [c.earlier is not None for c in joined] and any(shown["earlier"])


def test_drafts_beside_it_are_refused_at_the_door(server: Server):
    with pytest.raises(ValueError, match="draft_steps is 2 and earlier_rounds 1: these are two ways to draw for less"):
        server.queue(tiny_rounds("refused", 2, 2, earlier_rounds=1, draft_steps=2))
