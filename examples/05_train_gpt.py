"""Train a GPT on one poem until it can recite it: language modelling, small enough to follow each part.

    python examples/05_train_gpt.py            the poem below
    python examples/05_train_gpt.py FILE       a text of your own

A language model learns to predict the next character from the text so far. With only 600 characters, it learns them by
heart. That makes a good test, because a model that cannot do this is broken. `make train` does the same with a million
characters, and with everything that a real run needs.
"""

import math
import sys
from pathlib import Path

import numpy as np

import tensorlite as tl
from gpt.config import ModelConfig
from gpt.generation import SamplingConfig, generate
from gpt.model import GPT
from gpt.tokenizer import CharTokenizer
from tensorlite import nn, optim

POEM = """\
Shall I compare thee to a summer's day?
Thou art more lovely and more temperate:
Rough winds do shake the darling buds of May,
And summer's lease hath all too short a date:
Sometime too hot the eye of heaven shines,
And often is his gold complexion dimm'd;
And every fair from fair sometime declines,
By chance or nature's changing course untrimm'd;
But thy eternal summer shall not fade,
Nor lose possession of that fair thou owest;
Nor shall Death brag thou wander'st in his shade,
When in eternal lines to time thou growest:
So long as men can breathe or eyes can see,
So long lives this, and this gives life to thee.
"""

steps, batch_size, block_size = 450, 16, 32

# ---- text to numbers: one id for each different character ---------------------------------------

text = Path(sys.argv[1]).read_text(encoding="utf-8") if len(sys.argv) > 1 else POEM
tokenizer = CharTokenizer.train(text)
ids = tokenizer.encode(text)  # int64 (N,)
V = tokenizer.vocab_size
print(f"{len(ids):,} characters, {V} different ones: {''.join(tokenizer.vocab)!r}")

# ---- model and optimizer ------------------------------------------------------------------------

tl.manual_seed(1337)
model = GPT(ModelConfig(vocab_size=V, block_size=block_size, n_layer=2, n_head=4, n_embd=96))
optimizer = optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.99))
schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)  # Large steps first, small ones at the end.
print(f"{model.num_params():,} parameters; guessing among {V} costs ln {V} = {math.log(V):.2f} nats per character\n")

# ---- the loop -----------------------------------------------------------------------------------

rng = np.random.default_rng(1337)

for step in range(1, steps + 1):
    # A batch is a set of windows from random positions, and the same windows shifted by one character. The model
    # predicts at every position of every window, so this is batch_size * block_size predictions.
    starts = rng.integers(0, len(ids) - block_size, size=(batch_size, 1))
    windows = ids[starts + np.arange(block_size + 1)]  # (B, T + 1)
    x, y = tl.tensor(windows[:, :-1]), tl.tensor(windows[:, 1:])  # (B, T) each

    logits, loss = model(x, y)  # (B, T, V), and the mean of -log p(correct character)
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # Limit the effect of a single batch.
    optimizer.step()
    schedule.step()

    if step == 1 or step % 50 == 0:
        print(f"step {step:4}   loss {loss.item():.4f} nats per character   gradient norm {norm.item():.2f}")

# ---- generation: predict, sample, append, repeat ------------------------------------------------

start = text[:12]
new = generate(model, tokenizer.encode(start), len(text) - len(start), SamplingConfig(temperature=0))
written = start + tokenizer.decode(list(new))
print(f"\nThe model was given {start!r} and wrote:\n\n{written}")

right = sum(a == b for a, b in zip(written, text, strict=True)) / len(text)
print(f"{right:.1%} of the characters are those of the text.")
