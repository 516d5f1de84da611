"""The tables of the method benchmark."""

from __future__ import annotations

import numpy as np

from ..common.concepts import TRUTH
from ..common.estimates import estimate_text
from ..common.tables import print_table
from .gains import DETAILS, MAIN

SHORT = {
    "judge_fidelity": "judge fid.",
    "judge_alignment": "judge al.",
    "oracle_all_right": "all right",
    "oracle_background": "background",
    "oracle_body": "body",
    "oracle_belly": "belly",
    "oracle_hat": "hat",
    "oracle_spread": "spread",
    "copy_paste": "copy-paste",
    "diversity": "Vendi",
    "right_spread": "spread, right",
    "right_vendi": "Vendi of two, right",
    "judge_background": "place",
}
"""Column heads."""


def _cell(scores: dict, name: str) -> str:
    """A gain with its interval; shares of pictures in points."""
    if name not in scores:
        return "-"
    points = name.startswith("oracle") and name != "oracle_spread"
    return estimate_text(scores[name], *(("+.1f", 100) if points else ("+.3f",)))


def show_gains(summary: dict[str, dict]) -> None:
    main, details = [], []
    for name, found in summary.items():
        truth, drift = found["all"][TRUTH], found["winner_drift"]
        rest = (f"{truth['up']}/{truth['concepts']}", _cell(found["unseen"], TRUTH))
        rest += ("-" if drift is None else f"{drift:.3f}", f"{found['seconds']:.0f}")
        main.append([name, *(_cell(found["all"], s) for s in MAIN), *rest])
        details.append([name, *(_cell(found["all"], s) for s in DETAILS)])
    title = "gains, mean over concepts (95 % interval); all right in points"
    columns = ["method", *(SHORT.get(s, s) for s in MAIN), "up", "unseen contexts", "drift", "s"]
    print_table(title, columns, main, 230)
    print_table("details", ["method", *(SHORT[s] for s in DETAILS)], details, 230)


def show_world(world: dict[str, dict]) -> None:
    """The study of `gains.world_study`."""
    rows = [
        [name, *(estimate_text(found[at], "+.3f") for at in ("start", "end")), f"{found['below']}/{found['concepts']}"]
        for name, found in world.items()
    ]
    title = "Vendi of two right pictures, less that of the world's own pictures of the same prompts (95 % interval)"
    print_table(title, ("method", "start", "end", "below the world"), rows, 140)


def show_kept(kept: dict[str, dict]) -> None:
    """The study of `gains.kept_study`."""
    rows = []
    for name, found in kept.items():
        of = found["concepts"]
        counts = (f"{found[key]}/{of}" for key in ("within_2_points", "worse_than_start"))
        rows.append([name, estimate_text(found, "+.1f", 100), *counts])
    columns = ("method", "all right of the kept round", "within 2 points of the best", "worse than the start")
    print_table("the round that the stop rule keeps, points (95 % interval)", columns, rows, 140)


def show_stops(stops: list[dict]) -> None:
    rows = []
    for s in stops:
        cells = (s["concept"], f"{s['start']:.3f}", s["kept"], f"{s['truth']:.3f}", s["best_round"], f"{s['best']:.3f}")
        rows.append([*map(str, (*cells, s["ended"])), f"{s['last']:.3f}"])
    columns = ("concept", "start", "kept round", "its truth", "best round", "its truth", "ended after", "last")
    print_table("stop rule", columns, rows)
    within, worse = sum(s["within_2_points"] for s in stops), sum(s["worse_than_start"] for s in stops)
    print(f"within 2 points of the best round: {within} of {len(stops)}; worse than the start: {worse}")
    names = (("start", "start"), ("kept", "truth"), ("best", "best"), ("last", "last"))
    print("means: " + ", ".join(f"{what} {np.mean([s[key] for s in stops]):.3f}" for what, key in names))


def show_seeds(study: dict[str, dict], seeds: list[int]) -> None:
    """The study of `gains.seed_study`: all-right pictures in points."""
    parts = (study["gains"], study["differences"])
    rows = [[name, estimate_text(found, "+.1f", 100)] for part in parts for name, found in part.items()]
    title = f"all right, points, over concepts and training seeds {', '.join(map(str, seeds))} (95 % interval of both)"
    print_table(title, ["method", "gain"], rows, 120)
    found = ", ".join(f"{name} {100 * value:.1f}" for name, value in study["between_seeds"].items())
    print(f"standard deviation of a concept's gain over training seeds, points: {found}")
