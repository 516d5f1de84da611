"""Methods against each other on toybox concepts: the same start, prompts, seeds and compute, judged by reward, judge,
guards and truth.

    python -m dreambooth_dpo.benchmarks.methods --concepts 5-14

One row a method. Concepts 5..14 are for figures: 0..4 chose the defaults. Prints tables of mean gains over concepts
with bootstrap intervals over concepts, and writes methods.json and methods.png. Kept results are not made again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from ...dpo_core.run.files import write_json
from ...dpo_core.statistics import bootstrap_interval
from ..concepts import parse_numbers
from .figure import methods_figure
from .rows import DEFAULT, rows

MAIN = ("fidelity", "alignment", "judge_fidelity", "judge_alignment", "oracle_all_right")
DETAILS = (
    "oracle_background", "oracle_body", "oracle_belly", "oracle_hat", "oracle_spread", "copy_paste", "diversity", "judge_background",
)  # fmt: skip
PEERS = (
    "angle_window",
    "raft",
    "weighted_sum",
    "random_pairs",
    "one_long_round",
    "dreambooth_equal",
    "dreambooth_best",
)
TRUTH = "oracle_all_right"
SHORT = {
    "judge_fidelity": "judge fid.", "judge_alignment": "judge al.", "oracle_all_right": "all right", "oracle_background": "background",
    "oracle_body": "body", "oracle_belly": "belly", "oracle_hat": "hat", "oracle_spread": "spread", "copy_paste": "copy-paste",
    "diversity": "Vendi", "judge_background": "place",
}  # fmt: skip


def _settings():
    from ...dpo_core.settings import StopSettings
    from ...toybox.defaults import TOY_SETTINGS

    # The rows are compared after all of their rounds; the stop rule is studied on what they measured.
    return TOY_SETTINGS.model_copy(update={"stop": StopSettings(rule="last")})


def run_concept(seed: int, out: Path, names: list[str], long: int) -> dict[str, dict]:
    """Every row of one concept: {name: measures}."""
    import torch

    from .runs import run_dreambooth, run_row

    torch.set_num_threads(1)
    folder, table, found = out / f"concept_{seed}", rows(_settings()), {}
    for name in names:
        if name == "dreambooth":
            found[name] = run_dreambooth(seed, folder, table)
        else:
            found[name] = run_row(
                seed, folder, name, table, long if name in (DEFAULT, "constant_rate") and long else None
            )
        print(f"concept {seed}: {name} done", flush=True)
    return found


def gain_of(measures: dict, score: str, at: int, part: str = "all", since: int = 0) -> float:
    values = measures["scores"][score][part]
    return values[at] - values[since]


def ends(results: dict[int, dict], name: str) -> dict[int, tuple[dict, int, int]]:
    """Of each concept: (measures, index of the start, index of the end) of a row.

    dreambooth_equal ends at the loop's compute; dreambooth_best where the truth of the points after the start is
    highest: no user could choose so well. The default ends after its own number of rounds, however many were run.
    """
    found = {}
    for seed, kept in results.items():
        if name.startswith("dreambooth_") and "dreambooth" in kept:
            m = kept["dreambooth"]
            first, truth = m["steps"].index(m["start"]), m["scores"][TRUTH]["all"]
            last = len(truth) - 1
            best = first + int(np.argmax(truth[first:]))
            found[seed] = (m, first, last if name == "dreambooth_equal" else best)
        elif name in kept:
            rounds = rows(_settings())[name].settings.rounds
            found[seed] = (kept[name], 0, min(rounds, len(kept[name]["rounds"]) - 1))
    return found


def _mean(values: list[float]) -> dict:
    low, high = bootstrap_interval(np.asarray(values), 10_000) if len(values) > 1 else (None, None)
    return {
        "mean": float(np.mean(values)),
        "ci95": [low, high],
        "up": int(np.sum(np.asarray(values) > 0)),
        "concepts": len(values),
    }


def summarise(results: dict[int, dict], name: str) -> dict:
    """Mean gains of a row over concepts with intervals, in seen and unseen contexts apart, drift of the winner's error,
    seconds.
    """
    found = list(ends(results, name).values())
    table = {
        part: {
            s: _mean([gain_of(m, s, at, part, since) for m, since, at in found])
            for s in (*MAIN, *DETAILS)
            if s in found[0][0]["scores"]
        }
        for part in ("all", "seen", "unseen")
    }
    drift = [max(m["winner_alarms"][:at], default=0.0) for m, _, at in found if "winner_alarms" in m]
    return {
        **table,
        "after": {s: float(np.mean([m["scores"][s]["all"][at] for m, _, at in found])) for s in table["all"]},
        "winner_drift": float(np.mean(drift)) if drift else None,
        "seconds": float(np.mean([m["seconds"] * at / max(1, len(m["rounds"]) - 1) for m, _, at in found])),
    }


def difference(results: dict[int, dict], first: str, second: str, score: str = TRUTH, part: str = "all") -> dict:
    """Mean over concepts of gain(first) - gain(second), paired by concept, with its interval."""
    a, b = ends(results, first), ends(results, second)
    both = sorted(set(a) & set(b))
    return _mean(
        [
            gain_of(a[s][0], score, a[s][2], part, a[s][1]) - gain_of(b[s][0], score, b[s][2], part, b[s][1])
            for s in both
        ]
    )


def stop_study(results: dict[int, dict]) -> list[dict]:
    """Of each concept that was left to run: the round that the stop rule keeps, its truth, that of the best round and
    of the start.

    Concepts that ended after the row's own rounds, or sooner, are left out: there the rule had nothing to choose to
    stop before.
    """
    found, usual = [], rows(_settings())[DEFAULT].settings.rounds
    for seed, kept in results.items():
        measures = kept.get(DEFAULT)
        if measures and measures.get("stop") and len(measures["rounds"]) - 1 > usual:
            truth = measures["scores"][TRUTH]["all"]
            at = measures["stop"]["kept"]
            tried = truth[: measures["stop"]["ended"] + 1]
            found.append({
                "concept": seed, **measures["stop"], "truth": truth[at], "best": max(truth), "best_round": int(np.argmax(truth)),
                "best_tried": max(tried), "start": truth[0], "last": truth[-1], "within_2_points": truth[at] >= max(truth) - 0.02,
                "worse_than_start": truth[at] < truth[0],
            })  # fmt: skip
    return found


def show(summary: dict[str, dict], stops: list[dict]) -> None:
    from rich.console import Console
    from rich.table import Table

    def cell(value: dict, percent: bool = False) -> str:
        times, digits = (100, 1) if percent else (1, 3)
        text = f"{value['mean'] * times:+.{digits}f}"
        if value["ci95"][0] is not None:
            text += f" ({value['ci95'][0] * times:+.{digits}f}..{value['ci95'][1] * times:+.{digits}f})"
        return text

    console = Console(width=230)
    for scores, title in ((MAIN, "gains, mean over concepts (95 % interval); truth in points"), (DETAILS, "details")):
        table = Table(
            "method",
            *(SHORT.get(s, s) for s in scores),
            *(["up", "unseen", "drift", "s"] if scores == MAIN else []),
            title=title,
        )
        for name, found in summary.items():
            cells = [
                cell(found["all"][s], s.startswith("oracle") and s != "oracle_spread") if s in found["all"] else "-"
                for s in scores
            ]
            if scores == MAIN:
                truth, drift = found["all"][TRUTH], found["winner_drift"]
                cells += [f"{truth['up']}/{truth['concepts']}", cell(found["unseen"][TRUTH], True)]
                cells += ["-" if drift is None else f"{drift:.3f}", f"{found['seconds']:.0f}"]
            table.add_row(name, *cells)
        console.print(table)
    if stops:
        table = Table(
            "concept",
            "start",
            "kept round",
            "its truth",
            "best round",
            "its truth",
            "ended at",
            "last",
            title="stop rule",
        )
        for s in stops:
            numbers = (
                s["concept"],
                f"{s['start']:.3f}",
                s["kept"],
                f"{s['truth']:.3f}",
                s["best_round"],
                f"{s['best']:.3f}",
                s["ended"],
            )
            table.add_row(*map(str, numbers), f"{s['last']:.3f}")
        console.print(table)
        within, worse = sum(s["within_2_points"] for s in stops), sum(s["worse_than_start"] for s in stops)
        console.print(f"within 2 points of the best round: {within} of {len(stops)}; worse than the start: {worse}")
        means = (
            f"{what} {np.mean([s[key] for s in stops]):.3f}"
            for what, key in (("start", "start"), ("kept", "truth"), ("best", "best"))
        )
        console.print(f"means: {', '.join(means)}, last {np.mean([s['last'] for s in stops]):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", default="5-14", help="e.g. 5-14 or 0,3,5")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_methods"))
    parser.add_argument("--rows", default="all", help="names of rows, with commas")
    parser.add_argument(
        "--long",
        type=int,
        default=0,
        help="rounds of the default row (and of constant_rate), to study the stop rule, e.g. 10",
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="concepts at a time, one thread each")
    args = parser.parse_args()
    every = [DEFAULT, "dreambooth", *(n for n in rows(_settings()) if n != DEFAULT)]
    names = every if args.rows == "all" else args.rows.split(",")
    if unknown := [n for n in names if n not in every]:
        parser.error(f"no row {unknown[0]!r}; rows are {', '.join(every)}")
    results: dict[int, dict] = {}
    with ProcessPoolExecutor(args.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {
            pool.submit(run_concept, seed, args.out, names, args.long): seed for seed in parse_numbers(args.concepts)
        }
        for done in as_completed(waiting):
            results[waiting[done]] = done.result()
    results = dict(sorted(results.items()))
    report(results, names, args.out)


def report(results: dict[int, dict], names: list[str], out: Path) -> None:
    """Print the tables; write methods.json and methods.png."""
    shown = [n for n in names if n != "dreambooth"]
    if "dreambooth" in names:
        shown[1:1] = ["dreambooth_equal", "dreambooth_best"]
    summary, stops = {n: summarise(results, n) for n in shown}, stop_study(results)
    show(summary, stops)
    data = {"summary": summary, "stop_rule": stops, "concepts": {str(k): v for k, v in results.items()}}
    if len(results) > 1:
        data["differences"] = {f"{shown[0]} - {n}": difference(results, shown[0], n) for n in shown[1:]}
        for name, found in data["differences"].items():
            low, high = (v * 100 for v in found["ci95"])
            print(f"{name}: all right {found['mean'] * 100:+.1f} points ({low:+.1f}..{high:+.1f})")
    write_json(out / "methods.json", data)
    methods_figure(results, {n: ends(results, n) for n in shown}).savefig(out / "methods.png", dpi=110)
    print(f"wrote {out / 'methods.json'} and methods.png")


if __name__ == "__main__":
    main()
