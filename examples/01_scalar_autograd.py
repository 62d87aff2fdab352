"""Backpropagation by hand, on single numbers: one neuron with a residual connection.

    python examples/01_scalar_autograd.py

Each operation on a tensor with requires_grad=True records a node. It holds the operation, the values that its gradient
rule needs, and an edge to each input. The nodes form a graph. This script computes a loss, prints its graph, and
then goes through the nodes from the last to the first, as loss.backward() does. That is all of backpropagation.
"""

from collections.abc import Callable
from typing import Any

import tensorlite as tl
from tensorlite.autograd import Node, Variable, topological_order

# ---- 1. The forward pass computes the loss and records a graph ----------------------------------

w = tl.tensor(-0.5, requires_grad=True)
x = tl.tensor(2.0, requires_grad=True)

h = w * x
t = tl.tanh(h)
y = x + t  # x is used a second time, so it gets a gradient from here and one from h
loss = y * y

print("Forward")
for line, value in (("h = w * x", h), ("t = tanh(h)", t), ("y = x + t", y), ("loss = y * y", loss)):
    print(f"    {line:14}= {value.item():7.4f}")

# ---- 2. The graph: each node knows its operation, its inputs and the values it saved ------------


def node_of(result: tl.Tensor) -> Node:
    """Return the node that recorded the operation which computed this tensor."""
    assert result.grad_fn is not None  # only tensors that were not computed, such as w and x, have no node
    return result.grad_fn


# An edge leads to the node of an input, or to the input itself if it was not computed (w and x).
names: dict[Node | Variable, str] = {
    w: "w", x: "x", node_of(h): "h", node_of(t): "t", node_of(y): "y", node_of(loss): "loss"
}  # fmt: skip
nodes = topological_order([node_of(loss)])  # all nodes that lead to the loss, the newest first


def saved(node: Node) -> dict[str, Any]:
    """Return the values that a node saved for its gradient rules, by name. It saves only what the rules use."""
    assert isinstance(node.saved, tuple)  # backward() sets it to None, so that the memory is freed
    return dict(zip(node.plan.saved_names, node.saved, strict=True))


print("\nThe graph, newest node first")
for node in nodes:
    inputs = " and ".join(names[edge] for edge in node.edges)
    values = ", ".join(f"{name} = {float(value):.4g}" for name, value in saved(node).items())
    print(f"    {names[node]:5} is {node.name:5} of {inputs:8} saved: {values}")

# ---- 3. The backward pass applies the chain rule at each node -----------------------------------

# A rule takes g, the gradient of the loss with respect to the node's result, and the values that the node saved. It
# returns the gradients of the loss with respect to the node's inputs. Each op of tensorlite has such rules; these are
# the same, written out. (The op add computes x + alpha * y, and alpha is 1 here.)


def mul_rule(g: float, x: float, y: float) -> tuple[float, ...]:
    return g * y, g * x


def add_rule(g: float, alpha: float) -> tuple[float, ...]:
    return g, g * alpha


def tanh_rule(g: float, out: float) -> tuple[float, ...]:
    return (g * (1 - out * out),)


RULES: dict[str, Callable[..., tuple[float, ...]]] = {"mul": mul_rule, "add": add_rule, "tanh": tanh_rule}

gradient: dict[Node | Variable, float] = {node_of(loss): 1.0}  # d loss / d loss
print("\nBackward, newest node first")
for node in nodes:
    g = gradient[node]  # complete, because all nodes that use this one are newer and were visited before
    print(f"    d loss / d {names[node]:5}= {g:7.4f}", end="")
    for edge, d in zip(node.edges, RULES[node.name](g, **saved(node)), strict=True):
        gradient[edge] = gradient.get(edge, 0.0) + d  # an input that is used twice gets the sum of both gradients
        print(f"   {d:+.4f} to {names[edge]}", end="")
    print()

# ---- 4. Compare with loss.backward(), and with the definition of a derivative -------------------


def loss_of(w: tl.Tensor, x: tl.Tensor) -> float:
    """Return the loss for other values of w and x."""
    return ((x + tl.tanh(w * x)) ** 2).item()


loss.backward()  # sets w.grad and x.grad
assert w.grad is not None
assert x.grad is not None
step = 1e-2
slope_w = (loss_of(w + step, x) - loss_of(w - step, x)) / (2 * step)
slope_x = (loss_of(w, x + step) - loss_of(w, x - step)) / (2 * step)

print("\n                by hand  backward()  difference quotient")
print(f"    d loss / dw {gradient[w]:7.4f} {w.grad.item():11.4f} {slope_w:20.4f}")
print(f"    d loss / dx {gradient[x]:7.4f} {x.grad.item():11.4f} {slope_x:20.4f}")

# ---- 5. What gradients are for: a step against the gradient makes the loss smaller --------------

with tl.no_grad():  # do not record the update in a graph
    w -= 0.1 * w.grad
    x -= 0.1 * x.grad
print(f"\nAfter a step of 0.1 against the gradient the loss is {loss_of(w, x):.4f}; it was {loss.item():.4f}.")
