"""How well `compare` ranks the epochs of one LoRA, by the toybox's oracle.

    python -m dreambooth_dpo.benchmarks.compare --concepts 5

One personalization of each concept is saved at twelve points, from briefly trained to overtrained. `compare_loras` (the
command `compare`) ranks them without the oracle, which then reads the truth from the same pictures: the share in which
everything is right. Prints Spearman's rank correlation of gain and truth over the LoRAs, that of fidelity and of
alignment alone, the truth of the LoRA that `compare` chose beside the highest one, and the seconds. Writes
compare.json. LoRAs and pictures that are there are used again; the seconds are then those of what was missing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..toybox.defaults import EPOCH_STEPS
from .common.command import command_parser, write_result
from .common.concepts import TRUTH, by_concept, truth_of_candidates
from .common.tables import print_table

if TYPE_CHECKING:
    from ..dpo_core.config import RunConfig
    from ..toybox.concepts import ToyConcept

MEASURES = ("gain", "fidelity", "alignment")


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of values [n] from 1, equal values with the mean of their places: 10 30 30 20 -> 1 3.5 3.5 2."""
    values = np.asarray(values, np.float64)
    below = (values[None, :] < values[:, None]).sum(1)
    equal = (values[None, :] == values[:, None]).sum(1)
    return below + (equal + 1) / 2


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rank correlation of two lists [n]; NaN where all values of one are equal."""
    a, b = (ranks(values) - (len(values) + 1) / 2 for values in (one, other))
    size = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / size if size else float("nan")


def project(toy: ToyConcept, folder: Path) -> RunConfig:
    """The concept as files and a config, as a user of the command line has them."""
    from PIL import Image

    from ..dpo_core.config import ConceptConfig, ModelConfig, RunConfig, ScorerConfig
    from ..toybox.defaults import TOY_SETTINGS
    from ..toybox.models import weights_folder
    from ..toybox.prompts import train_and_held_out

    for name in ("references", "held_out", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i, pixels in enumerate(getattr(toy, name)):
            Image.fromarray(pixels).save(folder / name / f"photo_{i}.png")
    for name, templates in zip(("prompts", "held_out_prompts"), train_and_held_out(toy), strict=True):
        (folder / f"{name}.txt").write_text("\n".join(templates) + "\n", encoding="utf-8")
    photos = {name: folder / name for name in ("references", "held_out", "masks")}
    return RunConfig(
        **dict(TOY_SETTINGS),
        model=ModelConfig(path=weights_folder("pipeline"), device="cpu"),
        concept=ConceptConfig(identifier=toy.identifier, class_noun=toy.noun, **photos),
        scorers=ScorerConfig(reward=weights_folder("reward"), judge=weights_folder("judge")),
        prompts=folder / "prompts.txt",
        held_out_prompts=folder / "held_out_prompts.txt",
        output=folder / "compared",
    )


def run_concept(seed: int, out: Path, steps: int) -> dict:
    """One concept: {"seconds", "best", "places": [{"name", "gain", ..., "truth"}]} in the order of rank."""
    from ..dpo_core.run.folder import RunFolder
    from ..headless_compare import compare_loras
    from ..toybox.concepts import concept_from_seed
    from ..toybox.defaults import EPOCHS
    from ..toybox.epochs import epoch_files, points
    from ..toybox.models import oracle_scorers

    toy, folder = concept_from_seed(seed), out / f"concept_{seed}"
    config = project(toy, folder)
    start = time.perf_counter()
    files = epoch_files(toy, folder / "loras", points(steps, EPOCHS))
    trained = time.perf_counter()
    found = compare_loras(config, files)
    ended = time.perf_counter()
    oracle = [scorer for scorer in oracle_scorers(toy) if scorer.name == TRUTH]
    with RunFolder(config.output) as run:
        sets = run.fact("compared")
        truth = {p.name: float(truth_of_candidates(run, sets[p.name], oracle)[TRUTH].mean()) for p in found.places}
    places = [
        {"name": p.name, "truth": truth[p.name], "level": p.level, "broken": list(p.broken)}
        | {name: getattr(p, name).mean for name in MEASURES}
        for p in found.places
    ]
    seconds = {"train": trained - start, "compare": ended - trained}
    return {"seconds": seconds, "best": found.best, "words": found.words, "places": places}


def summary(found: Mapping) -> dict[str, float]:
    """Rank correlations with the truth over the LoRAs (without the model itself), and the truth of the chosen one."""
    from ..dpo_core.evaluation.compare import WITHOUT

    loras = [place for place in found["places"] if place["name"] != WITHOUT]
    truth = np.asarray([place["truth"] for place in loras])
    by_name = {place["name"]: place["truth"] for place in found["places"]}
    correlations = {name: spearman(np.asarray([p[name] for p in loras]), truth) for name in MEASURES}
    chosen = {"chosen": by_name[found["best"]], "highest": float(truth.max()), "last": float(truth[_last(loras)])}
    return {**correlations, **chosen, "without": by_name[WITHOUT], "mean": float(truth.mean())}


def _last(loras: list[Mapping]) -> int:
    """Place of the epoch that was trained longest."""
    return max(range(len(loras)), key=lambda i: loras[i]["name"])


def _show(seed: int, found: Mapping) -> None:
    rows = []
    for n, p in enumerate(found["places"], 1):
        name = p["name"] + (" *" if p["name"] == found["best"] else " =" if p["level"] else "")
        cells = (f"{p['gain']:+.2f}", f"{p['fidelity']:.3f}", f"{p['alignment']:.3f}", f"{100 * p['truth']:.1f}")
        rows.append([str(n), name, *cells, "; ".join(p["broken"])])
    columns = ("", "LoRA", "gain (SD)", "fidelity", "alignment", "all right (%)", "failed guards")
    print_table(f"concept {seed}", columns, rows, 130)
    print(found["words"])


def main() -> None:
    parser = command_parser(__doc__, "benchmark_compare", "5", jobs=True)
    parser.add_argument("--steps", type=int, default=EPOCH_STEPS, help="steps of the last epoch; default: %(default)s")
    args = parser.parse_args()
    results = by_concept(run_concept, args.concepts, args.jobs, args.out, args.steps)
    sums = {seed: summary(found) for seed, found in results.items()}
    for seed, found in results.items():
        _show(seed, found)
    names = (*MEASURES, "chosen", "highest", "mean", "last", "without")
    rows = [
        [str(seed), *(f"{sums[seed][n]:+.2f}" for n in MEASURES), *(f"{100 * sums[seed][n]:.1f}" for n in names[3:])]
        + [f"{results[seed]['seconds'][n]:.0f}" for n in ("train", "compare")]
        for seed in results
    ]
    columns = (
        "concept",
        *(f"Spearman {n}" for n in MEASURES),
        *(f"right: {n}" for n in names[3:]),
        "s train",
        "s compare",
    )
    print_table("rank correlation with the oracle's truth; right pictures in per cent", columns, rows, 150)
    concepts = {str(seed): {**results[seed], "summary": sums[seed]} for seed in results}
    write_result(args.out / "compare.json", {"steps": args.steps, "concepts": concepts})


if __name__ == "__main__":
    main()
