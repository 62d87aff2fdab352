"""Tensors as HTML, which notebooks show."""

from __future__ import annotations

from html import escape
from itertools import product
from typing import Any

from ..backends.registry import BACKENDS, Array, device_of
from .printing import format_entries, shown_ends

__all__ = ["format_bytes", "tensor_html"]

_TABLES = 12  # the number of tables of an n-dimensional tensor after which only those at the ends are shown
# Colours and fonts are those of the page, so that a dark page stays dark.
_BOX = "max-height:26em;max-width:100%;overflow:auto"
_TABLE = "border-collapse:collapse;font-variant-numeric:tabular-nums;text-align:right"


def tensor_html(x: Any, kind: str) -> str:
    """Return a tensor as HTML: a line about it, and tables of its entries, elided as its text is.

    kind: the name of its class. Of a large tensor, only the entries that are shown are moved from its device.
    """
    array: Array = x.array
    notes = [f"shape {tuple(array.shape)}", str(array.dtype), str(device_of(array)), format_bytes(array.nbytes)]
    if x.node is not None:
        notes.append(f"grad_fn={x.node}")
    elif x.tracked:
        notes.append("requires_grad=True")
    head = f"<div><b>{escape(kind)}</b> <code>{escape(', '.join(notes))}</code></div>"
    return f'<div class="tensorlite-tensor">{head}{_entries_html(array)}</div>'


def format_bytes(size: int) -> str:
    """Return a number of bytes with a unit: 512 bytes, 1.5 KiB, 3.0 MiB."""
    if size < 1024:
        return f"{size} {'byte' if size == 1 else 'bytes'}"
    value, units = size / 1024, ["KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.1f} {units[0]}"


def _entries_html(array: Array) -> str:
    """Return tables of the entries of an array."""
    if not array.size:
        return "<div><i>It has no entries.</i></div>"
    places = shown_ends(tuple(array.shape))
    entries = format_entries(BACKENDS[type(array)].to_numpy(_shown_part(array, places)))
    if array.ndim == 0:
        return f"<div><code>{escape(entries[0])}</code></div>"
    columns = places[-1]
    rows: list[int | None] = places[-2] if array.ndim > 1 else [0]
    size = sum(p is not None for p in rows) * sum(p is not None for p in columns)
    leading = list(product(*places[:-2]))
    whole = [index for index in leading if None not in index]
    starts = {index: i * size for i, index in enumerate(whole)}
    if len(whole) > _TABLES and len(leading) > len(whole):
        whole = [*whole[: _TABLES // 2], *whole[-_TABLES // 2 :]]
    tables, gap = [], False
    for index in leading:
        if index not in starts or index not in whole:
            gap = True
            continue
        if gap:
            tables.append("<div>&#8942;</div>")
            gap = False
        cells = entries[starts[index] : starts[index] + size]
        caption = f"<div><code>[{', '.join(map(str, index))}, :, :]</code></div>" if index else ""
        tables.append(caption + _table(rows, columns, cells, array.ndim > 1))
    return f'<div style="{_BOX}">{"".join(tables)}</div>'


def _shown_part(array: Array, places: list[list[int | None]]) -> Array:
    """Return the entries of an array at some places of each dimension, None being left out.

    Slices are joined from the longest dimension to the shortest, so that little is copied.
    """
    xp = BACKENDS[type(array)]
    for dim in sorted(range(array.ndim), key=lambda d: -array.shape[d]):
        if None in places[dim]:
            cut = places[dim].index(None)
            before, after = [slice(None)] * array.ndim, [slice(None)] * array.ndim
            before[dim] = slice(0, cut)
            after[dim] = slice(array.shape[dim] - (len(places[dim]) - 1 - cut), None)
            array = xp.concatenate((array[tuple(before)], array[tuple(after)]), axis=dim)
    return array


def _table(rows: list[int | None], columns: list[int | None], cells: list[str], numbered: bool) -> str:
    """Return a table of entries with the indices of its rows and columns. None is a row or a column left out."""
    corner = "<th></th>" if numbered else ""
    head = "".join(f"<th>{'&#8230;' if c is None else c}</th>" for c in columns)
    lines = [f"<tr>{corner}{head}</tr>"]
    rest = iter(cells)
    for row in rows:
        if row is None and numbered:
            lines.append("<tr><th>&#8942;</th>" + "<td></td>" * len(columns) + "</tr>")
            continue
        name = f"<th>{row}</th>" if numbered else ""
        texts = ("&#8230;" if c is None else escape(next(rest)) for c in columns)
        lines.append(f"<tr>{name}{''.join(f'<td>{text}</td>' for text in texts)}</tr>")
    return f'<table style="{_TABLE}">{"".join(lines)}</table>'
