"""The sources that tl.explore shows: those of gradient rules, and of the functions that these call."""

import linecache
from pathlib import Path

import pytest

import tensorlite as tl
import tensorlite.nn.functional as F

ROOT = Path(__file__).resolve().parents[2]


def leaf(values):
    return tl.tensor(values, requires_grad=True)


def double_of(scale):
    return lambda g: g * scale


def named_rule(g, x):
    """Return the gradient of a square."""
    return g * 2 * x


def by_rules(*rules):
    @tl.op(*rules)
    def own(xp, x, y):
        return x * x + 3 * y

    return own


def sources(op, *more):
    """Return the text of the source of the rule of each argument."""
    data = tl.explore(op(leaf([1.0, 2.0]), leaf([1.0, 2.0]), *more)).data
    return [data["sources"][i["source"]] for i in data["backward"][0]["inputs"]]


def test_sources_are_those_of_the_exact_rule():
    first, second = sources(by_rules(lambda g, x: g * 2 * x, lambda g: (lambda h: h * 3)(g)))
    assert first["text"] == "lambda g, x: g * 2 * x"
    assert first["for"] == "x"
    assert second["text"] == "lambda g: (lambda h: h * 3)(g)"
    assert second["for"] == "y"
    first, second = sources(by_rules(named_rule, double_of(3)))
    assert first["text"].startswith("def named_rule(g, x):")
    assert first["text"].endswith("return g * 2 * x")
    assert second["text"] == "lambda g: g * scale"
    assert second["line"] == double_of.__code__.co_firstlineno + 1
    assert first["file"].endswith("tests/viz/test_sources.py")


CODE = """
import tensorlite as tl
@tl.op(lambda g, x: g * 2 * x, lambda g: g * 3)
def own(xp, x, y):
    return x * x + 3 * y
"""


def test_sources_of_notebook_cells_are_found_and_those_of_exec_are_not():
    names = {}
    exec(compile(CODE, "<string>", "exec"), names)  # noqa: S102
    assert all("source not available" in s["text"] for s in sources(names["own"]))
    cell = "/tmp/ipykernel_1/1234.py"
    linecache.cache[cell] = (len(CODE), None, CODE.splitlines(True), cell)
    exec(compile(CODE, cell, "exec"), names)  # noqa: S102
    assert [s["text"] for s in sources(names["own"])] == ["lambda g, x: g * 2 * x", "lambda g: g * 3"]
    del linecache.cache[cell]


def test_the_source_of_a_fused_op_is_its_backward_function():
    source = tl.explore(F.cross_entropy(leaf([[1.0, 2.0]]), tl.tensor([0]))).data["sources"][-1]
    names = "xp, g, logits, target, top, total, count, ignore_index, smoothing"
    assert source["text"].startswith(f"lambda {names}: (\n    xp.")
    assert source["text"].endswith("\n)")
    assert source["for"] is None


def calls_of(loss, op):
    """Return the functions that the rules of an op call, by name."""
    data = tl.explore(loss).data
    [step] = [step for step in data["backward"] if data["nodes"][step["node"]]["op"] == op]
    found = [data["sources"][entry["source"]] for entry in step["inputs"]]
    return {each["name"]: each for source in found for each in source["calls"]}


CALLS = {  # op: the functions that its rules call, and what the source of the first one has
    "linear": (lambda x: F.linear(x, x, x[0]), ["linear_backward"], "xp.sum_to(added, rows.shape[1:])"),
    "layer_norm_rows": (lambda x: F.layer_norm(x, [2]), ["layer_norm_backward", "_row_mean"], "rstd"),
    "cross_entropy_rows": (
        lambda x: F.cross_entropy(x, tl.tensor([0, 1])), ["_each_loss", "cross_entropy_backward"], "broadcast_to"),
    "attention": (
        lambda x: F.scaled_dot_product_attention(x, x, x),
        ["attention_backward", "_blocks_of_queries", "_attend_backward", "_scores", "_some_rows"], "_attend_backward("),
    "correlate": (
        lambda x: F.conv1d(x[None], x[None]),
        ["correlate_input", "correlate_weight"], "Return the gradient of :func:`correlate` for x"),
    "sum": (lambda x: x.sum(0), ["_unfold", "_fold"], "broadcast_to"),
    "add": (lambda x: x + x, ["_factor"], "alpha"),
    "matmul": (lambda x: x @ x, ["_broadcast_dims", "_summed_product"], "def _broadcast_dims"),
    "mul": (lambda x: x * x, [], ""),
}  # fmt: skip


@pytest.mark.parametrize("op", CALLS)
def test_a_source_has_the_functions_that_it_calls(op):
    f, names, text = CALLS[op]
    calls = calls_of(f(leaf([[1.0, 2.0], [3.0, 4.0]])).sum() if op != "sum" else f(leaf([[1.0, 2.0]])), op)
    assert set(names) <= set(calls)
    assert len(calls) <= 12
    for each in calls.values():
        lines = Path(ROOT, each["file"]).read_text("utf-8").splitlines()
        assert f"def {each['name']}(" in "".join(lines[each["line"] - 1 : each["line"] + 6])
        assert each["file"].startswith(("tensorlite/ops/", "tensorlite/backends/reference.py"))
    if names:
        assert text in calls[names[0]]["text"]
    else:
        assert calls == {}


def helper_of_a_user(g):
    return g * 2


def test_helpers_of_a_user_s_rule_are_shown():
    @tl.op(lambda g: helper_of_a_user(g))
    def double(xp, x):
        return x * 2

    [call] = calls_of(double(leaf([1.0, 2.0])), "double").values()
    assert call["text"] == "def helper_of_a_user(g):\n    return g * 2"
    assert call["file"].endswith("tests/viz/test_sources.py")
