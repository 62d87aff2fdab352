"""What users can get wrong, and the command line reports without a traceback."""


class UserError(Exception):
    """A mistake that the user can mend: the message names it and says what to do."""
