"""The models and the texts of `bench_llm.py`: a real model, and random ones in files that llama.cpp reads, too."""

from collections.abc import Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import tensorlite as tl
from gpt import sources
from gpt.checkpoint.gguf import load_info, open_gguf, save_model
from gpt.config import ModelConfig
from gpt.model import GPT, parameter_shapes
from gpt.tokenizer import BPETokenizer, from_gguf, to_gguf

# The beginning of Lewis Carroll, Alice's Adventures in Wonderland (1865), which is in the public domain.
PASSAGE = Path(__file__).with_name("alice.txt")

# Layers, heads, width, context, vocabulary. The weights are random, and 8-bit integers in the file.
RANDOM = {"tiny": (2, 2, 64, 256, 1024), "gpt2-int8": (12, 12, 768, 1024, 50_257)}
SHAPES = ("smollm2", *RANDOM)
REAL = "smollm2-135m-instruct"


class Model(NamedTuple):
    """A file, and what a benchmark needs to know of it."""

    path: Path
    config: ModelConfig
    kind: str  # the type of most weights
    text: list[int]  # the ids of a text
    token_bytes: int  # of the weights that a token needs, as they are in the file

    def describe(self) -> str:
        """Return one line about the model."""
        c = self.config
        return (
            f"{self.path.name}: {c.n_layer} layers, {c.n_embd} wide, vocabulary {c.vocab_size}, {self.kind}, "
            f"{self.path.stat().st_size / 2**20:.0f} MiB"
        )


def open_model(shape: str, source: str, folder: Path) -> Model:
    """Return the model of a shape. source: the name or the path of the real model. folder: for the file of another."""
    if shape in RANDOM:
        path = folder / f"{shape}.gguf"
        write_random(path, *RANDOM[shape])
    else:
        path = sources.find(source)
    return read(path, real=shape not in RANDOM)


def read(path: Path, real: bool) -> Model:
    """Return what a file says about its model. The text is that of PASSAGE, or random ids for random weights."""
    file = open_gguf(path)
    names = [name for name in file.tensors if name != "position_embd.weight"]
    if "output.weight" in names:
        names.remove("token_embd.weight")  # Only a row of it is read; a tied one is the matrix of the logits, too.
    sizes: dict[str, int] = {}
    for name in names:
        kind = file.tensors[name].tensor_type.name
        sizes[kind] = sizes.get(kind, 0) + int(file.tensors[name].n_bytes)
    config = load_info(path).config.model
    if real:
        text = [int(i) for i in from_gguf(file.metadata).encode(PASSAGE.read_text("utf-8"))]
    else:
        text = np.random.default_rng(0).integers(0, config.vocab_size, 512).tolist()
    return Model(path, config, max(sizes, key=lambda kind: sizes[kind]), text, sum(sizes.values()))


def write_random(path: Path, n_layer: int, n_head: int, n_embd: int, block_size: int, vocab_size: int) -> None:
    """Write a GPT-2 with random weights as Q8_0, with a tokenizer that has a text for each id."""
    config = ModelConfig(
        vocab_size=vocab_size, block_size=block_size, n_layer=n_layer, n_head=n_head, n_embd=n_embd, gelu="tanh"
    )
    tl.manual_seed(0)
    save_model(GPT(config), path, "Q8_0", tokenizer_keys(vocab_size))


def tokenizer_keys(vocab_size: int) -> dict[str, Any]:
    """Return the metadata of a byte-pair tokenizer of a size. Its merges have printable characters alone."""
    from tiktoken_ext.openai_public import r50k_pat_str

    letters = [bytes([b]) for b in range(33, 127)]
    pairs = [a + b for a, b in product(letters, repeat=2)]
    tokens: Sequence[bytes] = [bytes([b]) for b in range(256)]
    tokens = [*tokens, *pairs, *(pair + letter for pair in pairs for letter in letters[:5])][:vocab_size]
    return to_gguf(BPETokenizer(tokens, r50k_pat_str))


def prompt_flops(config: ModelConfig, length: int) -> float:
    """Return the operations that a prompt takes, of which only the last token needs logits. See `gpt_cost`."""
    shapes = parameter_shapes(config)
    blocks = sum(prod(shape) for name, shape in shapes.items() if name.startswith("h.") and len(shape) == 2)
    pairs = length * (length + 1) / 2
    attention = 4 * config.n_layer * config.n_head * config.head_size * pairs
    return 2 * blocks * length + 2 * config.vocab_size * config.n_embd + attention
