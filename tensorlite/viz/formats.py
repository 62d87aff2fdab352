"""The explorer's data as text: a table for a terminal, Graphviz's DOT, a flowchart of Mermaid.

Sources: https://graphviz.org/doc/info/lang.html and https://mermaid.js.org/syntax/flowchart.html.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from .folding import folded

__all__ = ["FORMATS", "to_dot", "to_mermaid", "to_text"]

_LONGEST_CELL, _LONGEST_RULE = 60, 48  # the number of characters after which a cell of the table, or a rule, is cut
_MERMAID_EDGES = 450  # Mermaid draws 500 edges at most, unless the page that it is on allows more.


# ---- a table for a terminal ---------------------------------------------------------------------


def to_text(data: dict[str, Any]) -> str:
    """Return a table of the ops in the order of the backward pass, and one of the gradients.

    A row has the step, the name of the result (``%7`` if it has none), the op with its inputs, the shape and dtype of
    the result, what the op has saved, and the gradient rule for each input. ``sum dims 0`` after a rule means that the
    engine sums its result over that dimension, because the input was broadcast. ``use 2 of 3`` means that it adds the
    result to that of the first use.
    """
    nodes, steps = data["nodes"], {step["node"]: step for step in data["backward"]}
    rows, number = [], 0
    for node in reversed([nodes[i] for i in data["forward"]]):
        if node["kind"] != "op":
            continue
        step = steps.get(node["id"])
        number += step is not None
        rows.append([
            str(number) if step else "-", _label(node), _call(data, node), _shape(node), node["dtype"] or "?",
            _cut(", ".join(map(_saved, node["saved"]))) or "-", _rules(data, step), _module(data, node),
        ])  # fmt: skip
    header = ["step", "result", "op", "shape", "dtype", "saved", "gradient rules", "module"]
    leaves = [node for node in nodes if node["kind"] in ("parameter", "leaf")]
    lines = [f"{_plain(data['title'])}: {_count(rows, 'op')}, {_count(leaves, 'leaf', 'leaves')}"]
    lines += [_plain(note) for note in data["notes"]]
    lines += ["", *_table(header, rows)]
    gradients = [
        [_label(nodes[g["node"]]), _shape(nodes[g["node"]]), *_numbers(data, g["value"])] for g in data["gradients"]
    ]
    if gradients:
        lines += ["", *_table(["gradient of", "shape", "values"], gradients)]
    if data["checks"]:
        lines += ["", *_checks(data)]
    return "\n".join(line.rstrip() for line in lines)


def _count(things: Sequence[object], one: str, many: str = "") -> str:
    return f"{len(things):,} {one if len(things) == 1 else many or one + 's'}"


def _table(header: list[str], rows: list[list[str]]) -> Iterator[str]:
    """Iterate over the lines of a table. Columns that are empty in all rows are left out."""
    cells = [header, *([_plain(cell) for cell in row] for row in rows)]
    kept = [k for k in range(len(header)) if any(row[k] not in ("", "-") for row in cells[1:])]
    widths = {k: max(len(row[k]) for row in cells) for k in kept}
    for row in cells:
        yield "  ".join(row[k].rjust(widths[k]) if header[k] == "step" else row[k].ljust(widths[k]) for k in kept)


def _cut(text: str, longest: int = _LONGEST_CELL) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _plain(text: str) -> str:
    """Return a text on one line, with control characters escaped, so that it cannot change the terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _label(node: dict[str, Any]) -> str:
    return _cut(node["name"]) or f"%{node['id']}"


def _shape(node: dict[str, Any]) -> str:
    return "?" if node["shape"] is None else str(tuple(node["shape"]))


def _module(data: dict[str, Any], node: dict[str, Any]) -> str:
    if node["module"] is None:
        return ""
    module = data["modules"][node["module"]]
    return _cut(module["name"] or module["type"])


def _saved(saved: dict[str, Any]) -> str:
    """Return the name of a saved value, with the value if it is not an array: ``dim=0``."""
    text = saved.get("text") if saved["value"] is None else None
    return f"{saved['name']}={text}" if text and len(text) <= 20 else str(saved["name"])


def _call(data: dict[str, Any], node: dict[str, Any]) -> str:
    """Return the op with its inputs: ``mul(a, b)``."""
    inputs = [(edge["argument"], data["nodes"][edge["from"]]) for edge in data["edges"] if edge["to"] == node["id"]]
    words = [f"{name}=constant" if x["kind"] == "constant" and not x["name"] else _label(x) for name, x in inputs]
    return _cut(f"{node['op']}({', '.join(words)})")


def _rules(data: dict[str, Any], step: dict[str, Any] | None) -> str:
    """Return the rule for each input that gets a gradient."""
    if step is None:
        return "-"
    if step.get("error"):
        return _cut(str(step["error"]))
    texts: dict[str, str] = {}
    for entry in step["inputs"]:
        argument = data["edges"][entry["edge"]]["argument"]
        source = data["sources"][entry["source"]]
        text = _cut(_rule(source["text"]), _LONGEST_RULE)
        if entry["summed_dims"]:
            text += f", sum dims {', '.join(map(str, entry['summed_dims']))}"
        if entry["cast"]:
            text += f", as {entry['cast']}"
        if entry["uses"] > 1:
            text += f" (use {entry['use']} of {entry['uses']})"
        texts[argument] = text
    if len(set(texts.values())) == 1 and len(texts) > 1:
        return f"{', '.join(texts)}: {next(iter(texts.values()))}"
    return "; ".join(f"{argument}: {text}" for argument, text in texts.items())


def _rule(source: str) -> str:
    """Return what a rule computes, on one line: the body of a lambda, or the head of a function."""
    text = " ".join(source.split()).strip().rstrip(",")
    if found := re.search(r"def (\w+)\(", text):
        return f"{found[1]}(...)"
    text = re.sub(r"^lambda\b[^:]*: *", "", text)
    found = re.fullmatch(r"\( *([^,]\w*\(.*\)|[\w.]+\([^()]*\)), *(?:None,? *)*\)", text)  # a tuple of one gradient
    return found[1] if found else text


def _numbers(data: dict[str, Any], place: int | None) -> list[str]:
    """Return the entries of a value if they are few, else their range."""
    if place is None:
        return [""]
    value = data["values"][place]
    if "numbers" in value and math.prod(value["shape"]) <= 8:
        return [_rounded(value["numbers"])]
    if value.get("min") is None:
        return [""]
    text = f"{value['min']:.4g} to {value['max']:.4g}, mean {value['mean']:.4g}"
    return [text + "".join(f", {value[k]:.0%} {k}" for k in ("zeros", "nans", "infs") if value.get(k))]


def _rounded(numbers: Any) -> str:
    if isinstance(numbers, list):
        return f"[{', '.join(map(_rounded, numbers))}]"
    return f"{numbers:.4g}" if isinstance(numbers, float) else str(numbers)


def _checks(data: dict[str, Any]) -> Iterator[str]:
    """Iterate over lines about the comparison with finite differences."""
    checks = data["checks"]
    skipped = [c for c in checks if c["why_not"]]
    wrong = [c for c in checks if not c["why_not"] and not c["ok"]]
    right = len(checks) - len(skipped) - len(wrong)
    yield f"finite differences: {right} of {len(checks)} derivatives agree"
    for check in (*wrong, *skipped):
        edge = data["edges"][check["edge"]]
        op = data["nodes"][edge["to"]]
        what = f"error {check['error']:.3g}" if not check["why_not"] else check["why_not"]
        yield _plain(f"  {op['op']} {_label(op)}, argument {edge['argument']}: {what}")


# ---- pictures -----------------------------------------------------------------------------------


def _lines_of(data: dict[str, Any], node: dict[str, Any]) -> list[str]:
    """Return the lines of the box of a node."""
    first = f"{node['op']}: {node['name']}" if node["op"] and node["name"] else node["op"] or node["name"]
    kind = "" if node["kind"] in ("op", "output") else node["kind"]
    return [first or kind or "?", " ".join(filter(None, [kind if first else "", _shape(node), node["dtype"]]))]


def _summed(data: dict[str, Any]) -> dict[int, str]:
    """Return the label of each edge: the argument, and the dimensions over which its gradient is summed."""
    labels = {edge["id"]: edge["argument"] for edge in data["edges"]}
    for step in data["backward"]:
        for entry in step["inputs"]:
            if entry["summed_dims"]:
                labels[entry["edge"]] += f" (sum dims {', '.join(map(str, entry['summed_dims']))})"
    return labels


def _blocks(
    data: dict[str, Any], begin: Callable[[dict[str, Any]], str], end: str, box: Callable[[dict[str, Any]], str]
) -> list[str]:
    """Return the lines of all boxes, each module a block of lines with those inside it."""
    children: dict[int | None, list[dict[str, Any]]] = {}
    inside: dict[int | None, list[dict[str, Any]]] = {}
    for module in data["modules"]:
        children.setdefault(module["parent"], []).append(module)
    for node in data["nodes"]:
        inside.setdefault(node["module"], []).append(node)
    lines: list[str] = []
    # A stack of lines and of modules to expand, because modules may be nested deeper than Python's recursion.
    stack: list[tuple[int, dict[str, Any] | str]] = [(1, module) for module in reversed(children.get(None, []))]
    while stack:
        depth, item = stack.pop()
        if isinstance(item, str):
            lines.append("  " * depth + item)
            continue
        lines.append("  " * depth + begin(item))
        lines += ["  " * (depth + 1) + box(node) for node in inside.get(item["id"], [])]
        stack.append((depth, end))
        stack += [(depth + 1, module) for module in reversed(children.get(item["id"], []))]
    return lines + ["  " + box(node) for node in inside.get(None, [])]


def _module_label(module: dict[str, Any]) -> str:
    return f"{module['name']}: {module['type']}" if module["name"] else str(module["type"])


_DOT_STYLE = {
    "op": 'shape=box style="rounded,filled" fillcolor="#e8eefc"',
    "module": 'shape=box style="filled" fillcolor="#d5e8d4"',
    "output": 'shape=box style="rounded"',
    "parameter": 'shape=ellipse style="filled" fillcolor="#fdebd0"',
    "leaf": 'shape=ellipse style="filled" fillcolor="#fef9e7"',
    "constant": 'shape=ellipse style="dashed"',
}


def to_dot(data: dict[str, Any]) -> str:
    """Return the graph in Graphviz's language, with a cluster for each module. Draw it with ``dot -Tsvg``."""
    labels = _summed(data)

    def box(node: dict[str, Any]) -> str:
        root = " penwidth=2" if node["root"] else ""
        return f"n{node['id']} [label={_quoted(_lines_of(data, node))} {_DOT_STYLE[node['kind']]}{root}];"

    def begin(module: dict[str, Any]) -> str:
        return f"subgraph cluster_{module['id']} {{ label={_quoted([_module_label(module)])};"

    lines = [f"digraph {_quoted([data['title']])} {{", "  rankdir=TB;", '  node [fontname="sans-serif"];']
    lines += _blocks(data, begin, "}", box)
    lines += [
        f"  n{edge['from']} -> n{edge['to']} [label={_quoted([labels[edge['id']]])}];" for edge in data["edges"]
    ]
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(lines: Iterable[str]) -> str:
    """Return lines as a string of DOT. In it a backslash begins an escape, and an ampersand an entity of HTML."""
    escaped = (_plain(line).replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;") for line in lines)
    return '"' + "\\n".join(escaped).encode("utf-8", "replace").decode() + '"'


_MERMAID_BOX = {
    "op": "({})", "output": "({})", "module": "[[{}]]", "parameter": "[/{}/]", "leaf": "[/{}/]", "constant": "[{}]",
}  # fmt: skip


def to_mermaid(data: dict[str, Any]) -> str:
    """Return the graph as a flowchart of Mermaid, with a subgraph for each module.

    Mermaid refuses more than 500 edges. A larger graph is folded: modules become single boxes, the smallest first.
    """
    whole = len(data["edges"])
    data = folded(data, _MERMAID_EDGES)
    lines = ["flowchart TB"]
    if len(data["edges"]) < whole:
        lines.append(f"  %% {whole} edges are more than Mermaid draws, so modules are folded.")
    labels = _summed(data)

    def box(node: dict[str, Any]) -> str:
        return f"n{node['id']}" + _MERMAID_BOX[node["kind"]].format(_entities(*_lines_of(data, node)))

    def begin(module: dict[str, Any]) -> str:
        return f"subgraph m{module['id']}[{_entities(_module_label(module))}]"

    lines += _blocks(data, begin, "end", box)
    for edge in data["edges"]:
        text = f"|{_entities(labels[edge['id']])}|" if labels[edge["id"]] else ""
        lines.append(f"  n{edge['from']} -->{text} n{edge['to']}")
    return "\n".join(lines) + "\n"


def _entities(*lines: str) -> str:
    """Return lines as a string of Mermaid, in which all that could mean something is written by its number."""

    def escaped(c: str) -> str:
        return c if c.isalnum() or c in " _.,=+-" else f"#{ord(c)};"

    text = "<br/>".join("".join(map(escaped, _plain(line))) for line in lines)
    return f'"{text or " "}"'  # An empty string is not valid.


FORMATS: dict[str, Callable[[dict[str, Any]], str]] = {"text": to_text, "dot": to_dot, "mermaid": to_mermaid}
"""The function that writes each format."""
