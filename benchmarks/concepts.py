"""Gains on toybox concepts: the paper's angle window, two others for steering, and one long round, from the same
starts.

    python -m dreambooth_dpo.benchmarks.concepts --concepts 0-9

Every variant of a concept shares its personalized start and held-out pictures; windows share the first round's
candidates too. Prints a table of mean gains over concepts with a bootstrap interval over concepts, and writes JSON and
a picture. Kept results are not made again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from ..dpo_core.evaluation.gains import paired_gain
from ..dpo_core.run.files import write_json
from ..dpo_core.run.folder import RunFolder
from ..dpo_core.settings import LoopSettings
from ..dpo_core.statistics import bootstrap_interval

SCORES = ("fidelity", "alignment", "judge_fidelity", "judge_alignment", "oracle_all_right")
DETAILS = ("oracle_background", "oracle_body", "oracle_belly", "oracle_hat", "copy_paste", "diversity")


def variants(settings: LoopSettings) -> dict[str, LoopSettings]:
    """The compared settings. `one_long_round` has the same totals of steps and candidates as the default's rounds."""

    def changed(rounds: int | None = None, **groups: dict) -> LoopSettings:
        groups["pairs"] = {"rule": "angle_window", **groups.get("pairs", {})}
        update = {name: getattr(settings, name).model_copy(update=values) for name, values in groups.items()}
        update["evaluation"] = settings.evaluation.model_copy(update={"every_round": False})
        update["stop"] = settings.stop.model_copy(update={"rule": "last"})
        return settings.model_copy(update={**update, "rounds": rounds or settings.rounds})

    return {
        "window_20_70": changed(),
        "window_0_30": changed(pairs={"angle_low": 0.0, "angle_high": 30.0}),
        "window_60_90": changed(pairs={"angle_low": 60.0, "angle_high": 90.0}),
        "one_long_round": changed(
            rounds=1,
            sampling={"candidates_per_prompt": settings.sampling.candidates_per_prompt * settings.rounds},
            pairs={"max_pairs_per_prompt": settings.pairs.max_pairs_per_prompt * settings.rounds},
            train={"steps": settings.train.steps * settings.rounds},
        ),
    }


def parse_numbers(text: str) -> list[int]:
    """ "0-4,7" -> [0, 1, 2, 3, 4, 7]."""
    numbers: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        numbers += range(int(low), int(high or low) + 1)
    return numbers


def _shared_first_round(seed: int, folder: Path, settings: LoopSettings) -> None:
    """The start, its evaluation and the first round's candidates, which all windows share."""
    from ..toybox.run import demo_loop

    loop = demo_loop(seed, folder / "shared", settings, resume=True)
    loop.evaluate(0)
    loop.candidates(0)
    loop.run.close()


def _copy_shared(folder: Path, name: str, settings: LoopSettings) -> Path:
    """A variant's run folder, begun from the shared one; written beside and renamed."""
    target, beside = folder / name, folder / f".{name}.part"
    if not target.exists():
        shutil.rmtree(beside, ignore_errors=True)
        skip = ["round_0"] if name == "one_long_round" else []
        shutil.copytree(folder / "shared", beside, ignore=shutil.ignore_patterns("report", *skip))
        with RunFolder(beside) as run:
            if skip:
                run.forget_set("round_0")
            described = run.fact("described")
            run.set_fact("described", {**described, "settings": settings.model_dump(mode="json")})
        beside.rename(target)
    return target


def gains(run: RunFolder, rounds: int, resamples: int = 2000) -> dict[str, dict]:
    """Every scorer's gain from the start to the end of a run."""
    prompt_of = np.asarray([c.prompt_index for c in run.candidates("evaluation_0")])
    return {
        name: paired_gain(
            run.score_array("evaluation_0", name), run.score_array(f"evaluation_{rounds}", name), prompt_of, resamples
        ).as_dict()
        for name in run.fact("scorers")
    }


def settings_of(constant_rate: bool) -> LoopSettings:
    """The toybox's settings; with `constant_rate` at half the learning rate, not falling within a round."""
    from ..toybox.defaults import TOY_SETTINGS

    if not constant_rate:
        return TOY_SETTINGS
    train = {"schedule": "constant", "learning_rate": TOY_SETTINGS.train.learning_rate / 2}
    return TOY_SETTINGS.model_copy(update={"train": TOY_SETTINGS.train.model_copy(update=train)})


def run_concept(seed: int, out: Path, names: Iterable[str], constant_rate: bool = False) -> dict:
    """All variants of one concept; returns {variant: gains}."""
    import torch

    from ..toybox.concepts import concept_from_seed
    from ..toybox.run import start_of, toy_loop

    torch.set_num_threads(1)
    folder, toy, result, settings = out / f"concept_{seed}", concept_from_seed(seed), {}, settings_of(constant_rate)
    table = variants(settings)
    for name in names:
        kept = folder / f"{name}.json"
        if not kept.is_file():
            begun = time.perf_counter()
            _shared_first_round(seed, folder, settings)
            path = _copy_shared(folder, name, table[name])
            loop = toy_loop(toy, path, start_of(toy, folder / "shared" / "start"), table[name], resume=True)
            rounds = loop.go()
            write_json(
                kept, {"gains": gains(loop.run, rounds), "rounds": rounds, "seconds": time.perf_counter() - begun}
            )
            loop.run.close()
        result[name] = json.loads(kept.read_text(encoding="utf-8"))
    return result


def summarise(results: dict[int, dict], name: str) -> dict[str, dict]:
    """Mean over concepts of before, after and gain, the interval over concepts, and how many concepts rose."""
    summary = {}
    for score in (*SCORES, *DETAILS):
        rows = [r[name]["gains"][score] for r in results.values() if name in r]
        moved = np.asarray([row["gain"] for row in rows])
        low, high = bootstrap_interval(moved, 10_000) if len(moved) > 1 else (None, None)
        summary[score] = {
            "before": float(np.mean([row["before"] for row in rows])),
            "after": float(np.mean([row["after"] for row in rows])),
            "gain": float(moved.mean()),
            "ci95": [low, high],
            "concepts_up": int((moved > 0).sum()),
            "concepts": len(moved),
        }
    return summary


def difference(results: dict[int, dict], first: str, second: str, score: str) -> dict:
    """Mean over concepts of gain(first) - gain(second), paired by concept, with its interval."""
    rows = np.asarray([r[first]["gains"][score]["gain"] - r[second]["gains"][score]["gain"] for r in results.values()])
    return {"difference": float(rows.mean()), "ci95": list(bootstrap_interval(rows, 10_000))}


def show(summary: dict[str, dict], results: dict[int, dict]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=150)
    for name, scores in summary.items():
        table = Table(
            "score",
            "before",
            "after",
            "gain",
            "95 % interval over concepts",
            "concepts up",
            title=f"{name} ({len(results)} concepts)",
        )
        for score, v in scores.items():
            interval = "-" if v["ci95"][0] is None else f"{v['ci95'][0]:+.3f} .. {v['ci95'][1]:+.3f}"
            up = f"{v['concepts_up']}/{v['concepts']}"
            table.add_row(score, f"{v['before']:.3f}", f"{v['after']:.3f}", f"{v['gain']:+.3f}", interval, up)
        console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", default="0-9", help="e.g. 0-9 or 0,3,5")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_concepts"))
    parser.add_argument("--variants", default="window_20_70,window_0_30,window_60_90,one_long_round")
    parser.add_argument("--constant-rate", action="store_true", help="half the learning rate, constant within a round")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="concepts at a time, one thread each")
    args = parser.parse_args()
    names, results = args.variants.split(","), {}
    with ProcessPoolExecutor(args.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {
            pool.submit(run_concept, seed, args.out, names, args.constant_rate): seed
            for seed in parse_numbers(args.concepts)
        }
        for done in as_completed(waiting):
            results[waiting[done]] = done.result()
            main_gain = done.result()[names[0]]["gains"]["oracle_all_right"]["gain"]
            print(
                f"concept {waiting[done]}: {names[0]} all right {main_gain:+.3f} ({len(results)}/{len(waiting)} done)",
                flush=True,
            )
    results = dict(sorted(results.items()))
    summary = {name: summarise(results, name) for name in names}
    show(summary, results)
    report = {"summary": summary, "concepts": {str(k): v for k, v in results.items()}}
    if len(results) > 1:
        report["differences"] = {
            f"{names[0]} - {other}": {s: difference(results, names[0], other, s) for s in SCORES} for other in names[1:]
        }
    write_json(args.out / "concepts.json", report)
    _picture(summary, args.out / "concepts.png")
    print(f"wrote {args.out / 'concepts.json'} and concepts.png")


def _picture(summary: dict[str, dict], path: Path) -> None:
    """Each variant's mean move in the fidelity-alignment plane, and its gain in truth with the interval over concepts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    plane, truth = figure.subplots(1, 2)
    for i, (name, scores) in enumerate(summary.items()):
        f, a = scores["fidelity"], scores["alignment"]
        plane.annotate(
            "",
            (f["after"], a["after"]),
            (f["before"], a["before"]),
            arrowprops={"arrowstyle": "->", "color": f"C{i}", "lw": 2},
        )
        plane.plot(f["after"], a["after"], "o", color=f"C{i}", label=name)
        right = scores["oracle_all_right"]
        if right["ci95"][0] is not None:
            truth.plot([r * 100 for r in right["ci95"]], [i, i], color=f"C{i}", lw=3)
        truth.plot(right["gain"] * 100, i, "o", color=f"C{i}")
    start = next(iter(summary.values()))
    plane.plot(start["fidelity"]["before"], start["alignment"]["before"], "k*", ms=12, label="start")
    plane.set(
        xlabel="fidelity (mean over concepts)",
        ylabel="alignment (mean over concepts)",
        title="Held-out prompts: where each window leads",
    )
    plane.legend(fontsize=8)
    truth.axvline(0, color="0.6", lw=1)
    truth.set_yticks(range(len(summary)), list(summary))
    truth.invert_yaxis()
    truth.set(
        xlabel="gain in all-right pictures (points; line: 95 % interval over concepts)",
        title="Truth, read off the pixels",
    )
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
