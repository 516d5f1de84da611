"""Rows of other objectives, and those that choose their betas and learning rates."""

from __future__ import annotations

from collections.abc import Mapping

from ...dpo_core.settings import GROUPED
from ...toybox.defaults import TOY_SETTINGS
from ..common.concepts import EARLIER_VALUES

Changes = tuple[str, Mapping[str, Mapping]]
"""What a row is, and the settings that it changes, {group: {setting: value}}."""


def objective(name: str, beta: float, rate: float | None = None) -> Changes:
    """Without a rate at the earlier settings' one, twice that for objectives on groups: their betas were chosen there.
    A loser guard would be a second change.
    """
    groups = {"group_size": 4, "batch_size": 4} if name in GROUPED else {}  # as many pictures as the default's 8 pairs
    usual = EARLIER_VALUES["train"]["learning_rate"] * (2 if groups else 1)
    train = {**EARLIER_VALUES["train"], "objective": name, "beta": beta, **groups, "learning_rate": rate or usual}
    about = f"objective {name}, beta {beta:g}" + (f", learning rate {rate:g}" if rate else "")
    return about, {"train": train, "pairs": {"diversity": 0.0}}


def _guarded(changes: Mapping[str, Mapping], mu: float) -> dict[str, Mapping]:
    return {**changes, "train": {**changes["train"], "loser_guard": mu}}


TUNING: dict[str, Changes] = {
    f"{name}_b{beta:g}": objective(name, beta)
    for name, betas in (
        ("nft", (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)),
        ("awm", (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)),
        ("dgpo", (500.0, 1000.0, 2000.0, 4000.0, 8000.0)),
    )
    for beta in betas
}
TUNING |= {
    f"{name}_b{beta:g}_r{times:g}": objective(name, beta, times * TOY_SETTINGS.train.learning_rate)
    for name, betas in (
        ("nft", (0.01, 0.03, 0.1, 0.3)),
        ("awm", (0.01, 0.03, 0.1, 0.3)),
        ("dgpo", (1e3, 2e3, 4e3, 8e3)),
    )
    for beta in betas
    for times in (1.0, 2.0, 4.0)
}
TUNING |= {
    f"{name}_{title}": (f"{about}, loser guard {mu:g}", _guarded(changes, mu))
    for name, (about, changes) in TUNING.items()
    for title, mu in (("guard", 0.6), ("light_guard", 0.3))
}
TUNING |= {
    f"{name}_varied": (f"{about}, diversity 0.5", {**changes, "pairs": {"diversity": 0.5}})
    for name, (about, changes) in TUNING.items()
    if name.endswith("_guard")
}
"""Rows that choose a beta, with "_r" the rate in default ones, with "_guard" a loser guard and with "_varied" also
the default's diversity, on concepts 0..3: run by name alone.
"""
