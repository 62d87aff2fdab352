"""Test what `info --processes` expects: the bytes against those that DataParallel sends, and the times of steps."""

import math
import threading

import numpy as np
import pytest

pytest.importorskip("click")
from click.testing import CliRunner

import tensorlite as tl
import tensorlite.distributed as dist
from gpt.cli import main
from gpt.cli.units import Bandwidth, Seconds
from gpt.config import Config, ModelConfig
from gpt.model import GPT, scaling
from gpt.model.scaling import Bucket, Link, Passes, buckets, counts, expect, exposed_time, sent_bytes
from gpt.train.step_time import StepTimes, find_step_times
from tensorlite.distributed import data_parallel, reduction

TINY = ModelConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=12)
LOCK = threading.Lock()  # because the ranks share the random numbers of the process


class CountingEngine:
    """An engine that counts the bytes which this rank sends to the others."""

    def __init__(self, engine: dist.communicator.Engine) -> None:
        self.engine, self.sent = engine, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.engine, name)

    def announce(self, text: str) -> object:
        self.sent += scaling.ANNOUNCEMENT * (self.engine.size - 1)
        return self.engine.announce(text)

    def exchange(self, sent: np.ndarray, received: np.ndarray) -> object:
        self.sent += sent.nbytes - sent[self.engine.rank].nbytes
        return self.engine.exchange(sent, received)

    def gather(self, sent: np.ndarray, received: np.ndarray) -> object:
        self.sent += sent.nbytes * (self.engine.size - 1)
        return self.engine.gather(sent, received)


def sent_in_a_step(config: ModelConfig, dtype: str, size: int, bucket: int) -> list[int]:
    """Return the bytes that each rank sends in a step of DataParallel. bucket: bytes of a bucket at most."""

    def run(group):
        with LOCK:
            model = GPT(config).to("cpu", getattr(tl, dtype))
        parallel = dist.DataParallel(model, group, bucket_cap_mb=bucket / 2**20)
        ids = tl.tensor(np.zeros((1, config.block_size), np.int64))
        group.communicator.engine = engine = CountingEngine(group.communicator.engine)
        parallel(ids, ids)[1].backward()
        return engine.sent

    return dist.run_ranks(run, size)


@pytest.mark.parametrize(
    ("changes", "dtype", "bucket", "small", "piece"),
    [
        ({}, "float32", 4 << 20, 1 << 13, 1 << 26),
        ({}, "float64", 1 << 12, 1 << 9, 1 << 26),  # several buckets
        ({"tied": False, "bias": False}, "float32", 1 << 11, 1 << 10, 1 << 26),
        ({"vocab_size": 300}, "float32", 1 << 11, 1 << 9, 1 << 12),  # a parameter that is larger than a piece
        ({"norm": "rms", "mlp": "swiglu", "position": "rope"}, "float32", 1 << 11, 1 << 8, 1 << 26),
        ({"previous_tokens": 1}, "float32", 1 << 11, 1 << 8, 1 << 26),
    ],
)
def test_as_many_bytes_are_sent_as_expected(changes, dtype, bucket, small, piece, monkeypatch):
    for module in (scaling, reduction):
        monkeypatch.setattr(module, "SMALL", small)
        monkeypatch.setattr(module, "PIECE", piece)
    monkeypatch.setattr(scaling, "BUCKET_BYTES", bucket)
    config = ModelConfig(**(TINY.__dict__ | changes))
    itemsize = np.dtype(dtype).itemsize
    for size in (2, 3, 4):
        expected = sent_bytes(buckets(config, itemsize), size, itemsize)
        assert sent_in_a_step(config, dtype, size, bucket) == [expected] * size


def test_constants_are_those_of_the_library():
    assert scaling.BUCKET_BYTES == data_parallel.BUCKET_MB * 2**20
    assert (scaling.SMALL, scaling.PIECE) == (reduction.SMALL, reduction.PIECE)
    assert scaling.ANNOUNCEMENT == dist.mpi.TEXT


def test_bytes_of_a_large_model():
    config = Config.load("gpt2").model
    for n in (2, 8):
        exact = 2 * (n - 1) / n * 4 * 124_439_808
        assert sent_bytes(buckets(config, 4), n, 4) == pytest.approx(exact, rel=1e-3)
    assert sent_bytes(buckets(config, 4), 1, 4) == 0
    assert sum(bucket.numbers for bucket in buckets(config, 4)) == 124_439_808


def test_buckets_are_ready_in_their_order():
    for tied in (True, False):
        found = buckets(ModelConfig(n_layer=12, n_head=12, n_embd=768, vocab_size=50304, tied=tied), 4)
        ready = [bucket.ready for bucket in found]
        assert ready == sorted(ready)
        assert 0 < ready[0] < 0.4
        assert ready[-1] == 1


def test_transfers_are_hidden_by_the_backward_pass():
    link = Link(bandwidth=1e6, latency=0.001)
    passes = Passes(0.0, 1.0, 2.0, 0.5)
    half = Bucket(250_000 - 1, 1, 0.5)  # 1 MB in float32: 512 bytes, and 500 kB in each of two transfers
    seconds = (512 + 1_000_000) / 1e6 + 3 * 0.001
    assert exposed_time([half], 2, 4, passes, link) == pytest.approx((seconds, seconds - 1.0))
    late = half._replace(ready=0.6)  # It is announced while the first one is sent.
    announcement = 512 / 1e6 + 0.001
    assert exposed_time([half, late], 2, 4, passes, link) == pytest.approx(
        (2 * seconds, 2 * seconds - announcement - 1.0)
    )
    early = half._replace(ready=0.1)
    assert exposed_time([early], 2, 4, passes, link) == pytest.approx((seconds, 0.0))
    # Of 4 ranks, each sends three quarters twice, and the sums are gathered in two rounds.
    assert exposed_time([half], 4, 4, passes, link)[0] == pytest.approx((3 * 512 + 1_500_000) / 1e6 + 4 * 0.001)
    assert exposed_time([half], 1, 4, passes, link) == (0, 0)


def test_expectation_adds_up():
    config = Config.load("gpt-nano", {"train.batch_size": 8, "train.grad_accum": 2})
    passes = Passes(1.0, 1.0, 2.0, 0.5)
    row = expect(config, 4, passes, Link(1e6, 0.0), copy_rate=1e6)
    assert row.sequences == 4
    assert row.computation == 4.5
    assert row.step == pytest.approx(4.5 + row.exposed + row.sums)
    assert row.sums == pytest.approx(3.5 * 4 * sum(b.numbers for b in buckets(config.model, 4)) / 1e6)
    alone = expect(config, 1, passes, Link(1e6, 0.0), copy_rate=1e6)
    assert (alone.sent, alone.transfer, alone.exposed, alone.sums, alone.step) == (0, 0, 0, 0, 4.5)


def test_counts():
    assert [counts(n, 24) for n in (1, 2, 3, 8, 12)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 8], [1, 2, 4, 8, 12]]
    assert counts(12, 12) == [1, 2, 4, 12]


def test_times_of_batches_lie_on_a_line():
    config = Config.load("gpt-nano", {"train.batch_size": 8, "train.grad_accum": 2})
    times = StepTimes(config, {2: Passes(0, 2.0, 3.0, 1.0), 8: Passes(0, 5.0, 9.0, 1.0)}, "")
    assert times.passes(8) == pytest.approx((14.0, 5.0, 9.0, 1.0))
    assert times.passes(4) == pytest.approx((8.0, 3.0, 5.0, 1.0))
    given = find_step_times(config, [1, 2], given=3.2)
    assert given.passes(8).total == pytest.approx(3.2)
    assert given.passes(4).total == pytest.approx(1.6)


def test_small_models_are_measured_and_large_ones_estimated():
    small = find_step_times(Config.load("gpt-nano", {"train.batch_size": 2}), [1, 2])
    assert small.source.startswith("measured here")
    assert all(seconds > 0 for seconds in small.passes(2)[1:])
    large = find_step_times(Config.load("gpt2-xl"), [1, 2])
    assert large.source.startswith("estimated from 10.3 GFLOP a token at")
    assert large.passes(12).total == pytest.approx(2 * large.passes(6).total)


@pytest.mark.parametrize(
    ("text", "value"),
    [("10Gbit", 1.25e9), ("100Mbit/s", 1.25e7), ("1GB/s", 1e9), ("1.5 GiB/s", 1.5 * 2**30), ("25Gbps", 25e9 / 8),
     ("8bit", 1.0), ("3B", 3.0), ("40kB/s", 4e4)],
)  # fmt: skip
def test_bandwidths(text, value):
    assert Bandwidth().convert(text, None, None) == pytest.approx(value)


@pytest.mark.parametrize(("text", "value"), [("50us", 5e-5), ("0.9s", 0.9), ("2 ms", 2e-3), ("10ns", 1e-8), ("0s", 0)])
def test_seconds(text, value):
    assert Seconds().convert(text, None, None) == pytest.approx(value)


def info(*args: str) -> str:
    result = CliRunner().invoke(main, ["info", "gpt-nano", *args])
    assert not isinstance(result.exception, (AssertionError, KeyError, TypeError, ValueError))
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--processes", "2"], "--processes: expected --bandwidth, too"),
        (["--bandwidth", "1Gbit"], "--bandwidth: expected --processes, too"),
        (["--step-time", "1s"], "--step-time: expected --processes and --bandwidth"),
        (["--processes", "2", "--bandwidth", "1Gb"], "'1Gb': expected a number above 0 with bit or B a second"),
        (["--processes", "2", "--bandwidth", "0bit"], "'0bit': expected a number above 0"),
        (["--processes", "2", "--bandwidth", "1B", "--latency", "5"], "'5': expected a number with s, ms, us or ns"),
        (["--processes", "2", "--bandwidth", "1B", "--step-time", "0s"], "'0s': expected a number above 0 with s"),
        (["--processes", "5", "--bandwidth", "1B"], "expected a number that divides the batch size, which is 64"),
    ],
)
def test_errors(args, words):
    assert words in info(*args)


def test_the_table():
    table = info("--processes", "8", "--bandwidth", "100Mbit", "--latency", "0s", "--step-time", "40ms")
    assert "100 Mbit/s each way, latency 0; the time of a step: --step-time" in table
    assert " 1 64 - - - - 40 ms 1.00 100% 2 32 377 kB 30.2 ms " in table
    assert "warning: 8 processes are slower than one: the transfers take 53 ms, the computation 5 ms" in table
    fast = info("--processes", "2", "--bandwidth", "1TB/s", "--latency", "0s", "--step-time", "4s")
    assert "warning" not in fast
    speedup = float(fast.split()[-2])
    assert math.isclose(speedup, 2, abs_tol=0.01)
