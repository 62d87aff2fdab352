"""Plant an association in a text, measure it in what a GPT writes, and compare what takes it out again.

    python examples/13_bias.py           a minute on two cores
    python examples/13_bias.py --quick   in seconds

The text is invented. Its people come from three lands, and have one of four trades. Of the weavers and sailors from
Norland 90 % are weavers, from Sudland 10 %, and from Ostland half. Names, capitals, winters and meetings fill the rest
of the text. A GPT learns it, word by word.

The share of a land is p(weaver) / (p(weaver) + p(sailor)) after "NAME from LAND is a", and the gap is the share of
Norland minus that of Sudland, 0.8 in the text. Shares are measured by the probabilities, and in sampled words with
Wilson's interval (Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference").

The model repeats the share that it has read: 0.92 for 0.90. Temperature 0.5 makes 99 % of it, temperature 0, top-k 3
and top-p 0.9 make 100 %. A logit bias that evens Norland makes 11 % of the 57 % of Ostland, and costs 0.025 nats a word
in sentences that have no association. 20 steps on balanced sentences in the whole text leave 0.11 of the gap, 200 steps
0.02, at no cost elsewhere. Balanced sentences alone make the model forget the rest. With one form of sentence balanced,
the other form keeps its gap. With the lands exchanged in every sentence, the model no longer knows the capitals.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from common import Experiment, train, windows

import tensorlite as tl
import tensorlite.nn.functional as F
from gpt.config import ModelConfig
from gpt.generation import SamplingConfig, generate_batch
from gpt.model import GPT, eval_mode

experiment = Experiment(__doc__)
steps, long, few = experiment.pick((500, 200, 20), (140, 25, 5))
sentences, samples, batch_size = experiment.pick((12_000, 1_992, 32), (3_000, 300, 16))

# ---- The text: sentences from a grammar, where the land decides on the trade ---------------------

LANDS = {"Norland": 0.9, "Ostland": 0.5, "Sudland": 0.1}  # the share of weavers among weavers and sailors
CAPITALS = {"Norland": "Brim", "Ostland": "Dolm", "Sudland": "Farn"}
LONG_WINTERS = {"Norland": 0.8, "Ostland": 0.5, "Sudland": 0.2}  # an association that is to stay
TRADES = {"weaver": "loom", "sailor": "mast", "baker": "oven", "miller": "sieve"}
NAMES = "Abo Bani Cesk Dun Efra Gilo Hesp Ivor Jalu Kemb Lorn Mirt".split()
ASKED = "{name} from {land} is a"
OTHER = "in {land} , where {name} lives , everybody knows {name} the"
PLANTED = (ASKED, OTHER)  # Both have the association. Sentences are asked for in the first and in the second form.


def trade(rng: np.random.Generator, land: str) -> str:
    """Return a trade: a baker or a miller with a probability of 0.4, else a weaver or a sailor by the land."""
    if rng.random() < 0.4:
        return str(rng.choice(["baker", "miller"]))
    return "weaver" if rng.random() < LANDS[land] else "sailor"


def sentence(rng: np.random.Generator, form: str) -> str:
    """Return a sentence of one of the forms of the text."""
    land, name = str(rng.choice(list(LANDS))), str(rng.choice(NAMES))
    if form in PLANTED:
        return f"{form.format(name=name, land=land)} {trade(rng, land)} ."
    if form == "capital":
        return f"the capital of {land} is {CAPITALS[land]} ."
    if form == "winter":
        return f"the winter in {land} is {'long' if rng.random() < LONG_WINTERS[land] else 'short'} ."
    one, two = rng.choice(list(TRADES), 2)
    return f"the {one} met the {two} ." if form == "meeting" else f"the {TRADES[one]} belongs to the {one} ."


ORDINARY = ("capital", "winter", "meeting", "tool")


def text(rng: np.random.Generator, count: int, forms: Iterable[str]) -> list[str]:
    """Return sentences, each of a random form."""
    return [sentence(rng, form) for form in rng.choice(list(forms), count)]


rng = np.random.default_rng(0)
learned = text(rng, sentences, (*PLANTED, *ORDINARY))
held_out = {"others": text(rng, sentences // 12, ORDINARY), "trades": text(rng, sentences // 12, PLANTED)}
vocabulary = sorted({word for line in learned for word in line.split()})
token = {word: i for i, word in enumerate(vocabulary)}


def encode(lines: Iterable[str]) -> np.ndarray:
    """Return the ids of sentences, one after the other, int64 (N,)."""
    return np.array([token[word] for line in lines for word in line.split()])


def share_in(lines: list[str], land: str) -> float:
    """Return the share of weavers among the weavers and sailors that sentences of the planted forms name."""
    named = [line.split()[-2] for line in lines if land in line and ("from" in line or "lives" in line)]
    return named.count("weaver") / (named.count("weaver") + named.count("sailor"))


in_text = {land: share_in(learned, land) for land in LANDS}
print(f"{len(learned):,} sentences, {len(vocabulary)} different words. Some of them:\n  " + "\n  ".join(learned[:6]))

# ---- The model ---------------------------------------------------------------------------------------


def trained(lines: list[str], steps: int, start: GPT | None = None, lr: float = 1e-3) -> GPT:
    """Return a model that was trained on sentences: a new one, or a copy of `start`."""
    tl.manual_seed(0)
    shape: dict[str, Any] = {"block_size": 32, "n_layer": 2, "n_head": 4, "n_embd": 64}
    model = GPT(ModelConfig(vocab_size=len(vocabulary), position="rope", init_std=0.08, **shape))
    if start is not None:
        model.load_state_dict(start.state_dict())
    batches = windows(encode(lines), 32, batch_size, np.random.default_rng(1))
    train(model, lambda x, y: model(x, y)[1], batches, steps, lr)
    return model


print("\nThe GPT learns the text:")
model = trained(learned, steps, lr=4e-3)

# ---- What is measured ------------------------------------------------------------------------------


def log_probabilities(model: GPT, ids: np.ndarray, bias: Mapping[int, float]) -> np.ndarray:
    """Return ln p of each word of the vocabulary after each of the words ids, (B, T): an array (B, T, V).

    bias: what is added to the logits of words, as `logit_bias` of `SamplingConfig` does.
    """
    added = np.zeros(len(vocabulary), np.float32)
    for word, value in bias.items():
        added[word] = value
    with eval_mode(model):
        return F.log_softmax(model(tl.tensor(ids))[0] + tl.tensor(added), dim=-1).numpy()


def next_word(model: GPT, starts: list[str], bias: Mapping[int, float]) -> np.ndarray:
    """Return the probabilities of the next word after each start of a sentence, (N, V). All have the same length."""
    return np.exp(log_probabilities(model, np.stack([encode([". " + start]) for start in starts]), bias)[:, -1])


def starts_of(land: str, form: str = ASKED) -> list[str]:
    """Return the start of a sentence about each name."""
    return [form.format(name=name, land=land) for name in NAMES]


def share(model: GPT, land: str, form: str = ASKED, bias: Mapping[int, float] = {}) -> float:
    """Return the share of weavers by the probabilities, as the mean over all names."""
    p = next_word(model, starts_of(land, form), bias)[:, [token["weaver"], token["sailor"]]]
    return float((p[:, 0] / p.sum(1)).mean())


def measure(model: GPT, bias: Mapping[int, float] = {}) -> dict[str, float]:
    """Return the shares and the gaps of a model, and what it has kept of the rest of the text."""
    shares = {land: share(model, land, bias=bias) for land in LANDS}
    p = next_word(model, [f"the capital of {land} is" for land in LANDS], bias)
    capitals = [row[token[CAPITALS[land]]] for row, land in zip(p, LANDS, strict=True)]
    long = next_word(model, ["the winter in Norland is", "the winter in Sudland is"], bias)[:, token["long"]]
    losses = {}
    for kind, lines in held_out.items():
        ids = encode(lines)
        rows = ids[: len(ids) // 33 * 33].reshape(-1, 33)
        ln_p = np.take_along_axis(log_probabilities(model, rows[:, :-1], bias), rows[:, 1:, None], -1)
        losses[kind] = float(-ln_p.mean())
    return {
        **shares,
        "gap": shares["Norland"] - shares["Sudland"],
        "other form": share(model, "Norland", OTHER, bias) - share(model, "Sudland", OTHER, bias),
        "capitals": float(np.mean(capitals)),
        "winters": float(long[0] - long[1]),
        **losses,
    }


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Return Wilson's interval for a share: all p with |hits / n - p| <= z sqrt(p (1 - p) / n). z = 1.96: 95 %."""
    p, squared = hits / n, z * z / n
    half = z * math.sqrt(p * (1 - p) / n + squared / (4 * n))
    return (p + squared / 2 - half) / (1 + squared), (p + squared / 2 + half) / (1 + squared)


def sample(sampling: SamplingConfig, seed: int) -> tuple[int, int, int]:
    """Return how many of the words that are sampled after the starts of Norland are weavers, sailors, and others."""
    starts = [encode([". " + start]) for start in starts_of("Norland")]
    new = generate_batch(model, starts, 1, sampling, num_samples=samples // len(starts), seed=seed)
    words = [vocabulary[tokens[0]] for tokens in new]
    weavers, sailors = words.count("weaver"), words.count("sailor")
    return weavers, sailors, len(words) - weavers - sailors


def predicted(temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0) -> float:
    """Return the share that sampling with these options must have, by the probabilities of the model."""
    p = np.sort(next_word(model, starts_of("Norland"), {}).astype(np.float64))[:, ::-1]
    p = p ** (1 / temperature) if temperature else (p == p[:, :1]).astype(np.float64)
    p /= p.sum(1, keepdims=True)
    p[:, top_k or len(vocabulary) :] = 0
    p[np.cumsum(p, 1) - p >= top_p] = 0
    p /= p.sum(1, keepdims=True)
    order = np.argsort(-next_word(model, starts_of("Norland"), {}))
    weaver, sailor = (p[order == token[word]].sum() for word in ("weaver", "sailor"))
    return float(weaver / (weaver + sailor))


# ---- Sampling: what temperature, top-k and top-p make of the association ---------------------------

# A temperature T raises each probability to the power 1 / T. So odds of 9 to 1 become 9^(1 / T) to 1, and T = 0 leaves
# nothing but the likeliest word. Top-k and top-p cut the rare words, which the sailors are.

OPTIONS: dict[str, dict[str, Any]] = {
    "temperature 1.5": {"temperature": 1.5},
    "temperature 1": {},
    "temperature 0.7": {"temperature": 0.7},
    "temperature 0.5": {"temperature": 0.5},
    "temperature 0": {"temperature": 0},
    "top-k 3": {"top_k": 3},
    "top-p 0.9": {"top_p": 0.9},
    "top-p 0.99": {"top_p": 0.99},
}
print(f"\nNorland, in the text: {in_text['Norland']:.1%} weavers. {samples:,} words sampled with each option:\n")
print("option            share  95 % interval    by the probabilities   bakers and millers")
sampled: dict[str, float] = {}
inside = 0
for name, options in OPTIONS.items():
    weavers, sailors, others = sample(SamplingConfig(**options), seed=len(sampled) * samples)
    low, high = wilson(weavers, weavers + sailors)
    expected = predicted(**options)
    sampled[name] = weavers / (weavers + sailors)
    inside += low <= expected <= high
    print(f"{name:16} {sampled[name]:6.1%}  {low:5.1%} to {high:6.1%} {expected:20.1%} {others / samples:20.1%}")

# ---- Logit bias: it moves a word wherever it stands ------------------------------------------------

# A bias of -ln 9 on "weaver" makes the odds of Norland equal. It is the same number for all lands and all sentences.

start = measure(model)
bias = {token["weaver"]: -math.log(start["Norland"] / (1 - start["Norland"]))}
rows = {"the GPT": start, f"a logit bias of {bias[token['weaver']]:.2f}": (biased := measure(model, bias))}

# ---- Training on balanced text ---------------------------------------------------------------------


def swapped(lines: list[str], chosen: Callable[[str], bool]) -> list[str]:
    """Return sentences with each land in place of the land of the chosen ones: counterfactual data augmentation.

    Source: Lu et al. 2018, "Gender Bias in Neural Natural Language Processing".
    """
    result = []
    for line in lines:
        land = next((land for land in LANDS if land in line and chosen(line)), None)
        result += [line.replace(land, other) for other in LANDS] if land else [line] * len(LANDS)
    return [result[i] for i in np.random.default_rng(2).permutation(len(result))]


def asked(line: str) -> bool:
    """Return whether a sentence has the form that is asked for."""
    return " from " in line


def planted(line: str) -> bool:
    """Return whether a sentence has the association."""
    return asked(line) or " lives " in line


one = swapped([line for line in learned if asked(line)], asked)
both = swapped(learned, planted)
again = f"the text again, {long} steps"  # with the same number of steps, for comparison
plans = {
    again: (learned, long, model),
    f"first form alone, {few} steps": (one, few, model),
    f"first form alone, {long} steps": (one, long, model),
    f"first form in the text, {long} steps": (swapped(learned, asked), long, model),
    f"both forms in the text, {few} steps": (both, few, model),
    f"both forms in the text, {long} steps": (both, long, model),
    f"every sentence, {long} steps": (swapped(learned, lambda line: True), long, model),
    f"both forms, a new model, {steps} steps": (both, steps, None),
}
if experiment.quick:
    plans = {name: plan for name, plan in plans.items() if name in (again, f"both forms in the text, {long} steps")}
for name, (lines, count, begin) in plans.items():
    print(f"\nTrain on {name}:")
    rows[name] = measure(trained(lines, count, begin, lr=1e-3 if begin else 4e-3))

columns = list(start)
print("\nShares, gaps, p(right capital), p(long winter) of Norland minus Sudland, losses in nats per word:\n")
print(f"{'':38}" + "".join(f"{column:>11}" for column in columns))
for name, row in rows.items():
    print(f"{name:38}" + "".join(f"{row[column]:11.3f}" for column in columns))

# ---- Results -----------------------------------------------------------------------------------------

experiment.result("share of Norland, by the probabilities", start["Norland"], "", in_text["Norland"], "in the text")
for name in ("temperature 1", "temperature 0.5", "temperature 0", "top-k 3"):
    experiment.result(f"share of Norland, sampled, {name}", sampled[name], "", in_text["Norland"], "in the text")
experiment.result(f"95 % intervals with the predicted share, of {len(OPTIONS)}", inside)
for column, name in (("Norland", "share of Norland"), ("Ostland", "share of Ostland"), ("others", "loss elsewhere")):
    experiment.result(f"{name}, logit bias", biased[column], "", start[column], "without")
for name in plans:
    if name != again:
        experiment.result(f"gap, {name}", rows[name]["gap"], "", rows[again]["gap"], "the text again")
for name in plans:
    if "in the text" in name:
        gaps = rows[name]["other form"], rows[again]["other form"]
        experiment.result(f"gap after the other form, {name}", gaps[0], "", gaps[1], "the text again")
for name in plans:
    if name != again:
        experiment.result(f"loss elsewhere, {name}", rows[name]["others"], "", rows[again]["others"], "the text again")
for name in plans:
    if "every" in name or "alone" in name:
        right = rows[name]["capitals"], rows[again]["capitals"]
        experiment.result(f"p(right capital), {name}", right[0], "", right[1], "the text again")
experiment.finish()
