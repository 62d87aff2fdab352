"""Fill in missing characters and words with a model that sees both sides of them, as BERT does.

    python examples/09_masked_language_model.py           three minutes on two cores
    python examples/09_masked_language_model.py --quick   in seconds

A GPT predicts a character from those before it. A masked language model (Devlin et al. 2018, "BERT") has the same
blocks without the causal mask. It learns to predict characters that are hidden from it: 15 % of them are chosen, of
which 80 % become a mask, 10 % a random character, and 10 % stay.

Both learn the same text of Shakespeare in as many steps. Then both fill in the same places of held-out text. The GPT
does it in two ways: from the left side alone, and by trying each character, or the 100 commonest words, and comparing
the probabilities of the whole text. The second way also sees both sides, but it needs one pass for each candidate.

After 1,500 steps the masked model is right at 64 % of the places, the GPT from the left side at 54 %, and the GPT that
tries each character at 82 %. A masked model learns from a seventh of the characters in each step. Of the missing words
it writes 5 %, the GPT from the left side 7 %, and the GPT that tries 100 words 22 %. In training seldom are several
neighbours hidden.
"""

import re
from collections import Counter

import numpy as np
from common import Experiment, shakespeare, train, windows

import tensorlite as tl
from gpt.config import ModelConfig
from gpt.model import GPT, MaskedLanguageModel, mask_tokens
from gpt.tokenizer import CharTokenizer

experiment = Experiment(__doc__)
STEPS, BATCH, WIDTH, LAYERS = experiment.pick((1500, 32, 64, 4), (150, 16, 32, 1))
LENGTH, PLACES, WORDS = experiment.pick((64, 300, 200), (32, 100, 20))
rng = np.random.default_rng(9)

# ---- the text, and one id more for the mask -----------------------------------------------------

train_text, val_text = shakespeare()
tokenizer = CharTokenizer.train(train_text + val_text)
V = tokenizer.vocab_size
MASK = V
draw = windows(tokenizer.encode(train_text), LENGTH, BATCH, rng)
held_out = tokenizer.encode(val_text)


def masked_batch() -> tuple[np.ndarray, np.ndarray]:
    """Return windows with hidden characters, and the labels: those characters, -1 elsewhere."""
    hidden, labels = mask_tokens(tl.tensor(draw()[0]), MASK, V)
    return hidden.numpy(), labels.numpy()


# ---- both models learn, in as many steps --------------------------------------------------------

config = ModelConfig(
    vocab_size=V + 1, block_size=LENGTH, n_layer=LAYERS, n_head=4, n_embd=WIDTH, position="rope", init_std=0.1
)
tl.manual_seed(9)
masked = MaskedLanguageModel(config)
print(f"a masked language model of {LAYERS} blocks, {masked.num_params():,} parameters")
masked_losses = train(masked, lambda text, labels: masked(text, labels)[1], masked_batch, STEPS, 3e-3)
causal = GPT(config)
print(f"\na GPT of {LAYERS} blocks, {causal.num_params():,} parameters")
causal_losses = train(causal, lambda text, labels: causal(text, labels)[1], draw, STEPS, 3e-3)

# ---- a missing character in the middle ----------------------------------------------------------

MIDDLE = LENGTH // 2
starts = rng.choice(len(held_out) // LENGTH, PLACES, replace=False) * LENGTH  # The windows do not overlap.
rows = held_out[starts[:, None] + np.arange(LENGTH)]  # (PLACES, LENGTH)
answers = rows[:, MIDDLE]


def masked_logits(ids: np.ndarray) -> np.ndarray:
    """Return the logits of the masked language model without the mask itself, (B, T, V)."""
    with tl.no_grad():
        return masked(tl.tensor(ids))[0].numpy()[..., :V]


def log_probabilities(ids: np.ndarray) -> np.ndarray:
    """Return the GPT's log-probability of each character of texts (B, T) but the first, (B, T - 1), in nats."""
    with tl.no_grad():
        scores = causal(tl.tensor(ids[:, :-1]))[0].log_softmax(-1).numpy()
    return np.take_along_axis(scores, ids[:, 1:, None], -1)[..., 0]


question = rows.copy()
question[:, MIDDLE] = MASK
both_sides = masked_logits(question)[:, MIDDLE].argmax(-1)
with tl.no_grad():
    left_side = causal(tl.tensor(rows[:, :MIDDLE]))[0][:, -1, :V].numpy().argmax(-1)
tried = []
for row in rows:
    candidates = np.repeat(row[None], V, 0)
    candidates[:, MIDDLE] = np.arange(V)
    tried.append(log_probabilities(candidates)[:, MIDDLE - 1 :].sum(1).argmax())
frequencies = np.bincount(tokenizer.encode(train_text), minlength=V) / len(train_text)
commonest = frequencies.argmax()


def right(found: np.ndarray) -> float:
    """Return the percentage of places that are filled in correctly."""
    return 100 * float(np.mean(found == answers))


# ---- a missing word -----------------------------------------------------------------------------

WORD = re.compile(r"(?<=[ \n])[a-z]{3,8}(?=[ \n,.;:!?])")  # 3 to 8 small letters
counts = Counter(WORD.findall(train_text))
common = {n: [word for word, _ in counts.most_common() if len(word) == n][:100] for n in range(3, 9)}
spans = [
    match.span()
    for match in WORD.finditer(val_text)
    if MIDDLE <= match.start() < len(val_text) - LENGTH
]
spans = [spans[i] for i in sorted(rng.choice(len(spans), WORDS, replace=False))]


def fill(start: int, stop: int) -> str:
    """Return what the masked language model writes, the character first of which it is most certain."""
    first = start - MIDDLE
    ids = held_out[first : first + LENGTH].copy()
    ids[start - first : stop - first] = MASK
    while (open_places := np.flatnonzero(ids == MASK)).size:
        logits = masked_logits(ids[None])[0, open_places]
        shifted = np.exp(logits - logits.max(-1, keepdims=True))
        certain = (shifted.max(-1) / shifted.sum(-1)).argmax()
        ids[open_places[certain]] = logits[certain].argmax()
    return tokenizer.decode(ids[start - first : stop - first])


def continue_left(start: int, stop: int) -> str:
    """Return what the GPT writes after the left side, the likeliest character each time."""
    ids = held_out[start - MIDDLE : start]
    for _ in range(start, stop):
        with tl.no_grad():
            following = causal(tl.tensor(ids[None]))[0][0, -1, :V].numpy().argmax()
        ids = np.append(ids, following)
    return tokenizer.decode(ids[MIDDLE:])


def try_words(start: int, stop: int) -> str:
    """Return the word of this length, of the 100 commonest, with which the window is likeliest for the GPT."""
    words = common[stop - start]
    candidates = np.repeat(held_out[None, start - MIDDLE : start - MIDDLE + LENGTH], len(words), 0)
    candidates[:, MIDDLE : MIDDLE + stop - start] = [tokenizer.encode(word) for word in words]
    return words[log_probabilities(candidates)[:, MIDDLE - 1 :].sum(1).argmax()]


filled = [(val_text[a:b], fill(a, b), continue_left(a, b), try_words(a, b)) for a, b in spans]
print("\na missing word: from both sides; by the GPT from the left side; by the GPT that tries words")
for (a, b), (word, *found) in list(zip(spans, filled, strict=True))[:8]:
    before, after = (text.replace("\n", " ") for text in (val_text[a - 24 : a], val_text[b : b + 20]))
    print(f"{before}[{word}]{after}   {'; '.join(found).replace(chr(10), ' ')}")

# ---- results ------------------------------------------------------------------------------------

left = "GPT, left side"
experiment.result("missing character, both sides", right(both_sides), "%", right(left_side), left)
experiment.result("missing character, GPT that tries each one", right(np.array(tried)), "%", right(left_side), left)
experiment.result("missing character, both sides, and the commonest", right(both_sides), "%",
                  right(np.full(PLACES, commonest)), "the commonest")  # fmt: skip
by_masked, by_causal, by_words = (
    100 * float(np.mean([words[0] == words[way] for words in filled])) for way in (1, 2, 3)
)
experiment.result("missing word, both sides", by_masked, "%", by_causal, left)
experiment.result("missing word, GPT that tries 100 words", by_words, "%", by_causal, left)
entropy = -float(np.sum(frequencies[frequencies > 0] * np.log(frequencies[frequencies > 0])))
experiment.result("loss of the masked language model", float(np.mean(masked_losses[-50:])), "nats per character",
                  entropy, "frequencies of characters")  # fmt: skip
experiment.result("loss of the GPT", float(np.mean(causal_losses[-50:])), "nats per character",
                  entropy, "frequencies of characters")  # fmt: skip
experiment.finish()
