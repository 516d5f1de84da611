"""Guidance: what the scale of candidates, and that of the pictures one looks at, do to the result of each objective.

    python -m dreambooth_dpo.benchmarks.guidance --concepts 0-1

Every loop starts from the same start; candidates of all its rounds are drawn at one guidance scale, and its result (and
the start's) is looked at in several. Objectives that pull on winners (RAFT, the loser-gradient guard) stand beside
plain DPO, and two controls beside RAFT: one imitates any candidates, so that what it loses is the price of imitation
alone; the other those of a sampler with four times the steps. The table names, too, how often the imitated pictures
were right. Prints a table of the truth, and writes guidance.json and guidance.png. Kept results are not made again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from ..dpo_core.run.files import write_json
from ..dpo_core.settings import LoopSettings
from .concepts import parse_numbers

SCALES = (1.0, 2.0, 2.5, 3.0, 4.0)
METHODS: dict[str, dict[str, dict]] = {
    "dpo": {},
    "raft": {"train": {"objective": "raft"}},
    "raft_any": {"train": {"objective": "raft"}, "pairs": {"rule": "random"}},
    "raft_fine": {"train": {"objective": "raft"}, "sampling": {"steps": 48}},
    "loser_guard": {"train": {"loser_guard": 0.9}},
}
"""Settings that differ from the default's, by group."""
DRAWN = {"dpo": (1.0, 2.0, 4.0), "raft": (1.0, 4.0), "raft_any": (1.0,), "raft_fine": (1.0,), "loser_guard": (1.0, 4.0)}
"""Guidance scales of candidates, by method."""
SCORES = ("fidelity", "alignment", "oracle_all_right", "oracle_background", "oracle_body", "oracle_belly", "oracle_hat")
TRUTHS = tuple(s for s in SCORES if s.startswith("oracle"))
SEEDS = 4
"""Pictures of a held-out prompt at each scale."""


def _settings(base: LoopSettings, method: str, candidates: float, looked_at: float) -> LoopSettings:
    from ..dpo_core.settings import StopSettings

    changed = {name: getattr(base, name).model_copy(update=values) for name, values in METHODS[method].items()}
    return base.model_copy(
        update={
            **changed,
            "sampling": changed.get("sampling", base.sampling).model_copy(update={"guidance": candidates}),
            "evaluation": base.evaluation.model_copy(update={"guidance": looked_at, "seeds_per_prompt": SEEDS}),
            "stop": StopSettings(rule="last"),
        }
    )


def _look(loop, number: int) -> dict[str, float]:
    """Means over the held-out pictures of the adapter as it stands."""
    loop.evaluate(number)
    return {s: float(loop.run.score_array(f"evaluation_{number}", s).mean()) for s in SCORES}


def _drawn(loop, number: int, toy) -> dict[str, float]:
    """How right a round's candidates were, and the winners among them: {"candidates oracle_body": share, "winners
    oracle_body": share}.
    """
    from ..toybox.models import oracle_scorers

    name = f"round_{number}"
    pictures, prompts = loop.run.images(name), [c.prompt for c in loop.run.candidates(name)]
    winners = [p.winner for p in loop.run.pairs(name)]
    right = {o.name: o.score(pictures, prompts) for o in oracle_scorers(toy) if o.name in SCORES}
    return {
        f"{who} {score}": float(values[which].mean())
        for score, values in right.items()
        for who, which in (("candidates", slice(None)), ("winners", winners))
    }


def run_concept(seed: int, out: Path, methods: list[str], scales: list[float]) -> list[dict]:
    """Rows {"method", "candidates", "looked_at", score: mean}; method "start" for the start, its candidates None.

    Beside them rows {"method", "candidates", "round", share of right candidates and winners}, see `_drawn`.
    """
    import torch

    from ..toybox.concepts import concept_from_seed
    from ..toybox.defaults import TOY_SETTINGS
    from ..toybox.run import start_of, toy_loop

    torch.set_num_threads(1)
    toy, folder, found = concept_from_seed(seed), out / f"concept_{seed}", []
    start = start_of(toy, folder / "start")

    def looks(name: str, method: str, candidates: float | None, state: dict | None) -> None:
        for scale in scales:
            settings = _settings(TOY_SETTINGS, "dpo", 1.0, scale)
            loop = toy_loop(toy, folder / f"{name}_at_{scale:g}", start, settings, resume=True)
            if state is not None:
                loop.adapter.load(state)
            found.append({"method": method, "candidates": candidates, "looked_at": scale, **_look(loop, 0)})
            loop.run.close()

    looks("start_looked", "start", None, None)
    for method in methods:
        for candidates in DRAWN[method]:
            name = f"{method}_{candidates:g}"
            kept = folder / f"{name}.json"
            if not kept.is_file():
                settings = _settings(TOY_SETTINGS, method, candidates, candidates)
                loop = toy_loop(toy, folder / name, start, settings, resume=True)
                loop.begin(0)
                for number in range(settings.rounds):
                    loop.improve(number)
                begun = len(found)
                looks(name, method, candidates, loop.adapter.state())
                which = {"method": method, "candidates": candidates}
                found += [{**which, "round": number, **_drawn(loop, number, toy)} for number in range(settings.rounds)]
                loop.run.close()
                write_json(kept, found[begun:])
            else:
                found += json.loads(kept.read_text(encoding="utf-8"))
            print(f"concept {seed}: {name} done", flush=True)
    return found


def mean_table(results: dict[int, list[dict]]) -> dict[tuple, dict[str, float]]:
    """{(method, candidates, looked_at): means over concepts of each score}."""
    looks = [r for found in results.values() for r in found if "looked_at" in r]
    table = {}
    for key in dict.fromkeys((r["method"], r["candidates"], r["looked_at"]) for r in looks):
        rows = [r for r in looks if (r["method"], r["candidates"], r["looked_at"]) == key]
        table[key] = {s: float(np.mean([r[s] for r in rows])) for s in SCORES}
    return table


def drawn_table(results: dict[int, list[dict]]) -> dict[tuple, dict[str, float]]:
    """{(method, candidates, round): means over concepts of how right the round's candidates and their winners were}."""
    drawn = [r for found in results.values() for r in found if "round" in r]
    table = {}
    for key in dict.fromkeys((r["method"], r["candidates"], r["round"]) for r in drawn):
        rows = [r for r in drawn if (r["method"], r["candidates"], r["round"]) == key]
        table[key] = {
            s: float(np.mean([r[s] for r in rows])) for s in rows[0] if s not in ("method", "candidates", "round")
        }
    return table


def show_drawn(table: dict[tuple, dict[str, float]]) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table(
        "method",
        "drawn at",
        "round",
        *(s.removeprefix("oracle_") for s in TRUTHS),
        title="right candidates > right winners",
    )
    for (method, candidates, number), found in table.items():
        cells = [f"{found[f'candidates {s}']:.3f} > {found[f'winners {s}']:.3f}" for s in TRUTHS]
        shown.add_row(method, f"{candidates:g}", str(number + 1), *cells)
    Console(width=150).print(shown)


def show(table: dict[tuple, dict[str, float]], scales: list[float]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=150)
    for score in SCORES:
        shown = Table("method", "candidates drawn at", *(f"looked at {s:g}" for s in scales), title=score)
        for method, candidates in dict.fromkeys((m, c) for m, c, _ in table):
            cells = [f"{table[method, candidates, s][score]:.3f}" for s in scales]
            shown.add_row(method, "-" if candidates is None else f"{candidates:g}", *cells)
        console.print(shown)


def _picture(table: dict[tuple, dict[str, float]], scales: list[float], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.6), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    titles = (
        ("oracle_all_right", "all right"),
        ("oracle_background", "background right"),
        ("oracle_body", "body colour right"),
    )
    styles = {"start": "k--", "dpo": "C0-", "raft": "C1-", "loser_guard": "C2-", "raft_any": "C3:", "raft_fine": "C1:"}
    for ax, (score, title) in zip(axes, titles, strict=True):
        for method, candidates in dict.fromkeys((m, c) for m, c, _ in table):
            label = method if candidates is None else f"{method}, drawn at {candidates:g}"
            marker = (
                "" if candidates is None else {1.0: "o", 2.0: "s", 2.5: "D", 3.0: "v", 4.0: "^"}.get(candidates, ".")
            )
            ax.plot(
                scales,
                [100 * table[method, candidates, s][score] for s in scales],
                styles[method],
                marker=marker,
                label=label,
            )
        ax.set(xlabel="guidance scale of the pictures looked at", title=title)
        ax.grid(True, color="#E6E8EC")
    axes[0].set_ylabel("share of held-out pictures (%)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", default="0-1")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_guidance"))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--looked-at", default=",".join(f"{s:g}" for s in SCALES), help="guidance scales of evaluation")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    methods, scales = args.methods.split(","), [float(v) for v in args.looked_at.split(",")]
    if unknown := [m for m in methods if m not in METHODS]:
        parser.error(f"no method {unknown[0]!r}; methods are {', '.join(METHODS)}")
    results: dict[int, list[dict]] = {}
    with ProcessPoolExecutor(args.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(run_concept, s, args.out, methods, scales): s for s in parse_numbers(args.concepts)}
        for done in as_completed(waiting):
            results[waiting[done]] = done.result()
    table = mean_table(results)
    show(table, scales)
    show_drawn(drawn_table(results))
    rows = [{"method": m, "candidates": c, "looked_at": s, **scores} for (m, c, s), scores in table.items()]
    write_json(args.out / "guidance.json", {"means": rows, "concepts": {str(k): v for k, v in sorted(results.items())}})
    _picture(table, scales, args.out / "guidance.png")
    print(f"wrote {args.out / 'guidance.json'} and guidance.png")


if __name__ == "__main__":
    main()
