"""The explorer's backward pass for every op of the table: the gradients of ``backward()``, and finite differences."""

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.autograd import grad
from tensorlite.autograd.graph import topological_order
from tensorlite.pytree import tree_leaves
from tensorlite.viz.backward import trace_backward
from tensorlite.viz.finite_differences import check_step
from tensorlite.viz.forward import known_results
from tensorlite.viz.graph import build_graph
from tensorlite.viz.op_recording import recording
from tests.ops.op_table import SPECS

SKIPPED = {"apply_dropout_mask": "its mask has no gradient rule"}
NAMES = [name for name in SPECS if name not in SKIPPED]
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
