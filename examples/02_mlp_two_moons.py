"""A small network learns to tell two half-moons apart.

    python examples/02_mlp_two_moons.py

This is a complete training program: data, model, loss, optimizer and loop. If matplotlib is installed, the script also
draws what the network has learned.
"""

import math
from pathlib import Path
from typing import Any

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite import nn, optim

tl.manual_seed(0)


# ---- Data: the points of two interleaved half circles, with noise -------------------------------


def two_moons(n: int, noise: float = 0.15) -> tuple[tl.Tensor, tl.Tensor]:
    """Return n points of each moon, (2n, 2), and their labels, 0.0 or 1.0, (2n,)."""
    angle = math.pi * tl.rand(2, n)
    upper = tl.stack([tl.cos(angle[0]), tl.sin(angle[0])], dim=1)  # (n, 2): a row for each point
    lower = tl.stack([1 - tl.cos(angle[1]), 0.5 - tl.sin(angle[1])], dim=1)
    points = tl.cat([upper, lower])
    return points + noise * tl.randn(2 * n, 2), tl.cat([tl.zeros(n), tl.ones(n)])


train_x, train_y = two_moons(200)
test_x, test_y = two_moons(500)  # other points, which the network never sees in training

# ---- Model: two numbers in, one number out ------------------------------------------------------

# The output is called a logit. It is positive where the network takes a point for one of the second moon, and
# sigmoid(logit) is the probability that it gives to that. Tanh between the linear layers makes curved borders possible:
# linear layers alone could only draw a straight line.

model = nn.Sequential(
    nn.Linear(2, 32),
    nn.Tanh(),
    nn.Linear(32, 32),
    nn.Tanh(),
    nn.Linear(32, 1),
)
print(model)
print(f"{sum(p.numel() for p in model.parameters()):,} parameters\n")


def logits(x: tl.Tensor) -> tl.Tensor:
    """Return a logit for each point."""
    return model(x).squeeze(1)  # (N, 1) -> (N,)


def accuracy(x: tl.Tensor, y: tl.Tensor) -> float:
    """Return the fraction of the points that the network assigns to the right moon."""
    with tl.no_grad():  # record no graph, because no gradient is needed here
        right = (logits(x) > 0) == (y > 0.5)
    return right.float().mean().item()


# ---- Training: compute the loss, its gradients, and change the weights a little; 400 times -------

# The loss is large where the network gives a low probability to the right moon. AdamW changes each weight so that the
# loss gets smaller; lr, the learning rate, is the size of the steps.

optimizer = optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
steps = 400

for step in range(steps + 1):
    loss = F.binary_cross_entropy_with_logits(logits(train_x), train_y)
    if step % 100 == 0:
        print(f"step {step:3}   loss {loss.item():.4f}   accuracy on the training set {accuracy(train_x, train_y):.1%}")
    optimizer.zero_grad()  # backward() adds to the gradients, so remove those of the last step
    loss.backward()  # computes the gradient of the loss with respect to every weight
    optimizer.step()  # changes the weights

print(f"\naccuracy on {len(test_y):,} points it has not seen: {accuracy(test_x, test_y):.1%}")

# ---- Picture: the probability of the second moon at each point of the plane ---------------------


def draw(path: Path) -> None:
    """Write the picture to a file. Raise ImportError if matplotlib is not installed."""
    from matplotlib.figure import Figure

    across, up = tl.linspace(-1.6, 2.6, 160), tl.linspace(-1.1, 1.6, 120)
    grid = tl.stack([across.repeat(120), up.repeat_interleave(160)], dim=1)  # (19200, 2): 120 rows of 160 points
    with tl.no_grad():
        probability = tl.sigmoid(logits(grid)).reshape(120, 160)

    figure: Any = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    filled = axes.contourf(across.numpy(), up.numpy(), probability.numpy(), levels=20, cmap="RdBu_r", alpha=0.7)
    axes.contour(across.numpy(), up.numpy(), probability.numpy(), levels=[0.5], colors="black")  # the border
    x1, x2 = test_x[:, 0].numpy(), test_x[:, 1].numpy()
    axes.scatter(x1, x2, c=test_y.numpy(), cmap="RdBu_r", s=8, edgecolors="black", linewidths=0.3)
    axes.set(title="Two moons, and where the network draws the line", xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
    figure.colorbar(filled, label="probability of the second moon")
    figure.savefig(path, dpi=120)


picture = Path("two_moons.png").resolve()
try:
    draw(picture)
except ImportError:
    print("To get a picture, install matplotlib: pip install 'tensorlite[plot]'")
else:
    print(f"wrote {picture}")
