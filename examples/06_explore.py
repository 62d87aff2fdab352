"""A backward pass to look at: two pages for the browser.

    python examples/06_explore.py

Each page draws a graph, and its arrow keys go through the backward pass: what arrives at an op, the source of its
gradient rule, and what it sends to each input. docs/explore.md reads such a page from the top.
"""

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite import nn

tl.manual_seed(0)

# ---- 1. Two numbers, and one that is broadcast ----------------------------------------------------------------------

a = tl.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
b = tl.tensor([[2.0], [-1.0]], requires_grad=True)  # one number for each row
c = tl.tensor(0.5, requires_grad=True)  # one number for all
y = a * b + c

# check=True adds the derivative by finite differences to each edge.
tl.explore(y, "product.html", check=True)

# As text it is a table. "sum dims" is the sum over the dimensions in which an input was broadcast.
print(tl.explore(y))

# ---- 2. A network of two layers -------------------------------------------------------------------------------------

net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
inputs, labels = tl.randn(6, 4), tl.tensor([0, 1, 2, 0, 1, 2])


def loss() -> tl.Tensor:
    """Return the mean cross-entropy of the network on six examples."""
    return F.cross_entropy(net(inputs), labels)


# A function is called while its ops are recorded. So each box has its value, its time and its line of code.
page = tl.explore(loss, "network.html", model=net)
steps = page.data["backward"]
print(f"\nThe network's backward pass has {len(steps)} steps. Its largest saved values:")
sizes = {node["id"]: sum(saved["bytes"] for saved in node["saved"]) for node in page.data["nodes"]}
for node in sorted(page.data["nodes"], key=lambda node: -sizes[node["id"]])[:3]:
    print(f"  {node['op']:20} {sizes[node['id']]:5} bytes   {node['line']}")
print("\nOpen product.html and network.html in a browser.")
