"""Environment variables that choose among a few values."""

from __future__ import annotations

import os

__all__ = ["check_variables", "is_on"]

# The variables, each with its values. An empty variable counts as unset.
CHOICES = {
    "TENSORLITE_AMX": ("0", "1"),
    "TENSORLITE_DETERMINISTIC": ("0", "1"),
    "TENSORLITE_JIT": ("0", "1"),
    "TENSORLITE_MALLOC": ("system",),
}


def check_variables() -> None:
    """Raise ValueError if a variable of ``CHOICES`` has another value, which would be ignored in silence otherwise."""
    for name, choices in CHOICES.items():
        value = os.environ.get(name, "")
        if value and value not in choices:
            raise ValueError(
                f"{name}: expected {' or '.join(choices)}, got {value!r:.80}. Correct or unset this environment "
                "variable."
            )


def is_on(name: str, default: bool) -> bool:
    """Return whether a variable with the values 0 and 1 is 1, or ``default`` where it is not set."""
    return (os.environ.get(name) or str(int(default))) != "0"
