"""The base of errors that the command line reports without a traceback."""


class UserError(Exception):
    """A mistake that the user can correct: the message names it and says what to do."""
