"""Fuzz test: every input ends in success or in an error of the pack that a user can read.

    python -m dreambooth_dpo.benchmarks.inputs [--count 2000] [--seed 0] [--only config,lora] [--out runs/inputs]

Feeds generated configs, prompt files, photos, masks, strengths and LoRA files to the functions that read them (no
model is run). Anything that is neither success nor UserError or MetricsError is printed with the door, the seed that
generates it again, and the traceback. Needs hypothesis (`pip install dreambooth-dpo[test]`). Writes inputs.json; exits
with 1 when there was such an input.
"""

from __future__ import annotations

import argparse
import traceback
import warnings
from collections.abc import Sequence
from time import monotonic

from ..common.command import command_parser, parse_names, write_result


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    from .doors import DOORS

    parser = command_parser(__doc__, "inputs")
    parser.add_argument("--count", type=int, default=2000, help="inputs of all doors; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--only", default=",".join(DOORS), help="doors, commas between; default: %(default)s")
    args = parser.parse_args(given)
    args.doors = parse_names(parser, args.only, DOORS, "door")
    return args


def feed(name: str, count: int, seed: int) -> dict:
    """Feed `count` inputs to a door: how many went in, were refused, or broke it (each broken one described)."""
    import hypothesis

    from ...dpo_core.errors import UserError
    from ...metrics.errors import MetricsError
    from .doors import DOORS, enter

    found: dict = {"inputs": 0, "taken": 0, "refused": 0, "broken": []}

    def one(given) -> None:
        if found["inputs"] == count:  # hypothesis may try some more
            return
        found["inputs"] += 1
        error = enter(DOORS[name], given)
        if error is None:
            found["taken"] += 1
        elif isinstance(error, (UserError, MetricsError)):
            found["refused"] += 1
        else:
            said = "".join(traceback.format_exception(error)[-6:])
            found["broken"].append({"number": found["inputs"], "error": repr(error)[:300], "where": said[-1500:],
                                    "input": repr(given)[:600]})  # fmt: skip

    while found["inputs"] < count:
        before = found["inputs"]
        decorated = hypothesis.given(DOORS[name].inputs)(one)
        decorated = hypothesis.settings(
            max_examples=count - before, database=None, deadline=None, phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )(decorated)  # fmt: skip
        hypothesis.seed(seed + before)(decorated)()
        if found["inputs"] == before:
            break  # nothing new is left to generate
    return found


def fuzz(names: Sequence[str], count: int, seed: int) -> dict[str, dict]:
    """Feed every door its share of `count` inputs: what `feed` found, by door."""
    from .doors import DOORS

    whole = sum(DOORS[name].share for name in names)
    found = {}
    for name in names:
        begun = monotonic()
        found[name] = feed(name, round(count * DOORS[name].share / whole), seed)
        counts = {key: value if key != "broken" else len(value) for key, value in found[name].items()}
        print(f"{name}: {counts} in {monotonic() - begun:.0f} s", flush=True)
        for broken in found[name]["broken"]:
            print(f"--- {name}, --seed {seed} --only {name}, input {broken['number']}: {broken['input']}")
            print(broken["where"], flush=True)
    return found


def main(given: Sequence[str] | None = None) -> int:
    from ...dpo_core.backends.diffusers.quiet import quiet_libraries

    args = arguments(given)
    quiet_libraries()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on purpose: many files here are damaged
        found = fuzz(args.doors, args.count, args.seed)
    broken = sum(len(of["broken"]) for of in found.values())
    inputs = sum(of["inputs"] for of in found.values())
    print(f"{inputs} inputs, seed {args.seed}: {broken} ended in neither success nor an error of the pack")
    write_result(args.out / "inputs.json", {"seed": args.seed, "inputs": inputs, "broken": broken, "doors": found})
    return int(bool(broken))


if __name__ == "__main__":
    raise SystemExit(main())
