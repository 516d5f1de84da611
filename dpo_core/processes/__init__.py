"""Several processes on one run, started by accelerate or torchrun."""
