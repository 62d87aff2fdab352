"""How well does a GPT predict a text, and from which size on does it beat tables of counts?

    python examples/07_language_model.py           five minutes on two cores
    python examples/07_language_model.py --quick   in seconds, on another text

A language model gives each character a probability, given all characters before it. Its measure is the mean of
-ln p over a text that it has not seen, in nats per character. Divided by ln 2 that is bits per character, and exp of it
is the perplexity.

Counts predict, too: an n-gram model takes what followed the last n - 1 characters in the training text. On tiny
Shakespeare, 5-grams have a loss of 1.67 with Witten-Bell smoothing, and 6-grams of 1.52 with that of Kneser and Ney in
the form of Chen and Goodman (1998), "An Empirical Study of Smoothing Techniques for Language Modeling". nanoGPT's
recipe for a CPU ends at 1.90 after 2,000 steps (docs/speed.md), so it loses to counts.

The GPT here has a better recipe and 1,300 steps. It gets below the counts in the last 300 of them, and ends at 1.50.
Trained on 100,000 characters it loses, with 1.81 to 1.70, and on 10,000 with 2.30 to 2.04. Where both see the last six
characters alone, the counts are better, too. The GPT gains by the characters before those. The mean of the
probabilities of both models has 1.44, because they err in different places.
"""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
from common import Experiment, pages, shakespeare, train, windows
from ngrams import NGram
from numpy.typing import NDArray

import tensorlite as tl
from gpt.config import Config
from gpt.evaluate import log_probs, mean_loss
from gpt.generation import generate
from gpt.model import GPT
from gpt.tokenizer import CharTokenizer

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

experiment = Experiment(__doc__)
train_text, val_text = experiment.pick(shakespeare, pages)()
tokenizer = CharTokenizer.train(train_text + val_text)
train_ids, val_ids = tokenizer.encode(train_text), tokenizer.encode(val_text)
V = tokenizer.vocab_size
print(f"{len(train_ids):,} characters to train on, {len(val_ids):,} to predict, {V} different ones")

# ---- n-grams: count what followed the last few characters (examples/ngrams.py) -------------------


def loss(logp: Floats) -> float:
    """Return the mean loss in nats per character."""
    return float(-logp.mean())


print("\nn-gram models, nats per character on the validation set:\norder   Witten-Bell   Kneser-Ney   n-grams counted")
table: dict[tuple[str, int], float] = {}
for order in range(1, experiment.pick(8, 6)):
    for smoothing in ("witten-bell", "kneser-ney"):
        counted = NGram(train_ids, order, V, smoothing)
        table[smoothing, order] = loss(counted.log_probs(val_ids))
    print(f"{order:5}{table['witten-bell', order]:14.3f}{table['kneser-ney', order]:13.3f}{counted.size:18,}")

# ---- the GPT: the recipe of `python -m gpt train shakespeare-speedrun-1.47`, with a smaller model -

T, width, blocks = experiment.pick((128, 128, 3), (32, 32, 1))
recipe = Config.load("shakespeare-speedrun-1.47", {
    "model.vocab_size": V, "model.block_size": T, "model.n_embd": width, "model.n_layer": blocks, "model.dropout": 0.0,
    "model.previous_tokens": 3,
})  # fmt: skip


def split(ids: Ints) -> tuple[Ints, Ints]:
    """Return nine tenths of a text to train on, and a tenth to choose by: a length of n-grams, or a number of steps.

    It is the first tenth. The validation set begins in the middle of a play, whose other half has to stay.
    """
    return ids[len(ids) // 10 :], ids[: len(ids) // 10]


def spread(ids: Ints) -> Ints:
    """Return places that are spread evenly over a text, (W, T / 2): each with T / 2 others before."""
    starts = np.linspace(T // 2 + 1, len(ids) - T // 2, min(256, 2 * len(ids) // T - 2)).astype(np.int64)
    return starts[:, None] + np.arange(T // 2)


def windows_at(ids: Ints, targets: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield batches of windows, in which only the second half counts: a GPT predicts worse with few characters."""
    for rows in np.array_split(targets, max(1, len(targets) // 32)):
        x = ids[rows[:, :1] + np.arange(-T // 2 - 1, T // 2 - 1)]
        yield x, np.concatenate([np.full((len(rows), T // 2), -1), ids[rows]], axis=1)


def train_gpt(ids: Ints, steps: int) -> tuple[GPT, list[tuple[int, float]]]:
    """Return a GPT as it was when its loss on the first tenth of the text was lowest, and (step, loss) there."""
    own, chosen_by = split(ids)
    tl.manual_seed(1)
    model = GPT(recipe.model)
    curve: list[tuple[int, float]] = []
    best: dict[str, tl.Tensor] = {}

    def evaluate(step: int, train_loss: float) -> None:
        curve.append((step, mean_loss(model, windows_at(chosen_by, spread(chosen_by)))))
        print(f"  step {step:4}   {train_loss:.3f} in training, {curve[-1][1]:.3f} on the first tenth", flush=True)
        if curve[-1][1] == min(value for _, value in curve):
            best.update({name: value.clone() for name, value in model.state_dict().items()})

    options = dataclasses.replace(recipe.optim, warmup_steps=steps // 20)
    batches = windows(own, T, 16, np.random.default_rng(1))
    train(model, lambda x, y: model(x, y)[1], batches, steps, options=options, report=evaluate)
    model.load_state_dict(best)
    return model, curve


def count_ngrams(ids: Ints) -> tuple[NGram, float]:
    """Return the n-grams of the whole text, and the loss by which their length is chosen, as that of a GPT is."""
    own, chosen_by = split(ids)
    losses = {}
    for n in range(3, experiment.pick(9, 6)):
        losses[n] = loss(NGram(own, n, V, "kneser-ney").log_probs(chosen_by)[spread(chosen_by) - 1])
    n = min(losses, key=losses.__getitem__)
    return NGram(ids, n, V, "kneser-ney"), losses[n]


amounts = experiment.pick(
    [(10_000, 60), (100_000, 240), (len(train_ids), 1300)], [(len(train_ids), 60)]
)
rows = []
for characters, steps in amounts:
    print(f"\na GPT on the last {characters:,} characters, {steps} steps of {16 * T:,}, nats per character:")
    model, curve = train_gpt(train_ids[-characters:], steps)
    counted, aim = count_ngrams(train_ids[-characters:])
    gpt_logp, counted_logp = log_probs(model, val_ids), counted.log_probs(val_ids)
    rows.append((characters, loss(counted_logp), counted.n, loss(gpt_logp)))
print(f"\n{'characters':>10}{'n-grams':>10}{'order':>7}{'GPT':>8}   nats per character on the validation set")
for characters, by_counts, order, by_gpt in rows:
    print(f"{characters:10,}{by_counts:10.3f}{order:7}{by_gpt:8.3f}")

# ---- a text has a probability: the product of those of its characters ----------------------------

sentence = experiment.pick("What light through yonder window breaks?", "This is an example of a sentence.")
ids = tokenizer.encode(sentence)
product, by_hand, sums = 1.0, [], []
for i in range(1, len(ids)):
    with tl.no_grad():
        logits = model(tl.tensor(ids[None, :i]))[0][0, -1].numpy().astype(np.float64)
    p = np.exp(logits - logits.max())
    p /= p.sum()
    by_hand.append(math.log(p[ids[i]]))
    product *= p[ids[i]]
    sums += [p.sum(), counted.probs(ids[:i]).sum()]
of_evaluate = log_probs(model, ids)
worst = max(np.abs(np.exp(of_evaluate.sum()) / product - 1), np.abs(of_evaluate - by_hand).max())
of_ngrams = counted.log_probs(ids)
print(f"\nThe probability that {sentence[0]!r} is followed by {sentence[1:]!r}:")
print(f"  {product:.3g} by the GPT, perplexity {math.exp(loss(of_evaluate)):.2f}")
print(f"  {math.exp(of_ngrams.sum()):.3g} by n-grams, perplexity {math.exp(loss(of_ngrams)):.2f}")

# ---- where the GPT gains: the characters that n-grams cannot see ---------------------------------

places = np.random.default_rng(2).integers(T, len(val_ids), size=experiment.pick(1000, 200))
print("\nGiven the last n characters alone, nats per character at some places:\n   n   n-grams       GPT")
for seen in (n for n in (1, 2, 4, 6, 8, 16, 32, 64, 128) if n <= T):
    contexts = val_ids[places[:, None] + np.arange(-seen, 0)]
    logp = np.empty(len(places))
    for i in range(0, len(places), 250):
        chosen = slice(i, i + 250)
        with tl.no_grad():
            last = model.head(model.hidden_states(tl.tensor(contexts[chosen]))[:, -1])
            picked = tl.nn.functional.log_softmax(last, dim=-1).numpy()
        logp[chosen] = picked[np.arange(len(picked)), val_ids[places[chosen]]]
    few = ""
    if seen <= 6:
        ngrams = NGram(train_ids, seen + 1, V, "kneser-ney")
        few = f"{loss(ngrams.log_probs(val_ids)[places - 1]):.3f}"
    print(f"{seen:4}{few:>10}{loss(logp):10.3f}")

# ---- samples -------------------------------------------------------------------------------------

start = tokenizer.encode("\n")
print(f"\n{counted.n}-grams write:\n{tokenizer.decode(counted.generate(start, 400, np.random.default_rng(1)))}\n")
print(f"The GPT writes:\n{tokenizer.decode(list(generate(model, start, 400, seed=1)))}")

# ---- results -------------------------------------------------------------------------------------

mixture = loss(np.logaddexp(gpt_logp, counted_logp) - math.log(2))
crossing = next((i for i, value in curve if value < aim), math.inf)
of_counts, of_gpt = loss(counted_logp), loss(gpt_logp)
name = f"{counted.n}-grams, Kneser-Ney"

experiment.result("loss of bigrams", table["witten-bell", 2], "nats per character", table["witten-bell", 1], "unigrams")
experiment.result("loss of 5-grams, Witten-Bell", table["witten-bell", 5], "nats per character")
experiment.result("loss of the GPT", of_gpt, "nats per character", of_counts, name)
experiment.result("bits of the GPT", of_gpt / math.log(2), "per character", of_counts / math.log(2), name)
experiment.result("perplexity of the GPT", math.exp(of_gpt), "per character", math.exp(of_counts), name)
experiment.result("loss of the mean of both", mixture, "nats per character", min(of_gpt, of_counts), "the better one")
for characters, by_counts, order, by_gpt in rows[:-1]:
    experiment.result(
        f"loss of a GPT trained on {characters:,} characters", by_gpt, "nats per character", by_counts, f"{order}-grams"
    )
if crossing < math.inf:
    experiment.result("steps until the GPT is better", crossing, f"of {steps}", aim, "loss of n-grams")
experiment.result("size of the GPT", model.num_params() * 4 / 1e6, "MB", counted.size * 12 / 1e6, name)
experiment.result("error of a sentence's probability", worst, "at most, of three ways to compute it")
experiment.result("sum of the probabilities of what may follow, less 1", np.abs(np.array(sums) - 1).max(), "at most")
experiment.finish()
