"""The texts of a response: tokens from the scheduler to pieces of text, up to a stop text, with a limit of time."""

import asyncio
import codecs
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gpt.errors import UserError
from gpt.generation.continuous import TextRequest
from gpt.generation.logprobs import TokenLogProb
from gpt.generation.text_stream import find_stop, longest_start, stop_texts
from gpt.serve.errors import ApiError
from gpt.serve.failures import NO_RETRY, as_api_error
from gpt.serve.metrics import Metrics
from gpt.serve.scheduler import TextStream
from gpt.serve.served import ServedModel
from gpt.tokenizer import Tokenizer

# Tokens of a short time are sent together, because each call of `send` takes 0.1 ms. Screens show one or two pictures
# in this time.
SEND_SECONDS = 0.025


@dataclass(frozen=True)
class PlacedToken:
    """A token, and the number of characters of the text before it."""

    item: TokenLogProb
    offset: int


@dataclass(frozen=True)
class Piece:
    """A part of a text, and the tokens that begin in it. finish_reason: set in the last piece, "stop" or "length"."""

    index: int
    text: str
    tokens: Sequence[PlacedToken]
    finish_reason: str | None = None


class Assembler:
    """Tokens of a text, one after the other, to pieces of text that end before a stop text.

    Bytes are held back until they complete a character, and text as long as it may become a stop text, as
    `gpt.generation.stream` does.
    """

    def __init__(self, tokenizer: Tokenizer, stop: str | Sequence[str] | None = None) -> None:
        self.tokenizer, self.stops = tokenizer, stop_texts(stop)
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.held, self.sent = "", 0
        self.tokens: list[PlacedToken] = []
        self.stopped = False
        """Whether a stop text was found."""

    def add(self, item: TokenLogProb) -> tuple[str, list[PlacedToken]]:
        """Return the text that a token completes, which may be empty, and the tokens that begin in it."""
        self.tokens.append(PlacedToken(item, self.sent + len(self.held)))
        return self._release(self.decoder.decode(self.tokenizer.decode_bytes([item.token])), final=False)

    def end(self) -> tuple[str, list[PlacedToken]]:
        """Return the rest of the text. Bytes that do not complete a character become U+FFFD."""
        return self._release(self.decoder.decode(b"", final=True), final=True)

    def _release(self, new: str, final: bool) -> tuple[str, list[PlacedToken]]:
        self.held += new
        found = find_stop(self.held, self.stops)
        self.stopped = found is not None
        keep = 0 if final else longest_start(self.held, self.stops)
        end = len(self.held) - keep if found is None else found
        text, self.held = self.held[:end], self.held[end:]
        self.sent += len(text)
        begun = [token for token in self.tokens if token.offset < self.sent or (final and found is None)]
        self.tokens = self.tokens[len(begun) :]
        return text, begun


class Choice:
    """A text that is written for a response. tokens: how many were written, also those of a stop text."""

    def __init__(
        self, index: int, served: ServedModel, stream: TextStream, stop: str | Sequence[str] | None, metrics: Metrics
    ) -> None:
        self.index, self.served, self.stream, self.metrics = index, served, stream, metrics
        self.assembler = Assembler(served.tokenizer, stop)
        self.begin = self.last = time.perf_counter()
        self.tokens = 0
        self.logprob = 0.0
        """The sum of the log-probabilities of the tokens."""

    async def pieces(self, end: float) -> AsyncIterator[list[Piece]]:
        """Yield the parts of the text, all at once that are ready; empty ones come only at the end.

        end: the time of the event loop at which the request has taken too long.
        Raises ApiError 408 then, 503 if the server stops, and the error that ended the text.
        """
        loop = asyncio.get_running_loop()
        try:
            while True:
                items, reason = await self.ready(end)
                begin, found = loop.time(), self.assembled(items)
                is_complete = not self.assembler.stopped and reason in ("stop", "length")
                if is_complete:
                    found.append(Piece(self.index, *self.assembler.end(), reason))
                if found:
                    yield found
                if is_complete or self.assembler.stopped:
                    return
                if reason in ("cancelled", "shutdown"):
                    raise ApiError(503, "The server ends, and the text is not complete.")
                await self.stream.wait_for_end(begin + SEND_SECONDS - loop.time())
        finally:
            self.stream.cancel()

    def assembled(self, items: Sequence[TokenLogProb]) -> list[Piece]:
        """Return the parts of the text that tokens complete, up to a stop text."""
        found = []
        self.count(len(items))
        for number, item in enumerate(items):
            self.logprob += item.logprob
            text, tokens = self.assembler.add(item)
            if text or self.assembler.stopped:
                found.append(Piece(self.index, text, tokens, "stop" if self.assembler.stopped else None))
            if self.assembler.stopped:
                self.tokens -= len(items) - number - 1
                break
        return found

    def count(self, tokens: int) -> None:
        """Count tokens that have come together, for the metrics: each has taken the same part of the time."""
        now = time.perf_counter()
        for number in range(self.tokens, self.tokens + tokens):
            self.metrics.token(self.served.id, number == 0, (now - self.last) / tokens)
        self.tokens, self.last = self.tokens + tokens, now

    async def ready(self, end: float) -> tuple[list[TokenLogProb], str | None]:
        """Return the tokens that are ready, and why the text ends if these are the last ones. Raises ApiError."""
        try:
            async with time_limit(end, self.begin):
                items, reason = await self.stream.ready()
                if reason is None and asyncio.get_running_loop().time() > end:  # There was no need to wait.
                    raise TimeoutError
                return items, reason
        except UserError as error:
            raise as_api_error(error) from None


@asynccontextmanager
async def time_limit(end: float, begin: float) -> AsyncIterator[None]:
    """Context manager for work that ends at a time of the event loop. Raises ApiError 408 then.

    begin: when the request came, by `time.perf_counter`.
    """
    try:
        async with asyncio.timeout_at(end):
            yield
    except TimeoutError:
        seconds = f"{time.perf_counter() - begin:.3g} seconds"
        raise ApiError(
            408, f"The request took longer than {seconds}, the limit of this server. Ask for fewer tokens.",
            code="timeout", headers=NO_RETRY,
        ) from None  # fmt: skip


def begin_texts(
    served: ServedModel, requests: Sequence[TextRequest], stop: str | Sequence[str] | None, metrics: Metrics
) -> list[Choice]:
    """Return the texts of requests, which wait for their turn.

    Raises ApiError 429 if the queue is full, 503 if the server stops, and 400 for what no text can begin with.
    """
    places = served.scheduler.max_rows + served.scheduler.max_waiting
    if len(requests) > places:
        raise ApiError(
            400, f"The request asks for {len(requests)} texts, and this server has {places} places. Ask for fewer.",
            param="n",
        )  # fmt: skip
    try:
        streams = served.scheduler.submit_all(requests)
    except UserError as error:
        raise as_api_error(error) from None
    return [Choice(index, served, stream, stop, metrics) for index, stream in enumerate(streams)]


async def merged(choices: Sequence[Choice], end: float) -> AsyncIterator[list[Piece]]:
    """Yield the pieces of several texts as they are written, all at once that are ready. An error of one ends all."""
    queue: asyncio.Queue[list[Piece] | Exception | None] = asyncio.Queue()

    async def feed(choice: Choice) -> None:
        try:
            async for pieces in choice.pieces(end):
                queue.put_nowait(pieces)
            queue.put_nowait(None)
        except Exception as error:
            queue.put_nowait(error)

    tasks = [asyncio.create_task(feed(choice)) for choice in choices]
    try:
        missing = len(tasks)
        while missing:
            found = [await queue.get()]
            while not queue.empty():
                found.append(queue.get_nowait())
            missing -= found.count(None)
            if pieces := [piece for part in found if isinstance(part, list) for piece in part]:
                yield pieces
            for error in found:
                if isinstance(error, Exception):
                    raise error
    finally:
        for task in tasks:
            task.cancel()
        cancel(choices)


async def gathered(choices: Sequence[Choice], end: float) -> list[list[Piece]]:
    """Return the pieces of each text, once all texts are written. Raises the error of any of them."""
    texts: list[list[Piece]] = [[] for _ in choices]
    async for pieces in merged(choices, end):
        for piece in pieces:
            texts[piece.index].append(piece)
    return texts


def cancel(choices: Iterable[Choice]) -> None:
    """End texts that nobody reads any more."""
    for choice in choices:
        choice.stream.cancel()
