"""How tensors are printed."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..dtypes import is_floating
from ..scalars import as_number, int_in

__all__ = ["format_array", "format_entries", "printoptions", "set_printoptions", "shown_ends"]

_PROFILES: dict[str, dict[str, Any]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 75, "sci_mode": None},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 75, "sci_mode": None},
    "full": {"precision": 4, "threshold": sys.maxsize, "edgeitems": 3, "linewidth": 75, "sci_mode": None},
}
_options = dict(_PROFILES["default"])


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Set how tensors are printed, as ``torch.set_printoptions`` does. An option that is None keeps its value.

    precision: the number of digits after the point, 4 by default.
    threshold: the number of entries from which only the ends of each dimension are printed, 1000 by default. It may be
        ``inf``.
    edgeitems: how many entries at each end are printed then, 3 by default.
    linewidth: the number of characters of a line, 75 by default.
    profile: "default", "short" or "full", which set all options; the other arguments come after it.
    sci_mode: whether numbers are printed as ``1.0000e+02``. By default it depends on the numbers.

    Raises ValueError for another profile, a negative number, or a ``sci_mode`` that is not a bool. Raises TypeError for
    a number that is not an integer. Then nothing is changed.
    """
    name, new = "set_printoptions", dict(_options)
    if profile is not None:
        if profile not in _PROFILES:
            raise ValueError(f"{name}: expected profile to be one of {', '.join(_PROFILES)}, got {profile!r}")
        new = dict(_PROFILES[profile])
    if threshold is not None and as_number(threshold) == float("inf"):
        threshold = sys.maxsize
    counts = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    for option, value in counts.items():
        if value is not None:
            new[option] = int_in(name, option, value)
            if new[option] < 0:
                raise ValueError(f"{name}: expected {option} to be 0 or more, got {value!r}")
    if sci_mode is not None:
        if not isinstance(sci_mode, bool):
            raise ValueError(f"{name}: expected sci_mode to be True, False or None, got {sci_mode!r}")
        new["sci_mode"] = sci_mode
    _options.update(new)


@contextmanager
def printoptions(**options: Any) -> Iterator[None]:
    """Set the options of :func:`set_printoptions` within a ``with`` block."""
    before = dict(_options)
    set_printoptions(**options)
    try:
        yield
    finally:
        _options.update(before)


def format_array(values: np.ndarray[Any, Any], prefix: str) -> str:
    """Return the numbers of an array as text. ``prefix`` is the text before it on the first line."""
    return _to_text(values, prefix, _options["threshold"], _options["linewidth"])


def _to_text(values: np.ndarray[Any, Any], prefix: str, threshold: int, linewidth: int) -> str:
    sci_mode, precision = _options["sci_mode"], _options["precision"]
    formatter: Any = None
    if values.dtype.kind == "V":  # bfloat16, of whose numbers NumPy prints as many digits as ml_dtypes says
        values = values.astype(np.float32)
    if sci_mode is not None and is_floating(values.dtype):
        formatter = {"float_kind": lambda x: f"{x:.{precision}{'e' if sci_mode else 'f'}}"}
    return np.array2string(
        values, separator=", ", prefix=prefix, precision=precision, threshold=threshold,
        edgeitems=_options["edgeitems"], max_line_width=linewidth, formatter=formatter,
    )  # fmt: skip


def format_entries(values: np.ndarray[Any, Any]) -> list[str]:
    """Return the text of each entry of an array, in order, with the digits that the text of the array has."""
    text = _to_text(values.reshape(-1), "", sys.maxsize, sys.maxsize)
    entries = [entry.strip() for entry in text.removeprefix("[").removesuffix("]").split(",")]
    if len(entries) == values.size or not values.size:
        return entries
    # A formatter of numpy.set_printoptions writes commas of its own.
    return [_to_text(value, "", sys.maxsize, sys.maxsize)[1:-1] for value in values.reshape(-1, 1)]


def shown_ends(shape: tuple[int, ...]) -> list[list[int | None]]:
    """Return the indices of each dimension that are printed; None stands for those between them that are not."""
    ends = _options["edgeitems"]
    places: list[list[int | None]] = []
    for n in shape:
        if math.prod(shape) > _options["threshold"] and n > 2 * ends:
            places.append([*range(ends), None, *range(n - ends, n)])
        else:
            places.append([*range(n)])
    return places
