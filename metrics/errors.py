"""Errors of the metrics that a user can mend."""


class MetricsError(ValueError):
    """A wrong input, folder or weights file. The message names the value, the reason and the remedy."""
