"""Measure what a draft gains for one text, and what a batch of conversations gains over one.

    python benchmarks/bench_speculative.py                          smollm2-135m-instruct, n-grams of the text
    python benchmarks/bench_speculative.py --model runs/large --draft runs/small --temperature 1

A model with a chat template is asked to copy a text with one change, where n-grams repeat much, and to tell a story,
where they repeat little. Another model continues the text after it has read it twice, and after its first line.

Both sides of a comparison alternate in one process, and read the prompt before the clock starts. The times are those of
a token, in milliseconds. Reading the prompt is left out.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from environment import describe_environment, saved
from processes import in_turn
from ratios import ratio

import gpt
from gpt.api import Model
from gpt.generation import Engine, NGrams, Speculation, generate, stream_batch
from gpt.generation.chat import encode_chat
from gpt.generation.speculative import DRAFT_TOKENS
from gpt.known_models import DEFAULT_CHAT_MODEL
from gpt.model.size import parameter_count

TEXT = (
    "The harbour of Lisbon was quiet when Maria arrived. She carried two suitcases, a letter from her brother, and a "
    "small brass compass. The harbour master looked at her papers and asked why she had come. Maria answered that she "
    "was looking for the ship of her brother, which had left the harbour of Lisbon two weeks before. The harbour "
    "master opened a large book, and read the names of the ships aloud."
)
QUESTIONS = {
    "copy": f"Repeat this text word for word, but call the woman Anna:\n\n{TEXT}",
    "story": "Tell a story about a lighthouse.",
}
CONTINUED = {"copy": f"{TEXT}\n\n{TEXT}\n\n{TEXT[:40]}", "story": f"{TEXT[:52]}\n"}

# The conversations of a batch have prompts of different lengths.
LENGTHS = (40, 400, 80, 250, 120, 330, 60, 180)  # characters of TEXT


def prompt_of(loaded: Model, chat: str, plain: str) -> list[int]:
    """Return the ids of a question to a chat model, or of a text for another."""
    if loaded.tokenizer.chat_template:
        return encode_chat(loaded.tokenizer, [{"role": "user", "content": chat}]).tolist()
    return [int(token) for token in loaded.tokenizer.encode(plain)]


def times_of(tokens: Iterator[Any], first: int) -> list[float]:
    """Return the seconds of each token after the first ones, which include the prompt: all have the mean."""
    for _ in range(first):
        next(tokens, None)
    start = time.perf_counter()
    count = sum(1 for _ in tokens)
    return [(time.perf_counter() - start) / count] if count else []


def alternate(sides: dict[str, Callable[[int], list[float]]], rounds: int) -> dict[str, list[list[float]]]:
    """Return the times of each side, one block a round. Round 0 warms up."""
    blocks: dict[str, list[list[float]]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in in_turn(sides, number):
            times = sides[name](number)
            if number:
                blocks[name].append(times)
    return blocks


def print_table(title: str, blocks: dict[str, list[list[float]]], note: str = "") -> None:
    """Print the tokens a second of two sides, and how many times as fast the second one is."""
    print(f"\n{title}")
    for name, rounds in blocks.items():
        times = [t for block in rounds for t in block]
        print(f"{name:24}{1 / min(times):10.1f} tokens/s at best{1 / statistics.median(times):10.1f} in the median")
    slow, fast = blocks.values()
    gain = ratio(slow, fast)
    print(f"{'times as fast':24}{gain.minimum:10.2f} of the minima  {gain.median:10.2f} of the medians{note}")


def measure_draft(loaded: Model, draft: Any, args: argparse.Namespace) -> None:
    """Print the table of a draft for each prompt."""
    model, options = loaded.model, {"temperature": args.temperature}
    for name in QUESTIONS:
        ids = prompt_of(loaded, QUESTIONS[name], CONTINUED[name])[-model.config.block_size + args.tokens :]
        engine, counts = Engine(model), Speculation(draft, args.draft_tokens)

        def write(number: int, speculation: Speculation | None, ids: Any = ids, engine: Engine = engine) -> list[float]:
            new = generate(
                model, ids, args.tokens, seed=number, engine=engine, draft=speculation,
                stop_tokens=loaded.tokenizer.stop_ids, **options,
            )  # fmt: skip
            return times_of(new, 1)

        sides = {
            "without a draft": functools.partial(write, speculation=None),
            "with a draft": functools.partial(write, speculation=counts),
        }
        blocks = alternate(sides, args.rounds)
        share = counts.accepted / max(1, counts.drafted)
        print_table(
            f"{name}: a prompt of {len(ids)} tokens, then at most {args.tokens}, temperature {args.temperature:g}",
            blocks, f"; accepted {counts.accepted} of {counts.drafted} ({share:.0%})",
        )  # fmt: skip


def measure_batch(loaded: Model, args: argparse.Namespace) -> None:
    """Print the table of one conversation against several."""
    model = loaded.model
    lengths = [LENGTHS[i % len(LENGTHS)] for i in range(args.batch)]
    room = model.config.block_size - args.tokens
    prompts = [prompt_of(loaded, f"Continue: {TEXT[:n]}", TEXT[:n])[-room:] for n in lengths]

    def batch(texts: Sequence[list[int]], number: int) -> list[float]:
        new = stream_batch(model, texts, args.tokens, temperature=args.temperature, top_p=args.top_p, seed=number)
        return times_of(new, len(texts))

    sides = {
        "one conversation": lambda number: batch([prompts[number % len(prompts)]], number),
        f"{args.batch} conversations": lambda number: batch(prompts, number),
    }
    sizes = [len(ids) for ids in prompts]
    print_table(
        f"batch: prompts of {min(sizes)} to {max(sizes)} tokens, then {args.tokens} each, temperature "
        f"{args.temperature:g}, top-p {args.top_p:g}",
        alternate(sides, args.rounds),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_CHAT_MODEL, help="a name or a path (default: %(default)s)")
    parser.add_argument("--quantize", default="auto", help="none, auto, int8 or int4 (default: %(default)s)")
    parser.add_argument("--draft", default="ngram", help="ngram, or a name or a path (default: %(default)s)")
    parser.add_argument("--draft-tokens", type=int, default=DRAFT_TOKENS, help="longest draft (default: %(default)s)")
    parser.add_argument("--longest", type=int, default=NGrams().longest, help="longest n-gram (default: %(default)s)")
    parser.add_argument("--shortest", type=int, default=NGrams().shortest, help="shortest (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.0, help="default: %(default)s")
    parser.add_argument("--top-p", type=float, default=1.0, help="of the batch (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=120, help="longest text (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="texts of each side (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="conversations at once; 0 for none (default: %(default)s)")
    parser.add_argument("--only", choices=["draft", "batch"], help="one of the two tables")
    parser.add_argument("--save", action="store_true", help="write the tables to benchmarks/results, too")
    args = parser.parse_args()
    with saved("speculative", args.save):
        print(describe_environment("numba"))
        loaded = gpt.load(args.model, quantize=args.quantize)
        size = parameter_count(loaded.model.config)
        print(f"{args.model}: {size:,} parameters, --quantize {args.quantize}")
        print(f"draft: {args.draft}, at most {args.draft_tokens} tokens")
        if args.only != "batch":
            draft: Any = NGrams(args.longest, args.shortest)
            if args.draft != "ngram":
                draft = gpt.load(args.draft, quantize=args.quantize).model
            measure_draft(loaded, draft, args)
        if args.only != "draft" and args.batch:
            measure_batch(loaded, args)


if __name__ == "__main__":
    main()
