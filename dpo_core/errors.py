"""Errors that a user can mend."""


class UserError(ValueError):
    """A wrong input or setting. The message names the value, the reason and the remedy; shown without a traceback."""
