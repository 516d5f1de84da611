"""Libraries' advice about their own files."""

from __future__ import annotations


def quiet_libraries() -> None:
    """Let libraries' advice about their own files not drown what the user needs to read."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
