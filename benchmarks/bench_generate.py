"""Measure how fast a GPT writes text: tensorlite against PyTorch, eager, both with a key/value cache.

    python benchmarks/bench_generate.py                 all shapes
    python benchmarks/bench_generate.py --shape M       the model of `make train`

A text is a prompt, which is read in one pass, and then one token after the other, each the likeliest; batch 1, in
float32 on the CPU, within the context. Both sides have the same weights and read the same prompts. They alternate text
by text, each in a process of its own. Before that, both read one text with a cache, and their logits are compared.

A token needs every weight once, and the weights of a large model do not fit in a cache. Its bound is therefore the time
of reading them from memory. The bound of a small model's token, and of a prompt, is the arithmetic.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
from environment import describe_environment, saved
from gpt_cost import forward_flops, prompt_flops, token_bytes
from hardware import PRODUCT_OF, Limits, MemoryReads, measure_limits
from processes import exit_unless, in_turn, options, start_process
from ratios import flatten, ratio

import tensorlite as tl
from gpt.config import ModelConfig
from gpt.generation import SamplingConfig, generate, next_logits
from gpt.model import GPT, KVCache, eval_mode

# Layers, heads, width, context, vocabulary.
SHAPES = {
    "M": (4, 4, 128, 64, 65),
    "gpt2": (12, 12, 768, 1024, 50_257),
}
TOLERANCE = 1e-4  # how much logits may differ, as a part of the largest
LARGE = 1 << 28  # bytes of weights that no cache holds

PROMPT = 16  # tokens


class Writer(NamedTuple):
    """One side's model."""

    text: Callable[[list[int], int], Iterator[int]]  # from the ids of a prompt and a count: that number of new tokens
    logits: Callable[[list[int]], np.ndarray]  # from ids: the logits of the next token


def split_text(ids: list[int]) -> list[list[int]]:
    """Return the parts in which a text is read: most ids at once, the last three one by one."""
    return [ids[:-3], *([token] for token in ids[-3:])]


def tensorlite_writer(model: GPT) -> Writer:
    """Return how tensorlite writes with a model."""

    def text(ids: list[int], count: int) -> Iterator[int]:
        return generate(model, ids, count, SamplingConfig(temperature=0))

    def logits(ids: list[int]) -> np.ndarray:
        cache = KVCache(model)
        with eval_mode(model):
            return [next_logits(model, part, cache) for part in split_text(ids)][-1]

    return Writer(text, logits)


def torch_writer(ours: GPT) -> Writer:
    """Return how PyTorch writes with a model of the same weights."""
    import torch
    from torch_gpt import TorchGPT

    model = TorchGPT(ours.config)
    model.load_state_dict({name: torch.from_numpy(value.numpy()) for name, value in ours.state_dict().items()})
    model.eval()

    def text(ids: list[int], count: int) -> Iterator[int]:
        cache, new, start = model.new_cache(), ids, 0
        for _ in range(count):
            with torch.inference_mode():
                token = int(model.next_logits(torch.tensor([new]), cache, start)[0].argmax())
            start += len(new)
            yield token
            new = [token]

    def logits(ids: list[int]) -> np.ndarray:
        cache, start = model.new_cache(), 0
        with torch.inference_mode():
            for part in split_text(ids):
                found = model.next_logits(torch.tensor([part]), cache, start)[0]
                start += len(part)
        return found.double().numpy()

    return Writer(text, logits)


WRITERS = {"tensorlite": tensorlite_writer, "torch": torch_writer}


def write_texts(side: str, config: ModelConfig, pipe: Connection) -> None:
    """Run in a process of its own: send the logits for the first ids received, then the times of each text's tokens."""
    tl.manual_seed(0)
    model = GPT(config).eval()
    writer = WRITERS[side](model)
    pipe.send(writer.logits(pipe.recv()))
    while order := pipe.recv():
        times = [time.perf_counter()]
        for _ in writer.text(*order):
            times.append(time.perf_counter())
        pipe.send(np.diff(times).tolist())


class Side:
    """One library: its process, and what it has measured."""

    def __init__(self, name: str, config: ModelConfig) -> None:
        self.process, self.pipe = start_process(name, write_texts, config)
        self.prompts: list[list[float]] = []  # seconds, one block of one prompt a text
        self.tokens: list[list[float]] = []  # seconds, one block a text

    def ask(self, order: Any) -> Any:
        """Send an order to the process and return its answer."""
        self.pipe.send(order)
        return self.pipe.recv()

    def write(self, ids: list[int], count: int, timed: bool) -> None:
        """Write one text. The token after the prompt counts as the prompt's time."""
        first, *others = self.ask((ids, count))
        if timed:
            self.prompts.append([first])
            self.tokens.append(others)

    def stop(self) -> None:
        self.pipe.send(None)
        self.process.join()


def measure(shape: str, limits: Limits, texts: int, tokens: int, only: str | None) -> bool:
    """Print the table of one shape. Return whether the logits agree; True if only one side is measured."""
    n_layer, n_head, n_embd, block_size, vocab_size = SHAPES[shape]
    config = ModelConfig(
        vocab_size=vocab_size, block_size=block_size, n_layer=n_layer, n_head=n_head, n_embd=n_embd, bias=False
    )
    size = token_bytes(config)
    memory = MemoryReads(*PRODUCT_OF) if size >= LARGE else None
    rng = np.random.default_rng(0)
    prompt = rng.integers(0, vocab_size, PROMPT).tolist()
    sides = {name: Side(name, config) for name in WRITERS if only in (None, name)}
    logits = [side.ask(prompt) for side in sides.values()]
    for number in range(texts + 1):  # the first text warms up
        prompt = rng.integers(0, vocab_size, PROMPT).tolist()
        for name in in_turn(sides, number):
            sides[name].write(prompt, tokens, number > 0)
        if memory is not None:
            limits = limits._replace(bandwidth=memory.measure())
    for side in sides.values():
        side.stop()

    print(
        f"\nshape {shape}: {n_layer} layers, {n_head} heads, {n_embd} wide, context {block_size}, vocabulary "
        f"{vocab_size}, batch 1; {texts} texts each: a prompt of {PROMPT} tokens, then {tokens - 1} one by one"
    )
    unit = "% of peak" if memory is None else "% of memory"
    print(
        f"{'ms a token':14}{'minimum':>10}{'median':>10}{'90% below':>12}{'tokens a s':>12}{unit:>13}"
        f"{'ms a prompt':>13}{'% of peak':>11}"
    )
    flops = forward_flops(config, PROMPT, PROMPT + tokens - 1) / (tokens - 1)  # of a token, on average
    for name, side in sides.items():
        times, first = flatten(side.tokens), statistics.median(flatten(side.prompts))
        low, median, high = min(times), statistics.median(times), float(np.quantile(times, 0.9))
        percent = limits.percent_of_peak(flops, median) if memory is None else limits.percent_of_bandwidth(size, median)
        print(
            f"{name:14}{1e3 * low:10.3f}{1e3 * median:10.3f}{1e3 * high:12.3f}{1 / median:12.1f}{percent:13.1f}"
            f"{1e3 * first:13.2f}{limits.percent_of_peak(prompt_flops(config, PROMPT), first):11.1f}"
        )
    if memory is not None:
        print(
            f"{'bound':14}{1e3 * size / limits.bandwidth:10.3f}   to read {size / 2**20:.0f} MiB of weights at "
            f"{limits.bandwidth / 1e9:.1f} GB/s, the best rate between the texts"
        )
    if only:
        return True
    ours, theirs = sides.values()
    r, first = ratio(ours.tokens, theirs.tokens), ratio(ours.prompts, theirs.prompts).median
    print(f"{'ratio':14}{r.minimum:10.3f}{r.median:10.3f}{'':37}{first:13.3f}   (below 1: tensorlite is faster)")
    print(r.by_round())
    apart = float(np.abs(logits[0] - logits[1]).max() / np.abs(logits[1]).max())
    agreed = apart <= TOLERANCE
    no_result = "" if agreed else f": MORE THAN {TOLERANCE}, NO RESULT"
    print(f"logits differ by at most {apart:.1e} of the largest{no_result}")
    return agreed


def main() -> None:
    parser = options(__doc__.splitlines()[0], SHAPES, WRITERS)
    parser.add_argument("--texts", type=int, default=20, help="timed texts of each side (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=48, help="tokens of a text (default: %(default)s, at most 48)")
    args = parser.parse_args()
    if args.texts < 1 or not 2 <= args.tokens <= 48:
        parser.error("expected at least 1 text of 2 to 48 tokens. The context of shape M holds no more.")
    with saved("generate", args.save):
        print(describe_environment("torch", "numba"))
        limits = measure_limits(args.quick)
        print(limits.describe())
        shapes = SHAPES if args.shape == "all" else [args.shape]
        agreed = [measure(shape, limits, args.texts, args.tokens, args.only) for shape in shapes]
    exit_unless(agreed)


if __name__ == "__main__":
    main()
