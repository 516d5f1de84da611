"""The method benchmark: its arithmetic, and that its rows are fair."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dreambooth_dpo.benchmarks.common.concepts import ALL_ROUNDS, EARLIER
from dreambooth_dpo.benchmarks.methods import runs
from dreambooth_dpo.benchmarks.methods.cheaper import AGAIN, DISTILLED, MORE_ROUNDS
from dreambooth_dpo.benchmarks.methods.figure import mean_path, methods_figure
from dreambooth_dpo.benchmarks.methods.gains import (
    DETAILS,
    MAIN,
    by_seed,
    deviation_of_seeds,
    difference,
    ends,
    kept_study,
    seed_study,
    stop_study,
    summarise,
)
from dreambooth_dpo.benchmarks.methods.rows import (
    CHEAPER,
    DEFAULT,
    OTHER_CANDIDATES,
    POOLS,
    dreambooth_steps,
    image_forwards,
    rows,
)
from dreambooth_dpo.benchmarks.methods.rows import OLDER as ON_EARLIER
from dreambooth_dpo.benchmarks.methods.runs import of_seed, seeded_rows
from dreambooth_dpo.benchmarks.methods.tables import show_gains, show_kept, show_seeds, show_stops
from dreambooth_dpo.benchmarks.methods.tuning import TUNING
from dreambooth_dpo.dpo_core.pairs.rules import PAIR_RULES
from dreambooth_dpo.dpo_core.run.files import write_json
from dreambooth_dpo.dpo_core.settings import GROUPED
from dreambooth_dpo.dpo_core.training.objectives import OBJECTIVES
from dreambooth_dpo.toybox.defaults import TOY_PERSONALIZE, TOY_SETTINGS

TABLE, EARLIER_TABLE = rows(TOY_SETTINGS), rows(EARLIER)


def _measures(truth: list[float], **more: object) -> dict:
    """Every score goes from 0 by 0.1 a round; the truth as given."""
    points = range(len(truth))
    scores = {s: {part: [0.1 * k for k in points] for part in ("all", "seen", "unseen")} for s in (*MAIN, *DETAILS)}
    scores["oracle_all_right"] = dict.fromkeys(("all", "seen", "unseen"), truth)
    return {
        "rounds": list(points),
        "scores": scores,
        "winner_alarms": [0.001 * k for k in points][1:],
        "seconds": 10.0,
        **more,
    }


def test_every_row_spends_the_same():
    less = (*CHEAPER, *AGAIN, *MORE_ROUNDS, *DISTILLED)
    for table in (TABLE, EARLIER_TABLE):
        spent = {name: image_forwards(row.settings, 24) for name, row in table.items()}
        assert {spent[name] for name in spent if name not in less} == {3 * 6720}
        assert all(spent[name] <= spent[DEFAULT] for name in less)


def test_spending_of_cheaper_candidates_by_hand():
    """4 of 10 candidates: 1,152 in place of 2,880. 4 of 12 steps: 960. 8 rounds of 24 * 5 * 4 and 30 * 16 * 4,

    or 14 of 24 * 5 * 4 and 15 * 16 * 4.
    """
    spent = {name: image_forwards(EARLIER_TABLE[name].settings, 24) for name in CHEAPER}
    assert spent["candidates_4"] == 3 * (1152 + 3840) and spent["few_steps_4"] == 3 * (960 + 3840)
    assert spent["cheap_rounds"] == spent["cheap_rounds_fast"] == 8 * (480 + 1920)
    assert spent["cheap_shorter"] == 14 * (480 + 960) == 3 * 6720


def test_spending_by_hand():
    """Of 24 prompts a round draws 720 pictures in 4 steps (2,880) and trains 60 steps of 16 pictures at 4 forwards
    (3,840).
    """
    assert TOY_SETTINGS.rounds == 3 and TOY_SETTINGS.sampling.guidance == 1
    assert image_forwards(TOY_SETTINGS, 24) == 3 * (2880 + 3840)
    # A DreamBooth step is 8 pictures at 3 forwards: 20,160 / 24.
    assert dreambooth_steps(TOY_SETTINGS, TOY_PERSONALIZE, 24) == 840
    guided = TOY_SETTINGS.model_copy(update={"sampling": TOY_SETTINGS.sampling.model_copy(update={"guidance": 2.0})})
    assert image_forwards(guided, 24) == 3 * (5760 + 3840)


def test_every_rule_and_objective_has_its_row():
    assert {r.settings.pairs.rule for r in TABLE.values()} == set(PAIR_RULES)
    assert {r.settings.train.objective for r in TABLE.values()} == set(OBJECTIVES)
    assert any(r.settings.train.loser_guard for r in TABLE.values()) and all(r.about for r in TABLE.values())


def test_rows_differ_from_the_default_in_one_thing():
    """A rule or objective may change a second group, with what goes with it."""
    whole = (
        "earlier",
        "one_long_round",
        "short_rounds",
        "paper",
        *MORE_ROUNDS,
        "distilled_2_rounds_4",
        *(n for n in TABLE if n.startswith("cheap_")),
    )
    for table, names in ((TABLE, set(TABLE) - set(ON_EARLIER)), (EARLIER_TABLE, set(ON_EARLIER))):
        default = table[DEFAULT].settings.model_dump()
        for name in names - {DEFAULT, *whole}:
            row = table[name]
            changed = [group for group, value in row.settings.model_dump().items() if value != default[group]]
            assert len(changed) + (row.reward != "plain") in (1, 2), name
            assert "evaluation" not in changed
            assert ("sampling" in changed) == (name in (*POOLS, *CHEAPER, *AGAIN, *DISTILLED, *OTHER_CANDIDATES)), name
    assert all(rows(ALL_ROUNDS)[name] == EARLIER_TABLE[name] for name in ON_EARLIER)


def test_a_measure_that_a_concept_lacks_is_left_out(tmp_path):
    """Concept 1 has no variety among right pictures; of concept 0 it falls by 0.1. Nobody has it in unseen contexts."""
    both = {0: [0.0, -0.1], 1: [0.0, None]}
    results = {}
    for concept, changes in both.items():
        found = _measures([0.4, 0.5])
        found["scores"]["right_vendi"] = {"all": changes, "seen": changes, "unseen": [None, None]}
        results[concept] = {DEFAULT: found}
    summary = summarise(results, DEFAULT)
    assert summary["all"]["right_vendi"] == {"mean": -0.1, "ci95": [None, None], "up": 0, "concepts": 1}
    assert "right_vendi" not in summary["unseen"] and summary["after"]["right_vendi"] == -0.1
    write_json(tmp_path / "methods.json", summary)
    show_gains({DEFAULT: summary})


def test_the_papers_row_has_two_rounds_each_on_half_of_the_prompts():
    """24 prompts: two rounds of 12 x 30 candidates x 12 steps and 90 steps, as much as three of 24 x 10 x 12 and 60."""
    row, default = TABLE["paper"].settings, TABLE[DEFAULT].settings
    assert (row.rounds, row.prompt_parts, row.pairs.rule) == (2, 2, "angle_window")
    assert (row.pairs.angle_low, row.pairs.angle_high) == (20, 70)
    assert row.sampling.candidates_per_prompt == 30 and row.train.steps == 90
    assert row.evaluation == default.evaluation and row.train.objective == "dpo"


def test_rows_of_betas_are_run_by_name_only():
    assert set(TUNING) < set(TABLE) and {TABLE[n].settings.train.objective for n in TUNING} == GROUPED
    assert len({TABLE[n].settings.train.beta for n in ("nft", *TUNING) if n.startswith("nft")}) == 7


def test_other_training_seeds_change_all_but_start_and_evaluation():
    """Seed 0 has the usual settings and names."""
    usual, other = seeded_rows(0)["nft"].settings, seeded_rows(2)["nft"].settings
    assert usual == rows(ALL_ROUNDS)["nft"].settings
    assert other == usual.model_copy(update={"sampling": usual.sampling.model_copy(update={"seed": 2})})
    assert (of_seed("nft", usual), of_seed("nft", other)) == ("nft", "nft_seed2")


def test_runs_of_other_seeds_are_cached_apart(tmp_path, monkeypatch):
    """Every seed has its own candidates and cached measures, on one start; the row dreambooth is run once."""
    begun = []

    class Begun(Exception):
        pass

    def stop(seed, path, folder, settings, scorers=None):
        begun.append((path.name, folder.name, settings.sampling.seed))
        raise Begun

    monkeypatch.setattr(runs, "row_loop", stop)
    monkeypatch.setattr(runs, "run_dreambooth", lambda *given: {"seconds": 1.0})
    for seed in (0, 1):
        with pytest.raises(Begun):
            runs.run_concept(5, tmp_path, ["raft"], 0, [seed])
    assert begun == [("shared", "concept_5", 0), ("shared_seed1", "concept_5", 1)]
    done = {**_measures([0.1, 0.2, 0.3, 0.4]), "stopped": None}
    for name in ("raft", "raft_seed1"):
        (tmp_path / "concept_5" / f"{name}.json").parent.mkdir(exist_ok=True)
        (tmp_path / "concept_5" / f"{name}.json").write_text(json.dumps({**done, "seconds": len(name)}))
    found = runs.run_concept(5, tmp_path, ["raft", "dreambooth"], 0, [0, 1])
    assert [found[seed]["raft"]["seconds"] for seed in (0, 1)] == [4, 10]
    assert "dreambooth" in found[0] and "dreambooth" not in found[1]


def test_gains_over_concepts_and_seeds_by_hand(capsys):
    """Truth rises by .3 and .5 (seed 0) and .1 (seed 1, concept 5 alone): means .2 and .5, so .35; raft by .1."""
    seeded = {
        0: {
            5: {DEFAULT: _measures([0.2, 0.3, 0.4, 0.5]), "raft": _measures([0.2, 0.2, 0.3, 0.3])},
            6: {DEFAULT: _measures([0.1, 0.3, 0.4, 0.6]), "raft": _measures([0.1, 0.2, 0.3, 0.2])},
        },
        1: {5: {DEFAULT: _measures([0.2, 0.3, 0.4, 0.3]), "raft": _measures([0.2, 0.2, 0.3, 0.3])}},
    }
    assert by_seed(seeded, DEFAULT) == pytest.approx(np.array([[0.3, 0.1], [0.5, np.nan]]), nan_ok=True)
    study = seed_study(seeded, [DEFAULT, "raft"])
    assert study["gains"][DEFAULT]["mean"] == pytest.approx(0.35)
    assert study["differences"][f"{DEFAULT} - raft"]["mean"] == pytest.approx(0.25)
    show_seeds(study, [0, 1])
    assert "+35.0" in capsys.readouterr().out


def test_the_deviation_between_seeds_by_hand():
    """Gains 1, 3 have variance 2, and 5, 5 have 0: the root of their mean is 1. One seed alone says nothing."""
    assert deviation_of_seeds(np.array([[1.0, 3.0], [5.0, 5.0], [7.0, np.nan]])) == pytest.approx(1.0)


def test_other_pools_cost_the_same():
    """A wider pool has as many candidates of a prompt, steps and guidance; photos have a prompt of their own."""
    pool = {"lora_spread", "base_candidates", "photo_candidates"}
    drawn = TABLE[DEFAULT].settings.sampling.model_dump(exclude=pool)
    assert all(TABLE[n].settings.sampling.model_dump(exclude=pool) == drawn for n in POOLS)


def test_windows_differ_in_their_angles_alone():
    angles = {"pairs": {"angle_low", "angle_high"}}
    for name in ("window_to_fidelity", "window_to_alignment", "wide_window"):
        one, usual = (TABLE[n].settings.model_dump(exclude=angles) for n in (name, "angle_window"))
        assert one == usual
    usual = TABLE["angle_window"].settings.pairs
    assert (usual.angle_low, usual.angle_high) == (20, 70)


def test_a_row_ends_after_its_own_rounds():
    """The default was left to run for five rounds and ends after three; the long round after one."""
    results = {5: {DEFAULT: _measures([0.2, 0.3, 0.4, 0.5, 0.6, 0.1]), "one_long_round": _measures([0.2, 0.3])}}
    assert ends(results, DEFAULT)[5][1:] == (0, 3) and ends(results, "one_long_round")[5][1:] == (0, 1)


def test_dreambooth_begins_at_the_start_and_ends_at_equal_compute_or_at_its_best():
    """Steps 0, 60, 120 (the start), 240, 480, 960 with truth .1 .3 .4 .5 .2 .1: equal ends at 960, best at 240."""
    kept = {"dreambooth": _measures([0.1, 0.3, 0.4, 0.5, 0.2, 0.1], steps=[0, 60, 120, 240, 480, 960], start=120)}
    assert ends({5: kept}, "dreambooth_equal")[5][1:] == (2, 5)
    assert ends({5: kept}, "dreambooth_best")[5][1:] == (2, 3)


def test_means_and_differences_by_hand(capsys):
    """Truth rises by .3 and .5 under the default, by .1 and .1 under RAFT: means .4 and .1, difference .3."""
    results = {
        5: {DEFAULT: _measures([0.2, 0.3, 0.4, 0.5]), "raft": _measures([0.2, 0.2, 0.3, 0.3])},
        6: {DEFAULT: _measures([0.1, 0.3, 0.4, 0.6]), "raft": _measures([0.1, 0.2, 0.3, 0.2])},
    }
    summary = summarise(results, DEFAULT)
    truth = summary["all"]["oracle_all_right"]
    assert (
        truth["mean"] == pytest.approx(0.4)
        and truth["up"] == 2
        and 0.3 <= truth["ci95"][0] <= truth["ci95"][1] <= 0.5 + 1e-9
    )
    assert summary["all"]["fidelity"]["mean"] == pytest.approx(0.3) and summary["winner_drift"] == pytest.approx(0.003)
    assert difference(results, DEFAULT, "raft")["mean"] == pytest.approx(0.3)
    assert mean_path(ends(results, "raft"), "oracle_all_right") == pytest.approx([0.15, 0.2, 0.3, 0.25])
    assert methods_figure({n: ends(results, n) for n in (DEFAULT, "raft")}).axes
    show_gains({DEFAULT: summary})
    printed = capsys.readouterr().out
    assert "+40.0 (+30.0 to +50.0)" in printed and "2/2" in printed


def test_the_stop_study_by_hand(capsys):
    """The rule ended after round 3 and kept round 2 (.50); the best of all was round 4 (.51): within two points."""
    stop = {"kept": 2, "ended": 3, "best": 2, "stop": True, "reason": "", "words": ""}
    stops = stop_study({5: {DEFAULT: _measures([0.3, 0.4, 0.5, 0.45, 0.51], stop=stop)}})
    found = stops[0]
    assert found["within_2_points"] and not found["worse_than_start"]
    assert (found["truth"], found["best"], found["best_round"], found["best_tried"]) == (0.5, 0.51, 4, 0.5)
    show_stops(stops)
    assert "within 2 points of the best round: 1 of 1" in capsys.readouterr().out


def test_the_stop_study_leaves_out_what_ran_no_longer_than_its_row():
    """Of three concepts one had five rounds, one the row's own three, one ended after two."""
    stop = {"kept": 2, "ended": 2, "best": 2, "stop": False, "reason": "", "words": ""}
    truths = {5: [0.3, 0.4, 0.5, 0.45, 0.4, 0.4], 6: [0.3, 0.4, 0.5, 0.45], 7: [0.3, 0.4, 0.5]}
    found = stop_study({seed: {DEFAULT: _measures(truth, stop=stop)} for seed, truth in truths.items()})
    assert [s["concept"] for s in found] == [5]


def test_the_kept_rounds_of_a_row_by_hand(capsys):
    """Kept round 2: +.2, the best; kept the original: 0, the best was +.1; kept round 1: -.1. Mean +.033."""
    runs = [([0.3, 0.4, 0.5, 0.2], 2), ([0.3, 0.4, 0.2, 0.2], 0), ([0.3, 0.2, 0.3, 0.3], 1)]
    results = {i: {"raft": _measures(truth, stop={"kept": k})} for i, (truth, k) in enumerate(runs)}
    found = kept_study({**results, 3: {"raft": _measures([0.3, 0.9])}}, ["raft", "nft"])
    assert list(found) == ["raft"] and found["raft"]["mean"] == pytest.approx(0.1 / 3)
    counts = {name: found["raft"][name] for name in ("concepts", "within_2_points", "worse_than_start")}
    assert counts == {"concepts": 3, "within_2_points": 1, "worse_than_start": 1}
    show_kept(found)
    assert "+3.3" in capsys.readouterr().out
