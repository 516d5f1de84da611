"""Run a coroutine of the host from a test."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def in_a_loop(coroutine: Coroutine, seconds: float | None = None) -> Any:
    """Run a coroutine in a new thread and return its result; this thread's event loop may belong to a browser.

    seconds: TimeoutError after as many; None: no limit.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, asyncio.wait_for(coroutine, seconds)).result()
