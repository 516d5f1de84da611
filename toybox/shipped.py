"""Where the toybox's shipped weights are. Standard library alone: the doctor reads it where nothing is installed."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
PARTS = ("pipeline", "reward", "judge")
