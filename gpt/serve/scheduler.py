"""A thread that writes the texts of many clients in one batch."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Self

import tensorlite as tl
from gpt.errors import UserError
from gpt.generation.continuous import ContinuousBatch, Text, TextRequest, as_exception
from gpt.generation.logprobs import TokenLogProb
from gpt.generation.request import is_integer
from gpt.model import GPT
from gpt.serve.turns import Turns

TURNS = Turns()  # of all models of this process, because they share the cores


class QueueFull(UserError, RuntimeError):
    """So many requests wait that no other is taken."""


class SchedulerClosed(UserError, RuntimeError):
    """The scheduler takes no more requests, because the server stops."""


class SchedulerStats(NamedTuple):
    """Numbers of a scheduler: texts that are written and that wait now, and tokens and steps since it was made."""

    running: int
    waiting: int
    tokens_written: int
    tokens_read: int
    tokens_cached: int
    """Tokens of prompts that the model did not have to read, because a cache held them."""
    steps: int


class TextStream:
    """The tokens of one text as they are written: an iterator for a thread, and an asynchronous one for an event loop.

    Both yield `TokenLogProb`; its log-probability is NaN unless the request has `alternatives`. At the end they raise
    the error that ended the text, if one did. One reader at a time may use it.
    """

    def __init__(self, scheduler: "Scheduler", text: Text) -> None:
        self.text = text
        self.finish_reason: str | None = None
        """"stop", "length", "cancelled", "shutdown" or "error"; None until the text has ended."""
        self.error: Exception | None = None
        self.is_cancelled = False
        self._scheduler = scheduler
        self._items: deque[TokenLogProb] = deque()
        self._lock = threading.Lock()
        self._waiter: asyncio.Future[None] | threading.Event | None = None
        self._waits_for_end = False

    @property
    def cached_tokens(self) -> int:
        """Return the number of tokens of the prompt that the model did not have to read."""
        return self.text.cached_tokens

    def cancel(self) -> None:
        """End the text at the next step, if it has not ended. Any thread may call it."""
        if self.finish_reason is None:
            self.is_cancelled = True
            self._scheduler.wake()

    def take(self) -> list[TokenLogProb]:
        """Return the tokens that are ready, without waiting."""
        with self._lock:
            items = list(self._items)
            self._items.clear()
        return items

    def put(self, item: TokenLogProb | None, finish_reason: str | None, error: Exception | None) -> Any:
        """Append a token, and end the text where it has a finish_reason; return its reader, if one waits."""
        with self._lock:
            if item is not None:
                self._items.append(item)
            if finish_reason is not None and self.finish_reason is None:
                self.finish_reason, self.error = finish_reason, error
            if self._waits_for_end and self.finish_reason is None:
                return None
            waiter, self._waiter = self._waiter, None
        return waiter

    async def ready(self) -> tuple[list[TokenLogProb], str | None]:
        """Return the tokens that are ready, one at least, and None; or the last ones, and the finish_reason.

        Raises the error that ended the text, once its tokens are read.
        """
        while True:
            with self._lock:
                items, reason = list(self._items), self.finish_reason
                self._items.clear()
                if not items and reason is None:
                    self._waiter, self._waits_for_end = asyncio.get_running_loop().create_future(), False
                    future = self._waiter
            if items or reason is not None:
                break
            await future
        if not items:
            self._raise_error()
        return items, None if self.error is not None else reason

    async def wait_for_end(self, seconds: float) -> None:
        """Wait until the text has ended, for some seconds at most. The tokens in between wake nobody."""
        with self._lock:
            if self.finish_reason is not None:
                return
            self._waiter, self._waits_for_end = asyncio.get_running_loop().create_future(), True
            future = self._waiter
        await asyncio.wait([future], timeout=seconds)

    def _next(self, make_waiter: Callable[[], Any]) -> tuple[TokenLogProb | None, Any]:
        """Return the next token, or None with a waiter that is set at the next one, or None twice at the end."""
        with self._lock:
            if self._items:
                return self._items.popleft(), None
            if self.finish_reason is not None:
                return None, None
            self._waiter, self._waits_for_end = make_waiter(), False
            return None, self._waiter

    def _raise_error(self) -> None:
        if self.error is not None:
            raise self.error

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TokenLogProb:
        while True:
            item, event = self._next(threading.Event)
            if item is not None:
                return item
            if event is None:
                self._raise_error()
                raise StopIteration
            event.wait()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenLogProb:
        while True:
            item, future = self._next(asyncio.get_running_loop().create_future)
            if item is not None:
                return item
            if future is None:
                self._raise_error()
                raise StopAsyncIteration
            await future


class Scheduler:
    """A model with a thread that alone touches it, and writes the texts of up to `max_rows` requests at once.

    Further requests wait, at most `max_waiting`, and begin in the order in which they came. All methods may be called
    from any thread. Schedulers of a process take turns, step by step.
    """

    def __init__(self, model: GPT, max_rows: int = 8, max_waiting: int = 64) -> None:
        if not is_integer(max_waiting, least=0):
            raise ValueError(f"Scheduler: expected max_waiting >= 0, got {max_waiting!r:.80}")
        self.model, self.max_rows, self.max_waiting = model, max_rows, max_waiting
        tl.keep_freed_memory()  # No backward pass runs, which would do so. Logits of a large vocabulary are large.
        self._batch = ContinuousBatch(model, max_rows)
        self._waiting: deque[TextStream] = deque()
        self._running: dict[Text, TextStream] = {}
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._condition = threading.Condition()
        self._changed = self._accepts = True
        self._closing = False
        self._written = 0
        self._thread = threading.Thread(target=self._work, name="gpt-scheduler", daemon=True)
        self._thread.start()

    def submit(self, request: TextRequest) -> TextStream:
        """Return the tokens of a text, which begins when a row is free.

        Raises QueueFull, SchedulerClosed, and the errors of `gpt.generation.generate`.
        """
        return self.submit_all([request])[0]

    def submit_all(self, requests: Sequence[TextRequest]) -> list[TextStream]:
        """Return the tokens of several texts, or raise what `submit` raises and take none of them."""
        streams = [TextStream(self, self._batch.make_text(request)) for request in requests]
        with self._condition:
            if not self._accepts:
                raise SchedulerClosed("the server stops, and takes no more requests")
            used, places = len(self._waiting) + len(self._running), self.max_rows + self.max_waiting
            if used + len(streams) > places:
                raise QueueFull(
                    f"{used} of {places} places for requests are taken, and {len(streams)} more do not fit. "
                    "Try again later"
                )
            self._waiting += streams
            self._notify()
        return streams

    def call(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Call a function between two steps, on the thread that touches the model; return its future result.

        Raises SchedulerClosed.
        """
        future: Future[Any] = Future()
        with self._condition:
            if self._closing:
                raise SchedulerClosed("the server has stopped")
            self._calls.append((future, lambda: function(*args)))
            self._notify()
        return future

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Do what `call` does, and wait for the result."""
        return await asyncio.wrap_future(self.call(function, *args))

    @property
    def stats(self) -> SchedulerStats:
        """Return the numbers of this moment."""
        batch = self._batch
        with self._condition:
            return SchedulerStats(
                len(self._running), len(self._waiting), self._written, batch.tokens_read, batch.tokens_cached,
                batch.steps,
            )  # fmt: skip

    def drain(self, seconds: float) -> bool:
        """Take no more requests, let those that are here end for some seconds, and close.

        Returns whether all of them have ended by themselves.
        """
        end = time.monotonic() + seconds
        with self._condition:
            self._accepts = False
            ended = self._condition.wait_for(
                lambda: self._closing or not (self._waiting or self._running), max(0.0, end - time.monotonic())
            )
        self.close()
        return ended

    def close(self, wait: bool = True) -> None:
        """Stop. The texts that are not complete end with the finish_reason "shutdown".

        wait: return once the thread has ended, which may be in the middle of a long step.
        """
        with self._condition:
            self._accepts, self._closing = False, True
            self._notify()
        if wait and threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def wake(self) -> None:
        """Let the thread look at the requests again."""
        with self._condition:
            self._notify()

    def _notify(self) -> None:
        self._changed = True
        self._condition.notify_all()

    def _work(self) -> None:
        """Run the loop of the thread."""
        try:
            while self._work_once():
                pass
        finally:
            self._shut_down()

    def _work_once(self) -> bool:
        """Wait for work, do a step of it, and return whether there can be more."""
        with self._condition:
            self._condition.wait_for(lambda: self._changed or self._running or self._waiting)
            self._changed = False
            if self._closing:
                return False
            calls, self._calls = self._calls, deque()
            ended = self._take_cancelled()
            self._start_waiting()
        deliver(ended)
        for future, function in calls:
            self._answer(future, function)
        if self._running:
            self._step()
        return True

    def _answer(self, future: Future[Any], function: Callable[[], Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            with TURNS:
                result = function()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    def _take_cancelled(self) -> list["Delivery"]:
        """Take the texts out that are cancelled; return what to tell their streams."""
        ended = [stream for stream in (*self._running.values(), *self._waiting) if stream.is_cancelled]
        for stream in ended:
            if self._running.pop(stream.text, None):
                self._batch.remove(stream.text)
            else:
                self._waiting.remove(stream)
        if ended:
            self._condition.notify_all()
        return [(stream, None, "cancelled", None) for stream in ended]

    def _start_waiting(self) -> None:
        while self._waiting and self._batch.has_room(self._waiting[0].text):
            stream = self._waiting.popleft()
            self._running[stream.text] = stream
            self._batch.add(stream.text)

    def _step(self) -> None:
        deliveries: list[Delivery] = []
        try:
            with TURNS:
                written = self._batch.step()
        except BaseException as error:  # An error of the batch itself, or no memory is left.
            self._batch.clear()
            written, reason = [], as_exception(error)
            with self._condition:
                deliveries += [(stream, None, "error", reason) for stream in self._running.values()]
                self._running.clear()
        with self._condition:
            for text, item in written:
                stream = self._running[text]
                self._written += item is not None
                if text.finish_reason is not None:
                    del self._running[text]
                deliveries.append((stream, item, text.finish_reason, text.error))
            if not self._running:
                self._condition.notify_all()
        deliver(deliveries)

    def _shut_down(self) -> None:
        """End all texts and calls."""
        with self._condition:
            self._accepts, self._closing = False, True
            streams = [*self._running.values(), *self._waiting]
            self._running.clear()
            self._waiting.clear()
            calls, self._calls = self._calls, deque()
            self._condition.notify_all()
        deliver([(stream, None, "shutdown", None) for stream in streams])
        for future, _ in calls:
            if future.set_running_or_notify_cancel():
                future.set_exception(SchedulerClosed("the server has stopped"))


Delivery = tuple[TextStream, TokenLogProb | None, str | None, Exception | None]


def deliver(deliveries: Sequence[Delivery]) -> None:
    """Give tokens to their streams, and wake those who wait for them: each event loop once."""
    loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for stream, item, finish_reason, error in deliveries:
        waiter = stream.put(item, finish_reason, error)
        if isinstance(waiter, threading.Event):
            waiter.set()
        elif waiter is not None:
            loops.setdefault(waiter.get_loop(), []).append(waiter)
    for loop, futures in loops.items():
        try:
            loop.call_soon_threadsafe(set_all, futures)
        except RuntimeError:  # The loop is closed, and nobody waits.
            continue


def set_all(futures: Sequence[asyncio.Future[None]]) -> None:
    """Let those go on who wait for futures."""
    for future in futures:
        if not future.done():
            future.set_result(None)
