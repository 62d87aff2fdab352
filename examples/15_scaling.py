"""How does the loss fall with the size of a GPT and with the number of tokens, and which size is best for a budget?

    python examples/15_scaling.py           eight minutes on two cores
    python examples/15_scaling.py --quick   in seconds, on another text

Six sizes of the blocks, of 20,736 to 589,824 parameters, each read 125,000 to a million characters of tiny Shakespeare.
No window is read twice, and each run has a schedule of its own. The runs are fitted by the law of Hoffmann et al.
(2022), "Training Compute-Optimal Large Language Models": L(N, D) = E + A / N^a + B / D^b. The law of the five smaller
sizes predicts the losses of the largest before it is trained.

The predictions were off by 0.4 % on average, where no change from the size before would be off by 1.4 %. Seeds differ
by 0.3 %. The exponents are a = 0.35 and b = 0.3 to 0.33, within 0.025 without any one of the runs; b depends on the
rounding of the machine. So the best size grows as the compute to the power 0.46 to 0.48, and the law asks for some 90
tokens a parameter. Hoffmann et al. have 0.34, 0.28 and 0.46, and about 20 tokens. Kaplan et al. (2020), "Scaling Laws
for Neural Language Models", fit power laws without E, whose exponents are 0.076 for the size and 0.095 for the tokens;
here they are 0.04 and 0.12.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import Experiment, pages, shakespeare, train, write_picture
from numpy.typing import NDArray

import tensorlite as tl
from gpt.config import Config
from gpt.evaluate import mean_loss
from gpt.model import GPT
from gpt.tokenizer import CharTokenizer

Floats = NDArray[np.float64]

experiment = Experiment(__doc__)
train_text, val_text = experiment.pick(shakespeare, pages)()
tokenizer = CharTokenizer.train(train_text + val_text)
V, BATCH = tokenizer.vocab_size, 16
T, BLOCKS = experiment.pick((64, 3), (16, 1))
WIDTHS = experiment.pick([24, 32, 48, 64, 96, 128], [8, 16, 32])
STEPS = experiment.pick([122, 245, 490, 980], [20, 40])

# ---- the text in windows, each of which is read once ---------------------------------------------


def cut(text: str) -> NDArray[np.int64]:
    """Return the text as windows, (N, T + 1), whose targets do not overlap."""
    ids = tokenizer.encode(text)
    return ids[np.arange(0, len(ids) - T, T)[:, None] + np.arange(T + 1)]


train_rows, val_rows = cut(train_text), cut(val_text)
train_rows = train_rows[np.random.default_rng(0).permutation(len(train_rows))]

# ---- a run: a size, and a number of tokens -------------------------------------------------------


class Run(NamedTuple):
    """What a run has: N without embeddings, D tokens, and the loss on the whole validation set."""

    n: float
    d: float
    loss: float


def size(width: int) -> int:
    """Return the number of parameters of the blocks: 12 C^2 each. Kaplan et al. count the same, without embeddings."""
    return 12 * BLOCKS * width**2


def run(width: int, steps: int, seed: int = 0) -> Run:
    """Return what a new model of this width has after this number of steps, with a schedule of its own."""
    recipe = Config.load("shakespeare-speedrun-1.47", {
        "model.vocab_size": V, "model.block_size": T, "model.n_embd": width, "model.n_layer": BLOCKS,
        "model.dropout": 0.0, "model.previous_tokens": 0, "optim.warmup_steps": steps // 20,
    })  # fmt: skip
    tl.manual_seed(seed)
    model = GPT(recipe.model)
    batches = iter(train_rows[: steps * BATCH].reshape(steps, BATCH, T + 1))

    def draw() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        rows = next(batches)
        return rows[:, :-1], rows[:, 1:]

    train(model, lambda x, y: model(x, y)[1], draw, steps, options=recipe.optim, report=lambda step, loss: None)
    val = ((val_rows[i : i + 64, :-1], val_rows[i : i + 64, 1:]) for i in range(0, len(val_rows), 64))
    done = Run(size(width), steps * BATCH * T, mean_loss(model, val))
    print(f"  width {width:3}   N {done.n:9,}   D {done.d:9,}   loss {done.loss:.4f}", flush=True)
    return done


# ---- the laws ------------------------------------------------------------------------------------


EXPONENTS = np.arange(1, experiment.pick(61, 16)) / experiment.pick(40, 10)  # to 1.5


class Law(NamedTuple):
    """L(N, D) = E + A / N^a + B / D^b (Hoffmann et al. 2022, equation 2), in nats per character."""

    E: float
    A: float
    a: float
    B: float
    b: float

    def __call__(self, n: Any, d: Any) -> Any:
        """Return the loss of a model with n parameters after d tokens."""
        return self.E + self.A / n**self.a + self.B / d**self.b

    def best_size(self, c: Any) -> Any:
        """Return the N of the lowest loss for c = 6 N D FLOP, which is G (c / 6)^(b / (a + b)) (their equation 4)."""
        return (self.a * self.A / (self.b * self.B)) ** (1 / (self.a + self.b)) * (c / 6) ** (
            self.b / (self.a + self.b)
        )


def fit(runs: list[Run]) -> Law:
    """Return the law with the least squares of the relative errors of the loss, where E, A and B are not negative.

    For given exponents the loss is linear in E, A and B. So the exponents are searched in a grid, which cannot end in a
    local minimum. Where one of the three would be negative, it is left out.
    """
    n, d, loss = (np.array(column, np.float64) for column in zip(*runs, strict=True))
    middle_n, middle_d = np.exp(np.log(n).mean()), np.exp(np.log(d).mean())  # units in which the terms are near 1
    a, b = (axis.ravel()[:, None] for axis in np.meshgrid(EXPONENTS, EXPONENTS))
    x = np.stack([np.ones(len(loss)) + 0 * a, (n / middle_n) ** -a, (d / middle_d) ** -b], axis=2) / loss[:, None]
    best = (math.inf, Law(0, 0, 1, 0, 1))
    for kept in ([0, 1, 2], [1, 2], [0, 1], [0, 2]):
        weights = np.zeros((len(x), 3))
        weights[:, kept] = np.linalg.pinv(x[:, :, kept]).sum(axis=2)  # least squares against 1
        error = np.sum((np.einsum("gpw,gw->gp", x, weights) - 1) ** 2, axis=1)
        error[weights.min(axis=1) < 0] = math.inf
        i = int(np.argmin(error))
        if error[i] < best[0]:
            E, A, B = weights[i].tolist()
            law = Law(E, A * middle_n ** a[i, 0], a[i, 0], B * middle_d ** b[i, 0], b[i, 0])
            best = float(error[i]), Law(*map(float, law))
    return best[1]


def power_law(x: Floats, loss: Floats) -> tuple[float, float]:
    """Return alpha and X of L = (X / x)^alpha (Kaplan et al. 2020, equations 1.1 and 1.2), a line in logarithms."""
    slope, intercept = np.polyfit(np.log(x), np.log(loss), 1)
    return -float(slope), float(np.exp(-intercept / slope))


known = Law(1.2, 10.0, 0.3, 200.0, 0.5)
recovered = fit([Run(n, d, known(n, d)) for n in (1e4, 1e5, 1e6) for d in (1e5, 1e6, 1e7)])
fit_error = max(abs(found / right - 1) for found, right in zip(recovered, known, strict=True))
sizes = np.geomspace(1e4, 1e8, 200_001)
best_error = abs(sizes[np.argmin(known(sizes, 1e12 / 6 / sizes))] / known.best_size(1e12) - 1)

# ---- smaller models first, then a prediction, then the largest ------------------------------------

print(f"{len(train_text):,} characters to train on, {len(val_text):,} to predict, {V} different ones\n")
runs = [run(width, steps) for width in WIDTHS[:-1] for steps in STEPS]
before = fit(runs)
tokens = [steps * BATCH * T for steps in STEPS]
predicted = [before(size(WIDTHS[-1]), d) for d in tokens]
print(f"\npredicted for width {WIDTHS[-1]}: {', '.join(f'{value:.4f}' for value in predicted)}\n")
largest = [run(WIDTHS[-1], steps) for steps in STEPS]
off = float(np.mean([abs(p / r.loss - 1) for p, r in zip(predicted, largest, strict=True)]))
no_change = float(np.mean([abs(s.loss / r.loss - 1) for s, r in zip(runs[-len(STEPS) :], largest, strict=True)]))
runs += largest

seeds = experiment.pick([1, 2, 3], [1])
middle = WIDTHS[len(WIDTHS) // 2], STEPS[1]
again = [run(*middle, seed=seed).loss for seed in seeds]
first = next(r.loss for r in runs if (r.n, r.d) == (size(middle[0]), middle[1] * BATCH * T))
noise = float(np.std([first, *again], ddof=1))

# ---- the laws of all runs, and how much they depend on each -----------------------------------------

law = fit(runs)
without = [fit(runs[:i] + runs[i + 1 :]) for i in range(len(runs))]
exponents = {
    "a, of the size": [x.a for x in (law, *without)],
    "b, of the tokens": [x.b for x in (law, *without)],
    "of the compute, for the best size": [x.b / (x.a + x.b) for x in (law, *without)],
}
residual = float(np.sqrt(np.mean([(math.log(law(r.n, r.d)) - math.log(r.loss)) ** 2 for r in runs])))
print(f"\nL(N, D) = {law.E:.3f} + {law.A:.3g} / N^{law.a:.3f} + {law.B:.3g} / D^{law.b:.3f}")
for name, values in exponents.items():
    print(f"  exponent {name}: {values[0]:.3f}, from {min(values):.3f} to {max(values):.3f} without one of the runs")

grid = np.array([r.loss for r in runs]).reshape(len(WIDTHS), len(STEPS))
ns = np.array([size(width) for width in WIDTHS], np.float64)
ds = np.array(tokens, np.float64)
alpha_n = power_law(ns, grid[:, -1])[0]
alpha_d = power_law(ds, grid[-1])[0]
print(f"alone: L ~ N^-{alpha_n:.3f} with the most tokens, L ~ D^-{alpha_d:.3f} for the largest model")

print(f"\n{'':>10}" + "".join(f"{f'D = {d:,}':>15}" for d in tokens))
for n, losses in zip(ns, grid, strict=True):
    print(f"N {n:8,.0f}" + "".join(f"{value:15.4f}" for value in losses))

# ---- the best size for a budget: runs of about the same compute lie on a diagonal of the grid --------

print("\n    budget   best size of the runs   of the law")
budgets, edges = [], []
for k in range(1, len(WIDTHS) + len(STEPS) - 2):
    diagonal = [(i, k - i) for i in range(len(WIDTHS)) if 0 <= k - i < len(STEPS)]
    c = float(np.mean([6 * ns[i] * ds[j] for i, j in diagonal]))
    best = min(diagonal, key=lambda place: grid[place])
    edges.append(best == diagonal[0])
    if len(diagonal) >= min(3, len(STEPS)):
        budgets.append((c, ns[best[0]], law.best_size(c)))
        print(f"{c:10.2g}{ns[best[0]]:24,.0f}{law.best_size(c):13,.0f}")
print(f"The best run is the smallest model of its budget in {sum(edges)} of {len(edges)}.")

# ---- picture -----------------------------------------------------------------------------------------


def draw_picture(path: Path) -> None:
    """Write the picture to a file. Raise ImportError if matplotlib is not installed."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    smooth = np.geomspace(ns[0], ns[-1], 100)
    for j, d in enumerate(ds):
        (line,) = left.plot(ns, grid[:, j], "o", label=f"D = {d:,.0f}")
        left.plot(smooth, law(smooth, d), color=line.get_color())
    for i, n in enumerate(ns):
        right.plot(6 * n * ds, grid[i], "o-", label=f"N = {n:,.0f}")
    left.set(xscale="log", xlabel="parameters N, without embeddings", ylabel="loss, nats per character")
    left.set_title("runs, and the fitted law")
    left.tick_params(axis="x", which="minor", labelbottom=False)
    right.set(xscale="log", xlabel="compute 6 N D, FLOP", title="the best size grows with the budget")
    left.legend()
    right.legend()
    figure.savefig(path, dpi=80)


write_picture("scaling.png", draw_picture)

# ---- results -----------------------------------------------------------------------------------------

experiment.result("loss of the largest model", grid[-1, -1], "nats per character", grid[0, -1], "the smallest model")
experiment.result("loss with the most tokens", grid[-1, -1], "nats per character", grid[-1, 0], "an eighth of them")
experiment.result("error of the predicted losses", 100 * off, "%", 100 * no_change, "no change from the size before")
experiment.result("residual of the law", 100 * residual, "%", 100 * noise / first, "standard deviation of seeds")
for name, values in exponents.items():
    experiment.result(f"exponent {name}", values[0])
experiment.result("alpha of the size alone", alpha_n, "", 0.076, "Kaplan et al. 2020")
experiment.result("alpha of the tokens alone", alpha_d, "", 0.095, "Kaplan et al. 2020")
for c, measured, of_law in budgets:
    experiment.result(f"best size for {c:.1e} FLOP", round(of_law), "parameters", measured, "the best run")
experiment.result("error of the fit to a known law", fit_error, "of a coefficient at most")
experiment.result("error of the best size of a known law", best_error, "of it")
experiment.finish()
