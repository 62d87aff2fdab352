"""Test the thread that writes the texts of many clients: no text is lost, mixed up or stuck."""

import asyncio
import collections
import random
import threading
import time

import numpy as np
import pytest

from gpt.config import SamplingConfig
from gpt.generation import SampleError, generate
from gpt.generation.continuous import TextRequest
from gpt.serve.scheduler import QueueFull, Scheduler, SchedulerClosed
from gpt.serve.turns import Turns
from gpt.tokenizer import TokenError
from tests.gpt.small_models import small_model
from tests.gpt.test_continuous import expected, greedy, random_requests

ENDLESS = 1_000_000  # tokens of a text that only a test ends


def request(seed, count=12):
    return TextRequest(np.array([1, 2, seed % 11]), count, SamplingConfig(seed=seed))


@pytest.fixture
def scheduler():
    with Scheduler(small_model(), max_rows=3, max_waiting=40) as scheduler:
        yield scheduler


class Gate:
    """A processor that lets the batch go on once it is open, and tells when a text has reached it."""

    def __init__(self):
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, ids, logits):
        self.reached.set()
        assert self.opened.wait(20)
        return logits


def test_threads_and_event_loops_get_the_texts_of_generate(scheduler):
    requests = random_requests(21, 12)
    wanted = [expected(scheduler.model, r) for r in requests]
    streams = [scheduler.submit(r) for r in requests]
    assert [[item.token for item in stream] for stream in streams] == wanted

    async def read(r):
        return [item.token async for item in scheduler.submit(r)]

    async def read_all():
        return await asyncio.gather(*map(read, requests))

    found = []
    loops = [threading.Thread(target=lambda: found.append(asyncio.run(read_all()))) for _ in range(2)]
    for thread in loops:
        thread.start()
    for thread in loops:
        thread.join()
    assert found == [wanted, wanted]
    stats = scheduler.stats
    assert (stats.running, stats.waiting, stats.tokens_written) == (0, 0, 3 * sum(map(len, wanted)))
    assert stats.tokens_cached > 0


def test_requests_wait_in_order_and_a_full_queue_refuses(scheduler):
    gate = Gate()
    first = scheduler.submit(greedy([1], 3, processors=(gate,)))
    assert gate.reached.wait(20)
    others = [scheduler.submit(request(seed)) for seed in range(41)]
    with pytest.raises(QueueFull, match="42 of 43 places"):
        scheduler.submit_all([request(1), request(2)])
    last = scheduler.submit(request(50))
    with pytest.raises(QueueFull):
        scheduler.submit(request(1))
    assert (scheduler.stats.running, scheduler.stats.waiting) == (1, 42)
    gate.opened.set()
    assert [len(list(stream)) for stream in (first, *others, last)] == [3, *[12] * 42]
    assert scheduler.submit(request(1, 1)).finish_reason in (None, "length")  # There are places again.


def test_wrong_requests_are_refused_at_once(scheduler):
    with pytest.raises(TokenError):
        scheduler.submit(greedy([], 3))
    with pytest.raises(TokenError):
        scheduler.submit_all([request(1), greedy([11], 3)])
    with pytest.raises(TypeError, match="SamplingConfig"):
        scheduler.submit(TextRequest(np.array([1]), 3, {"temperature": 0}))
    assert scheduler.stats.tokens_written == 0


def test_a_cancelled_text_frees_its_row(scheduler):
    endless = [scheduler.submit(request(seed, ENDLESS)) for seed in range(3)]
    waiting = [scheduler.submit(request(7)), scheduler.submit(request(8))]
    assert next(endless[1]).token == next(generate(scheduler.model, [1, 2, 1], seed=1))
    waiting[0].cancel()
    endless[1].cancel()
    assert [item.token for item in waiting[1]] == expected(scheduler.model, request(8))
    assert list(waiting[0]) == []
    for stream in (*endless, *waiting):
        stream.cancel()
        collections.deque(stream, maxlen=0)
    assert [s.finish_reason for s in (*endless, *waiting)] == [*["cancelled"] * 4, "length"]
    assert (scheduler.stats.running, scheduler.stats.waiting) == (0, 0)


def test_a_reader_that_is_cancelled_can_read_on(scheduler):
    """A timeout of the event loop loses no token."""

    async def read():
        gate = Gate()
        stream = scheduler.submit(greedy([1, 2], 4, processors=(gate,)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.01)
        gate.opened.set()
        return [item.token async for item in stream]

    assert asyncio.run(read()) == list(generate(scheduler.model, [1, 2], 4, temperature=0))


def test_a_closed_event_loop_does_not_stop_the_others(scheduler):
    gate = Gate()

    async def leave():
        stream = scheduler.submit(greedy([1, 2], 6, processors=(gate,)))
        task = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        return stream

    left = asyncio.run(leave())
    other = scheduler.submit(request(3))
    gate.opened.set()
    assert [item.token for item in other] == expected(scheduler.model, request(3))
    assert len(list(left)) == 6


def fail(ids, logits):
    raise OSError("of the processor")


def test_errors_reach_their_own_stream(scheduler):
    bad = scheduler.submit(greedy([1, 2], 5, processors=(fail,)))
    banned = scheduler.submit(TextRequest(np.array([1]), 5, SamplingConfig(banned_tokens=tuple(range(11)))))
    good = scheduler.submit(request(4))
    with pytest.raises(OSError, match="of the processor"):
        list(bad)
    with pytest.raises(SampleError, match="no token"):
        list(banned)
    assert [item.token for item in good] == expected(scheduler.model, request(4))
    assert (bad.finish_reason, banned.finish_reason) == ("error", "error")


class Panic(BaseException):
    """What an extension raises that is written in Rust."""


@pytest.mark.parametrize("error", [Panic, KeyboardInterrupt])
def test_the_scheduler_outlives_what_is_no_exception(scheduler, error):
    def panic(ids, logits):
        raise error("lost")

    stream = scheduler.submit(greedy([1, 2], 5, processors=(panic,)))
    with pytest.raises(RuntimeError, match=rf"{error.__name__}: lost"):
        list(stream)
    assert [item.token for item in scheduler.submit(request(4))] == expected(scheduler.model, request(4))


@pytest.mark.parametrize("options", [{"max_rows": 0}, {"max_rows": 1.5}, {"max_waiting": -1}])
def test_wrong_limits_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Scheduler(small_model(), **options)


def test_the_scheduler_outlives_errors_of_the_model_and_of_the_batch(scheduler, monkeypatch):
    def broken(*args):
        raise RuntimeError("no memory")

    for target, name in ((scheduler.model.h[0].mlp, "forward"), (scheduler._batch, "_step_rows")):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, broken)
            stream = scheduler.submit(request(5, 20))
            with pytest.raises(RuntimeError, match="no memory"):
                list(stream)
        assert [item.token for item in scheduler.submit(request(5))] == expected(scheduler.model, request(5))


def test_a_function_runs_between_two_steps(scheduler):
    endless = scheduler.submit(request(1, ENDLESS))
    next(endless)

    async def run():
        name, tokens = await scheduler.run(lambda: (threading.current_thread().name, scheduler.stats.tokens_written))
        with pytest.raises(ZeroDivisionError):
            await scheduler.run(lambda a: a / 0, 1)
        return name, tokens

    name, tokens = asyncio.run(run())
    assert name == "gpt-scheduler"
    assert tokens >= 1
    assert scheduler.call(pow, 2, 5).result() == 32
    endless.cancel()


def test_drain_lets_texts_end_and_takes_no_others():
    scheduler = Scheduler(small_model(), max_rows=1)
    streams = [scheduler.submit(request(seed, 30)) for seed in range(3)]
    assert scheduler.drain(20)
    assert [len(list(stream)) for stream in streams] == [30, 30, 30]
    for _ in range(2):
        with pytest.raises(SchedulerClosed):
            scheduler.submit(request(1))
        scheduler.close()
    with pytest.raises(SchedulerClosed):
        scheduler.call(print)


def test_close_ends_all_texts():
    scheduler = Scheduler(small_model(), max_rows=1)
    streams = [scheduler.submit(request(seed, ENDLESS)) for seed in range(3)]
    next(streams[0])
    assert not scheduler.drain(0.01)
    for stream in streams:
        collections.deque(stream, maxlen=0)
        assert stream.finish_reason == "shutdown"


def test_many_clients_lose_no_text():
    """20 threads send 200 requests, of which some are cancelled at once, some later, and some fail."""
    model = small_model()
    requests = random_requests(99, 10, longest=14)
    wanted = [expected(model, r) for r in requests]
    counts: collections.Counter[str] = collections.Counter()
    lock = threading.Lock()

    def client(number):
        rng = random.Random(number)
        for _ in range(10):
            index, kind = rng.randrange(10), rng.choice(["whole", "whole", "part", "none", "error"])
            r = greedy([1, 2], 5, processors=(fail,)) if kind == "error" else requests[index]
            while True:
                try:
                    stream = scheduler.submit(r)
                    break
                except QueueFull:
                    time.sleep(0.002)
            if kind == "none":
                stream.cancel()
            found = []
            try:
                for item in stream:
                    found.append(item.token)
                    if kind == "part" and len(found) == 3:
                        stream.cancel()
            except OSError:
                assert kind == "error"
            else:
                assert kind != "error"
                if stream.finish_reason == "cancelled":
                    assert kind in ("part", "none")
                    assert found == wanted[index][: len(found)]
                else:
                    assert found == wanted[index]
            with lock:
                counts[stream.finish_reason] += 1
                counts["tokens"] += len(found)

    with Scheduler(model, max_rows=8, max_waiting=10) as scheduler:
        threads = [threading.Thread(target=client, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        stats = scheduler.stats
    assert sum(counts[reason] for reason in ("stop", "length", "cancelled", "error")) == 200
    assert counts["error"] == sum(
        random_kind == "error" for number in range(20) for random_kind in kinds_of(number)
    )
    assert (stats.running, stats.waiting, stats.tokens_written) == (0, 0, counts["tokens"])


def kinds_of(number):
    """Return what client `number` of the test above does with its requests."""
    rng = random.Random(number)
    return [(rng.randrange(10), rng.choice(["whole", "whole", "part", "none", "error"]))[1] for _ in range(10)]


def test_schedulers_take_turns():
    """A lock that its holder takes again at once goes to those first that have waited."""
    turns, order = Turns(), []

    def work(name):
        for _ in range(2):
            with turns:
                order.append(name)
                if len(order) == 1:  # Both others wait, and this thread comes back after them.
                    others.wait(20)
                    wait_until(lambda: turns.waiting == 2)

    others = threading.Barrier(3)
    first = threading.Thread(target=work, args=("a",))
    first.start()
    wait_until(lambda: order)

    def second(name):
        others.wait(20)
        with turns:
            order.append(name)

    threads = [first, *(threading.Thread(target=second, args=(name,)) for name in "bc")]
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert order[0] == order[3] == "a"
    assert {*order[1:3]} == {"b", "c"}


def wait_until(condition):
    """Wait until a condition holds, for 20 seconds at most."""
    for _ in range(20_000):
        if condition():
            return
        time.sleep(0.001)
    raise AssertionError("the condition never held")


def test_two_models_write_at_the_same_time():
    models = [small_model(), small_model(position="rope")]
    schedulers = [Scheduler(model, max_rows=2) for model in models]
    streams = [scheduler.submit(request(seed)) for seed in range(6) for scheduler in schedulers]
    wanted = [expected(model, request(seed)) for seed in range(6) for model in models]
    assert [[item.token for item in stream] for stream in streams] == wanted
    for scheduler in schedulers:
        scheduler.close()
