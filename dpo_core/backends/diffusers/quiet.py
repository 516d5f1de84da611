"""Silence the advisory messages of diffusers and transformers."""

from __future__ import annotations


def quiet_libraries() -> None:
    """Set diffusers and transformers to errors only and no progress bars, so that our own messages stay visible."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
