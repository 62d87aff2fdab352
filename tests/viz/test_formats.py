"""The explorer's data as text, DOT and Mermaid: what they say, and that names cannot break them."""

import copy
import functools
import re
import shutil
import subprocess

import pytest

import tensorlite as tl
from tensorlite import nn
from tensorlite.viz import explore
from tensorlite.viz.folding import folded
from tensorlite.viz.formats import FORMATS, to_dot, to_mermaid, to_text

AWKWARD = [
    'a"b', "a\\", "\\", 'x"]; evil [label="', "<b>bold</b>", "a&amp;b", "a|b", "`md`", "#quot;", "end", "%% no", "](x)",
    "class n1", "\x00", "line\nbreak", "tab\t\x1b[31mred", "naïve 漢字", "\ud800", "", "subgraph", "{}", "a;b", "%7",
    "--> n1",
]  # fmt: skip


def data_of_product():
    """Return a copy of the data of ``a * b + c``, where b and c are broadcast."""
    return copy.deepcopy(product())


@functools.cache
def product():
    a, b, c = (tl.ones(*shape, requires_grad=True) for shape in [(2, 3), (2, 1), (3,)])
    data = explore(a * b + c).data
    data["title"], data["notes"] = "loss", []
    for node, name in zip((n for n in data["nodes"] if n["kind"] == "leaf"), "abc", strict=True):
        node["name"] = name
    return data


def with_modules(depth=2, names=("net", "0")):
    data = data_of_product()
    data["modules"] = [
        {"id": i, "name": names[i % len(names)], "type": "Block", "parent": i - 1 if i else None} for i in range(depth)
    ]
    for node in data["nodes"]:
        if node["op"] == "mul":
            node["module"] = depth - 1
    return data


def awkward(text):
    data = with_modules(names=(text, text))
    data["title"] = text
    data["notes"] = [text]
    data["modules"][0]["type"] = text
    for node in data["nodes"]:
        node["name"] = text
    for edge in data["edges"]:
        edge["argument"] = text
    for source in data["sources"]:
        source["text"] = text
    return data


def parse_mermaid(text):
    """Return the boxes, the edges and the depth at the end. Raise AssertionError for another line."""
    string = r'"(?:[\w .,=+-]|#\d+;|<br/>)+"'
    boxes, edges, depth = {}, [], 0
    lines = text.splitlines()
    assert lines[0] == "flowchart TB"
    for line in lines[1:]:
        line = line.strip()
        if found := re.fullmatch(rf"n(\d+)(?:\({string}\)|\[\[{string}\]\]|\[/{string}/\]|\[{string}\])", line):
            boxes[found[1]] = depth
        elif found := re.fullmatch(rf"n(\d+) -->(?:\|{string}\|)? n(\d+)", line):
            edges.append((found[1], found[2]))
        elif re.fullmatch(rf"subgraph m\d+\[{string}\]", line):
            depth += 1
        elif line == "end":
            depth -= 1
        else:
            assert re.fullmatch(r"%% [\w ,.]+", line), line
    assert {end for edge in edges for end in edge} <= set(boxes)
    return boxes, edges, depth


def parse_dot(text):
    """Return the number of boxes and of edges. Raise AssertionError for a line that is not valid."""
    string = r'"(?:[^"\\\n]|\\.)*"'
    attributes = rf"\[(?:\w+=(?:{string}|\w+) ?)*\];"
    lines = text.splitlines()
    assert re.fullmatch(rf"digraph {string} \{{", lines[0]), lines[0]
    kinds = [
        rf"n\d+ {attributes}", rf"n\d+ -> n\d+ {attributes}", rf"subgraph cluster_\d+ \{{ label={string};", r"\}",
        r"rankdir=TB;", rf"node {attributes}",
    ]  # fmt: skip
    counts = [0] * len(kinds)
    for line in lines[1:]:
        fits = [re.fullmatch(kind, line.strip()) is not None for kind in kinds]
        assert any(fits), line
        counts[fits.index(True)] += 1
    assert counts[3] == counts[2] + 1
    return counts[0], counts[1]


def test_the_text_says_what_each_step_does():
    lines = to_text(data_of_product()).splitlines()
    assert lines[:2] == ["loss: 2 ops, 3 leaves", ""]
    assert lines[2].split() == ["step", "result", "op", "shape", "dtype", "saved", "gradient", "rules"]
    assert re.search(r"^ +1 +%\d +add\(%\d, c\) +\(2, 3\) +float32 .*, sum dims 0$", lines[3])
    assert re.search(r"^ +2 +%\d +mul\(a, b\) +\(2, 3\) +float32 +x, y +x: g \* y; y: g \* x, sum dims 1$", lines[4])
    assert re.search(r"^c +\(3,\) +\[2, 2, 2\]$", lines[7])
    assert re.search(r"^a +\(2, 3\) +\[\[1, 1, 1\], \[1, 1, 1\]\]$", lines[8])


def test_the_text_of_a_layer_and_of_second_order():
    net = nn.Sequential(nn.Linear(3, 4), nn.GELU())
    text = to_text(explore(net(tl.ones(2, 3)).sum()).data)
    assert "gelu(" in text
    assert "xp.gelu_backward(g, x" in text
    assert "sum(" in text


def test_the_text_of_several_uses_and_of_saved_numbers():
    x = tl.tensor(3.0, requires_grad=True)
    lines = to_text(explore(x**2 + x).data).splitlines()
    assert re.search(r" y: .* \(use 1 of 2\)$", lines[3])
    assert re.search(r" x, exponent=2 .* \(use 2 of 2\)$", lines[4])


def test_the_text_of_checks():
    data = data_of_product()
    check = {"edge": 0, "analytic": 0, "numeric": 0, "ok": True, "error": 1e-9, "kinks": [], "why_not": None}
    data["checks"] = [check, {**check, "edge": 1, "ok": False, "error": 0.5}, {**check, "why_not": "It is too large."}]
    lines = to_text(data).splitlines()
    assert lines[-3] == "finite differences: 1 of 3 derivatives agree"
    assert re.fullmatch(r"  mul %\d, argument y: error 0\.5", lines[-2])
    assert lines[-1].endswith("argument x: It is too large.")


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("lambda g, y: g * y", "g * y"),
        ("lambda g: g,", "g"),
        ("lambda xp, g, x: (\n    xp.gelu_backward(g, x),\n    None,\n)", "xp.gelu_backward(g, x)"),
        ("lambda g, x: (g, x)", "(g, x)"),
        ("def _rule(xp: Namespace, g: Array):\n    return g", "_rule(...)"),
    ],
)
def test_a_rule_is_one_line(source, rule):
    data = data_of_product()
    for entry in data["sources"]:
        entry["text"] = source
    assert rule in to_text(data).splitlines()[3]
    assert "lambda" not in to_text(data)


@pytest.mark.parametrize("text", AWKWARD, ids=ascii)
def test_names_cannot_break_a_format(text):
    data = awkward(text)
    lines = to_text(data).splitlines()
    assert len(lines) == 11
    assert all(c.isprintable() for line in lines for c in line)
    boxes, edges, depth = parse_mermaid(to_mermaid(data))
    assert (len(boxes), len(edges), depth) == (5, 4, 0)
    assert parse_dot(to_dot(data)) == (5, 4)
    assert "evil [" not in to_mermaid(data)


def test_graphviz_reads_the_dot(tmp_path):
    if shutil.which("dot") is None:
        pytest.skip("dot is not installed: apt install graphviz")
    for i, text in enumerate(AWKWARD):
        (tmp_path / f"{i}.dot").write_text(to_dot(awkward(text)), "utf-8")
    files = [str(tmp_path / f"{i}.dot") for i in range(len(AWKWARD))]
    done = subprocess.run(["dot", "-Tplain", *files], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("\nnode n") == 5 * len(AWKWARD)


def test_modules_are_clusters_and_subgraphs():
    data = with_modules()
    dot, mermaid = to_dot(data), to_mermaid(data)
    assert 'subgraph cluster_0 { label="net: Block";' in dot
    assert dot.index("cluster_0") < dot.index("cluster_1") < dot.index("mul") < dot.index("add")
    boxes, _, _ = parse_mermaid(mermaid)
    assert sorted(boxes.values()) == [0, 0, 0, 0, 2]
    deep = with_modules(depth=3000)
    assert max(parse_mermaid(to_mermaid(deep))[0].values()) == 3000


def test_the_sum_over_a_broadcast_dimension_is_on_the_edge():
    data = data_of_product()
    assert '[label="y (sum dims 1)"]' in to_dot(data)
    assert '|"y #40;sum dims 0#41;"|' in to_mermaid(data)


def test_a_large_graph_is_folded_for_mermaid():
    x = tl.ones(2, requires_grad=True)
    y = x
    for _ in range(600):
        y = y * 1.5
    data = explore(y).data
    data["modules"] = [{"id": 0, "name": "", "type": "Net", "parent": None}] + [
        {"id": i, "name": f"layer{i}", "type": "Layer", "parent": 0} for i in range(1, 61)
    ]
    ops = [node for node in data["nodes"] if node["kind"] == "op"]
    for i, node in enumerate(ops):
        node["module"] = 1 + i // 10
    mermaid = to_mermaid(data)
    _, edges, _ = parse_mermaid(mermaid)
    assert "are more than Mermaid draws, so modules are folded." in mermaid.splitlines()[1]
    assert 60 <= len(edges) <= 450
    assert mermaid.count("[[") >= 15
    few = folded(data, 70)
    assert [n["name"] for n in few["nodes"] if n["kind"] == "module"] == [f"layer{i}" for i in range(2, 61)]
    assert len(folded(data, 5)["nodes"]) < 5
    assert folded(data, 5000) is data


@pytest.mark.parametrize("name", FORMATS)
def test_a_leaf_and_a_freed_graph(name):
    x = tl.ones(2, requires_grad=True)
    assert FORMATS[name](explore(x).data)
    y = (x * x).exp().sum()
    y.backward()
    assert FORMATS[name](explore(y).data)
