"""The chain rule, walked by hand: one neuron with a residual connection, on scalars.

    python examples/01_scalar_autograd.py

Every op on a tensor with requires_grad=True leaves a node behind: which op it was, the values its gradient rule will
need, and an edge to where each input came from. This script computes a loss, prints the nodes, and then sweeps through
them from the last to the first, as loss.backward() does. That sweep is all of backpropagation.
"""

import tensorlite as tl
from tensorlite.autograd import topological_order

# ---- 1. forward: compute, and leave a graph behind ----------------------------------------------

w = tl.tensor(-0.5, requires_grad=True)
x = tl.tensor(2.0, requires_grad=True)

h = w * x
t = tl.tanh(h)
y = x + t  # x is used a second time: gradients will reach it on two ways
loss = y * y

print("Forward")
for line, value in (("h = w * x", h), ("t = tanh(h)", t), ("y = x + t", y), ("loss = y * y", loss)):
    print(f"    {line:14}= {value.item():7.4f}")

# ---- 2. the graph: nodes know their op, their inputs' places, and what they saved ---------------

names = {w: "w", x: "x", h.grad_fn: "h", t.grad_fn: "t", y.grad_fn: "y", loss.grad_fn: "loss"}
nodes = topological_order([loss.grad_fn])  # all that leads to the loss, newest first


def saved(node):
    """What a node keeps for its gradient rules, by name: as little as the rules ask for."""
    return dict(zip(node.plan.saved_names, node.saved, strict=True))


print("\nThe graph, newest node first")
for node in nodes:
    inputs = " and ".join(names[edge] for edge in node.edges)
    kept = ", ".join(f"{name} = {float(value):.4g}" for name, value in saved(node).items())
    print(f"    {names[node]:5} is {node.name:5} of {inputs:8} saved: {kept}")

# ---- 3. backward: one rule per op, one sweep ----------------------------------------------------

# Given the gradient g of a node's result, the gradient of each of its inputs. (An op of tensorlite carries its own
# rules; these are the same, written out. add computes x + alpha * y, hence its argument.)
RULES = {
    "mul": lambda g, x, y: (g * y, g * x),
    "add": lambda g, alpha: (g, g * alpha),
    "tanh": lambda g, out: (g * (1 - out * out),),
}

gradient = {loss.grad_fn: 1.0}  # d loss / d loss
print("\nBackward, newest node first")
for node in nodes:
    g = gradient[node]  # complete: whatever used this node is newer, and has been visited
    print(f"    d loss / d {names[node]:5}= {g:7.4f}", end="")
    for edge, d in zip(node.edges, RULES[node.name](g, **saved(node)), strict=True):
        gradient[edge] = gradient.get(edge, 0.0) + d  # add: an input used twice gets both gradients
        print(f"   {d:+.4f} to {names[edge]}", end="")
    print()

# ---- 4. the same from the library, and from the definition of a derivative ----------------------


def loss_of(w, x):
    return ((x + tl.tanh(w * x)) ** 2).item()


loss.backward()
step = 1e-2
slope_w = (loss_of(w + step, x) - loss_of(w - step, x)) / (2 * step)
slope_x = (loss_of(w, x + step) - loss_of(w, x - step)) / (2 * step)

print("\n                by hand  backward()  difference quotient")
print(f"    d loss / dw {gradient[w]:7.4f} {w.grad.item():11.4f} {slope_w:20.4f}")
print(f"    d loss / dx {gradient[x]:7.4f} {x.grad.item():11.4f} {slope_x:20.4f}")

# ---- 5. what it is for: a step against the gradient makes the loss smaller ----------------------

with tl.no_grad():  # an update is no part of any graph
    w -= 0.1 * w.grad
    x -= 0.1 * x.grad
print(f"\nAfter a step of 0.1 against the gradient the loss is {loss_of(w, x):.4f}; it was {loss.item():.4f}.")
