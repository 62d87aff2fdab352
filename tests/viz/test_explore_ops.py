"""The explorer's backward pass for every op of the table: the gradients of ``backward()``, and finite differences."""

import math

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite.autograd import grad
from tensorlite.autograd.graph import topological_order
from tensorlite.pytree import tree_leaves
from tensorlite.viz.backward import trace_backward
from tensorlite.viz.data import formula_at
from tensorlite.viz.finite_differences import check_step
from tensorlite.viz.formulas import FORMULAS
from tensorlite.viz.forward import known_results
from tensorlite.viz.graph import build_graph
from tensorlite.viz.op_recording import recording
from tests.ops.op_table import SPECS

SKIPPED = {"apply_dropout_mask": "its mask has no gradient rule"}
NAMES = [name for name in SPECS if name not in SKIPPED]
FUNCTIONS = {**vars(math), **vars(tl), **{name: getattr(F, name) for name in dir(F)}, "sqrt": math.sqrt}
FEW = 12  # the most entries of a sample whose derivatives are compared with finite differences, to save time


def results(spec, sample, seed=0):
    """Return the leaves of a call, and its results that require gradients."""
    leaves = [tl.tensor(a) for a in sample.arrays(np.random.default_rng(seed))]
    for x in leaves:
        if x.dtype.kind == "f":
            x.requires_grad_()
    args, kwargs = sample.fill(leaves)
    found = [y for y in tree_leaves(spec.f(*args, **kwargs)) if isinstance(y, tl.Tensor) and y.requires_grad]
    return leaves, found


def one_of(outputs):
    """Return one tensor that depends on all results."""
    root = outputs[0]
    for y in outputs[1:]:
        root = (root * 1.5).sum() + (y * 0.75).sum()
    return root


def traced(root):
    """Return the gradients of the explorer's pass, by the leaf."""
    graph = build_graph([root])
    trace = trace_backward(graph, {graph.roots[0]: np.ones_like(root.array)})
    assert [step.error for step in trace.steps if step.error] == []
    return {graph.vertices[k].leaf: g for k, g in trace.gradients.items()}


def assert_same_bits(root, leaves):
    """Check that the explorer's gradients are those of the engine, bit for bit, and that both leave the graph alone."""
    shown = traced(root)
    leaves = [x for x in leaves if x in shown]
    expected = grad(root, leaves, tl.ones_like(root))
    for x, g in zip(leaves, expected, strict=True):
        found = np.asarray(shown[x])
        assert (found.dtype, found.shape) == (g.array.dtype, g.array.shape)
        assert found.tobytes() == g.array.tobytes()
        assert x.grad is None


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_the_engine(name):
    spec = SPECS[name]
    for sample in spec.samples[:3]:
        leaves, outputs = results(spec, sample)
        if outputs:
            assert_same_bits(one_of(outputs), leaves)


@pytest.mark.parametrize("name", [name for name in NAMES if SPECS[name].order > 1])
def test_gradients_of_gradients_are_those_of_the_engine(name):
    spec = SPECS[name]
    leaves, outputs = results(spec, spec.samples[0])
    if not outputs:
        return
    root = one_of(outputs)
    floats = [x for x in leaves if x.requires_grad]
    found = grad(root, floats, tl.ones_like(root), create_graph=True, allow_unused=True)
    tracked = [g for g in found if g is not None and g.requires_grad]
    if tracked:
        assert_same_bits(one_of([g * g for g in tracked]), floats)


def checks_of(spec, sample):
    """Return the checks of the graph of a call, with the values that a recording knows."""
    record = recording().start({})
    root = one_of(results(spec, sample)[1])
    record.__exit__()
    graph = build_graph([root])
    recorded = {v.id: np.asarray(a) for v in graph.ops if not v.node.outputs
                and (a := record.value(v.node)) is not None}  # fmt: skip
    known = known_results(graph, [root], recorded)
    checks = []
    trace_backward(
        graph, {graph.roots[0]: np.ones_like(root.array)}, lambda step: checks.extend(check_step(graph, known, step))
    )
    return checks


def test_finite_differences_confirm_each_rule():
    checked: set[tuple[str, tuple[int, ...]]] = set()
    wrong, green = [], 0
    for name in NAMES:
        spec = SPECS[name]
        for sample in spec.samples:
            leaves, outputs = results(spec, sample)
            if not outputs or not 0 < sum(x.numel() for x in leaves) <= FEW:
                continue
            root = one_of(outputs)
            ops = {(node.name, node.plan.needs) for node in topological_order([root.node])}
            if ops <= checked:
                break
            checked |= ops
            for check in checks_of(spec, sample):
                green += check.ok is True
                if check.ok is False:
                    wrong.append((name, sample, check))
            break
    assert wrong == []
    assert green > 250


def evaluated(formula, names):
    """Return the value of a formula. Names after "with" are computed first."""
    formula, _, definitions = formula.partition(" with ")
    names = {**FUNCTIONS, **names}
    for each in filter(None, definitions.split(" and ")):
        name, _, code = each.partition(" = ")
        names[name] = eval(code, names)  # noqa: S307 -- code of this library
    return np.asarray(eval(formula, names).numpy())  # noqa: S307


def assert_formulas(graph, known, step, seen):
    """Check that each formula of a step computes what the gradient rule returns."""
    for c in step.contributions:
        if (formula := formula_at(step, c)) is None:
            continue
        vertex, node = step.vertex, step.vertex.node
        names = dict(zip(node.plan.saved_names, vertex.saved, strict=True)) | {"g": step.cotangent}
        arrows = [a for a in graph.arrows_to[vertex.id] if a.source.id in known.arrays]
        names |= {a.argument: known.arrays[a.source.id] for a in arrows}
        names |= {"out": known.arrays[vertex.id]} if vertex.id in known.arrays and "out" not in names else {}
        names = {name: tl.tensor(x) if isinstance(x, np.ndarray) else x for name, x in names.items()}
        found = evaluated(formula, names)
        shown = f"{node.name}, gradient of {c.arrow.argument} {node.shapes[c.arrow.place]} = {formula}"
        found = np.broadcast_to(found, np.shape(c.result))
        np.testing.assert_allclose(found, c.result, rtol=1e-4, atol=1e-5, err_msg=shown)
        seen.add((node.name, c.arrow.argument))


def more_calls():
    """Return calls that the op table lacks: shapes and options that have a formula of their own."""
    tl.manual_seed(0)

    def leaf(*shape):
        return tl.randn(*shape, dtype=tl.float64, requires_grad=True)

    q, k, v, ids = leaf(2, 3, 4), leaf(2, 5, 4), leaf(2, 5, 4), tl.tensor([[0, 2], [2, 3]])
    mask, classes = tl.tensor([[True, False, True, True, False]] * 3), tl.tensor([1, 0, 2, 1])
    attend = F.scaled_dot_product_attention
    return [
        F.linear(leaf(6, 3), leaf(5, 3), leaf(5)), F.linear(leaf(2, 4, 3), leaf(5, 3), leaf(5)),
        F.linear(leaf(3), leaf(5, 3), leaf(5)), leaf(3) @ leaf(3), leaf(2, 3) @ leaf(3), leaf(3) @ leaf(3, 2),
        leaf(2, 4, 3) @ leaf(3, 2), leaf(2, 4, 3) @ leaf(2, 3, 5), leaf(2, 4, 3) @ leaf(3),
        *(leaf(2, 3) ** e for e in (1, 2, 3, -1, 4.0)), leaf(3, 4).mean(), leaf(3, 4).mean(1), leaf(3, 4).sum(0, True),
        leaf(2, 3, 4).mean((0, 2)), leaf(2, 3, 4).std((0, 2)), leaf(3, 4).var(1, correction=0), leaf(3, 4).amax((0, 1)),
        leaf(3, 4).max(1).values, leaf(3, 4).amin(0, True), leaf(3, 4).clamp(-0.5, 0.5), leaf(3).clamp(max=0.1),
        tl.sub(leaf(3), leaf(3), alpha=2), leaf(3) / 4, 2 / leaf(3), tl.cat([leaf(2, 3), leaf(4, 3)]),
        F.gelu(leaf(9)), F.gelu(leaf(9), approximate="tanh"), F.silu(leaf(9)), F.embedding(ids, leaf(4, 3)),
        F.embedding(ids, leaf(4, 3), padding_idx=2), F.layer_norm(leaf(2, 3, 4), (4,), leaf(4), leaf(4)),
        F.layer_norm(leaf(3, 4), (4,)), F.rms_norm(leaf(2, 3, 4), (4,), leaf(4)), attend(q, k, v),
        attend(leaf(2, 4, 3), leaf(2, 4, 3), leaf(2, 4, 3), is_causal=True), attend(q, k, v, attn_mask=mask),
        attend(q, k, v, attn_mask=tl.randn(3, 5, dtype=tl.float64)), F.dropout(leaf(9), 0.4, True),
        F.cross_entropy(leaf(4, 3), classes), F.cross_entropy(leaf(4, 3), classes, label_smoothing=0.1),
        F.cross_entropy(leaf(4, 3), classes, ignore_index=1), leaf(3, 4).softmax(0), leaf(3, 4).log_softmax(-1),
        F.conv2d(leaf(2, 3, 6, 6), leaf(4, 3, 3, 3), leaf(4), padding=1),
        F.conv1d(leaf(2, 3, 9), leaf(4, 3, 3), stride=2),
        F.conv2d(leaf(1, 1, 7, 7), leaf(2, 1, 3, 3), dilation=2, stride=2),
    ]  # fmt: skip


def test_each_formula_is_what_the_gradient_rule_returns():
    """Evaluate the formula of each input of each op that has one, for a random gradient that arrives."""
    seen: set[tuple[str, str]] = set()
    rng = np.random.default_rng(3)
    roots = more_calls()
    for name in NAMES:
        if SPECS[name].f.__name__ in FORMULAS or name in FORMULAS:
            roots += [y for sample in SPECS[name].samples for y in results(SPECS[name], sample)[1]]
    for root in roots:
        graph = build_graph([root])
        known = known_results(graph, [root])
        seed = rng.normal(size=root.shape).astype(root.array.dtype)
        for step in trace_backward(graph, {graph.roots[0]: seed}).steps:
            assert_formulas(graph, known, step, seen)
    wanted = {(op, argument) for op, each in FORMULAS.items() for argument in each}
    assert {pair for pair in wanted - seen if pair[0] != "cat"} == set()
    assert ("cat", "tensors[1]") in seen
