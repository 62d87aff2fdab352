"""The JSON of a checkpoint: which keys it has, and which values they take.

The file may come from anybody. So each value is checked before something uses it, and an error names its key.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gpt.checkpoint.base import damaged
from gpt.errors import short

# A check takes the name of a value and the value, and raises ValueError with the name.
Check = Callable[[str, Any], None]

LONGEST_INTEGER = 40  # digits, enough for 128 bits


def parse_json(path: Path, text: str) -> dict[str, Any]:
    """Return the object that a JSON text holds. Raises CheckpointError, also for a key that comes twice."""
    try:
        header = json.loads(text, object_pairs_hook=unique_keys, parse_int=integer_or_float)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise damaged(path, f"its JSON does not parse ({reason})") from None
    if not isinstance(header, dict):
        raise damaged(path, f"its JSON does not parse (expected an object, got {type(header).__name__})")
    return header


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a dict of pairs. Raises ValueError for a key that comes twice, where readers may choose differently."""
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {short(next(key for key in keys if keys.count(key) > 1))} comes twice")
    return result


def integer_or_float(digits: str) -> int | float:
    """Return an integer, or a float if it has more digits than any that we write."""
    return int(digits) if len(digits) <= LONGEST_INTEGER else float(digits)


def check_header(path: Path, header: dict[str, Any]) -> None:
    """Raise CheckpointError with the key of the first value that a checkpoint cannot have."""
    try:
        HEADER("", header)
    except ValueError as error:
        raise damaged(path, str(error)) from None


# ---- checks -------------------------------------------------------------------------------------


def wrong(name: str, expected: str, value: Any) -> ValueError:
    """Return the error for a value."""
    return ValueError(f"{name or 'the JSON'}: expected {expected}, got {short(value)}")


def below(name: str, key: str) -> str:
    """Return the name of a value in an object."""
    shown = key if key.isprintable() and len(key) <= 80 else short(key)
    return f"{name}.{shown}" if name else shown


def integer(low: int, high: int) -> Check:
    """Return a check for an int from `low` to `high`."""

    def check(name: str, value: Any) -> None:
        if type(value) is not int or not low <= value <= high:
            raise wrong(name, f"an integer from {low} to {high}", value)

    return check


def odd(name: str, value: Any) -> None:
    """Check an odd integer of 128 bits."""
    integer(1, 2**128 - 1)(name, value)
    if value % 2 == 0:
        raise wrong(name, "an odd integer", value)


def number(name: str, value: Any) -> None:
    """Check a finite number that is not negative."""
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise wrong(name, "a finite number of at least 0", value)


def finite(name: str, value: Any) -> None:
    """Check a finite number."""
    if type(value) not in (int, float) or not -math.inf < value < math.inf:
        raise wrong(name, "a finite number", value)


def scalar(name: str, value: Any) -> None:
    """Check a finite number, a short string, true, false or null."""
    if type(value) in (int, float):
        finite(name, value)
    elif not (value is None or type(value) is bool or (type(value) is str and len(value) <= 80)):
        raise wrong(name, "a number, a short string, true, false or null", value)


def number_or_none(name: str, value: Any) -> None:
    """Check a finite number that is not negative, or null."""
    if value is not None:
        number(name, value)


def boolean(name: str, value: Any) -> None:
    """Check true or false."""
    if type(value) is not bool:
        raise wrong(name, "true or false", value)


def text(pattern: str, meaning: str) -> Check:
    """Return a check for a string that a regular expression matches."""

    def check(name: str, value: Any) -> None:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise wrong(name, meaning, value)

    return check


def text_or_none(pattern: str, meaning: str) -> Check:
    """Return a check for a string that a regular expression matches, or null."""
    check_text = text(pattern, meaning)

    def check(name: str, value: Any) -> None:
        if value is not None:
            check_text(name, value)

    return check


def anything(name: str, value: Any) -> None:
    """Check any value, except for numbers that are not finite."""
    if isinstance(value, dict):
        table(anything)(name, value)
    elif isinstance(value, list):
        sequence(anything)(name, value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise wrong(name, "a finite number", value)


def sequence(item: Check) -> Check:
    """Return a check for a list."""

    def check(name: str, value: Any) -> None:
        if not isinstance(value, list):
            raise wrong(name, "a list", value)
        for i, entry in enumerate(value):
            item(f"{name}[{i}]", entry)

    return check


def table(item: Check, keys: str = "", meaning: str = "") -> Check:
    """Return a check for an object of any keys, or of those that a regular expression matches."""

    def check(name: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise wrong(name, "an object", value)
        for key, entry in value.items():
            if keys and not re.fullmatch(keys, key):
                raise wrong(name, f"keys that are {meaning}", key)
            item(below(name, key), entry)

    return check


def record(
    fields: Mapping[str, Check], optional: Mapping[str, Check] | None = None, others: Check | None = None
) -> Check:
    """Return a check for an object with certain keys. `others` checks the values of more keys, None forbids them."""
    known = {**fields, **(optional or {})}

    def check(name: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise wrong(name, "an object", value)
        for key in fields:
            if key not in value:
                raise ValueError(f"{below(name, key)!r} is missing")
        for key, entry in value.items():
            item = known.get(key, others)
            if item is None:
                raise ValueError(f"{below(name, key)!r} is not a key of a checkpoint")
            item(below(name, key), entry)

    return check


# ---- the keys -----------------------------------------------------------------------------------

PCG64 = record(
    {
        "bit_generator": text("PCG64", "'PCG64'"),
        "state": record({"state": integer(0, 2**128 - 1), "inc": odd}),
        "has_uint32": integer(0, 1),
        "uinteger": integer(0, 2**32 - 1),
    }
)

# What training needs to continue. Another program may store less, or more.
STATE = record(
    {},
    {
        "batches": PCG64,
        "dropout": record({"cpu": PCG64, "seed": integer(0, 2**64 - 1), "offset": integer(0, 2**63 - 1)}),
        "best": number_or_none,
        "text": text("[0-9a-f]{64}", "64 hexadecimal digits"),
        "meter": record({"losses": sequence(number), "seconds": number}),
        "evaluation_due": boolean,
        "patience": record({"reference": number_or_none, "stale": integer(0, 2**63 - 1)}),
        "average": record({"updates": integer(0, 2**63 - 1)}),
        "spikes": record(
            {
                **dict.fromkeys(("losses", "norms"), sequence(number)),
                "scale": number,
                **dict.fromkeys(("calm", "skipped", "lost"), integer(0, 2**63 - 1)),
            }
        ),
        "base": record({"path": text("[^\\0]{1,4096}", "a path"), "sha256": text("[0-9a-f]{64}", "64 digits")}),
    },
    others=anything,
)

# Options of the optimizers; those that have no line may be any scalar. Training compares them with the configuration.
OPTIONS = {
    **dict.fromkeys(("lr", "initial_lr", "weight_decay", "eps", "momentum", "dampening"), number),
    **dict.fromkeys(("maximize", "nesterov"), boolean),
    "betas": sequence(number),
    "ns_coefficients": sequence(finite),
    "ns_steps": integer(1, 99),
    "adjust_lr_fn": text_or_none("[a-z_]+", "a name"),
}

OPTIMIZER = record(
    {
        "numbers": table(
            record({}, {"step": integer(0, 2**63 - 1)}, others=scalar), "0|[1-9][0-9]{0,9}", "numbers of parameters"
        ),
        "param_groups": sequence(record({"params": sequence(integer(0, 10**9))}, OPTIONS, others=scalar)),
    }
)

# The values in `config` and `tokenizer` are checked by their own modules.
HEADER = record(
    {
        "format": integer(1, 2),
        "config": table(anything),
        "tokenizer": table(anything),
        "step": integer(0, 2**63 - 1),
        "optimizer": OPTIMIZER,
        "state": STATE,
        "crc32": table(integer(0, 2**32 - 1)),
    }
)
