"""The inspector benchmark: its graph and its figures. The panel itself is tested in tests/browser."""

from __future__ import annotations

from dreambooth_dpo.benchmarks.inspector import KIND, NEVER, example_up_to_inspector, in_milliseconds


def test_only_what_the_inspector_needs_is_run():
    run = {n["type"] for n in example_up_to_inspector()["nodes"] if n["mode"] != NEVER}
    needed = {"LoadToybox", "Concept", "PromptSet", "LoadScorer", "SampleCandidates", "Score", "BuildPairs"}
    assert run == {KIND, *(f"DBDPO_{name}" for name in needed)}


def test_medians_and_worst_times_by_hand():
    found = in_milliseconds([[1.0, 4.0], [3.0, 9.0], [2.0, 5.0]])
    assert found["times"] == 3 and found["painted"] == {"median_ms": 2.0, "worst_ms": 3.0}
    assert found["with_pictures"] == {"median_ms": 5.0, "worst_ms": 9.0}
