"""Kills a run at random moments, resumes it, and compares its result with that of an undisturbed run.

    python -m dreambooth_dpo.benchmarks.crash [--kills 100] [--seed 0] [--most 5] [--out runs/crash]

The run is three rounds of the toybox by the headless way. A folder's attempts are killed (SIGKILL) after a time drawn
from what is left of the run, `--most` times at most, then one attempt is left to end; further folders follow until
there were so many kills. In every second folder each kill is a power loss too: what was not flushed to
disk by then is removed or cut in half (disk.py). Adapters, LoRA, all rows of the records and the report must be equal
bit for bit. Linux only. Writes crash.json; exits with 1 when a result differs or a resumed run fails.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..common.command import command_parser, write_result
from .disk import events, lose_power
from .moments import moments
from .outcome import differences, outcome
from .runs import Runner


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__, "crash")
    parser.add_argument("--kills", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the moments; default: %(default)s")
    parser.add_argument("--most", type=int, default=5, help="kills of one folder; default: %(default)s")
    return parser.parse_args(given)


def one_folder(runner: Runner, folder: Path, moments: Sequence[float], power: bool) -> dict:
    """Kill a run at these moments (seconds after each start), then let it end; what happened, with its outcome."""
    shelf, journal, kills, lost = folder / "shelf", folder / "journal", 0, []
    shelf.mkdir(parents=True)
    run = folder / "run"
    for kill_after in [*moments, None]:
        ended = runner.attempt(run, journal, shelf, kill_after)
        if ended.status == 0:
            break
        if ended.status != -9:
            return {"kills": kills, "power_loss": power, "lost": lost, "failed": ended.said, "outcome": None}
        kills += 1
        if power and run.is_dir():
            lost += lose_power(run, events(journal))
    return {"kills": kills, "power_loss": power, "lost": lost, "failed": None, "outcome": outcome(run)}


def crash(work: Path, kills: int, seed: int, most: int) -> dict:
    """The whole test in the folder `work`: counts, and what differs or failed, as crash.json holds it."""
    runner, draw = Runner(work / "project"), random.Random(seed)
    (work / "first" / "shelf").mkdir(parents=True)
    print("loaded; the undisturbed run begins", flush=True)
    whole = runner.attempt(work / "first" / "run", work / "first" / "journal", work / "first" / "shelf", None)
    if whole.status:
        raise RuntimeError(f"the undisturbed run failed:\n{whole.said}")
    expected, rows = outcome(work / "first" / "run"), []
    if unstable := differences(outcome(runner.warm), expected):
        raise RuntimeError(f"two undisturbed runs differ in {unstable}: there is nothing to compare with")
    while sum(row["kills"] for row in rows) < kills:
        left = min(most, kills - sum(row["kills"] for row in rows))
        planned = moments(draw, left, whole.seconds)
        row = one_folder(runner, work / f"{len(rows):04d}", planned, power=len(rows) % 2 == 1)
        found = row.pop("outcome")
        row["differs"] = [] if found is None else differences(found, expected)
        rows.append(row)
        state = "failed" if row["failed"] else f"differs in {row['differs']}" if row["differs"] else "equal"
        print(
            f"{sum(r['kills'] for r in rows)} kills: {row['kills']} here, {len(row['lost'])} lost, {state}", flush=True
        )
        if state == "equal":
            shutil.rmtree(work / f"{len(rows) - 1:04d}")
    return {
        "seed": seed,
        "seconds_undisturbed": round(whole.seconds, 2),
        "kills": sum(row["kills"] for row in rows),
        "of_them_with_power_loss": sum(row["kills"] for row in rows if row["power_loss"]),
        "folders": len(rows),
        "files_lost": sum(len(row["lost"]) for row in rows),
        "equal": sum(not row["failed"] and not row["differs"] for row in rows),
        "wrong": [row for row in rows if row["failed"] or row["differs"]],
    }


def main(given: Sequence[str] | None = None) -> int:
    args = arguments(given)
    args.out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="work_", dir=args.out))
    found = crash(work.resolve(), args.kills, args.seed, args.most)
    print({name: value for name, value in found.items() if name != "wrong"})
    write_result(args.out / "crash.json", found)
    if not found["wrong"]:
        shutil.rmtree(work)
    return int(bool(found["wrong"]))


if __name__ == "__main__":
    raise SystemExit(main())
