"""Where the toybox's shipped weights are. Standard library alone: the doctor reads it where nothing is installed."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
PARTS = ("pipeline", "reward", "judge")
FEW_STEPS = WEIGHTS / "few_steps" / "few_steps.safetensors"
"""A LoRA with which the toybox draws in two sampler steps (toybox/train/few_steps.py)."""
