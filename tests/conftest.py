"""The surroundings of every test, set before anything imports torch or matplotlib; subprocesses inherit them."""

from __future__ import annotations

import os

# One thread: on models this small the hand-over between threads costs more than it brings, and sums stay in one order.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["MPLBACKEND"] = "Agg"
# A test that would download something fails instead.
os.environ["HF_HUB_OFFLINE"] = "1"
