"""Tests the import rule: imports point down, there are no cycles, and no module is deeper than three levels.

Also tests that tools/rooms.py detects violations.
"""

from __future__ import annotations

from pathlib import Path

import rooms


def test_imports_point_down_without_cycles() -> None:
    found = rooms.imports()
    assert len(found) > 150 and sum(map(len, found.values())) > 500
    assert rooms.upward(rooms.arrows(found)) == []
    assert rooms.circles(found) == []


def test_every_module_is_in_a_room_and_at_most_three_levels_deep() -> None:
    found = rooms.imports()
    assert {rooms.room_of(m) for m in found} - set(rooms.ORDER) == {"__init__", "__main__"}
    assert max(m.count(".") for m in found) == 3


def test_cycles_and_upward_imports_are_detected(tmp_path: Path) -> None:
    for name, text in {
        "run/folder.py": "from ..training import steps",
        "training/steps.py": "from ..run.folder import RunFolder\nfrom ..errors import UserError",
        "errors.py": "",
    }.items():
        file = tmp_path / "dpo_core" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    found = rooms.imports(tmp_path)
    assert rooms.circles(found) == [["dpo_core.run.folder", "dpo_core.training.steps"]]
    assert rooms.upward(rooms.arrows(found)) == [("dpo_core/run", "dpo_core/training")]
