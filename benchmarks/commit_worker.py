"""Time one checkout of tensorlite, for compare_commits.py, which runs this file with that checkout on PYTHONPATH.

    commit_worker.py TASK

For each line on standard input, it runs one block of the task and prints {"times": [seconds], "values": [numbers]} as
JSON. The values are losses or tokens, which the two commits must agree on. Public paths that differ between commits are
tried one after the other.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

Block = tuple[list[float], list[float]]
"""The times of a block in seconds, and the values that were computed."""

# Layers, heads, width, context, batch, and the steps of a block: as in bench_step.py.
SHAPES = {"S": (3, 3, 48, 32, 16, 30), "M": (4, 4, 128, 64, 12, 15)}
VOCAB_SIZE = 65
CHAINS, LENGTH = 40, 100  # of a block of ops
TEXTS, PROMPT, TOKENS = 4, 16, 48  # of a block of texts


def find(*paths: str) -> Any:
    """Return the first of these names ("module:attribute") that this checkout has. Return None without one."""
    for path in paths:
        module, _, name = path.partition(":")
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError):
            continue
    return None


def make_model(shape: str) -> Any:
    """Return a GPT with weights that do not depend on how the checkout draws them."""
    import tensorlite as tl

    n_layer, n_head, n_embd, block_size = SHAPES[shape][:4]
    config = find("gpt.config:ModelConfig")(
        vocab_size=VOCAB_SIZE, block_size=block_size, n_layer=n_layer, n_head=n_head, n_embd=n_embd, bias=False
    )
    model, rng = find("gpt.model:GPT")(config), np.random.default_rng(0)
    shapes = {name: value.shape for name, value in sorted(model.state_dict().items())}
    weights = {name: rng.normal(0, 0.02, size) if len(size) > 1 else np.ones(size) for name, size in shapes.items()}
    model.load_state_dict({name: tl.from_numpy(value.astype(np.float32)) for name, value in weights.items()})
    return model


def steps(shape: str) -> Callable[[], Block]:
    """Return a block of training steps. The time of the first step does not count, because the caches are cold."""
    import tensorlite as tl

    model, rng = make_model(shape), np.random.default_rng(1)
    parameters = list(model.parameters())
    config = find("gpt.config:OptimConfig")(lr=1e-3, weight_decay=0.1, grad_clip=1.0)
    configure = find("gpt.train:configure_optimizer")
    optimizer = configure(model, config) if configure else model.configure_optimizer(config)
    _, _, _, block_size, batch_size, count = SHAPES[shape]

    def block() -> Block:
        times, losses = [], []
        for _ in range(count):
            ids = rng.integers(0, VOCAB_SIZE, (batch_size, block_size + 1))
            x, y = ids[:, :-1].copy(), ids[:, 1:].copy()
            start = time.perf_counter()
            _, loss = model(tl.from_numpy(x), tl.from_numpy(y))
            loss.backward()
            tl.nn.utils.clip_grad_norm_(parameters, config.grad_clip)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            times.append(time.perf_counter() - start)
        return times[1:], losses

    return block


def ops(recorded: bool) -> Callable[[], Block]:
    """Return a block of chains of additions of 4x4 arrays, each in seconds an op."""
    import tensorlite as tl

    x, y = (tl.tensor(np.full((4, 4), 1e-3, np.float32), requires_grad=True) for _ in range(2))

    def chain() -> Any:
        z = x
        for _ in range(LENGTH):
            z = tl.add(z, y)
        return z

    def block() -> Block:
        times, z = [], x
        with tl.enable_grad() if recorded else tl.no_grad():
            for _ in range(CHAINS):
                start = time.perf_counter()
                z = chain()
                times.append((time.perf_counter() - start) / LENGTH)
        return times, [float(z.detach().numpy()[0, 0])]

    return block


def tokens() -> Callable[[], Block]:
    """Return a block of texts, each token chosen by the highest logit. The first token of a text does not count."""
    model, rng = make_model("M").eval(), np.random.default_rng(1)
    generate, sampling = find("gpt.generation:generate", "gpt.sample:generate"), find("gpt.generation:SamplingConfig")
    positional, keywords = ([sampling(temperature=0)], {}) if sampling else ([], {"temperature": 0})

    def block() -> Block:
        durations: list[float] = []
        ids: list[float] = []
        for _ in range(TEXTS):
            prompt = rng.integers(0, VOCAB_SIZE, PROMPT).tolist()
            times = []
            for token in generate(model, prompt, TOKENS, *positional, **keywords):
                times.append(time.perf_counter())
                ids.append(token)
            durations += np.diff(times).tolist()
        return durations, ids

    return block


TASKS: dict[str, Callable[[], Callable[[], Block]]] = {
    "step S": lambda: steps("S"),
    "step M": lambda: steps("M"),
    "recorded op": lambda: ops(True),
    "no_grad op": lambda: ops(False),
    "token M": tokens,
}


def main() -> None:
    block = TASKS[sys.argv[1]]()
    for _ in sys.stdin:
        times, values = block()
        print(json.dumps({"times": times, "values": values}), flush=True)


if __name__ == "__main__":
    main()
