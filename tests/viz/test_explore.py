"""tl.explore: what the data says about a graph, and that nothing of the user's changes."""

import gc
import itertools
import json
import sys
import weakref

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite import nn
from tensorlite.autograd import grad
from tensorlite.testing import strict
from tensorlite.viz import large

TYPES = {"float16": tl.float16, "float32": tl.float32, "float64": tl.float64}


def leaf(values, dtype="float32"):
    return tl.tensor(values, dtype=TYPES[dtype], requires_grad=True)


def data_of(what, **options):
    """Return the data, after checking what holds for every graph."""
    data = tl.explore(what, **options).data
    json.dumps(data, allow_nan=False)
    assert [n["id"] for n in data["nodes"]] == list(range(len(data["nodes"])))
    assert all(e["from"] < e["to"] for e in data["edges"])
    for node in data["nodes"]:
        assert (node["value"] is None) == (node["why_no_value"] is not None)
    return data


def numbers(data, place):
    return np.array(data["values"][place]["numbers"], dtype=float)


def ops(data):
    return [n["op"] for n in data["nodes"] if n["kind"] in ("op", "output")]


def step_of(data, op):
    """Return the one step of an op."""
    [step] = [s for s in data["backward"] if data["nodes"][s["node"]]["op"] == op]
    return step


def input_of(data, op, argument):
    """Return what the step of an op sends to the input of an argument."""
    [entry] = [i for i in step_of(data, op)["inputs"] if data["edges"][i["edge"]]["argument"] == argument]
    return entry


def values_of(data):
    """Return the value of each op by its name, None where it is not known."""
    return {
        n["op"]: None if n["value"] is None else data["values"][n["value"]]["numbers"]
        for n in data["nodes"] if n["kind"] != "constant" and n["op"]
    }  # fmt: skip


def notes_of(data):
    return " ".join(data["notes"])


# ---- one step -----------------------------------------------------------------------------------


def test_a_broadcast_input_gets_the_rule_s_result_and_its_sum():
    a, b, c = leaf([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), leaf([[0.5], [2.0]]), leaf([1.0, 0.0, -1.0])
    data = data_of(a * b + c)
    entry = input_of(data, "add", "y")
    assert data["sources"][entry["source"]]["text"] == "lambda g, alpha: g if alpha == 1 else g * _factor(alpha)"
    assert data["sources"][entry["source"]]["file"] == "tensorlite/ops/elementwise.py"
    assert numbers(data, entry["result"]).shape == (2, 3)
    assert entry["summed_dims"] == [0]
    assert numbers(data, entry["sum"]).tolist() == [2.0, 2.0, 2.0]
    other = input_of(data, "mul", "y")
    assert other["summed_dims"] == [1]
    assert numbers(data, other["after"]).tolist() == [[6.0], [15.0]]
    assert input_of(data, "mul", "x")["summed_dims"] == []
    assert input_of(data, "mul", "x")["sum"] is None
    assert [n["name"] for n in tl.explore(a * b + c).data["nodes"] if n["kind"] == "leaf"] == ["a", "b", "c"]


def test_a_leading_dimension_and_one_of_size_1_are_summed():
    x, w = leaf(np.ones((4, 2, 3))), leaf(np.ones((1, 3)))
    assert input_of(data_of(x * w), "mul", "y")["summed_dims"] == [0, 1]


@pytest.mark.parametrize(("f", "uses"), [(lambda x: x * x, 2), (lambda x: x * x + x, 3), (lambda x: x + x + x + x, 4)])
def test_several_uses_are_added_one_by_one(f, uses):
    x = leaf([3.0, 4.0])
    data = data_of(f(x))
    entries = [i for s in data["backward"] for i in s["inputs"] if data["edges"][i["edge"]]["from"] == 0]
    assert [(e["use"], e["uses"]) for e in entries] == [(k, uses) for k in range(1, uses + 1)]
    assert entries[0]["before"] is None
    for earlier, later in itertools.pairwise(entries):
        assert np.array_equal(numbers(data, earlier["after"]), numbers(data, later["before"]))
        contribution = numbers(data, later["result"])
        assert np.array_equal(numbers(data, later["before"]) + contribution, numbers(data, later["after"]))
    [g] = grad(f(x).sum(), x)
    assert np.array_equal(numbers(data, data["gradients"][0]["value"]), g.numpy())


def test_a_gradient_is_cast_to_the_dtype_of_its_input():
    data = data_of((leaf([1.0, 2.0], "float16") * leaf([3.0, 4.0])).sum())
    assert [input_of(data, "mul", k)["cast"] for k in "xy"] == ["float16", None]
    gradients = {data["nodes"][g["node"]]["dtype"]: data["values"][g["value"]]["dtype"] for g in data["gradients"]}
    assert gradients == {"float16": "float16", "float32": "float32"}


def test_results_of_one_op_are_nodes_with_steps():
    first, second = leaf(np.arange(6.0).reshape(3, 2)).split([1, 2])
    data = data_of((second * 3).sum())
    assert ops(data) == ["split", "split[1]", "mul", "sum"]
    step = step_of(data, "split")
    assert [numbers(data, g).tolist() for g in step["cotangents"]] == [[[0, 0]], [[3, 3], [3, 3]]]
    assert data["nodes"][2]["kind"] == "output"
    assert data["nodes"][2]["value"] is not None
    assert first.shape == (1, 2)


def test_saved_memory_is_freed_once_by_the_last_step_that_holds_it():
    x, w = leaf(np.ones((10, 10))), leaf(np.ones((10, 10)))
    freed = {data_node["op"]: step["freed_bytes"] for data in [data_of(((x @ w).exp().tanh() * x).sum())]
             for step in data["backward"] for data_node in [data["nodes"][step["node"]]]}  # fmt: skip
    assert freed == {"sum": 0, "mul": 0, "tanh": 400, "exp": 400, "matmul": 0}  # a parameter's memory is not freed
    h = (x @ w).exp()
    assert step_of(data_of(h.tanh().sum()), "exp")["freed"] == []  # h is still held
    view = (x * 2).reshape(-1)
    total = sum(step["freed_bytes"] for step in data_of(((view * view).exp() * view.exp()).sum())["backward"])
    assert total == 2 * 400  # the results of exp, each saved by two ops; the memory of view is held


# ---- values -------------------------------------------------------------------------------------


def test_results_are_computed_again_from_what_is_known():
    x, k = leaf([1.0, -2.0]), leaf([3.0, 5.0])
    assert values_of(data_of(((x * k + x).relu().reshape(2, 1).sum(1, keepdim=True) / k.sum()).exp().sum())) == {
        "mul": [3.0, -10.0], "add": [4.0, -12.0], "relu": [4.0, 0.0], "reshape": [[4.0], [0.0]], "sum": pytest.approx(
            2.6487212), "true_divide": [[0.5], [0.0]], "exp": [[pytest.approx(1.6487212)], [1.0]]}  # fmt: skip


def test_an_unsaved_constant_is_known_only_to_a_recording():
    x = leaf([1.0, 2.0])
    data = data_of((x + 0.5).sum())
    assert values_of(data)["add"] is None
    assert "lambda" in notes_of(data)
    recorded = data_of(lambda: (x + 0.5).sum())
    assert values_of(recorded)["add"] == [1.5, 2.5]
    [node] = [n for n in recorded["nodes"] if n["op"] == "add"]
    assert node["seconds"] > 0
    assert "test_explore.py" in node["line"]


def test_ops_of_users_are_not_run_if_they_draw_random_numbers():
    @tl.op(lambda g: g)
    def noisy(xp, x):
        return x + np.random.random(x.shape).astype(x.dtype)

    @tl.op(lambda g: 2 * g)
    def twice(xp, x):
        return 2 * x

    y = twice(noisy(leaf([1.0, 2.0]))).sum()
    before = np.random.get_state()[1:3]
    data = data_of(y, check=True)
    after = np.random.get_state()[1:3]
    assert np.array_equal(before[0], after[0])
    assert before[1] == after[1]
    assert values_of(data)["noisy"] is None
    assert "random" in data["nodes"][1]["why_no_value"]
    assert data_of(twice(leaf([1.0])))["nodes"][1]["value"] is not None


def test_large_values_are_heat_maps_and_extreme_ones_are_strings():
    x = leaf(np.arange(100.0 * 70).reshape(100, 70))
    x.array[0, 0] = np.nan
    data = data_of(x.sum())
    heat = data["values"][data["nodes"][0]["value"]]
    assert heat["heat"]["reduced"] == "mean of 4 x 3 entries"
    assert heat["nans"] == pytest.approx(1 / 7000)
    small = data_of((leaf([np.nan, np.inf, -np.inf, 0.0]) * 2).sum())
    value = small["values"][small["nodes"][0]["value"]]
    assert value["numbers"] == ["nan", "inf", "-inf", 0.0]
    assert (value["nans"], value["infs"]) == (0.25, 0.5)


def test_constants_of_any_dtype_are_nodes():
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    data = data_of((tl.where(tl.tensor([True, False]), x, x * 2) * tl.tensor([1, 2]))[tl.tensor([1, 0])].sum())
    assert {n["dtype"] for n in data["nodes"] if n["kind"] == "constant"} >= {"bool", "int64"}


def test_a_constant_has_the_name_of_the_variable_whose_memory_it_has():
    target, mask = tl.tensor([[0, 1], [1, 0]]), tl.tensor([[True], [False]])
    x = leaf([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
    loss = F.cross_entropy(tl.where(mask, x, 0.0).reshape(4, 2), target.reshape(-1))
    names = [n["name"] for n in tl.explore(loss).data["nodes"] if n["kind"] == "constant"]
    assert {"mask", "target"} <= set(names)
    part = tl.explore((x * tl.tensor([[1.0, 2.0], [0.0, 1.0]])[1]).sum())
    assert "mul(x, y=constant)" in str(part)


# ---- graphs of every kind -----------------------------------------------------------------------


def checkpointed():
    layer, x = nn.Linear(3, 3), tl.ones(2, 3)
    return tl.checkpoint(lambda x: tl.checkpoint(lambda x: F.dropout(layer(x).tanh(), 0.5), x) * 2, x).sum()


def hooked():
    x = leaf([1.0, 2.0])
    y = x * 3
    y.register_hook(lambda g: g * 2)
    x.register_hook(lambda g: -g)
    y.retain_grad()
    return (y * y).sum()


def changed_in_place():
    x = leaf([1.0, 2.0, 3.0])
    y = x.clone()
    y.mul_(3)
    y[0] = 5.0
    view = y[1:]
    view.add_(x[:2])
    return (y * y).sum()


def attention():
    q = leaf(np.random.default_rng(0).normal(size=(1, 2, 4, 3)))
    return F.scaled_dot_product_attention(q, q * 2, q + 1, is_causal=True).sum()


def half():
    w = leaf([[1.0, 2.0], [3.0, 4.0]], "float16")
    return F.cross_entropy(F.layer_norm(w @ w, (2,)), tl.tensor([0, 1]))


GRAPHS = {
    "checkpoint": checkpointed, "hooks": hooked, "in place": changed_in_place, "attention": attention, "half": half,
    "0-d": lambda: leaf(2.0) ** 3, "empty": lambda: (leaf(np.zeros((0, 3))) * 2).sum(),
    "a leaf": lambda: leaf([1.0, 2.0]),
    "factors": lambda: sum(y.sum() for y in tl.linalg.qr(leaf([[2.0, 1.0], [1.0, 3.0]]))),
    "recurrent": lambda: nn.LSTM(2, 3)(tl.ones(4, 1, 2))[0].sum(),
}  # fmt: skip


def state(nodes):
    return [(n, n.saved, list(n.hooks or ())) for n in nodes]


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("kind", GRAPHS)
def test_gradients_are_those_of_backward_and_the_graph_is_unchanged(kind, order):
    tl.manual_seed(0)
    root = GRAPHS[kind]()
    nodes = tl.autograd.graph.topological_order([root.node]) if root.node is not None else []
    before, random = state(nodes), tl.get_rng_state()
    explorer = tl.explore(root, order=order, check=order == 1)
    data = explorer.data
    assert [id(a) for entry in state(nodes) for a in entry[:2]] == [id(a) for entry in before for a in entry[:2]]
    assert [entry[2] for entry in state(nodes)] == [entry[2] for entry in before]
    assert tl.get_rng_state() == random
    assert [c for c in data["checks"] if c["ok"] is False] == []
    assert [s["error"] for s in data["backward"] if s["error"]] == []
    leaves = {id(e): e for n in nodes for e in n.edges if isinstance(e, tl.Tensor)} or {id(root): root}
    assert all(x.grad is None for x in leaves.values())
    root.backward(tl.ones_like(root))
    expected = sorted(x.grad.numpy().reshape(-1).tolist() for x in leaves.values() if x.numel() <= 64)
    shown = (data["values"][g["value"]] for g in data["gradients"])
    assert sorted(np.array(v["numbers"], v["dtype"]).reshape(-1).tolist() for v in shown if "numbers" in v) == expected


def test_hooks_are_noted_and_those_of_retain_grad_are_not_called():
    root = hooked()
    data = data_of(root)
    assert "2 tensors have hooks" in notes_of(data)
    [node] = [n for n in data["nodes"] if n["op"] == "mul" and n["before_hooks"] is not None]
    step = next(s for s in data["backward"] if s["node"] == node["id"])
    assert np.array_equal(numbers(data, step["cotangent"]), 2 * numbers(data, node["before_hooks"]))


def stale():
    y = leaf([1.0, 2.0]) * 3
    z = y * y
    with tl.no_grad():
        y.add_(1)
    return z.sum()


def freed():
    z = leaf([1.0, 2.0]).exp().sin().sum()
    z.backward()
    return z


def partly_freed():
    h = leaf([1.0, 2.0]).exp()
    (h * h).sum().backward()
    return (h.sin() * 2).sum()


def wrong_rule():
    @tl.op(lambda g, x: g.nothing)
    def broken(xp, x):
        return x * 2

    x = leaf([1.0, 2.0])
    return (broken(x) + x.exp()).sum()


def wrong_hook():
    x = leaf([1.0, 2.0]).exp()
    x.register_hook(lambda g: 1 / 0)
    return x.sum()


BROKEN = {
    "changed in place": (stale, "has been changed in place since"),
    "freed": (freed, "3 ops have no saved values, because a backward pass has freed them"),
    "partly freed": (partly_freed, "1 op has no saved values"),
    "rule": (wrong_rule, "The backward pass stops at broken: broken: its gradient rule of argument 'x' raised"),
    "hook": (wrong_hook, "The backward pass ended early: division by zero"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_pass_that_cannot_be_run_is_a_note(kind):
    make, note = BROKEN[kind]
    data = data_of(make())
    assert note in notes_of(data)
    assert data["gradients"] == []  # none is shown of which a part is missing


# ---- checks -------------------------------------------------------------------------------------


def test_a_wrong_rule_is_red_also_where_only_one_entry_is_wrong():
    @tl.op(lambda g, out: g)
    def wrong_exp(xp, x):
        return xp.exp(x)

    @tl.op(lambda g, x: g * tl.clamp(2 * x, None, 5.99))
    def wrong_square(xp, x):
        return x * x

    checks = data_of(wrong_exp(leaf([1.0, 2.0])).sum(), check=True)["checks"]
    assert [c["ok"] for c in checks] == [True, False]
    large = np.random.default_rng(0).uniform(0, 1, (30, 30))
    large[7, 7] = 3.0
    data = data_of(wrong_square(leaf(large)).sum(), check=True)
    assert data["checks"][-1]["ok"] is False
    assert len(data["checks"][-1]["entries"]) == 16
    assert "contradict 1" in notes_of(data)
    assert "sample" in notes_of(data)


KINKS = [(tl.abs, (-1, 1)), (tl.relu, (0, 1)), (lambda x: tl.maximum(x, 0 * x), (0, 1))]


@pytest.mark.parametrize(("f", "bracket"), KINKS)
def test_kinks_have_the_bracket_of_their_one_sided_derivatives(f, bracket):
    checks = data_of(f(leaf([0.0, 1.0])).sum(), check=True)["checks"]
    kinks = [k for c in checks for k in c["kinks"]]
    assert kinks
    assert all((k["low"], k["high"]) == pytest.approx(bracket) and k["index"] == [0] for k in kinks)
    assert all(c["ok"] for c in checks)


# ---- second order -------------------------------------------------------------------------------


def test_the_graph_of_the_gradients_is_linked_to_the_rules_that_made_it():
    w = leaf([1.0, 2.0])
    y = (w * w * w).sum()
    for data in (data_of(y, order=2), data_of(grad(y, w, create_graph=True)[0])):
        second = [n for n in data["nodes"] if n["order"] == 2]
        assert second
        assert {data["nodes"][n["of"]]["op"] for n in second if n["of"] is not None} == {"mul"}
        assert [numbers(data, n["value"]).tolist() for n in second if n["root"]] == [[3.0, 12.0]]
        assert all(n["value"] is not None for n in data["nodes"])
    [g] = grad(grad(y, w, create_graph=True)[0].sum(), w)
    assert numbers(data, data["gradients"][0]["value"]).tolist() == g.tolist() == [6.0, 12.0]


def test_third_order_and_fused_ops_have_orders_too():
    x = leaf([0.5, 1.0])
    g = grad(grad((x * x * x * x).sum(), x, create_graph=True)[0].sum(), x, create_graph=True)[0]
    assert max(n["order"] for n in data_of(g * g)["nodes"]) == 3
    data = data_of(F.cross_entropy(leaf([[1.0, 2.0]]), tl.tensor([0])), order=2)
    assert {n["order"] for n in data["nodes"]} == {1, 2}


def test_gradients_without_a_graph_are_a_note():
    assert "constants" in notes_of(data_of((leaf([1.0, 2.0]) * 2).sum(), order=2))


# ---- sizes, devices, files ----------------------------------------------------------------------


def test_a_graph_that_is_too_large_has_an_overview(monkeypatch):
    monkeypatch.setattr(large, "MAX_SIZE", 100)
    monkeypatch.setattr(large, "SHOWN", 60)
    x = y = leaf([1.0])
    for _ in range(110):
        y = y * 1.0
    data = data_of(y)
    assert "The graph has 111 nodes and 110 edges" in notes_of(data)
    assert len(data["nodes"]) == 60
    assert data["nodes"][-1]["root"]
    assert data["backward"] == []
    model = nn.Sequential(*[nn.Sequential(nn.Linear(1, 1), nn.ReLU()) for _ in range(30)])
    data = tl.explore(model(x.detach()).sum(), model=model).data
    assert "each module is one box" in notes_of(data)
    assert len(data["nodes"]) <= 60
    boxes = [n for n in data["nodes"] if n["kind"] == "module"]
    assert boxes
    assert all(n["doc"] == f"{n['count']:,} nodes." and n["count"] > 2 for n in boxes)


@pytest.mark.parametrize(("count", "shape", "room"), [(150, (8, 8), 1_000_000), (1200, (3, 4, 5), 4_000_000)])
def test_the_size_of_a_page_is_bounded(count, shape, room):
    x = y = tl.rand(shape).requires_grad_()
    for _ in range(count):
        y = y * x
    explorer = tl.explore(y)
    assert len(explorer.html()) < room
    heat = [value["heat"] for value in explorer.data["values"] if "heat" in value]
    assert bool(heat) == ("a heat map of at most" in notes_of(explorer.data)) == (count > 1000)


def test_a_page_of_a_small_model_is_small(tmp_path):
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    file = tmp_path / "loss.html"
    explorer = tl.explore(F.cross_entropy(model(tl.ones(32, 64)), tl.zeros(32, dtype=tl.int64)), file, order=2)
    assert file.stat().st_size < 1_000_000
    assert str(file) in repr(explorer)
    assert explorer.html() == file.read_text("utf-8")
    assert "srcdoc=" in explorer._repr_html_()
    explorer.save(file)  # a page is replaced


@pytest.mark.parametrize("order", [1, 2])
def test_an_explorer_keeps_no_tensor_and_no_graph_alive(order):
    x = leaf([1.0, 2.0])
    y = (x * x).exp().sum()
    kept = [weakref.ref(thing) for thing in (x, y, y.node, x.array, y.array)]
    explorer = tl.explore(y, order=order, check=True)
    assert "exp" in explorer.html()
    del x, y
    gc.collect()
    assert [reference() for reference in kept] == [None] * 5


def test_tensors_of_another_device():
    assert strict.__name__ in sys.modules  # importing it registers the device
    x = tl.tensor([[1.0, 2.0], [3.0, 4.0]], device="strict", requires_grad=True)
    data = data_of(F.cross_entropy(x @ x, tl.tensor([0, 1], device="strict")), check=True)
    assert data["nodes"][0]["device"].startswith("strict")
    assert all(c["ok"] for c in data["checks"])
    data_of(lambda: (x * x).exp().sum(), order=2)


# ---- bad input ----------------------------------------------------------------------------------


X = leaf([1.0, 2.0])
BAD = [
    (3, {}, TypeError, "got int 3"),
    (None, {}, TypeError, "got None"),
    ("loss", {}, TypeError, "got str 'loss'"),
    (np.ones(2), {}, TypeError, "an array of the type ndarray"),
    ([X], {}, TypeError, "a list of 1"),
    (tl.Tensor, {}, TypeError, "the class Tensor"),
    (nn.Linear(1, 1), {}, TypeError, "the module Linear"),
    (lambda x: x, {}, TypeError, "with the arguments x"),
    (lambda: 3, {}, TypeError, "which returned int 3"),
    (X.detach(), {}, GraphError := tl.GraphError, "without a graph"),
    (tl.tensor([1]), {}, GraphError, "Only floating point"),
    (lambda: X.detach(), {}, GraphError, "without a graph"),
    (X, {"format": "svg"}, ValueError, "format"),
    (X, {"format": ["dot"]}, ValueError, "format"),
    (X, {"order": 3}, ValueError, "order"),
    (X, {"order": True}, ValueError, "order"),
    (X, {"check": 1}, TypeError, "check"),
    (X, {"model": 3}, TypeError, "model"),
    (X, {"recording": 3}, TypeError, "recording"),
    (X, {"path": 3}, TypeError, "path"),
    (X, {"path": "x.png"}, ValueError, ".html"),
    (X, {"path": "missing/x.html"}, FileNotFoundError, "folder"),
    (X, {"path": "."}, IsADirectoryError, "folder"),
    (X, {"path": "other.html"}, FileExistsError, "something else"),
    (X, {"path": "other.html", "format": "dot"}, FileExistsError, "something else"),
]


@pytest.mark.parametrize(("what", "options", "error", "text"), BAD)
def test_bad_input_is_one_clear_error(what, options, error, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.html").write_text("mine")
    with pytest.raises(error) as caught:
        tl.explore(what, **options)
    assert str(caught.value).startswith("explore: expected")
    assert text in str(caught.value)
    assert (tmp_path / "other.html").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["other.html"]


def test_formats_are_text_and_are_written_to_a_path(tmp_path):
    y = (X * X).sum()
    for format, start in (("dot", "digraph"), ("mermaid", "flowchart"), ("text", "y: 2 ops")):
        file = tmp_path / f"graph.{format}"
        text = tl.explore(y, file, format=format)
        assert text.startswith(start)
        assert file.read_text("utf-8") == text
        assert tl.explore(y, file, format=format) == text  # such a file is replaced
    assert "gradient rules" in str(tl.explore(y))
