"""How fast a GPT writes: tensorlite against PyTorch, eager, both with a key/value cache, on the same GPT.

    python benchmarks/bench_generate.py                 all shapes
    python benchmarks/bench_generate.py --shape M       that of `make train`

A text is a prompt, read in one pass, and then one token after the other, each the likeliest; batch 1, in float32 on the
CPU, within the context. Both sides have the same weights, start with the same prompts and take turns of one text, each
in a process of its own, as in bench_step.py. Before that both read one text, with a cache, and their logits are
compared: a side that computed something else, or less, would be found out.

A token needs every weight once, and a large model's do not fit a cache: reading them from memory takes a time that
nobody can go below. It is printed, too, where the weights are that large.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
from environment import cores
from processes import options, started, tables

import tensorlite as tl
from gpt.config import ModelConfig
from gpt.generation import SamplingConfig, generate, next_logits
from gpt.model import GPT, KVCache, eval_mode
from gpt.model.size import parameter_count

# layers, heads, width, context, vocabulary
SHAPES = {
    "M": (4, 4, 128, 64, 65),
    "gpt2": (12, 12, 768, 1024, 50_257),
}
TOLERANCE = 1e-4  # how far logits may be apart, as a part of the largest
LARGE = 1 << 28  # bytes of weights that no cache holds

PROMPT = 16  # tokens


class Writer(NamedTuple):
    """What a side can do with token ids: go on from them, count tokens; and say the logits of the token after them."""

    text: Callable[[list[int], int], Iterator[int]]
    logits: Callable[[list[int]], np.ndarray]


def pieces(ids: list[int]) -> list[list[int]]:
    """Most of the ids at once, the last three one by one: as a text is read."""
    return [ids[:-3], *([token] for token in ids[-3:])]


def tensorlite_writer(model: GPT) -> Writer:
    def text(ids: list[int], count: int) -> Iterator[int]:
        return generate(model, ids, count, SamplingConfig(temperature=0))

    def logits(ids: list[int]) -> np.ndarray:
        cache = KVCache(model)
        with eval_mode(model):
            return [next_logits(model, piece, cache) for piece in pieces(ids)][-1]

    return Writer(text, logits)


def torch_writer(ours: GPT) -> Writer:
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
            for piece in pieces(ids):
                found = model.next_logits(torch.tensor([piece]), cache, start)[0]
                start += len(piece)
        return found.double().numpy()

    return Writer(text, logits)


WRITERS = {"tensorlite": tensorlite_writer, "torch": torch_writer}


def work(side: str, config: ModelConfig, pipe: Connection) -> None:
    """A side's process: says its logits for the ids it is sent first; then how long each token of a text took."""
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
    """The parent's end of a side's process."""

    def __init__(self, name: str, config: ModelConfig) -> None:
        self.process, self.pipe = started(name, work, config)
        self.prompts: list[float] = []
        self.tokens: list[float] = []

    def ask(self, order: Any) -> Any:
        self.pipe.send(order)
        return self.pipe.recv()

    def write(self, ids: list[int], count: int, timed: bool) -> None:
        first, *others = self.ask((ids, count))
        if timed:
            self.prompts.append(first)
            self.tokens += others

    def stop(self) -> None:
        self.pipe.send(None)
        self.process.join()


class Memory:
    """How fast all cores together read from it, looked at now and then: other machines on the same host want it, too.

    The ways are NumPy's maximum on as many threads, and the products of 512 MiB with a vector, of either library.
    """

    def __init__(self) -> None:
        import torch

        matrix = np.ones((1 << 17, 1 << 10), np.float32)
        row = np.ones((1, matrix.shape[1]), np.float32)
        parts, pool = np.array_split(matrix, cores()), ThreadPoolExecutor(cores())
        ours, theirs = [tl.from_numpy(a) for a in (row, matrix)], [torch.from_numpy(a) for a in (row, matrix)]
        self.ways: list[Callable[[], Any]] = [
            lambda: list(pool.map(np.max, parts)),
            lambda: ours[0] @ ours[1].T,
            lambda: theirs[0] @ theirs[1].T,
        ]
        self.size, self.best = matrix.nbytes, 0.0  # bytes, and bytes a second

    def look(self) -> None:
        for way in self.ways * 3:
            start = time.perf_counter()
            way()
            self.best = max(self.best, self.size / (time.perf_counter() - start))


def measure(shape: str, texts: int, tokens: int, only: str | None) -> bool:
    """Prints the table of one shape. Returns whether the logits agreed, as far as there are two."""
    n_layer, n_head, n_embd, block_size, vocab_size = SHAPES[shape]
    config = ModelConfig(
        vocab_size=vocab_size, block_size=block_size, n_layer=n_layer, n_head=n_head, n_embd=n_embd, bias=False
    )
    size = 4 * (parameter_count(config) - block_size * n_embd)  # of the positions one row is read
    memory = Memory() if size >= LARGE else None
    rng = np.random.default_rng(0)
    prompt = rng.integers(0, vocab_size, PROMPT).tolist()
    sides = {name: Side(name, config) for name in WRITERS if only in (None, name)}
    logits = [side.ask(prompt) for side in sides.values()]
    for i in range(texts + 1):  # the first warms up
        prompt = rng.integers(0, vocab_size, PROMPT).tolist()
        for name in sorted(sides, reverse=i % 2 == 1):  # neither side always goes first
            sides[name].write(prompt, tokens, i > 0)
        if memory is not None:
            memory.look()
    for side in sides.values():
        side.stop()

    print(
        f"\nshape {shape}: {n_layer} layers, {n_head} heads, {n_embd} wide, context {block_size}, vocabulary "
        f"{vocab_size}, batch 1; {texts} texts each: a prompt of {PROMPT} tokens, then {tokens - 1} one by one"
    )
    print(f"{'ms a token':14}{'minimum':>10}{'median':>10}{'90% below':>12}{'tokens a s':>12}{'ms a prompt':>13}")
    rows = {}
    for name, side in sides.items():
        low, median = min(side.tokens), statistics.median(side.tokens)
        high, first = float(np.quantile(side.tokens, 0.9)), statistics.median(side.prompts)
        rows[name] = low, median, first
        print(f"{name:14}{1e3 * low:10.3f}{1e3 * median:10.3f}{1e3 * high:12.3f}{1 / median:12.1f}{1e3 * first:13.2f}")
    if memory is not None:
        print(
            f"{'bound':14}{1e3 * size / memory.best:10.3f}   to read {size / 2**20:.0f} MiB of weights, at the "
            f"{memory.best / 1e9:.1f} GB/s that were the most between the texts"
        )
    if only:
        return True
    low, median, first = (a / b for a, b in zip(*rows.values(), strict=True))
    print(f"{'ratio':14}{low:10.3f}{median:10.3f}{'':24}{first:13.3f}   (below 1: tensorlite is faster)")
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
        parser.error("expected at least 1 text, and from 2 to 48 tokens: more do not fit the context of shape M")
    tables("generate", args, SHAPES, lambda shape: measure(shape, args.texts, args.tokens, args.only))


if __name__ == "__main__":
    main()
