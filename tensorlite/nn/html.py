"""Modules as HTML, which notebooks show: a tree that unfolds, with the parameters of each module."""

from __future__ import annotations

import math
from html import escape
from typing import Any, NamedTuple

from ..quantized import QuantizedMatrix
from ..tensors.html import format_bytes
from ..tensors.tensor import Tensor
from .parameter import Parameter

__all__ = ["module_html"]  # This file does not import Module, whose method calls it.


class _Weights(NamedTuple):
    """A parameter, a buffer or a quantized matrix of a module. kind: the word that the tree shows."""

    value: Any
    kind: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int

    @property
    def size(self) -> int:
        """Return the number of entries."""
        return math.prod(self.shape)


def module_html(root: Any) -> str:
    """Return a module as a tree of ``<details>``: its type and options, the parameters of each module, and their sizes.

    A tied parameter is counted where it comes first; elsewhere the tree names that place.
    """
    return f'<div class="tensorlite-module">{_Tree(root).html(root, "", "", True)}</div>'


class _Tree:
    """The modules and weights that the tree has shown so far, by identity, with their paths."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self.seen: dict[int, str] = {}

    def html(self, module: Any, name: str, path: str, is_open: bool) -> str:
        """Return one module with all inside it. name: the attribute that holds it. path: the dotted name."""
        label = f"{escape(name)}: " if name else ""
        title = f"{label}<b>{escape(type(module).__name__)}</b>"
        if id(module) in self.seen:
            return f"<div>{title} <i>the same as {escape(self.seen[id(module)] or 'the whole module')}</i></div>"
        self.seen[id(module)] = path
        options = module.extra_repr()
        title += f" <code>{escape(options)}</code>" if options else ""
        rows, lines = [], []
        for attribute, weights in _weights_of(module):
            where = f"{path}.{attribute}" if path else attribute
            first = self.seen.setdefault(id(weights.value), where)
            rows.append(_row(attribute, weights, first if first != where else None))
        if rows:
            head = "".join(f"<th>{text}</th>" for text in ("name", "shape", "dtype", "numbers", "memory", ""))
            lines.append(f'<table style="text-align:left"><tr>{head}</tr>{"".join(rows)}</table>')
        total = _total(module)
        for attribute, child in list(vars(module).items()):
            if _is_module(child):
                lines.append(self.html(child, attribute, f"{path}.{attribute}" if path else attribute, False))
        summary = f"{title} {total}"
        if not lines:
            return f"<div>{summary}</div>"
        body = "".join(lines)
        state = " open" if is_open else ""
        return f'<details{state}><summary>{summary}</summary><div style="margin-left:1.5em">{body}</div></details>'


def _is_module(value: object) -> bool:
    return hasattr(type(value), "named_parameters")


def _weights_of(module: Any) -> list[tuple[str, _Weights]]:
    """Return the parameters, buffers and quantized matrices of a module itself, by attribute."""
    buffers = vars(module).get("_buffers", {})
    found = []
    for name, value in vars(module).items():
        if isinstance(value, QuantizedMatrix):
            found.append((name, _Weights(value, "quantized", tuple(value.shape), value.kind, value.nbytes)))
        elif isinstance(value, Parameter) or (isinstance(value, Tensor) and name in buffers):
            kind = "buffer" if name in buffers else "trainable" if value.requires_grad else "frozen"
            if kind == "buffer" and not buffers[name]:
                kind = "buffer, not in state_dict"
            found.append((name, _Weights(value, kind, tuple(value.shape), str(value.dtype), value.nbytes)))
    return found


def _row(name: str, weights: _Weights, first: str | None) -> str:
    """Return the row of a parameter. first: the place that shows it already, if it is tied."""
    kind = f"tied to {first}" if first is not None else weights.kind
    cells = (name, str(weights.shape), weights.dtype, f"{weights.size:,}", format_bytes(weights.bytes), kind)
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _total(module: Any) -> str:
    """Return the sums over a module and all inside it, each parameter once."""
    every: dict[int, _Weights] = {}
    for inner in module.modules():
        for _, weights in _weights_of(inner):
            every.setdefault(id(weights.value), weights)
    own = [w for w in every.values() if not w.kind.startswith("buffer")]
    if not own:
        return ""
    count, frozen = sum(w.size for w in own), sum(w.size for w in own if w.kind != "trainable")
    note = "" if not frozen else ", none trainable" if frozen == count else f", {count - frozen:,} trainable"
    size = format_bytes(sum(w.bytes for w in own))
    return f"<small>{count:,} parameter{'s' * (count != 1)}{note}, {size}</small>"
