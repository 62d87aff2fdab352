"""Names of leaves, results and modules: which variable, parameter or module a box of a graph is named after."""

import sys
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite import nn
from tensorlite.autograd.graph import topological_order
from tensorlite.viz import recording
from tensorlite.viz.names import find_names
from tensorlite.viz.variables import variables_of, variables_of_function


def names_of(y, variables=None, **options):
    """Return the names of the graph of a tensor, seen from the calling function."""
    variables = variables_of(sys._getframe(1)) if variables is None else variables
    return find_names(topological_order([y.node]), variables=variables, **options)


def ops_of(y):
    return list(reversed(topological_order([y.node])))


def modules_of(y, names):
    """Return each op with the name of its module, None outside."""
    found = []
    for node in ops_of(y):
        module = names.module(node)
        found.append((node.name, None if module is None else names.modules[module]["name"]))
    return found


def tree_of(names):
    """Return the modules as nested pairs of names: each with its parent."""
    return [(m["name"], None if m["parent"] is None else names.modules[m["parent"]]["name"]) for m in names.modules]


GLOBAL = tl.ones(2, requires_grad=True)
HIDDEN = tl.ones(2, requires_grad=True)


# ---- variables ------------------------------------------------------------------------------------


def test_local_variables_come_before_global_ones_and_hide_them():
    a = tl.ones(2, requires_grad=True)
    HIDDEN = a * GLOBAL
    y = HIDDEN.sum()
    names = names_of(y)
    assert [names.name(x) for x in (a, GLOBAL, HIDDEN.node, y.node)] == ["a", "GLOBAL", "HIDDEN", "y"]
    assert names.name(globals()["HIDDEN"]) == ""


def test_one_tensor_of_two_names_has_the_first():
    first = tl.ones(2, requires_grad=True)
    second = first
    z = y = (second * 2).exp()
    names = names_of(y)
    assert names.name(first) == "first"
    assert names.name(z.node) == "z"
    assert names.name(ops_of(y)[0]) == ""


def test_places_in_containers_and_objects():
    Pair = namedtuple("Pair", "left right")

    @dataclass
    class Weights:
        w: tl.Tensor
        shared = tl.ones(1, requires_grad=True)

    def leaf():
        return tl.ones(2, requires_grad=True)

    nested = SimpleNamespace(net=SimpleNamespace(w=leaf()))
    assert names_of(nested.net.w * 2).name(nested.net.w) == "nested.net.w"
    ws, state, pair, obj = [leaf(), leaf()], {"a b": leaf(), 3: {"x": leaf()}}, Pair(leaf(), leaf()), Weights(leaf())
    x = tl.ones(2)
    y = x * ws[1] + state["a b"] + state[3]["x"] + pair.right + obj.w + Weights.shared
    names = names_of(y)
    assert names.name(ws[1]) == "ws[1]"
    assert names.name(state["a b"]) == "state['a b']"
    assert names.name(state[3]["x"]) == "state[3]['x']"
    assert names.name(pair.right) == "pair.right"
    assert names.name(obj.w) == "obj.w"
    assert names.name(Weights.shared) == "Weights.shared"
    assert names.array_name(x.array) == "x"
    assert names.array_name(tl.ones(2).array) == ""


def test_properties_and_methods_of_objects_are_not_run():
    class Trap:
        def __init__(self):
            self.w = tl.ones(1, requires_grad=True)

        @property
        def boom(self):
            raise AssertionError("a property was read")

        def __getattr__(self, name):
            raise AssertionError("an attribute was looked for")

        def __iter__(self):
            raise AssertionError("it was iterated over")

    class Items(dict):
        def items(self):
            raise AssertionError("a method was called")

    trap, items = Trap(), Items(v=tl.ones(1, requires_grad=True))
    y = trap.w + items["v"]
    names = names_of(y)
    assert (names.name(trap.w), names.name(items["v"])) == ("trap.w", "items['v']")


def test_a_container_that_contains_itself():
    loop = [tl.ones(1, requires_grad=True)]
    loop.append(loop)
    y = loop[0] * 2
    assert names_of(y).name(loop[0]) == "loop[0]"


def test_the_results_of_an_op_with_several():
    x = tl.ones(4, requires_grad=True)
    q, k = tl.split(x, 2)
    y = q * k
    names = names_of(y)
    assert [names.name(node) for node in (q.node, k.node, q.node.edges[0])] == ["q", "k", "q, k"]


def test_a_class_without_a_hash_is_searched():
    class Odd(type):
        __hash__ = None

        def __eq__(cls, other):
            return True

    class Holder(metaclass=Odd):
        __slots__ = ("w",)

    holder = Holder()
    holder.w = tl.ones(2, requires_grad=True)
    assert "holder.w" in [node["name"] for node in tl.explore(holder.w * 2).data["nodes"]]


def test_after_a_change_in_place_the_variable_names_the_new_result():
    x = tl.ones(2, requires_grad=True)
    h = x * 2
    h.add_(1)
    y = h.sum()
    assert [(n.name, names_of(y).name(n)) for n in ops_of(y)] == [("mul", ""), ("add", "h"), ("sum", "y")]


def test_names_of_a_notebook_are_not_used():
    a = tl.ones(2, requires_grad=True)
    y = a * 2
    kept = {"_": y, "__": y, "_3": y, "Out": {3: y}, "_private": a}
    names = names_of(y, kept)
    assert names.name(y.node) == ""
    assert names.name(a) == "_private"


def test_comprehensions_generators_recursion_and_lambdas():
    w = tl.ones(2, requires_grad=True)
    assert [names_of(w * i).name(w) for i in (1.0, 2.0)] == ["w", "w"]
    assert next(names_of(w * i).name(w) for i in (1.0,)) == "w"

    def grow(depth, value):
        local = value * 2
        return names_of(local).name(local.node) if depth == 0 else grow(depth - 1, local)

    assert grow(3, w) == "local"
    variables = variables_of_function(lambda: w * GLOBAL)
    assert [names_of(w * GLOBAL, variables).name(x) for x in (w, GLOBAL)] == ["w", "GLOBAL"]


def test_functions_that_hold_their_variables():
    def make():
        inside = tl.ones(2, requires_grad=True)
        return (lambda: (inside * 2).sum()), inside

    class Task:
        __slots__ = ("unset", "weight")

        def __init__(self):
            self.weight = tl.ones(2, requires_grad=True)

        def __call__(self):
            return self.weight.sum()

        def loss(self, scale):
            return (self.weight * scale).sum()

    def product(left, *, right):
        return (left * right).sum()

    closure, _ = make()
    task = Task()
    given = partial(product, tl.ones(1, requires_grad=True), right=tl.ones(1, requires_grad=True))
    for function, expected in [
        (closure, {"inside"}), (given, {"left", "right"}), (Task(), {"self.weight"}), (task.loss, {"self.weight"}),
    ]:  # fmt: skip
        y = function(2.0) if function == task.loss else function()
        names = names_of(y, variables_of_function(function))
        leaves = [e for node in ops_of(y) for e in node.edges if isinstance(e, tl.Tensor)]
        assert {names.name(leaf) for leaf in leaves} == expected
    found = {node["name"] for node in tl.explore(make()[0]).data["nodes"]}
    assert "inside" in found
    y = task.weight * 2
    assert names_of(y).name(task.weight) == "task.weight"


def test_a_program_with_much_data_is_searched_quickly():
    import time

    w = tl.ones(1, requires_grad=True)
    data = {f"d{i}": [1.0] * 1000 for i in range(200)} | {"rows": [[(j, j) for j in range(100)] for _ in range(1000)]}
    began = time.perf_counter()
    assert names_of(w * 2, {**data, "w": w}).name(w) == "w"
    assert time.perf_counter() - began < 3


def test_reading_variables_keeps_nothing_alive():
    import gc
    import weakref

    x = tl.ones(2, requires_grad=True)
    y = x * 2
    names_of(y)
    node = weakref.ref(y.node)
    del y
    gc.collect()
    assert node() is None


# ---- parameters -----------------------------------------------------------------------------------


class MLP(nn.Module):
    def __init__(self, tied=False):
        super().__init__()
        self.c_fc = nn.Linear(2, 2)
        self.c_proj = nn.Linear(2, 2)
        if tied:
            self.c_proj.weight = self.c_fc.weight
        self.register_buffer("scale", tl.ones(2))

    def forward(self, x):
        return self.c_proj(F.gelu(self.c_fc(x))) * self.scale


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([MLP(), MLP()])
        self.gain = nn.Parameter(tl.ones(2))
        self.offsets = nn.ParameterList([tl.zeros(2), tl.zeros(2)])

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return x * self.gain + self.offsets[1]


@pytest.mark.parametrize("given", [True, False])
def test_parameters_have_the_names_of_the_module(given):
    net = Net()
    for parameter in net.parameters():  # noqa: B007  # the variable keeps the last one, which is not its name
        pass
    y = net(tl.ones(1, 2)).sum()
    names = names_of(y, {} if given else None, model=net if given else None)
    assert names.name(net.blocks[1].c_fc.weight) == "blocks.1.c_fc.weight"
    assert names.name(net.gain) == "gain"
    assert names.name(parameter) == "offsets.1"
    assert names.array_name(net.blocks[0].scale.array) == "blocks.0.scale"


def test_two_models_are_told_apart():
    teacher, student = MLP(), MLP()
    loss = (teacher(tl.ones(1, 2)) - student(tl.ones(1, 2))).square().sum()
    names = names_of(loss)
    assert names.name(teacher.c_fc.bias) == "teacher.c_fc.bias"
    assert names.name(student.c_fc.bias) == "student.c_fc.bias"
    assert ("student.c_fc", "student") in tree_of(names)
    assert ("teacher", None) in tree_of(names)


def test_a_frozen_parameter_and_one_outside_of_modules():
    net, free = nn.Linear(2, 2), nn.Parameter(tl.ones(2))
    net.weight.requires_grad_(False)
    y = net(tl.ones(1, 2) * free)
    names = names_of(y)
    assert names.name(free) == "free"
    assert names.array_name(net.weight.array) == "weight"


def test_a_tied_parameter_has_its_first_name():
    mlp = MLP(tied=True)
    y = mlp(tl.ones(1, 2))
    assert names_of(y).name(mlp.c_proj.weight) == "c_fc.weight"


# ---- modules --------------------------------------------------------------------------------------

EXACT = [
    ("linear", "blocks.0.c_fc"), ("gelu", "blocks.0"), ("linear", "blocks.0.c_proj"), ("mul", "blocks.0"), ("add", ""),
    ("linear", "blocks.1.c_fc"), ("gelu", "blocks.1"), ("linear", "blocks.1.c_proj"), ("mul", "blocks.1"), ("add", ""),
    ("mul", ""), ("add", ""), ("sum", None),
]  # fmt: skip


def test_a_recording_knows_the_module_of_each_op():
    net = Net()
    with recording(net) as r:
        y = net(tl.ones(1, 2)).sum()
    names = names_of(y, recording=r)
    assert modules_of(y, names) == EXACT
    assert tree_of(names) == [
        ("", None), ("blocks.0", ""), ("blocks.0.c_fc", "blocks.0"), ("blocks.0.c_proj", "blocks.0"),
        ("blocks.1", ""), ("blocks.1.c_fc", "blocks.1"), ("blocks.1.c_proj", "blocks.1"),
    ]  # fmt: skip
    assert [m["type"] for m in names.modules][:3] == ["Net", "MLP", "Linear"]
    assert names.modules[names.module(net.blocks[0].c_fc.weight)]["name"] == "blocks.0.c_fc"


def test_without_a_recording_modules_are_inferred_from_parameters():
    net = Net()
    y = net(tl.ones(1, 2)).sum()
    names = names_of(y)
    inferred = modules_of(y, names)
    assert inferred[1] == ("gelu", "blocks.0")
    assert [found for found in inferred if found[0] == "linear"] == [f for f in EXACT if f[0] == "linear"]
    assert inferred[-3:] == [("mul", ""), ("add", ""), ("sum", None)]
    assert set(tree_of(names)) == {
        ("", None), ("blocks.0", ""), ("blocks.0.c_fc", "blocks.0"), ("blocks.0.c_proj", "blocks.0"),
        ("blocks.1", ""), ("blocks.1.c_fc", "blocks.1"), ("blocks.1.c_proj", "blocks.1"),
    }  # fmt: skip


@pytest.mark.parametrize("recorded", [True, False])
def test_a_module_that_is_called_twice(recorded):
    shared = MLP()
    with recording() as r:
        y = shared(shared(tl.ones(1, 2, requires_grad=True)))
    names = names_of(y, recording=r if recorded else None)
    assert tree_of(names) == [
        ("", None), ("c_fc", ""), ("c_proj", ""), ("(call 2)", None), ("c_fc (call 2)", "(call 2)"),
        ("c_proj (call 2)", "(call 2)"),
    ]  # fmt: skip
    assert [m for op, m in modules_of(y, names) if op == "gelu"] == ["", "(call 2)"]
    assert names.module(shared.c_fc.weight) is None  # two calls use it


def test_a_module_in_two_places():
    act = nn.Tanh()
    net = nn.Sequential(OrderedDict(a=nn.Linear(2, 2), act=act, b=nn.Linear(2, 2), again=act))
    with recording() as r:
        y = net(tl.ones(1, 2))
    assert [m for _, m in modules_of(y, names_of(y, recording=r))] == ["a", "act", "b", "act (call 2)"]


def test_a_tied_head_and_a_module_in_a_loop_without_a_recording():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(5, 2), nn.Linear(2, 5, bias=False)
            self.head.weight = self.table.weight

        def forward(self, ids):
            return self.head(self.table(ids).tanh())

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.Linear(2, 2)

        def forward(self, x):
            return self.cell(self.cell(x).tanh()) * 2

    model, loop = Model(), Loop()
    y = model(tl.tensor([1]))
    assert modules_of(y, names_of(y, {}, model=model)) == [("embedding", "table"), ("tanh", ""), ("linear", "head")]
    z = loop(tl.ones(1, 2)).sum()
    assert modules_of(z, names_of(z, {}, model=loop)) == [
        ("linear", "cell"), ("tanh", ""), ("linear", "cell (call 2)"), ("mul", None), ("sum", None),
    ]  # fmt: skip


def test_models_inside_functions():
    def loss():
        inside = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
        return inside(tl.ones(1, 2)).sum()

    with recording() as r:
        y = loss()
    names = names_of(y, recording=r)
    assert modules_of(y, names) == [("linear", "0"), ("tanh", "1"), ("sum", None)]
    leaves = [e for node in ops_of(y) for e in node.edges if isinstance(e, tl.Tensor)]
    assert [names.name(leaf) for leaf in leaves] == ["0.weight", "0.bias"]


def test_a_second_derivative_belongs_where_the_first_op_does():
    net = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    with recording() as r:
        x = tl.ones(1, 2, requires_grad=True)
        (g,) = tl.autograd.grad(net(x).sum(), x, create_graph=True)
    names = names_of(g, recording=r)
    made = [m for node, (_, m) in zip(ops_of(g), modules_of(g, names), strict=True) if r.of(node) and r.of(node).of]
    assert "0" in made
    assert "1" in made


def test_graphs_without_anything():
    x = tl.ones(2, requires_grad=True)
    names = names_of(x * 2, {})
    assert names.modules == []
    assert names.name(x) == ""
    assert names.module(x) is None
    assert find_names([], model=nn.Linear(1, 1)).modules == []
