"""Errors that a user can fix."""


class UserError(ValueError):
    """A wrong input or setting. The message names value, reason and remedy; it is shown without a traceback."""
