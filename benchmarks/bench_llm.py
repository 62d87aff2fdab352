"""Measure how fast a language model reads and writes: tensorlite against llama.cpp, on the same file and cores.

    python benchmarks/bench_llm.py                      all tables, five minutes
    python benchmarks/bench_llm.py --shape smollm2      the real model alone
    python benchmarks/bench_llm.py --quick              a tiny model, a few seconds

Every side is in a process of its own, with as many threads as there are cores. They alternate text by text. llama.cpp
gets the settings that are fastest in a short trial. A side that is not installed is left out.

A token needs every weight once. Its bound is the time of reading them from memory, as they are in the file.
"""

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from bench_generate import measure as measure_against_torch
from environment import describe_environment, saved
from hardware import PRODUCT_OF, Limits, MemoryReads, measure_limits
from llm_commands import CommandError, first_token, peak_memory
from llm_models import REAL, SHAPES, Model, open_model, prompt_flops
from llm_sides import BATCH, CONTEXT, SETTINGS, SIDES, Setting, installed, serve
from processes import exit_unless, in_turn, options, start_process
from ratios import flatten, ratio

from gpt.errors import UserError

PROMPT = 16  # tokens before a text that is timed
ALTERNATIVES = 10  # likeliest tokens whose log-probabilities are compared
PLACES = 8  # in a text, where they are compared
TOLERANCE = 0.1  # nats, the mean difference; all sides round the activations to 8 bits, each in its own blocks
BEST_GUESS = SETTINGS.index(Setting(True, "F16"))  # where no trial is made
COMMANDS = 5  # timed runs of the chat command


class Side:
    """One library: its process, and what it has measured."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.process, self.pipe = start_process(name, serve, str(path))
        self.settings: int = self.pipe.recv()
        best = min(BEST_GUESS, self.settings - 1)
        self.best = {"write": best, "read": best}  # places in the side's settings
        self.blocks: dict[str, list[list[float]]] = {"write": [], "read": []}  # seconds, one block of one text a round

    def ask(self, method: str, *args: Any) -> Any:
        """Call a method of the side's model in its process."""
        self.pipe.send((method, *args))
        return self.pipe.recv()

    def seconds(self, task: str, ids: list[int], count: int, setting: int | None = None) -> tuple[float, list[int]]:
        """Return the seconds of a task, and the tokens: to write count - 1 tokens one by one, or to read a prompt."""
        text = self.ask("write", self.best[task] if setting is None else setting, ids, count)
        return (text.others if task == "write" else text.prompt), text.ids

    def choose(self, tasks: Mapping[str, tuple[list[int], int]]) -> None:
        """Try each setting twice on each task, and keep the fastest."""
        for task, order in tasks.items():
            times = [min(self.seconds(task, *order, i)[0] for _ in range(2)) for i in range(self.settings)]
            self.best[task] = times.index(min(times))

    def stop(self) -> None:
        self.pipe.send(None)
        self.process.join()


def fastest(sides: Mapping[str, Side], task: str) -> Side | None:
    """Return the fastest side that is not ours."""
    others = [side for name, side in sides.items() if name != "tensorlite"]
    return min(others, key=lambda side: statistics.median(flatten(side.blocks[task])), default=None)


def print_times(sides: Mapping[str, Side], task: str, tokens: int, columns: Sequence[str],
                cells: Callable[[str, float], Sequence[str]], bound: str = "") -> None:  # fmt: skip
    """Print the table of a task.

    tokens: how many a block has. columns: the names of more columns, whose cells come from a side's name and median.
    """
    scale = tokens if task == "write" else 1
    title = "ms a token" if task == "write" else "ms a prompt"
    print(f"{title:14}{'minimum':>10}{'median':>10}{'tokens a s':>12}" + "".join(f"{name:>14}" for name in columns))
    for name, side in sides.items():
        times = flatten(side.blocks[task])
        low, median = min(times) / scale, statistics.median(times) / scale
        print(f"{name:14}{1e3 * low:10.3f}{1e3 * median:10.3f}{tokens / scale / median:12.1f}"
              + "".join(f"{cell:>14}" for cell in cells(name, median)))  # fmt: skip
    if bound:
        print(bound)
    best, ours = fastest(sides, task), sides.get("tensorlite")
    if best and ours:
        r = ratio(ours.blocks[task], best.blocks[task])
        print(f"{'ratio':14}{r.minimum:10.3f}{r.median:10.3f}   (below 1: tensorlite is faster than {best.name}: "
              f"{1 / r.median:.2f} times as fast)")  # fmt: skip
        print(r.by_round())


def print_write(shape: str, model: Model, sides: Mapping[str, Side], tokens: int, rates: Sequence[float]) -> None:
    """Print the table of the tokens that are written one by one. rates: of reads from memory, one a round, bytes/s."""
    bandwidth = max(rates, default=None)
    print(f"\nshape {shape}: {model.describe()}; batch 1, greedy; {rounds(sides)} texts each: a prompt of {PROMPT} "
          f"tokens, then {tokens - 1} one by one")  # fmt: skip
    size = dict.fromkeys(sides, model.token_bytes)
    if "tensorlite" in sides:
        size["tensorlite"] = sides["tensorlite"].ask("token_bytes")

    def cells(name: str, seconds: float) -> tuple[str, str]:
        percent = f"{100 * size[name] / seconds / bandwidth:.1f}" if bandwidth else "-"
        return f"{size[name] / 2**20:.1f}", percent

    bound = ""
    if bandwidth:
        bound = (f"{'bound':14}{1e3 * model.token_bytes / bandwidth:10.3f}   to read {model.token_bytes / 2**20:.1f} "
                 f"MiB at {bandwidth / 1e9:.1f} GB/s, the best rate between the texts")  # fmt: skip
    print_times(sides, "write", tokens - 1, ("MiB a token", "% of memory"), cells, bound)
    if bandwidth and "tensorlite" in sides:
        times = [seconds / (tokens - 1) for seconds in flatten(sides["tensorlite"].blocks["write"])]
        median, low = statistics.median(times), min(times)
        in_round = [time * rate / model.token_bytes for time, rate in zip(times, rates, strict=True)]
        print(f"memory was read at {min(rates) / 1e9:.1f} to {bandwidth / 1e9:.1f} GB/s, by the round. A token of "
              f"tensorlite takes {low * bandwidth / model.token_bytes:.2f}\n(minimum) and "
              f"{median * bandwidth / model.token_bytes:.2f} (median) times the bound, and "
              f"{statistics.median(in_round):.2f} times that of its own round (median)")  # fmt: skip


def print_read(shape: str, model: Model, sides: Mapping[str, Side], length: int, limits: Limits | None) -> None:
    """Print the table of the prompts."""
    print(f"\nshape {shape}-prompt: {rounds(sides)} prompts of {length} tokens each, read in one pass, with the choice "
          "of the first token")  # fmt: skip
    flops = prompt_flops(model.config, length)

    def cells(name: str, seconds: float) -> tuple[str]:
        return (f"{limits.percent_of_peak(flops, seconds):.1f}" if limits else "-",)

    print_times(sides, "read", length, ("% of peak",), cells)


def rounds(sides: Mapping[str, Side]) -> int:
    """Return how many rounds were measured."""
    return len(next(iter(sides.values())).blocks["write"])


def print_agreement(sides: Mapping[str, Side], model: Model, texts: Mapping[str, list[int]]) -> bool:
    """Compare the log-probabilities of all sides along a text. Return whether they agree."""
    first, *others = sides
    ends = np.linspace(PROMPT, min(len(model.text), model.config.block_size) - 1, PLACES).astype(int).tolist()
    found = {name: [side.ask("likeliest", model.text[:end], ALTERNATIVES) for end in ends]
             for name, side in sides.items()}  # fmt: skip
    agreed = True
    for name in others:
        pairs = [(a, b) for a, b in zip(found[first], found[name], strict=True) if b]
        apart = [abs(a[i] - b[i]) for a, b in pairs for i in a.keys() & b.keys()]
        mean = statistics.mean(apart) if apart else float("inf")
        same = sum(max(a, key=a.__getitem__) == max(b, key=b.__getitem__) for a, b in pairs)
        line = f"{name} and {first}: the likeliest token is the same at {same} of {len(pairs)} places of a text"
        if texts[first] and texts[name]:
            length = len(texts[name])
            equal = next((i for i in range(length) if texts[first][i] != texts[name][i]), length)
            line += f", and the first {equal} of {length} tokens of the first written text are"
        agreed &= mean <= TOLERANCE
        no_result = "" if mean <= TOLERANCE else f": MORE THAN {TOLERANCE}, NO RESULT"
        print(f"{line}\nlog-probabilities differ by {mean:.4f} nats on average, {max(apart, default=0):.4f} at most"
              f"{no_result}")  # fmt: skip
    return agreed


def print_batch(shape: str, sides: Mapping[str, Side], model: Model, tokens: int) -> None:
    """Print how many tokens a second a batch of conversations has, next to one conversation."""
    prompts = [model.text[i : i + PROMPT] for i in range(0, BATCH * 8, 8)]
    rows = []
    for name, side in sides.items():
        setting = side.best["write"]
        times = [(side.seconds("write", prompts[0], tokens)[0], side.ask("write_batch", setting, prompts, tokens))
                 for _ in range(3)]  # fmt: skip
        one, batch = (min(column, default=None) if None not in column else None for column in zip(*times, strict=True))
        if one and batch:
            rates = (tokens - 1) / one, BATCH * (tokens - 1) / batch
            rows.append(f"{name:14}{rates[0]:10.1f}{rates[1]:10.1f}{rates[1] / rates[0]:10.2f}")
    if not rows:
        return
    print(f"\nshape {shape}-batch: {BATCH} conversations at once, each a prompt of {PROMPT} tokens, then {tokens - 1}")
    print(f"{'tokens a s':14}{'one':>10}{BATCH:>10}{'gain':>10}   (best of 3)")
    print("\n".join(rows))


def print_perplexity(sides: Mapping[str, Side], model: Model) -> None:
    """Print the perplexity of the text on the sides that can tell."""
    text = model.text[: model.config.block_size]
    parts = [(name, side.ask("perplexity", text)) for name, side in sides.items()]
    if "tensorlite" in sides:
        parts.append(("tensorlite in float32", sides["tensorlite"].ask("float32_perplexity", text)))
    shown = ", ".join(f"{name} {value:.3f}" for name, value in parts if value is not None)
    if shown:
        print(f"perplexity of {len(text)} tokens of a text: {shown}")


def print_commands(shape: str, names: Sequence[str], model: Model, tokens: int, count: int) -> None:
    """Print the time to the first token of a chat command in a fresh process, and its peak memory."""
    size = model.path.stat().st_size
    print(f"\nshape {shape}-command: a chat command in a fresh process, {count} times in turn; its peak memory when it "
          f"writes {tokens} tokens; the file has {size / 2**20:.1f} MiB")  # fmt: skip
    print(f"{'s to a token':14}{'minimum':>10}{'median':>10}{'peak MiB':>12}{'of the file':>14}")
    times: dict[str, list[float]] = {name: [] for name in names}
    peaks, failed = dict[str, int | None](), dict[str, CommandError]()
    for name in names:
        try:
            peaks[name] = peak_memory(name, str(model.path), tokens, CONTEXT)  # warms up, too
        except CommandError as error:
            failed[name] = error
    for number in range(count):
        for name in in_turn([name for name in names if name not in failed], number):
            times[name].append(first_token(name, str(model.path), CONTEXT))
    for name in names:
        if name in failed:
            print(failed[name])
            continue
        peak = peaks[name]
        memory = f"{peak / 2**20:12.0f}{peak / size:14.2f}" if peak else f"{'-':>12}{'-':>14}"
        print(f"{name:14}{min(times[name]):10.2f}{statistics.median(times[name]):10.2f}{memory}")


def measure(shape: str, model: Model, names: Sequence[str], limits: Limits | None, args: Any) -> bool:
    """Print the tables of one model. Return whether all sides computed the same."""
    sides = {name: Side(name, model.path) for name in names}
    starts = np.linspace(0, len(model.text) - args.prompt, args.texts + 1).astype(int).tolist()
    for name, side in sides.items():
        orders = {"write": (model.text[:PROMPT], args.tokens), "read": (model.text[: args.prompt], 1)}
        side.seconds("write", *orders["write"], 0)
        if side.settings > 1 and not args.quick:
            side.choose(orders)
        print(f"{name}: {side.ask('about')}")
        if side.settings > 1:
            print("  " + "; ".join(f"{task} with {SETTINGS[i]}" for task, i in side.best.items()))
    memory = MemoryReads(*PRODUCT_OF) if limits else None
    texts: dict[str, list[int]] = {}
    for number, start in enumerate(starts):  # the first round warms up
        for task, ids, count in (("write", model.text[start : start + PROMPT], args.tokens),
                                 ("read", model.text[start : start + args.prompt], 1)):  # fmt: skip
            for name in in_turn(sides, number):
                seconds, found = sides[name].seconds(task, ids, count)
                if task == "write" and not number:
                    texts[name] = found
                if number:
                    sides[name].blocks[task].append([seconds])
        if memory is not None and number:
            memory.measure()
    print_write(shape, model, sides, args.tokens, [] if memory is None else memory.rates)
    print_read(shape, model, sides, args.prompt, limits)
    print_batch(shape, sides, model, args.tokens)
    agreed = print_agreement(sides, model, texts)
    print_perplexity(sides, model)
    for side in sides.values():
        side.stop()
    return agreed


def main() -> None:
    parser = options(__doc__.splitlines()[0], SHAPES, SIDES)
    parser.add_argument("--model", default=REAL, help="the file or the name of the real model (default: %(default)s)")
    parser.add_argument("--texts", type=int, default=10, help="timed texts of each side (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of a text (default: %(default)s)")
    parser.add_argument("--prompt", type=int, default=400, help="tokens of a long prompt (default: %(default)s)")
    args = parser.parse_args()
    if args.texts < 1 or args.tokens < 2 or args.prompt < PROMPT:
        parser.error(f"expected at least 1 text, 2 tokens and a prompt of {PROMPT} tokens")
    if args.quick:
        args.texts, args.tokens, args.prompt = 2, 8, 40
    shapes = ["smollm2", "gpt2-int8"] if args.shape == "all" else [args.shape]
    shapes = ["tiny"] if args.quick and args.shape == "all" else shapes
    names = [name for name in installed() if args.only in (None, name)]
    missing = [name for name in SIDES if name not in installed()]
    if not names:
        parser.error(f"--only {args.only}: it is not installed. {SIDES[args.only].install}")
    agreed = []
    with saved("llm", args.save), tempfile.TemporaryDirectory() as folder:
        torch = [] if args.quick else ["torch"]  # To ask PyTorch for its BLAS takes longer than all else.
        print(describe_environment("numba", "llama-cpp-python", "xllamacpp", *torch))
        for name in missing:
            print(f"{name} is left out: {SIDES[name].install}")
        limits = None if args.quick else measure_limits()
        if limits:
            print(limits.describe())
        for shape in shapes:
            print()
            try:
                model = open_model(shape, args.model, Path(folder))
            except UserError as error:  # a path that is wrong, or no network
                parser.error(f"--shape {shape}: {error}")
            longest = min(model.config.block_size, len(model.text), CONTEXT)
            if max(args.prompt, PROMPT + args.tokens) > longest:
                parser.error(f"--shape {shape}: expected a prompt, and {PROMPT} + the tokens, of up to {longest}")
            agreed.append(measure(shape, model, names, limits, args))
            if shape == "smollm2":
                print_commands(shape, names, model, args.tokens, 1 if args.quick else COMMANDS)
        if args.shape == "all" and limits and not args.only and find_spec("torch"):
            agreed.append(measure_against_torch("M", limits, 20, 48, None))
    exit_unless(agreed)


if __name__ == "__main__":
    main()
