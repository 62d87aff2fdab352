"""Find the attention heads that copy, remove them, and ask each layer what it knows.

    python examples/14_induction_heads.py           a minute or two on two cores
    python examples/14_induction_heads.py --quick   in seconds, too short for such heads to form

The first question is how a model continues a text that repeats itself. A model of two layers of attention is trained on
random tokens that repeat. It predicts 99.9% of the second copy, and a model of one layer predicts a tenth. The scores
of the heads show how: the heads of the first layer attend to the token before, and those of the second layer to the
token after the earlier occurrence. The best of them give more than half of their attention to that one place. Without
its best previous-token head the model loses 1.3 nats per token. Without one of its four induction heads it loses less
than 0.2, because the others do the same. Without all four it is worse than a guess. So a head that can be removed
without harm may still be one of a kind that the model needs.
Sources: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; Olsson et al. 2022, "In-context
Learning and Induction Heads".

The second question is where a model of characters knows the class of the next character: a vowel, a consonant, a
space, ... A sparse linear probe reads it from each layer, for a text that neither the model nor the probe has seen. It
is right for 60% from the embedding, which knows the current character alone. It gets better layer by layer, up to 74%
with 4 in 10 of its weights. From a model with random weights it reads less than from the embedding, so the layers have
learned what it reads. Source: Alain and Bengio 2016, "Understanding intermediate layers using linear classifier
probes".
"""

import math
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from common import Experiment, shakespeare, train, windows, write_picture

import tensorlite as tl
import tensorlite.nn.functional as F
from gpt.config import ModelConfig
from gpt.inspect import attention_weights
from gpt.model import GPT
from gpt.tokenizer import CharTokenizer
from tensorlite import nn

experiment = Experiment(__doc__)

# ---- A text that only a copying model can predict ------------------------------------------------

# A sequence is a segment of P random tokens again and again: A B C D A B C D A ... P is random, too. The first copy
# cannot be predicted. Later, the next token is the one that followed the same token in the copy before. The position
# does not help, because P differs from sequence to sequence.

V, T = experiment.pick((64, 64), (16, 32))  # the tokens, and the length of a sequence
shortest, longest = T // 8, T // 2
rng = np.random.default_rng(0)


def repeated(segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return sequences (B, T + 1) of repeated segments, from tokens (B, longest), and the length of each segment."""
    period = rng.integers(shortest, longest + 1, size=(len(segments), 1))
    return np.take_along_axis(segments, np.arange(T + 1) % period, axis=1), period[:, 0]


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Return tokens (B, T) for training, and the next token of each."""
    rows, _ = repeated(rng.integers(0, V, size=(experiment.pick(32, 16), longest)))
    return rows[:, :-1], rows[:, 1:]


# The sequences for the measurements have different tokens in a segment, so that there is one right place to attend to.
rows, period = repeated(rng.permuted(np.tile(np.arange(V), (experiment.pick(200, 50), 1)), axis=1)[:, :longest])
test_x, test_y = rows[:, :-1], rows[:, 1:]
position = np.arange(T)
second = (position >= period[:, None]) & (position < 2 * period[:, None])  # (B, T): the second copy


# ---- Two models without MLPs: two layers of attention, and one ------------------------------------


class Nothing(nn.Module):
    """What is in the place of an MLP: it adds zero."""

    def forward(self, x: tl.Tensor) -> tl.Tensor:
        return 0 * x


def attention_only(n_layer: int) -> GPT:
    """Return a trained model whose layers have attention alone, as the models of Elhage et al."""
    tl.manual_seed(0)
    C = experiment.pick(64, 32)
    model = GPT(ModelConfig(vocab_size=V, block_size=T, n_layer=n_layer, n_head=4, n_embd=C, init_std=0.1, tied=False))
    for block in model.h:
        block.add_module("mlp", Nothing())
    print(f"\n{n_layer} layers of attention:")
    train(model, lambda x, y: model(x, y)[1], batch, experiment.pick(1500, 90), lr=experiment.pick(3e-3, 1e-2))
    return model


def second_copy(model: GPT) -> tuple[float, float]:
    """Return the loss in nats per token, and the share of right predictions, on the second copy."""
    with tl.no_grad():
        logits = model(tl.tensor(test_x))[0].numpy()[second]
        loss = F.cross_entropy(tl.tensor(logits), tl.tensor(test_y[second])).item()
    return loss, float((logits.argmax(axis=1) == test_y[second]).mean())


model, shallow = attention_only(2), attention_only(1)
loss, right = second_copy(model)
shallow_loss, shallow_right = second_copy(shallow)
experiment.result("loss on the second copy, two layers", loss, "nats", shallow_loss, "one layer")
experiment.result("loss on the second copy, one layer", shallow_loss, "nats", math.log(V), "a guess among all tokens")
guess = float(np.log(period[np.nonzero(second)[0]]).mean())
experiment.result("loss of a guess among the tokens of the segment", guess, "nats", math.log(V), "among all tokens")
experiment.result("right on the second copy, two layers", 100 * right, "%", 100 * shallow_right, "one layer")

# ---- The score of each head ------------------------------------------------------------------------

# A head that attends to the token before is a previous-token head. A head in the second copy that attends to the token
# after the earlier occurrence is an induction head: at token t that is position t - P + 1. The score of a head is the
# share of its attention that is there, averaged over the second copies.

weights = np.stack([attention_weights(model, ids) for ids in test_x])  # (B, layers, heads, T, T)
sequence, t = np.nonzero(second)
previous = weights[sequence, :, :, t, t - 1].mean(axis=0)  # (layers, heads)
induction = weights[sequence, :, :, t, t - period[sequence] + 1].mean(axis=0)
chance = float((1 / (t + 1)).mean())  # of attention that is the same for all positions

first_head, second_head = int(previous[0].argmax()), int(induction[1].argmax())
experiment.result("score of the best induction head", induction.max(), "", chance, "uniform attention")
experiment.result("layer of the best induction head", float(induction.max(axis=1).argmax()))
experiment.result("score of the best previous-token head", previous.max(), "", chance, "uniform attention")
experiment.result("layer of the best previous-token head", float(previous.max(axis=1).argmax()))

# ---- What the two best heads attend to, as text and as a picture ----------------------------------

shown = 2 * int(period.min())
example = int(period.argmin())
letters = list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: shown // 2]) * 2  # The tokens, named in their order.
maps = {
    f"layer 0, head {first_head}": weights[example, 0, first_head, :shown, :shown],
    f"layer 1, head {second_head}": weights[example, 1, second_head, :shown, :shown],
}
print("\nAttention to the tokens from left to right, of each token from top to bottom (# over 0.5, + over 0.15):\n")
print("   ".join(f"  {name:{shown}}" for name in maps))
print("   ".join(f"  {''.join(letters)}" for _ in maps))
for row in range(shown):
    lines = ["".join("#" if w > 0.5 else "+" if w > 0.15 else "." for w in map_[row]) for map_ in maps.values()]
    print("   ".join(f"{letters[row]} {line}" for line in lines))


def draw(path: Path) -> None:
    """Write a picture of the attention of the two heads. Raise ImportError if matplotlib is not installed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    for axes, (name, map_) in zip(figure.subplots(1, 2), maps.items(), strict=True):
        axes.imshow(map_, cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(shown), letters)
        axes.set_yticks(range(shown), letters)
        axes.set(title=name, xlabel="token attended to", ylabel="token that attends")
    figure.savefig(path, dpi=80)


write_picture("induction-heads.png", draw)

# ---- Heads removed, one at a time ------------------------------------------------------------------

# The input of c_proj has the outputs of the heads side by side. A hook sets those of one head to zero (zero ablation),
# or to their mean over all sequences, position by position (mean ablation). The mean keeps what the head always adds,
# so only what it says about this sequence is lost.

D = model.config.head_size
outputs: list[np.ndarray] = []  # of the heads of each layer, (B, T, C)
with ExitStack() as hooks, tl.no_grad():
    for block in model.h:
        hook = block.attn.c_proj.register_forward_pre_hook(lambda _, args: outputs.append(args[0].numpy()))
        hooks.enter_context(hook)
    model(tl.tensor(test_x))


def loss_without(heads: list[tuple[int, int]], mean: bool = False) -> float:
    """Return the loss on the second copy without some heads, each a layer and a number."""
    with ExitStack() as hooks:
        for layer, head in heads:
            columns = slice(head * D, (head + 1) * D)
            instead = tl.tensor(outputs[layer][:, :, columns].mean(axis=0)) if mean else 0.0

            def remove(_: nn.Module, args: tuple[tl.Tensor], columns=columns, instead=instead) -> tl.Tensor:
                x = args[0].clone()
                x[:, :, columns] = instead
                return x

            hooks.enter_context(model.h[layer].attn.c_proj.register_forward_pre_hook(remove))
        return second_copy(model)[0]


every_head = [(layer, head) for layer in range(2) for head in range(4)]
print(f"\nwith all heads the loss on the second copy is {loss:.3f}\n")
print("layer  head   previous  induction   loss without it   with its mean")
removed = {}
for layer, head in every_head:
    removed[layer, head] = loss_without([(layer, head)]), loss_without([(layer, head)], mean=True)
    scores = f"{previous[layer, head]:8.2f}  {induction[layer, head]:9.2f}"
    print(f"{layer:5}  {head:4}   {scores}   {removed[layer, head][0]:15.3f}   {removed[layer, head][1]:13.3f}")

# Zeros in the columns of c_proj must do the same as the hook, to the rounding of float32.
saved = model.h[1].attn.c_proj.weight.detach().clone()
with tl.no_grad():
    model.h[1].attn.c_proj.weight[:, second_head * D : (second_head + 1) * D] = 0.0
by_weights = second_copy(model)[0]
with tl.no_grad():
    model.h[1].attn.c_proj.weight.copy_(saved)

all_of_layer = [[place for place in every_head if place[0] == layer] for layer in range(2)]
experiment.result("loss without the best previous-token head", removed[0, first_head][0], "nats", loss, "all heads")
experiment.result("loss without the best induction head", removed[1, second_head][0], "nats", loss, "all heads")
experiment.result("loss without the heads of layer 0", loss_without(all_of_layer[0]), "nats", loss, "all heads")
experiment.result("loss without the heads of layer 1", loss_without(all_of_layer[1]), "nats", loss, "all heads")
experiment.result("hook and weights differ by", abs(by_weights - removed[1, second_head][0]), "nats")

# ---- A model of characters, for the probes ---------------------------------------------------------

train_text, val_text = shakespeare()
tokenizer = CharTokenizer.train(train_text + val_text)
train_ids, val_ids = tokenizer.encode(train_text), tokenizer.encode(val_text)
L, C, window = experiment.pick((4, 64, 64), (1, 32, 32))
config = ModelConfig(vocab_size=tokenizer.vocab_size, block_size=window, n_layer=L, n_head=4, n_embd=C)
tl.manual_seed(0)
characters = GPT(config)
tl.manual_seed(1)
untrained = GPT(config)
print(f"\n{L} layers that read Shakespeare:")
train(
    characters,
    lambda x, y: characters(x, y)[1],
    windows(train_ids, window, experiment.pick(32, 8), rng),
    experiment.pick(1000, 40),
    lr=experiment.pick(3e-3, 5e-3),
)

CLASSES = ["vowel", "consonant", "capital", "space", "line break", "other"]


def class_of(character: str) -> int:
    """Return the number of the class of a character."""
    if character.isalpha():
        return 2 if character.isupper() else 0 if character in "aeiou" else 1
    return {" ": 3, "\n": 4}.get(character, 5)


class_of_id = np.array([class_of(tokenizer.decode([i])) for i in range(tokenizer.vocab_size)])


def layers_of(reader: GPT, ids: np.ndarray) -> np.ndarray:
    """Return what each layer knows at the places of a batch of token ids (B, T): (L + 1, B T, C), embedding first."""
    found: list[np.ndarray] = []

    def record(values: tl.Tensor) -> None:
        found.append(values.numpy().reshape(-1, reader.config.n_embd))

    with ExitStack() as hooks, tl.no_grad():
        hooks.enter_context(reader.h[0].register_forward_pre_hook(lambda _, args: record(args[0])))
        for block in reader.h:
            hooks.enter_context(block.register_forward_hook(lambda _, args, output: record(output)))
        reader(tl.tensor(ids))
    return np.stack(found)


# ---- Sparse probes: which class has the next character? --------------------------------------------

# A probe is a linear classifier of the activations of a layer. Its loss has the L1 norm of its weights in it, times
# `penalty`, so most weights are exactly zero. The proximal gradient method (FISTA, Beck and Teboulle 2009) takes a
# gradient step of the cross-entropy, then moves each weight towards zero by lr * penalty, and stops at zero.


def probe(x: tl.Tensor, classes: tl.Tensor, penalty: float, steps: int) -> tuple[tl.Tensor, tl.Tensor]:
    """Return the weights (classes, C) and biases of a sparse probe for standardised activations x (N, C)."""
    N = len(x)
    lr = 2 * N / (float(np.linalg.norm(x.numpy(), 2)) ** 2 + N)  # 1 / the largest curvature of the cross-entropy
    weight, bias = tl.zeros(len(CLASSES), x.shape[1]), tl.zeros(len(CLASSES))
    ahead_w, ahead_b, speed = weight, bias, 1.0
    for _ in range(steps):
        ahead_w, ahead_b = ahead_w.requires_grad_(), ahead_b.requires_grad_()
        grad_w, grad_b = tl.autograd.grad(F.cross_entropy(F.linear(x, ahead_w, ahead_b), classes), (ahead_w, ahead_b))
        moved = ahead_w.detach() - lr * grad_w
        new_w = tl.sign(moved) * tl.relu(tl.abs(moved) - lr * penalty)
        new_b = ahead_b.detach() - lr * grad_b
        faster = (1 + math.sqrt(1 + 4 * speed**2)) / 2
        push = (speed - 1) / faster
        ahead_w, ahead_b = new_w + push * (new_w - weight), new_b + push * (new_b - bias)
        weight, bias, speed = new_w, new_b, faster
    return weight, bias


draws = experiment.pick(128, 20)
learn_x, learn_y = windows(train_ids, window, draws, rng)()
judge_x, judge_y = windows(val_ids, window, draws, rng)()
learn_classes, judge_classes = class_of_id[learn_y].ravel(), class_of_id[judge_y].ravel()


def probe_layers(reader: GPT, penalty: float) -> list[tuple[float, int]]:
    """Return the accuracy on the validation text, and the number of weights that are not zero, of a probe by layer."""
    found = []
    for learn, judge in zip(layers_of(reader, learn_x), layers_of(reader, judge_x), strict=True):
        mean, deviation = learn.mean(axis=0), learn.std(axis=0) + 1e-6
        learn, judge = (learn - mean) / deviation, (judge - mean) / deviation
        weight, bias = probe(tl.tensor(learn), tl.tensor(learn_classes), penalty, experiment.pick(150, 30))
        guesses = (judge @ weight.numpy().T + bias.numpy()).argmax(axis=1)
        found.append((float((guesses == judge_classes).mean()), int((weight.numpy() != 0).sum())))
    return found


places = ["embedding", *(f"layer {layer}" for layer in range(L))]
PENALTIES = [0.001, 0.003, 0.01]
found = {penalty: probe_layers(characters, penalty) for penalty in PENALTIES}
control = probe_layers(untrained, 0.003)
print(f"\nright about the class of the next character, and weights that are not zero of {len(CLASSES) * C}")
print("penalty      " + "".join(f"{penalty:>16}" for penalty in PENALTIES) + "   0.003, untrained")
for i, place in enumerate(places):
    cells = [f"{found[penalty][i][0]:8.1%} {found[penalty][i][1]:7}" for penalty in PENALTIES]
    print(f"{place:13}" + "".join(cells) + f"{control[i][0]:11.1%} {control[i][1]:7}")

# The model itself predicts characters. The probabilities of the characters of a class add up to that of the class.
with tl.no_grad():
    probabilities = F.softmax(characters(tl.tensor(judge_x))[0], dim=-1).numpy().reshape(-1, tokenizer.vocab_size)
of_classes = probabilities @ np.eye(len(CLASSES), dtype=np.float32)[class_of_id]
own = float((of_classes.argmax(axis=1) == judge_classes).mean())
frequent = float((judge_classes == np.bincount(learn_classes).argmax()).mean())

middle = found[0.003]
experiment.result("probe of the embedding", 100 * middle[0][0], "% right", 100 * frequent, "most frequent class")
for i in range(1, L + 1):
    experiment.result(f"probe of layer {i - 1}", 100 * middle[i][0], "% right", 100 * middle[0][0], "embedding")
experiment.result("probe of the last layer", 100 * middle[-1][0], "% right", 100 * control[-1][0], "untrained model")
experiment.result("weights of that probe that are not zero", middle[-1][1], f"of {len(CLASSES) * C}")
experiment.result("the model's own probabilities", 100 * own, "% right", 100 * frequent, "most frequent class")

experiment.finish()
