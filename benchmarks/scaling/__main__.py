"""One round on the toybox with 1 and 2 processes of one thread each: seconds by phase, efficiency, and the adapters.

    python -m dreambooth_dpo.benchmarks.scaling [--repeats 3] [--out runs/scaling]

The sizes take turns, and medians are shown. Efficiency: seconds of one process / (2 x seconds of two). The machine's
own: seconds of one process / seconds of each of two that do the same round side by side and share nothing; what cores
lose to each other (memory bandwidth, clock) is in it, and no way of sharing can be better. Of sharing: the one through
the other. `apart`: norm of the difference of the two adapters, of the first one's change. A simulation of 8 and 64
processes follows from the measurements (simulated.py says how), with its assumptions. Writes scaling.json.
"""

from __future__ import annotations

import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from ...dpo_core.run.folder import RunFolder
from ..common.command import command_parser, write_result
from .process import SETTINGS
from .simulated import Phase, simulated

PHASE_NAMES = ("sampling", "scoring", "training")
KINDS = ("alone", "side by side", "sharing")
"""One process; two that do the same round at the same time without each other; two that share one round."""


def started(size: int, folder: Path) -> list[subprocess.Popen]:
    """The `size` processes of one round in a new folder."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "dreambooth_dpo.benchmarks.scaling.process", str(folder)]
    return [
        subprocess.Popen(command, env={**shared, "WORLD_SIZE": str(size), "RANK": str(r), "LOCAL_RANK": str(r)})
        for r in range(size)
    ]


def measured(size: int, *folders: Path) -> dict[str, float]:
    """Seconds by phase of one round on `size` processes; of several folders, done at the same time, the mean."""
    processes = [process for folder in folders for process in started(size, folder)]
    if any([process.wait() for process in processes]):
        raise SystemExit(f"a process of {size} failed")
    found = [json.loads((folder / "phases.json").read_text(encoding="utf-8")) for folder in folders]
    return {name: statistics.mean(run[name] for run in found) for name in PHASE_NAMES}


def apart(one: Path, other: Path) -> float:
    """Norm of the difference of two runs' adapters, of the first one's change."""
    ours, theirs = (RunFolder(folder / "run").load_state("adapter_1")[0] for folder in (one, other))
    start = RunFolder(one / "run").load_state("adapter_0")[0]
    square = [sum(float((a[k] - b[k]).square().sum()) for k in ours) for a, b in ((ours, theirs), (ours, start))]
    return math.sqrt(square[0] / square[1])


def report(seconds: dict[str, dict[str, float]], pictures: int, difference: float) -> str:
    head = (
        "phase", "1 process", "2 side by side", "2 sharing", "efficiency", "of the machine", "of sharing",
        "8 (simulated)", "64 (simulated)",
    )  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    units = {
        "sampling": math.ceil(pictures / SETTINGS.sampling.chunk_size),
        "scoring": math.ceil(pictures / 64),
        "training": SETTINGS.train.batch_size,
    }
    for name in PHASE_NAMES:
        one, apart, two = (seconds[kind][name] for kind in KINDS)
        phase = Phase(apart, two, int(units[name]))
        cells = [f"{one:.1f} s", f"{apart:.1f} s", f"{two:.1f} s"]
        cells += [f"{share:.2f}" for share in (one / two / 2, one / apart, apart / two / 2)]
        cells += [f"{simulated(phase, size):.1f} s" for size in (8, 64)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"Adapters of 1 and 2 processes: {difference:.1e} of the change apart."])


def main() -> None:
    parser = command_parser(__doc__, "scaling")
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    args = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        for repeat in range(args.repeats):
            found["alone"].append(measured(1, work / f"1-{repeat}"))
            found["side by side"].append(measured(1, *(work / f"{side}-{repeat}" for side in ("left", "right"))))
            found["sharing"].append(measured(2, work / f"2-{repeat}"))
        difference = apart(work / "1-0", work / "2-0")
        run = RunFolder(work / "1-0" / "run")
        pictures = sum(len(run.candidates(name)) for name in ("round_0", "evaluation_0", "evaluation_1"))
    seconds = {
        kind: {name: statistics.median(run[name] for run in runs) for name in PHASE_NAMES}
        for kind, runs in found.items()
    }
    print(report(seconds, pictures, difference))
    write_result(
        args.out / "scaling.json", {"runs": found, "medians": seconds, "pictures": pictures, "apart": difference}
    )


if __name__ == "__main__":
    main()
