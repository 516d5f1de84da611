"""One line of the report: what was checked, its status, and a remedy if it is not ok."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

OK, WARNING, FAILED = "ok", "warning", "failed"
STATES = (OK, WARNING, FAILED)


@dataclass(frozen=True)
class Finding:
    """`said`: the result in one line. `remedy`: empty only if the status is ok. `data`: numbers for the JSON file."""

    name: str
    status: str
    said: str
    remedy: str = ""
    data: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status not in STATES or bool(self.remedy) == (self.status == OK):
            raise ValueError(
                f"a finding is {OK}, or says its remedy: {self.name}: {self.status}, remedy {self.remedy!r}"
            )


def worst(findings: list[Finding]) -> str:
    """The worst status of all findings; ok if there are none."""
    return max((f.status for f in findings), key=STATES.index, default=OK)
