"""Tests what the trackers of a loop get: training records, held-out figures, grids; interrupted and resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from loops import Poisoned, adapters, changed, difference, make_loop, outcome

from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.run.trackers import Trackers
from dreambooth_dpo.dpo_core.statistics import by_prompt

events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

SETTINGS = changed(train={"sample_every": 4})
STEPS = list(range(1, 13))
"""Of two rounds of six steps."""


def tracked(folder: Path, *model: object, settings=SETTINGS, names: tuple[str, ...] = ("tensorboard",), **more: object):
    loop = make_loop(folder, *model, settings=settings, **more)
    return replace(loop, trackers=Trackers(loop.run, names, settings.model_dump(mode="json")))


def logged(folder: Path):
    return events.EventAccumulator(str(folder / "logs" / "dreambooth_dpo"), {"scalars": 0, "images": 0}).Reload()


def series(found, name: str) -> tuple[list[int], list[float]]:
    # Files of one second are read in the order of their names, of which "10" comes before "9".
    entries = sorted(found.Scalars(name), key=lambda e: e.step)
    return [e.step for e in entries], [e.value for e in entries]


def test_a_run_logs_all_records_and_figures_and_changes_no_number(tmp_path: Path) -> None:
    loop, plain = tracked(tmp_path / "run"), make_loop(tmp_path / "plain")
    loop.go()
    plain.go()
    assert outcome(loop.run) == outcome(plain.run) and difference(adapters(loop.run)[2], adapters(plain.run)[2]) == 0
    found, records = logged(loop.run.path), [r for k in (0, 1) for r in loop.run.training(k)]
    for name in ("loss", "margin", "accuracy", "grad_norm", "learning_rate", "winner_error", "winner_alarm"):
        steps, values = series(found, f"train/{name}")
        assert steps == STEPS and values == pytest.approx([r[name] for r in records], rel=1e-6)
    assert series(found, "train/beta") == (STEPS, [2000.0] * 12)
    assert series(found, "train/round")[1] == [1.0] * 6 + [2.0] * 6
    for name in ("fidelity", "alignment", "judge_fidelity"):
        prompt_of = np.asarray([c.prompt_index for c in loop.run.candidates("evaluation_0")])
        means = [by_prompt(loop.run.score_array(f"evaluation_{k}", name), prompt_of).mean() for k in (0, 1, 2)]
        assert series(found, f"held_out/{name}") == ([0, 6, 12], pytest.approx(means, rel=1e-5))
        steps, gains = series(found, f"held_out_gain/{name}")
        assert steps == [6, 12] and gains == pytest.approx([m - means[0] for m in means[1:]], abs=1e-6)
        lows, highs = (series(found, f"held_out_gain/{name}_{end}")[1] for end in ("low", "high"))
        assert all(low <= gain <= high for low, gain, high in zip(lows, gains, highs, strict=True))
    assert sorted(e.step for e in found.Images(found.Tags()["images"][0])) == [4, 10]


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [3, 6, 9])
def test_steps_go_on_after_a_resume_and_none_is_logged_twice(tmp_path: Path, after: int) -> None:
    seen = []

    def tell(stage: str, *_: object, **__: object) -> None:
        seen.append(stage)
        if sum(s.startswith("train") for s in seen) == after:
            raise Killed

    with pytest.raises(Killed):
        tracked(tmp_path / "run", progress=tell).go()
    tracked(tmp_path / "run").go()
    tracked(tmp_path / "run").go()  # a finished run logs nothing more
    found = logged(tmp_path / "run")
    assert series(found, "train/loss")[0] == STEPS
    assert series(found, "held_out/fidelity")[0] == [0, 6, 12]
    assert sorted(e.step for e in found.Images(found.Tags()["images"][0])) == [4, 10]
    assert len(list((tmp_path / "run" / "logs" / "dreambooth_dpo").glob("*/hparams.yml"))) == 1


def test_a_tracker_that_is_asked_for_later_gets_the_rounds_before(tmp_path: Path) -> None:
    make_loop(tmp_path / "run", settings=changed(rounds=1)).go()
    loop = tracked(tmp_path / "run")
    loop.go()
    steps, values = series(logged(loop.run.path), "train/loss")
    assert steps == STEPS
    assert values == pytest.approx([r["loss"] for k in (0, 1) for r in loop.run.training(k)], rel=1e-6)


def test_the_last_steps_before_a_guard_stopped_are_logged(tmp_path: Path) -> None:
    loop = tracked(tmp_path / "run", Poisoned(3), settings=changed(train={"log_every": 6, "checkpoint_every": 6}))
    loop.go()
    steps = [r["step"] + 1 for r in loop.run.training(0)]
    assert steps == [1, 2, 3] == series(logged(loop.run.path), "train/loss")[0]
    assert "NaN" not in str(RunFolder(loop.run.path).fact("logged"))
