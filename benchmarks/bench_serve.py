"""Measure how many tokens a second a server writes for several clients at once, and for one.

    python benchmarks/bench_serve.py                    all shapes, with the scheduler alone and over HTTP
    python benchmarks/bench_serve.py --shape M          the model of `make train`

One client asks for a text, and then 8 clients ask for a text each at the same time; the two alternate. Prompts are
random and differ, so that none is found in a cache. Times include the reading of the prompts. The server of HTTP runs
in a process of its own, and streams the texts; its clients share the cores with it.
"""

import argparse
import asyncio
import json
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from environment import describe_environment, saved
from llm_models import RANDOM, REAL, write_random
from processes import add_save_or_quick, in_turn, start_process
from ratios import flatten, ratio

import gpt
import tensorlite as tl
from gpt.config import ModelConfig, SamplingConfig
from gpt.generation.continuous import TextRequest
from gpt.model import GPT
from gpt.serve.scheduler import Scheduler
from gpt.tokenizer import CharTokenizer, Tokenizer

SHAPES = ("M", "gpt2-int8", "smollm2", "tiny")
PROMPT = 16  # tokens
SAMPLING = {"greedy": {"temperature": 0.0}, "top-k": {"temperature": 0.8, "top_k": 40}}
Prompts = Sequence[Sequence[int]]


def make_model(shape: str, folder: Path) -> tuple[GPT, Tokenizer]:
    """Return the model of a shape and its tokenizer. folder: for the file of a random one."""
    if shape == "M":
        tl.manual_seed(0)
        config = ModelConfig(vocab_size=65, block_size=64, n_layer=4, n_head=4, n_embd=128, bias=False)
        return GPT(config).eval(), CharTokenizer("".join(map(chr, range(40, 105))))
    path: Any = REAL
    if shape in RANDOM:
        path = folder / f"{shape}.gguf"
        write_random(path, *RANDOM[shape])
    loaded = gpt.load(path, quantize="auto")  # as `gpt serve` does
    return loaded.model, loaded.tokenizer


class SchedulerSide:
    """Clients that are threads, and share a scheduler."""

    def __init__(self, shape: str, clients: int, sampling: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            model, _ = make_model(shape, Path(folder))
        self.config, self.sampling = model.config, sampling
        self.scheduler = Scheduler(model, max_rows=clients)

    def write(self, prompts: Prompts, tokens: int) -> int:
        """Write a text for each prompt at the same time; return the number of tokens."""
        requests = [
            TextRequest(np.array(ids), tokens, SamplingConfig(seed=seed, **self.sampling))
            for seed, ids in enumerate(prompts)
        ]
        return sum(1 for stream in self.scheduler.submit_all(requests) for _ in stream)

    def close(self) -> None:
        self.scheduler.close()


def serve(side: str, shape: str, clients: int, pipe: Connection) -> None:
    """Run in a process of its own: serve a model, and send its configuration and the port."""
    import uvicorn

    from gpt.serve.app import create_app
    from gpt.serve.options import ServeOptions

    with tempfile.TemporaryDirectory() as folder:
        model, tokenizer = make_model(shape, Path(folder))
    app = create_app({shape: (model, tokenizer)}, ServeOptions(max_batch=clients))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))

    def send_port() -> None:
        while not server.started:
            time.sleep(0.01)
        pipe.send((model.config, server.servers[0].sockets[0].getsockname()[1]))
        pipe.recv()
        server.should_exit = True

    threading.Thread(target=send_port, daemon=True).start()
    server.run()


class HttpSide:
    """Clients that read events from a server."""

    def __init__(self, shape: str, clients: int, sampling: dict[str, Any]) -> None:
        self.sampling, self.shape = sampling, shape
        self.process, self.pipe = start_process("tensorlite", serve, shape, clients)
        self.config, self.port = self.pipe.recv()

    def write(self, prompts: Prompts, tokens: int) -> int:
        """Write a text for each prompt at the same time; return the number of tokens."""

        async def write_all() -> int:
            return sum(await asyncio.gather(*(self.write_one(*row, tokens) for row in enumerate(prompts))))

        return asyncio.run(write_all())

    async def write_one(self, seed: int, prompt: Sequence[int], tokens: int) -> int:
        """Write one text; return the number of tokens that the server counts at its end."""
        body = json.dumps({
            "model": self.shape, "prompt": list(map(int, prompt)), "max_tokens": tokens, "seed": seed, "stream": True,
            "stream_options": {"include_usage": True}, **self.sampling,
        })  # fmt: skip
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(
            f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        )
        answer = (await reader.read()).decode()
        writer.close()
        events = [line[6:] for line in answer.splitlines() if line.startswith("data: {")]
        if not events or "usage" not in (last := json.loads(events[-1])):
            raise SystemExit(f"the server has answered: {answer[:500]}")
        return int(last["usage"]["completion_tokens"])

    def close(self) -> None:
        self.pipe.send(None)
        self.process.join()


SIDES: dict[str, Callable[..., SchedulerSide | HttpSide]] = {"scheduler": SchedulerSide, "http": HttpSide}


def measure(shape: str, name: str, sampling: str, args: argparse.Namespace) -> None:
    """Print the table of one shape."""
    side = SIDES[name](shape, args.clients, SAMPLING[sampling])
    c, rng = side.config, np.random.default_rng(0)
    tokens = min(args.tokens, c.block_size - PROMPT)
    counts = {"one client": 1, f"{args.clients} clients": args.clients}
    blocks: dict[str, list[list[float]]] = {label: [] for label in counts}
    for number in range(args.rounds + 1):  # the first round warms up
        for label in in_turn(counts, number):
            prompts = rng.integers(0, c.vocab_size, (counts[label], PROMPT)).tolist()
            start = time.perf_counter()
            written = side.write(prompts, tokens)
            if number:
                blocks[label].append([(time.perf_counter() - start) / written])
    side.close()
    print(
        f"\nshape {shape}, {name}, {sampling}: {c.n_layer} layers, {c.n_embd} wide, vocabulary {c.vocab_size}; "
        f"{args.rounds} rounds: prompts of {PROMPT} tokens, then {tokens} new ones"
    )
    print(f"{'tokens/s':14}{'best':>10}{'median':>10}")
    for label, rounds in blocks.items():
        print(f"{label:14}{1 / min(flatten(rounds)):10.1f}{1 / float(np.median(flatten(rounds))):10.1f}")
    one, several = blocks.values()
    r = ratio(one, several)
    print(f"{'ratio':14}{r.minimum:10.2f}{r.median:10.2f}   (above 1: several clients get more tokens than one)")
    print(r.by_round())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=[*SHAPES, "all"], default="all", help="default: %(default)s")
    parser.add_argument("--side", choices=[*SIDES, "both"], default="both", help="default: %(default)s")
    parser.add_argument("--sampling", choices=SAMPLING, default="greedy", help="default: %(default)s")
    parser.add_argument("--clients", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=48, help="new tokens of a text (default: %(default)s)")
    add_save_or_quick(parser)
    args = parser.parse_args()
    shapes = SHAPES[:-1] if args.shape == "all" else (args.shape,)
    if args.quick:
        args.rounds, args.tokens, shapes = 1, 4, SHAPES[-1:] if args.shape == "all" else shapes
    with saved("serve", args.save):
        print(describe_environment("fastapi", "uvicorn"))
        for shape in shapes:
            for name in SIDES if args.side == "both" else (args.side,):
                measure(shape, name, args.sampling, args)


if __name__ == "__main__":
    main()
