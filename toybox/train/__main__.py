"""Train the toybox's models from scratch.

python -m dreambooth_dpo.toybox.train [vae|unet|reward|judge|few_steps|all|check]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from ..shipped import FEW_STEPS, WEIGHTS
from .few_steps import train_few_steps
from .quality import base_quality, few_steps_quality, retrieval
from .scorers import train_scorer
from .unet import train_unet
from .vae import train_vae

STEPS = {"vae": 2600, "unet": 5500, "reward": 1100, "judge": 900, "few_steps": 1200}
SEEDS = {"vae": 0, "unet": 200, "reward": 11, "judge": 22, "few_steps": 300}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=[*STEPS, "all", "check"])
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder that holds the parts")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=None, help="instead of the part's own number of steps")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; one is fastest at this size")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    begun, quality = time.perf_counter(), {}

    def log(text: str) -> None:
        sys.stderr.write(f"{time.perf_counter() - begun:7.0f} s  {text}\n")

    vae, lora = args.out / "pipeline" / "vae", args.out / FEW_STEPS.relative_to(WEIGHTS)
    for part in STEPS if args.part == "all" else [args.part]:
        steps = args.steps or STEPS.get(part)
        if part == "vae":
            quality["vae"] = train_vae(vae, steps, args.device, SEEDS[part], log)
        elif part == "unet":
            train_unet(args.out / "pipeline", vae, steps, args.device, SEEDS[part], log)
        elif part in ("reward", "judge"):
            train_scorer(part, args.out / part, steps, args.device, SEEDS[part], log)
        elif part == "few_steps":
            quality[part] = train_few_steps(args.out / "pipeline", lora, steps, args.device, SEEDS[part], log)
    if args.part in ("unet", "all", "check"):
        quality["base, by the oracle"] = base_quality(args.out / "pipeline", device=args.device)
    if args.part in ("few_steps", "all", "check"):
        quality["in few steps, by the oracle"] = few_steps_quality(args.out / "pipeline", lora, device=args.device)
    for kind in ("reward", "judge"):
        if args.part in (kind, "all", "check"):
            quality[f"{kind}, top-1 of 500"] = retrieval(args.out / kind)
    sys.stdout.write(json.dumps(quality, indent=2) + "\n")


if __name__ == "__main__":
    main()
