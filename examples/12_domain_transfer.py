"""A model of Shakespeare learns to write about Python: fine-tuning in another domain, and what it forgets.

    python examples/12_domain_transfer.py           two to three minutes on two cores
    python examples/12_domain_transfer.py --quick   in seconds, with pages of docs/ for the plays

Is a model that has read plays a good beginning for one that is to write technical English? A GPT is trained on tiny
Shakespeare, then on the topics of Python's documentation that `help()` shows: `pydoc_data.topics` of the standard
library. They differ between versions of Python, and so do the results: 465 KB in 3.11.7, 492 KB in 3.12.1, 511 KB in
3.13.0. The figures here are those of 3.11.7, which has 373 KB without repeated paragraphs.

Measured are the loss on topics that were held out, from the plays and from scratch, with more and more text; how much
text from scratch gives the same loss; and what the model loses on plays that were held out. All trainings have the same
number of steps, and keep their best step on validation topics. The pretraining has more steps, and is not counted,
except in one row. Methods: all weights; LoRA (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models");
LoRA with the embeddings trained as well; and all weights with a quarter of Shakespeare in each batch (rehearsal, Robins
1995, "Catastrophic Forgetting, Rehearsal and Pseudorehearsal").

With 80,000 characters and 400 steps, all weights get from 3.80 to 1.65 nats on the documentation, where a model from
scratch gets to 2.13; the plays rise from 1.96 to 2.75. LoRA gets to 1.92 and 2.58, with 11 % of the parameters, and to
1.75 and 2.73 with the embeddings. A quarter of old text gets to 1.71, and the plays stay at 2.15. 5,000 characters are
worth twice as many from scratch. 20,000 are better than all 310,000, because 400 steps are too few for a model that
begins with nothing: with 1,900 steps, as many as both trainings, it gets to 1.41, and fine-tuning on all only to 1.61.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pydoc_data.topics import topics

import numpy as np
from common import Experiment, pages, shakespeare, text_loss, train, windows

import tensorlite as tl
from gpt.checkpoint.lora_targets import choose
from gpt.config import LoraConfig, ModelConfig
from gpt.generation import generate
from gpt.model import GPT
from gpt.model.lora import add_lora, lora_layers
from gpt.tokenizer import CharTokenizer

experiment = Experiment(__doc__)
pretraining_steps, steps = experiment.pick((1500, 400), (40, 20))
layers, width, T, B = experiment.pick((3, 96, 64, 16), (1, 32, 32, 8))
amounts = experiment.pick([5_000, 20_000, 80_000], [20_000])  # characters of documentation, and then all
middle = amounts[-1]  # the amount for which the methods are compared

# ---- the documentation: each paragraph once, whole topics held out ------------------------------

# Topics repeat each other: "compound" has the whole text of "if", for example. A paragraph is kept once, where it
# occurs first; otherwise the model would be tested on paragraphs that it was trained on.


def documentation() -> tuple[list[str], str, str]:
    """Return the paragraphs to train on, in a random order, and the texts of the topics for validation and test."""
    rng = np.random.default_rng(0)
    seen: set[str] = set()
    once: dict[str, list[str]] = {}
    for name in sorted(topics):
        once[name] = []
        for paragraph in topics[name].split("\n\n"):
            words = " ".join(paragraph.split())
            if words not in seen:
                seen.add(words)
                once[name].append(paragraph + "\n\n")
    total = sum(len(paragraph) for paragraphs in once.values() for paragraph in paragraphs)
    test, val, rest = "", "", list[str]()
    for name in rng.permutation(sorted(once)).tolist():
        if len(test) < total / 10:
            test += "".join(once[name])
        elif len(val) < total / 20:
            val += "".join(once[name])
        else:
            rest += once[name]
    return [rest[i] for i in rng.permutation(len(rest))], val, test


# ---- one alphabet for both domains --------------------------------------------------------------

# The vocabulary of a model is fixed before its first step, so it has the characters of both domains. Those that
# Shakespeare's plays do not have, such as digits above 3 and "_", get an id and an embedding that pretraining never
# uses as an input.

plays, plays_test = experiment.pick(shakespeare, pages)()
paragraphs, val_text, test_text = documentation()
python = "".join(paragraphs)
tokenizer = CharTokenizer.train(plays + plays_test + python + val_text + test_text)
V = tokenizer.vocab_size
unseen = set(python) - set(plays)

source, source_test = tokenizer.encode(plays), tokenizer.encode(plays_test)[: experiment.pick(40_000, 4_000)]
target = tokenizer.encode(python)
val = tokenizer.encode(val_text)[: experiment.pick(20_000, 2_000)]
test = tokenizer.encode(test_text)[: experiment.pick(40_000, 4_000)]
amounts.append(len(target))
print(f"Plays: {len(source):,} characters to train on. Python's documentation: {len(target):,}.")
print(f"{V} different characters, of which {len(unseen)} are in the documentation alone.")

# ---- one training loop for all models -----------------------------------------------------------

# Each training takes as many steps as any other, and keeps the weights with the lowest loss on the validation topics.
# So the small amounts of text, which a model soon knows by heart, are not worse than they have to be.


def new_model() -> GPT:
    tl.manual_seed(1)
    return GPT(ModelConfig(vocab_size=V, block_size=T, n_layer=layers, n_head=4, n_embd=width))


def pretrained() -> GPT:
    model = new_model()
    model.load_state_dict(base.state_dict())
    return model


def trained(model: GPT) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def fit(
    name: str,
    model: GPT,
    draw: Callable[[], tuple[np.ndarray, np.ndarray]],
    steps: int = steps,
    lr: float = 2e-3,
    validation: np.ndarray = val,
) -> GPT:
    print(f"\n{name}: {steps:,} steps, {trained(model):,} parameters")
    lowest, best = math.inf, dict[str, tl.Tensor]()

    def validate(step: int, loss: float) -> None:
        nonlocal lowest
        value = text_loss(model, validation)
        print(f"step {step:5}   loss {loss:.4f}   validation {value:.4f}", flush=True)
        if value < lowest:
            lowest = value
            best.update({name: weight.clone() for name, weight in model.state_dict().items()})

    train(model, lambda x, y: model(x, y)[1], draw, steps, lr, report=validate)
    model.load_state_dict(best)
    return model


def of(ids: np.ndarray, batch_size: int = B) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """Return what draws windows from a text, the same each time that this is called."""
    return windows(ids, T, batch_size, np.random.default_rng(2))


cut = len(source) - len(val)
base = fit("pretraining", new_model(), of(source[:cut]), pretraining_steps, validation=source[cut:])
before, source_before = text_loss(base, test), text_loss(base, source_test)

# ---- from scratch, and fine-tuned, with more and more text --------------------------------------

scratch = {n: text_loss(fit(f"from scratch, {n:,} characters", new_model(), of(target[:n])), test) for n in amounts}
tuned = {n: fit(f"fine-tuned, {n:,} characters", pretrained(), of(target[:n])) for n in amounts}
after = {n: text_loss(model, test) for n, model in tuned.items()}
longer = fit(f"from scratch, {len(target):,} characters", new_model(), of(target), pretraining_steps + steps)


def worth(n: int) -> float:
    """Return how many times n a model from scratch needs for the loss of the one that is fine-tuned with n.

    It is read off the line through (ln n, loss) of the models from scratch, and at most what all the text gives.
    """
    for few, many in itertools.pairwise(amounts):
        if few >= n and scratch[many] <= after[n]:
            part = (scratch[few] - after[n]) / (scratch[few] - scratch[many])
            return math.exp(math.log(few) + max(0.0, part) * math.log(many / few)) / n
    return amounts[-1] / n


# ---- LoRA, and old text among the new ------------------------------------------------------------

# LoRA trains two small matrices next to each linear layer and leaves all weights as they are. The embeddings are
# weights, too, and also the head: so the characters that the plays do not have keep the embeddings that pretraining has
# left them. The second model with LoRA trains the embeddings as well.


def with_lora(rank: int = 8) -> GPT:
    model, config = pretrained(), LoraConfig(rank=rank)
    add_lora(model, choose(model.config, config), rank, config.scale)
    return model


few = target[:middle]
lora = fit("LoRA", with_lora(), of(few), lr=1e-2)
wider = with_lora()
wider.wte.requires_grad_(True)
fit("LoRA and embeddings", wider, of(few), lr=1e-2)

new, old = of(few, B - B // 4), of(source[:cut], B // 4)


def mixed() -> tuple[np.ndarray, np.ndarray]:
    """Draw a batch in which every fourth window is of the plays."""
    (x, y), (old_x, old_y) = new(), old()
    return np.concatenate([x, old_x]), np.concatenate([y, old_y])


replay = fit("fine-tuned with a quarter of old text", pretrained(), mixed)

# ---- results ------------------------------------------------------------------------------------

prompt = "The "
for name, model in (("pretrained", base), ("fine-tuned", tuned[len(target)])):
    text = tokenizer.decode(list(generate(model, tokenizer.encode(prompt), 160, temperature=0.7, seed=0)))
    print(f"\n{name}:\n{prompt}{text}")

nats = "nats per character"
experiment.result("documentation, before", before, nats, math.log(V), "uniform")
for n in amounts:
    experiment.result(f"documentation, fine-tuned with {n:,} characters", after[n], nats, scratch[n], "from scratch")
for n in amounts[:-1]:
    bound = ", or more" if after[n] < scratch[len(target)] else ""
    experiment.result(f"{n:,} characters after pretraining are worth", worth(n), f"times as many from scratch{bound}")
experiment.result(
    "documentation, from scratch with as many steps as both trainings", text_loss(longer, test), nats,
    after[len(target)], "fine-tuned",
)  # fmt: skip
methods = {"all weights": tuned[middle], "LoRA": lora, "LoRA and embeddings": wider, "a quarter of old text": replay}
for name, model in methods.items():
    experiment.result(f"{middle:,} characters, {name}: documentation", text_loss(model, test), nats, before, "before")
    experiment.result(
        f"{middle:,} characters, {name}: old domain", text_loss(model, source_test), nats, source_before, "before"
    )
experiment.result("parameters that LoRA trains", trained(lora), "", trained(base), "all weights")
experiment.result("parameters that LoRA and embeddings train", trained(wider), "", trained(base), "all weights")
for _, layer in lora_layers(lora):
    layer.scale = 0.0  # The matrices add nothing, so the model is the one of before.
experiment.result(
    "LoRA's matrices left out: old domain", text_loss(lora, source_test), nats, source_before, "before"
)
experiment.finish()
