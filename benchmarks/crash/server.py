"""Kills a ComfyUI server at random moments of DPO Rounds, starts it again, and compares with an undisturbed run.

    python -m dreambooth_dpo.benchmarks.crash.server [--kills 20] [--seed 0] [--most 5] [--out runs/crash_server]

Run it with ComfyUI's Python; COMFYUI_PATH names its folder. A graph of three small rounds on the toybox is queued;
after a time drawn from what is left of the run the server gets SIGKILL, is started again, and gets the same graph, up
to `--most` times for one run name; then it may end. Adapters, the saved LoRA and all rows of the records must be equal
bit for bit. Writes crash_server.json; exits with 1 when a result differs or a run fails.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..common.comfyui_server import Server, comfyui_path
from ..common.command import command_parser, write_result
from .moments import moments
from .outcome import differences, records, tensors

PROMPTS = "a {identifier} {class_noun} in snow\na {identifier} {class_noun} on sand"
HELD_OUT = "a red {identifier} {class_noun} at night\na {identifier} {class_noun} in a red hat"
ROUNDS = {
    "rounds": 3, "candidates_per_prompt": 3, "steps": 2, "cfg": 1.0, "width": 64, "height": 64, "batch_size": 3,
    "sampler_name": "dpmpp_2m", "scheduler": "normal", "negative": "", "seed": 0, "angle_low": -90, "angle_high": 180,
    "margin": 0.0, "max_pairs_per_prompt": 6, "max_uses": 3, "rule": "weighted_sum", "rank": 2, "alpha": 2.0,
    "targets": "attention", "train_steps": 20, "pairs_per_step": 1, "accumulation": 1, "learning_rate": 1e-3,
    "beta": 2000.0, "checkpointing": False, "train_seed": 0, "keep": "last",
}  # fmt: skip


def graph(run_name: str) -> dict:
    """DPO Rounds on a toybox concept and Save DPO LoRA, in API form."""

    def node(kind: str, **inputs: object) -> dict:
        return {"class_type": f"DBDPO_{kind}", "inputs": inputs}

    model, clip, vae = (["toy", i] for i in range(3))
    own = {"preset": "own text", "text": PROMPTS, "held_out_text": HELD_OUT, "held_out_share": 0.5, "seed": 0}
    parts = {"model": model, "clip": clip, "vae": vae, "concept": ["concept", 0], "prompts": ["prompts", 0]}
    return {
        "toy": node("LoadToybox", concept=0, personalized=True, steps=20),
        "concept": node("Concept", identifier=["toy", 6], class_noun=["toy", 7], references=["toy", 3]),
        "prompts": node("PromptSet", concept=["concept", 0], **own),
        "scorer": node("LoadScorer", scorer="toybox reward", architecture=""),
        "rounds": node("Rounds", **parts, scorer=["scorer", 0], run_name=run_name, **ROUNDS),
        "save": node("SaveLora", lora=["rounds", 1], filename_prefix=run_name),
    }


@dataclass(frozen=True)
class Attempt:
    """One queued graph: its seconds, and whether the server was killed before it ended."""

    seconds: float
    killed: bool


def attempt(server: Server, run_name: str, kill_after: float | None) -> Attempt:
    """Queue the graph; SIGKILL the server after so many seconds unless the graph has ended, and start it again.

    Raises AssertionError with the node's message when the graph fails.
    """
    queued, begun = server.queue(graph(run_name)), time.monotonic()
    while not (found := server.get(f"/history/{queued}").get(queued)):
        if kill_after is not None and time.monotonic() - begun >= kill_after:
            server.stop(kill=True)
            server.start()
            return Attempt(time.monotonic() - begun, True)
        if server.process.poll() is not None:
            raise RuntimeError(f"ComfyUI ended with {server.process.returncode}: {server.said()[-2000:]}")
        time.sleep(0.02)
    assert found["status"]["status_str"] == "success", str(found["status"])[:2000]
    return Attempt(time.monotonic() - begun, False)


def outcome(server: Server, run_name: str) -> dict[str, object]:
    """Rows of the run's records, tensors of its adapters, and of the LoRA that was saved last."""
    folder = server.folder / "output" / "dreambooth_dpo" / run_name
    saved = sorted((server.folder / "models" / "loras").glob(f"{run_name}_*.safetensors"))[-1]
    adapters = {f.name: tensors(f) for f in sorted((folder / "states").glob("adapter_*.safetensors"))}
    return {**records(folder), **adapters, "lora": tensors(saved)}


def kill_series(work: Path, kills: int, seed: int, most: int) -> dict:
    """The whole test with a server in the folder `work`: counts, and what differs, as crash_server.json holds it."""
    draw, rows = random.Random(seed), []
    with Server(work) as server:
        attempt(server, "warm", None)
        whole = attempt(server, "whole", None)
        expected = outcome(server, "whole")
        if unstable := differences(outcome(server, "warm"), expected):
            raise RuntimeError(f"two undisturbed runs differ in {unstable}: there is nothing to compare with")
        print(f"undisturbed: {whole.seconds:.1f} s", flush=True)
        while sum(row["kills"] for row in rows) < kills:
            left, name, killed = min(most, kills - sum(row["kills"] for row in rows)), f"run{len(rows):02d}", 0
            for kill_after in [*moments(draw, left, whole.seconds), None]:
                if not attempt(server, name, kill_after).killed:
                    break
                killed += 1
            rows.append({"kills": killed, "differs": differences(outcome(server, name), expected)})
            state = f"differs in {rows[-1]['differs']}" if rows[-1]["differs"] else "equal"
            print(f"{sum(r['kills'] for r in rows)} kills: {killed} of {name}, {state}", flush=True)
    return {
        "seed": seed,
        "seconds_undisturbed": round(whole.seconds, 2),
        "kills": sum(row["kills"] for row in rows),
        "runs": len(rows),
        "equal": sum(not row["differs"] for row in rows),
        "wrong": [row for row in rows if row["differs"]],
    }


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__, "crash_server")
    parser.add_argument("--kills", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the moments; default: %(default)s")
    parser.add_argument("--most", type=int, default=5, help="kills of one run name; default: %(default)s")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    args = arguments(given)
    if not (comfyui_path() / "main.py").is_file():
        raise SystemExit(f"no ComfyUI in {comfyui_path()}: set COMFYUI_PATH to its folder.")
    args.out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="work_", dir=args.out)).resolve()
    found = kill_series(work, args.kills, args.seed, args.most)
    print({name: value for name, value in found.items() if name != "wrong"})
    write_result(args.out / "crash_server.json", found)
    return int(bool(found["wrong"]))


if __name__ == "__main__":
    raise SystemExit(main())
