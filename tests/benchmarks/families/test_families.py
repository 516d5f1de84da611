"""The table of architectures from rows: what passes, what is refused, what fails, and the last line."""

from __future__ import annotations

from dreambooth_dpo.benchmarks.families.__main__ import lines, markdown, summary
from dreambooth_dpo.benchmarks.families.check import CLOSE, passes
from dreambooth_dpo.benchmarks.families.zoo import ZOO

LEVEL = {"self_test": 0.001, "apart": 0.0}
GOOD = {
    "name": "A", "draws": 0.0, "prompts": 1e-6, "lora": 1e-5, "hooks": {"layers": 3, "unused": []},
    "fast": LEVEL, "checkpointing": LEVEL, "low": LEVEL, "stream": LEVEL,
}  # fmt: skip
REFUSED = {"name": "B", "refused": "B cannot be trained."}
ABSENT = {"name": "C", "absent": "this ComfyUI has no C"}


def test_a_row_passes_when_every_column_is_close():
    assert passes(GOOD)
    assert passes({**GOOD, "fast": "writes in place"}), "the other levels train it"
    wrong = ({"draws": 2 * CLOSE}, {"lora": "no"}, {"low": "gradients differ"}, {"hooks": {"layers": 0, "unused": []}})
    assert not any(passes({**GOOD, **change}) for change in wrong)
    assert not passes(REFUSED) and not passes(ABSENT)


def test_the_last_line_counts_what_is_there():
    assert summary([GOOD, REFUSED, ABSENT]) == ("1 of 2 architectures pass, 1 refused by name, failing: none", False)
    bad = {**GOOD, "name": "D", "prompts": 0.2}
    assert summary([GOOD, bad]) == ("1 of 2 architectures pass, 0 refused by name, failing: D", True)


def test_the_table_says_why_not():
    table = lines([GOOD, REFUSED, ABSENT, {**GOOD, "name": "D", "lora": "KeyError: 'x'"}])
    assert [row[1] for row in table] == ["passes", "refused", "absent", "FAILS"]
    assert [row[-1] for row in table] == ["", REFUSED["refused"], ABSENT["absent"], "lora: KeyError: 'x'"]
    assert table[0][2:10] == ["0e+00", "1e-06", "0.1%", "0.1%", "0.1%", "0.1%", "3 of 3", "1e-05"]
    assert markdown([GOOD], "said").startswith("| architecture |")


def test_the_zoo_names_a_class_and_a_prompt_for_each():
    assert len(ZOO) == 42 and all({"class", "config", "prompt"} <= spec.keys() for spec in ZOO.values())
