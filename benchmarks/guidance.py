"""Guidance scale of the candidates and of the evaluated pictures, and the result of each objective.

    python -m dreambooth_dpo.benchmarks.guidance --concepts 0-1

Every loop has the same start. The candidates of all its rounds are drawn at one guidance scale; the result, and the
start, are evaluated at several. Objectives that pull on winners (RAFT, the loser-gradient guard) stand beside plain
DPO. RAFT has two controls: supervised training on random candidates, which shows the cost of imitation by itself, and
on candidates of a sampler with four times the steps. A second table says how often the imitated pictures were right.
Prints tables, and writes guidance.json and guidance.png. Cached results are used again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..dpo_core.settings import LoopSettings
from .common.command import command_parser, parse_names, write_result
from .common.concepts import EARLIER, TRUTH, by_concept, cached, changed, members, truth_of_candidates
from .common.tables import print_table

SCALES = (1.0, 2.0, 2.5, 3.0, 4.0)
METHODS: dict[str, dict[str, dict]] = {
    "dpo": {},
    "raft": {"train": {"objective": "raft"}},
    "raft_any": {"train": {"objective": "raft"}, "pairs": {"rule": "random"}},
    "raft_fine": {"train": {"objective": "raft"}, "sampling": {"steps": 48}},
    "loser_guard": {"train": {"loser_guard": 0.9}},
}
"""Changed settings, by group."""
DRAWN = {"dpo": (1.0, 2.0, 4.0), "raft": (1.0, 4.0), "raft_any": (1.0,), "raft_fine": (1.0,), "loser_guard": (1.0, 4.0)}
"""Guidance scales of candidates, by method."""
TRUTHS = (TRUTH, "oracle_background", "oracle_body", "oracle_belly", "oracle_hat")
SCORES = ("fidelity", "alignment", *TRUTHS)
SEEDS = 4
"""Pictures of a held-out prompt at each scale."""
STYLES = {"start": "k--", "dpo": "C0-", "raft": "C1-", "loser_guard": "C2-", "raft_any": "C3:", "raft_fine": "C1:"}
MARKERS = {None: "", 1.0: "o", 2.0: "s", 4.0: "^"}
"""By guidance scale of the candidates."""


def settings_of(method: str, candidates: float, evaluated: float) -> LoopSettings:
    groups = METHODS[method]
    sampling = {**groups.get("sampling", {}), "guidance": candidates}
    evaluation = {"guidance": evaluated, "seeds_per_prompt": SEEDS}
    return changed(EARLIER, **{**groups, "sampling": sampling, "evaluation": evaluation})


def truth_of_round(loop, number: int) -> dict[str, float]:
    """Shares of right candidates and of right winners of a round: {"candidates oracle_body": share, "winners
    oracle_body": share, ...}.
    """
    name = f"round_{number}"
    winners, _ = members(loop.run.pairs(name))
    right = truth_of_candidates(loop.run, name, [s for s in loop.judges if s.name in TRUTHS])
    sides = {"candidates": slice(None), "winners": winners}
    return {f"{side} {s}": float(right[s][which].mean()) for s in TRUTHS for side, which in sides.items()}


def run_concept(seed: int, out: Path, methods: list[str], scales: list[float]) -> list[dict]:
    """Rows {"method", "candidates", "looked_at", score: mean}, by scale of the evaluation; the method "start" has no
    candidates. Beside them rows {"method", "candidates", "round", share of right candidates and winners}.
    """
    from ..toybox.concepts import concept_from_seed
    from ..toybox.run import start_of, toy_loop

    toy, folder = concept_from_seed(seed), out / f"concept_{seed}"
    start = start_of(toy, folder / "start")

    def evaluated(name: str, about: dict, state: dict | None) -> list[dict]:
        found = []
        for scale in scales:
            loop = toy_loop(toy, folder / f"{name}_at_{scale:g}", start, settings_of("dpo", 1.0, scale), resume=True)
            if state is not None:
                loop.adapter.load(state)
            loop.evaluate(0)
            means = {s: float(loop.run.score_array("evaluation_0", s).mean()) for s in SCORES}
            found.append({**about, "looked_at": scale, **means})
            loop.run.close()
        return found

    def trained(name: str, method: str, scale: float) -> list[dict]:
        settings, about = settings_of(method, scale, scale), {"method": method, "candidates": scale}
        loop = toy_loop(toy, folder / name, start, settings, resume=True)
        loop.begin(0)
        for number in range(settings.rounds):
            loop.improve(number)
        found = evaluated(name, about, loop.adapter.state())
        found += [{**about, "round": number, **truth_of_round(loop, number)} for number in range(settings.rounds)]
        loop.run.close()
        return found

    found = evaluated("start_looked", {"method": "start", "candidates": None}, None)
    for method in methods:
        for scale in DRAWN[method]:
            name = f"{method}_{scale:g}"
            found += cached(folder / f"{name}.json", lambda n=name, m=method, s=scale: trained(n, m, s))
            print(f"concept {seed}: {name} done", flush=True)
    return found


def mean_table(results: dict[int, list[dict]], key: str) -> dict[tuple, dict[str, float]]:
    """{(method, candidates, value of `key`): means over concepts} of the rows with `key`: "looked_at" or "round"."""
    groups: dict[tuple, list[dict]] = {}
    for row in (r for found in results.values() for r in found if key in r):
        groups.setdefault((row["method"], row["candidates"], row[key]), []).append(row)
    return {
        group: {s: float(np.mean([r[s] for r in rows])) for s in rows[0] if s not in ("method", "candidates", key)}
        for group, rows in groups.items()
    }


def show_rounds(table: dict[tuple, dict[str, float]]) -> None:
    rows = []
    for (method, candidates, number), found in table.items():
        cells = [f"{found[f'candidates {s}']:.3f} > {found[f'winners {s}']:.3f}" for s in TRUTHS]
        rows.append([method, f"{candidates:g}", str(number + 1), *cells])
    columns = ("method", "drawn at", "round", *(s.removeprefix("oracle_") for s in TRUTHS))
    print_table("right candidates > right winners", columns, rows)


def show_scores(table: dict[tuple, dict[str, float]], scales: list[float]) -> None:
    columns = ("method", "candidates drawn at", *(f"evaluated at {s:g}" for s in scales))
    for score in SCORES:
        rows = []
        for method, candidates in dict.fromkeys((m, c) for m, c, _ in table):
            cells = [f"{table[method, candidates, s][score]:.3f}" for s in scales]
            rows.append([method, "-" if candidates is None else f"{candidates:g}", *cells])
        print_table(score, columns, rows)


def figure(table: dict[tuple, dict[str, float]], scales: list[float]):
    """Shares of right pictures by the guidance scale of the evaluation."""
    from matplotlib.figure import Figure

    shown = Figure(figsize=(13, 4.6), layout="constrained")
    axes = shown.subplots(1, 3, sharey=True)
    titles = {TRUTH: "all right", "oracle_background": "background right", "oracle_body": "body colour right"}
    for ax, (score, title) in zip(axes, titles.items(), strict=True):
        for method, candidates in dict.fromkeys((m, c) for m, c, _ in table):
            label = method if candidates is None else f"{method}, drawn at {candidates:g}"
            shares = [100 * table[method, candidates, s][score] for s in scales]
            ax.plot(scales, shares, STYLES[method], marker=MARKERS[candidates], label=label)
        ax.set(xlabel="guidance scale of the evaluated pictures", title=title)
        ax.grid(True, color="#E6E8EC")
    axes[0].set_ylabel("share of held-out pictures (%)")
    shown.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)
    return shown


def main() -> None:
    parser = command_parser(__doc__, "benchmark_guidance", "0-1", jobs=True)
    parser.add_argument("--methods", default=",".join(METHODS), help="default: %(default)s")
    usual = ",".join(f"{s:g}" for s in SCALES)
    parser.add_argument("--looked-at", default=usual, help="guidance scales of the evaluation; default: %(default)s")
    args = parser.parse_args()
    methods = parse_names(parser, args.methods, METHODS, "method")
    scales = [float(v) for v in args.looked_at.split(",")]
    results = by_concept(run_concept, args.concepts, args.jobs, args.out, methods, scales)
    table = mean_table(results, "looked_at")
    show_scores(table, scales)
    show_rounds(mean_table(results, "round"))
    rows = [{"method": m, "candidates": c, "looked_at": s, **scores} for (m, c, s), scores in table.items()]
    figure(table, scales).savefig(args.out / "guidance.png", dpi=110)
    found = {"means": rows, "concepts": {str(k): v for k, v in results.items()}}
    write_result(args.out / "guidance.json", found, "guidance.png")


if __name__ == "__main__":
    main()
