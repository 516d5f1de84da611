"""`python -m dreambooth_dpo` is the command line, as accelerate and torchrun start it."""

from .cli import app

app(prog_name="dreambooth-dpo")
