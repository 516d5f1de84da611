"""Errors of the metrics that a user can fix."""


class MetricsError(ValueError):
    """A wrong input, folder or weights file. The message names value, reason and remedy."""
