"""Test how the server makes text out of tokens: whole characters, and stop texts that cross the borders of tokens."""

import asyncio
import dataclasses
import itertools
import time

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the server needs FastAPI: pip install 'tensorlite[serve]'")

from gpt.config import SamplingConfig
from gpt.generation import TokenLogProb, stream
from gpt.generation.continuous import TextRequest
from gpt.serve.logprob_forms import chat_logprobs, completion_logprobs
from gpt.serve.metrics import Metrics
from gpt.serve.options import ServeOptions
from gpt.serve.served import Served
from gpt.serve.texts import SEND_SECONDS, Assembler, PlacedToken, begin_texts, merged
from tests.gpt.serve_models import served_model


class Pieces:
    """A tokenizer whose tokens are given bytes."""

    def __init__(self, tokens):
        self.tokens = tokens

    def decode_bytes(self, ids):
        return b"".join(self.tokens[i] for i in ids)


def assembled(tokens, stop):
    """Return the pieces of a text that comes in tokens, and the tokens of each piece."""
    assembler, pieces = Assembler(Pieces(tokens), stop), []
    for token in range(len(tokens)):
        pieces.append(assembler.add(TokenLogProb(token, -1.0, ())))
        if assembler.stopped:
            return pieces, assembler
    return [*pieces, assembler.end()], assembler


def cuts(data, rng):
    """Return bytes cut at random places, with an empty token among them."""
    places = sorted(rng.integers(0, len(data) + 1, rng.integers(0, len(data) + 2)))
    return [data[a:b] for a, b in itertools.pairwise([0, *places, len(data)])]


@pytest.mark.parametrize("stop", [None, "ab", ["aab", "b😀"], ["é", "\ufffd"], ["abab", "bab", ""]], ids=repr)
def test_the_text_is_that_of_generation(stop):
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = "".join(rng.choice(["a", "b", "é", "😀", "\n"], 8)).encode()
        if rng.random() < 0.3:  # Some bytes never complete a character.
            data = data[: rng.integers(len(data))] + b"\xf0\x9f" + data[rng.integers(len(data)) :]
        tokens = cuts(data, rng)
        pieces, assembler = assembled(tokens, stop)
        text = "".join(text for text, _ in pieces)
        assert text == "".join(stream(Pieces(tokens), range(len(tokens)), stop=stop))
        placed = [token for _, begun in pieces for token in begun]
        assert [token.item.token for token in placed] == list(range(len(placed)))
        assert len(placed) == len(tokens) or assembler.stopped
        sent = 0
        for text, begun in pieces:  # A token comes with the text in which it begins.
            sent += len(text)
            assert all(token.offset <= sent for token in begun)


def test_log_probabilities_have_the_forms_of_the_api():
    tokenizer = Pieces([b"a", "é".encode()[:1], "é".encode()[1:], b""])
    first = PlacedToken(TokenLogProb(0, -0.5, ((1, -0.25), (0, -0.5))), 0)
    second = PlacedToken(TokenLogProb(1, float("-inf"), ((3, -1.0), (2, -2.0))), 1)
    assert completion_logprobs(tokenizer, [first, second]) == {
        "tokens": ["a", "bytes:\\xc3"],
        "token_logprobs": [-0.5, -9999.0],
        "top_logprobs": [{"bytes:\\xc3": -0.25, "a": -0.5}, {"": -1.0, "bytes:\\xa9": -2.0, "bytes:\\xc3": -9999.0}],
        "text_offset": [0, 1],
    }
    assert chat_logprobs(tokenizer, [second]) == {
        "content": [
            {
                "token": "\\xc3", "logprob": -9999.0, "bytes": [0xC3],
                "top_logprobs": [
                    {"token": "", "logprob": -1.0, "bytes": []}, {"token": "\\xa9", "logprob": -2.0, "bytes": [0xA9]},
                ],
            }
        ],
        "refusal": None,
    }  # fmt: skip


def test_tokens_that_are_ready_come_together():
    """A reader of a fast model gets many tokens at once, and no text ends later for it."""
    served = Served({"tiny": served_model()}, ServeOptions())
    request = TextRequest(np.array([1, 2]), 40, SamplingConfig(temperature=0.0))

    async def read(count, seconds):
        choices = begin_texts(served.find(None), [request] * count, None, Metrics(served))
        await asyncio.sleep(seconds)
        return [pieces async for pieces in merged(choices, asyncio.get_running_loop().time() + 10)]

    try:
        (alone,) = asyncio.run(read(1, 0.2))
        assert (sum(len(piece.tokens) for piece in alone), alone[-1].finish_reason) == (40, "length")
        begin = time.monotonic()
        several = asyncio.run(read(3, 0))
        limit = 2 + (time.monotonic() - begin) / SEND_SECONDS
        for index in range(3):
            parts = [[piece for piece in pieces if piece.index == index] for pieces in several]
            assert [*itertools.chain(*parts)] == [dataclasses.replace(piece, index=index) for piece in alone]
            assert sum(map(bool, parts)) <= limit
    finally:
        served.close()
