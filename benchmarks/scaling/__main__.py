"""One round on the toybox with 1 and 2 processes of one thread each: seconds by phase, efficiency, and the adapters.

    python -m dreambooth_dpo.benchmarks.scaling [--repeats 3] [--out runs/scaling]

The sizes take turns, and medians are shown. Efficiency: seconds of one process / (2 x seconds of two). `apart`: norm of
the difference of the two adapters, of the first one's change. A simulation of 8 and 64 processes follows from the two
measurements (simulated.py says how), with its assumptions. Writes scaling.json.
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


def measured(size: int, folder: Path) -> dict[str, float]:
    """Seconds by phase of one round on `size` processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "dreambooth_dpo.benchmarks.scaling.process", str(folder)]
    ranks = [
        subprocess.Popen(command, env={**shared, "WORLD_SIZE": str(size), "RANK": str(r), "LOCAL_RANK": str(r)})
        for r in range(size)
    ]
    if any([process.wait() for process in ranks]):
        raise SystemExit(f"a process of {size} failed")
    return json.loads((folder / "phases.json").read_text(encoding="utf-8"))


def apart(one: Path, other: Path) -> float:
    """Norm of the difference of two runs' adapters, of the first one's change."""
    ours, theirs = (RunFolder(folder / "run").load_state("adapter_1")[0] for folder in (one, other))
    start = RunFolder(one / "run").load_state("adapter_0")[0]
    square = [sum(float((a[k] - b[k]).square().sum()) for k in ours) for a, b in ((ours, theirs), (ours, start))]
    return math.sqrt(square[0] / square[1])


def report(seconds: dict[int, dict[str, float]], difference: float) -> str:
    head = ("phase", "1 process", "2 processes", "efficiency", "8 (simulated)", "64 (simulated)")
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    sampling, train = SETTINGS.sampling, SETTINGS.train
    units = {
        "sampling": math.ceil(seconds[1]["pictures"] / sampling.chunk_size),
        "scoring": math.ceil(seconds[1]["pictures"] / 64),
        "training": train.batch_size,
    }
    for name in PHASE_NAMES:
        one, two = seconds[1][name], seconds[2][name]
        phase = Phase(one, two, int(units[name]))
        cells = [f"{one:.1f} s", f"{two:.1f} s", f"{one / two / 2:.2f}"]
        cells += [f"{simulated(phase, size):.1f} s" for size in (8, 64)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"Adapters of 1 and 2 processes: {difference:.1e} of the change apart."])


def main() -> None:
    parser = command_parser(__doc__, "scaling")
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    args = parser.parse_args()
    found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as work:
        for repeat in range(args.repeats):
            for size in (1, 2):
                folder = Path(work) / f"{size}-{repeat}"
                folder.mkdir()
                found[size].append(measured(size, folder))
        difference = apart(Path(work) / "1-0", Path(work) / "2-0")
        run = RunFolder(Path(work) / "1-0" / "run")
        pictures = sum(len(run.candidates(name)) for name in ("round_0", "evaluation_0", "evaluation_1"))
    seconds = {
        size: {name: statistics.median(run[name] for run in runs) for name in PHASE_NAMES} | {"pictures": pictures}
        for size, runs in found.items()
    }
    print(report(seconds, difference))
    write_result(args.out / "scaling.json", {"runs": found, "medians": seconds, "apart": difference})


if __name__ == "__main__":
    main()
