"""A small network learns to tell two half-moons apart.

    python examples/02_mlp_two_moons.py

Data, model, loss, optimizer, loop: everything that training a network takes, once. With matplotlib installed it also
draws what the network has learnt.
"""

import math
from pathlib import Path

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite import nn, optim

tl.manual_seed(0)


# ---- data: two interleaved half circles, blurred ------------------------------------------------


def two_moons(n: int, noise: float = 0.15) -> tuple[tl.Tensor, tl.Tensor]:
    """n points of each moon, (2n, 2), and their labels 0. or 1., (2n,)."""
    angle = math.pi * tl.rand(2, n)
    upper = tl.stack([tl.cos(angle[0]), tl.sin(angle[0])], dim=1)  # (n, 2)
    lower = tl.stack([1 - tl.cos(angle[1]), 0.5 - tl.sin(angle[1])], dim=1)
    points = tl.cat([upper, lower])
    return points + noise * tl.randn(2 * n, 2), tl.cat([tl.zeros(n), tl.ones(n)])


train_x, train_y = two_moons(200)
test_x, test_y = two_moons(500)

# ---- model: a logit, positive where the second moon is the likelier -----------------------------

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
    return model(x).squeeze(1)  # (N, 1) -> (N,)


def accuracy(x: tl.Tensor, y: tl.Tensor) -> float:
    with tl.no_grad():  # nothing here is going to be differentiated
        right = (logits(x) > 0) == (y > 0.5)
    return right.float().mean().item()


# ---- training -----------------------------------------------------------------------------------

optimizer = optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
steps = 400

for step in range(steps + 1):
    loss = F.binary_cross_entropy_with_logits(logits(train_x), train_y)
    if step % 100 == 0:
        print(f"step {step:3}   loss {loss.item():.4f}   accuracy on the training set {accuracy(train_x, train_y):.1%}")
    optimizer.zero_grad()  # backward adds to .grad, so forget the last step's
    loss.backward()
    optimizer.step()

print(f"\naccuracy on {len(test_y):,} points it has not seen: {accuracy(test_x, test_y):.1%}")

# ---- a picture: the probability of the second moon over the plane -------------------------------


def draw(path: Path) -> None:
    from matplotlib.figure import Figure

    across, up = tl.linspace(-1.6, 2.6, 160), tl.linspace(-1.1, 1.6, 120)
    grid = tl.stack([across.repeat(120), up.repeat_interleave(160)], dim=1)  # (19200, 2), row by row
    with tl.no_grad():
        probability = tl.sigmoid(logits(grid)).reshape(120, 160)

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    filled = axes.contourf(across.numpy(), up.numpy(), probability.numpy(), levels=20, cmap="RdBu_r", alpha=0.7)
    axes.contour(across.numpy(), up.numpy(), probability.numpy(), levels=[0.5], colors="black")
    axes.scatter(*test_x.T.numpy(), c=test_y.numpy(), cmap="RdBu_r", s=8, edgecolors="black", linewidths=0.3)
    axes.set(title="Two moons, and where the network draws the line", xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
    figure.colorbar(filled, label="probability of the second moon")
    figure.savefig(path, dpi=120)


picture = Path("two_moons.png").resolve()
try:
    draw(picture)
except ImportError:
    print("no picture: it needs matplotlib (pip install 'tensorlite[plot]')")
else:
    print(f"wrote {picture}")
