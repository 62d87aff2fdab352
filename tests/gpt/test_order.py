"""Test epochs without replacement, mixtures of data sets, and what a resumed run continues."""

import collections
import math

import numpy as np
import pytest

pytest.importorskip("hypothesis")
pytest.importorskip("filelock")
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt import checkpoint, data, train
from gpt.config import Config, ConfigError, DataConfig
from gpt.data import DataError, Dataset, make_order
from gpt.data.mixture import mix
from gpt.data.permutation import permuted
from gpt.runs import read
from gpt.tokenizer import CharTokenizer

# --- permutations


@given(st.integers(1, 3000), st.integers(0, 2**63), st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_a_permutation_has_each_number_once(n, seed, epoch):
    whole = permuted(np.arange(n), n, seed, epoch)
    assert sorted(whole.tolist()) == list(range(n))
    some = np.arange(0, n, 3)
    assert np.array_equal(permuted(some, n, seed, epoch), whole[some])


def test_a_permutation_of_many_numbers_needs_no_memory():
    n = 10**15 + 7
    found = permuted(np.arange(10_000), n, 1)
    assert len(set(found.tolist())) == 10_000
    assert found.min() >= 0
    assert found.max() < n
    assert abs(found.mean() / n - 0.5) < 0.02  # Its standard deviation is 0.003.
    assert permuted(np.array([0, 1, n - 1]), n, 1, 2).tolist() == [698705602864603, 312184242993016, 455462304044899]


@pytest.mark.parametrize("n", [2, 3, 4])
def test_all_permutations_are_equally_likely(n):
    count = 30 * math.factorial(n)
    seen = collections.Counter(tuple(permuted(np.arange(n), n, 7, seed).tolist()) for seed in range(count))
    expected = count / math.factorial(n)
    chi = sum((seen[p] - expected) ** 2 / expected for p in seen) + expected * (math.factorial(n) - len(seen))
    freedom = math.factorial(n) - 1
    assert chi < freedom + 5 * math.sqrt(2 * freedom)


def test_neighbours_are_not_near_each_other():
    """The differences of neighbours have the distribution of those of two random numbers."""
    n = 100_000
    order = permuted(np.arange(n), n, 3, 0)
    gaps = np.abs(np.diff(order))
    assert abs(gaps.mean() / n - 1 / 3) < 0.005
    assert np.mean(gaps < n / 100) == pytest.approx(0.0199, abs=0.002)
    other = permuted(np.arange(n), n, 3, 1)
    assert abs(np.corrcoef(order, other)[0, 1]) < 0.02
    assert abs(np.corrcoef(order, np.arange(n))[0, 1]) < 0.02


# --- epochs


def numbered(n, start=0, val=20):
    """Return a data set of the tokens start, start + 1, ..., so that a window tells its place."""
    tokens = np.arange(start, start + n).astype(np.uint32)
    return Dataset(CharTokenizer("ab"), tokens, tokens[:val], {"train": n, "val": val})


@pytest.mark.parametrize("batch", [1, 3, 7, 40])
def test_each_epoch_has_each_sequence_once(batch):
    T, order = 8, make_order("epochs", numbered(205), np.random.default_rng(0), 1)  # 25 sequences, and a rest
    firsts = np.concatenate([order.batch(batch, T)[0][:, 0] for _ in range(-(-75 // batch))])
    epochs = [firsts[k : k + 25].tolist() for k in (0, 25, 50)]
    assert all(sorted(epoch) == list(range(0, 200, 8)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    x, y = make_order("epochs", numbered(205), np.random.default_rng(0), 1).batch(batch, T)
    assert np.array_equal(y, x + 1)
    assert np.array_equal(x, x[:, :1] + np.arange(T))


def test_the_order_does_not_depend_on_the_batches_and_continues_anywhere():
    whole = make_order("epochs", numbered(405), np.random.default_rng(0), 5)
    expected = whole.batch(120, 8)[0]
    parts = make_order("epochs", numbered(405), np.random.default_rng(9), 5)
    first = parts.batch(37, 8)[0]
    later = make_order("epochs", numbered(405), np.random.default_rng(3), 5)
    later.set_state(parts.get_state())
    assert np.array_equal(np.concatenate([first, later.batch(83, 8)[0]]), expected)
    assert later.epoch(8) == 120 / 50
    other = make_order("epochs", numbered(405), np.random.default_rng(0), 6)
    assert not np.array_equal(other.batch(120, 8)[0], expected)
    for state in ({}, {"drawn": [1, 2]}, {"drawn": [-1]}, {"drawn": [1.0]}, {"drawn": [True]}, {"drawn": "1"}):
        with pytest.raises((KeyError, ValueError)):
            later.set_state(state)


def test_random_places_are_those_of_earlier_versions():
    dataset, rng, same = numbered(300), np.random.default_rng(4), np.random.default_rng(4)
    order = make_order("random", dataset, rng, 0)
    starts = same.integers(0, 300 - 8, size=(5, 1))
    assert np.array_equal(order.batch(5, 8)[0], dataset.train[starts + np.arange(8)])
    assert order.get_state() is None
    assert order.epoch(8) is None


# --- mixtures


def test_sources_have_their_shares_at_any_time():
    sources = [numbered(1000), numbered(100, 10_000), numbered(500, 20_000)]
    mixture = mix(sources, "abc", (5, 3, 2))
    order = make_order("epochs", mixture, np.random.default_rng(0), 1)
    counts = np.zeros(3)
    for _ in range(40):
        x = order.batch(7, 8)[0]
        counts += np.bincount(x[:, 0] // 10_000, minlength=3)
        assert np.all(np.abs(counts - counts.sum() * np.array([0.5, 0.3, 0.2])) <= 1)
    assert order.get_state() == {"drawn": counts.astype(int).tolist()}
    assert order.epoch(8) == counts[1] / 12
    rng = np.random.default_rng(0)
    drawn = np.concatenate([mixture.batch(rng, "train", 100, 8)[0][:, 0] // 10_000 for _ in range(50)])
    assert np.bincount(drawn) / 5000 == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


def test_without_weights_each_epoch_has_all_tokens():
    mixture = mix([numbered(801), numbered(401, 10_000)], "ab", None)
    assert mixture.weights == pytest.approx((801 / 1202, 401 / 1202))
    order = make_order("epochs", mixture, np.random.default_rng(0), 1)
    firsts = order.batch(150, 8)[0][:, 0]
    assert sorted(firsts.tolist()) == [*range(0, 800, 8), *range(10_000, 10_400, 8)]


def test_an_evaluation_of_a_mixture_predicts_all_sources():
    sources = [numbered(300, val=50), numbered(300, 10_000, val=31)]
    mixture = mix(sources, "ab", (1, 3))
    windows = list(mixture.windows("val", 4, 8))
    assert sum(y.size for _, y in windows) == mixture.predicted("val", 8) == 49 + 30
    assert mixture.predicted("val", 8, 20) == sum(y.size for _, y in mixture.windows("val", 4, 8, 20)) == 16
    assert mixture.size("val") == 81


def test_a_mixture_has_the_tokens_of_its_files(tmp_path):
    (tmp_path / "a.txt").write_text("abc" * 40)
    (tmp_path / "b.txt").write_text("bcd" * 40)
    names = (str(tmp_path / "a.txt"), str(tmp_path / "b.txt"))
    mixture = data.load_dataset(DataConfig(dataset=names, weights=(1, 2)), 8)
    assert mixture.tokenizer.vocab == "abcd"  # It has the characters of both.
    assert [source.tokenizer.decode(source.train) for source, _ in mixture.parts] == ["abc" * 36, "bcd" * 36]
    assert mixture.chars == {"train": 216, "val": 24}
    assert mixture.weights == (1 / 3, 2 / 3)
    # Two folders of tokens have one tokenizer, and a text next to one takes that of the folder.
    data.prepare(names[:1], tmp_path / "pa")
    data.prepare(names[1:], tmp_path / "pb")
    with pytest.raises(DataError, match=r"has another tokenizer .char, 3 tokens. than .*prepare --tokenizer"):
        data.load_dataset(DataConfig(dataset=(str(tmp_path / "pa"), str(tmp_path / "pb"))), 8)
    with pytest.raises(ValueError, match="character 'd'"):
        data.load_dataset(DataConfig(dataset=(str(tmp_path / "pa"), names[1])), 8)
    with pytest.raises(DataError, match=r"'.*a.txt' is too short: its val split has 12 tokens"):
        data.load_dataset(DataConfig(dataset=names), 12)
    with pytest.raises(DataError, match="expected one text, got 2"):
        data.open_text(DataConfig(dataset=names))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": ("a", "b"), "weights": (1.0,)}, "expected one weight for each data set, of which .* 2, got 1"),
        ({"dataset": ("a", "b"), "weights": (1, 2, 3)}, "got 3"),
        ({"dataset": "a", "weights": 1.0}, "has no effect with one data set"),
        ({"dataset": ("a", "b"), "weights": (1, -1)}, "must be > 0"),
        ({"dataset": ("a", "b"), "weights": (1, 0.0)}, "must be > 0"),
        ({"dataset": ("a", "b"), "weights": (1, math.nan)}, "expected a finite number"),
        ({"dataset": ("a", "b"), "weights": (1, "x")}, "expected float, got str"),
        ({"dataset": ()}, "expected a value, or a list of them"),
        ({"dataset": ("a", ("b",))}, "expected a value, or a list of them"),
        ({"dataset": ("a", 3)}, "expected str, got int"),
        ({"dataset": "a.txt", "field": "text"}, "has no effect without a file of JSON lines"),
        ({"dataset": ("a.jsonl", "b.jsonl"), "format": "chat"}, "takes one file, got 2"),
        ({"dataset": "a.jsonl", "format": "chat", "field": "text"}, "has no effect with format = 'chat'"),
        ({"dataset": "a.jsonl", "format": "chat", "documents": "packed"}, "has no effect with format = 'chat'"),
        ({"sampling": "epoch"}, "choose one of random, epochs"),
        ({"documents": "split"}, "choose one of joined, apart, packed"),
    ],
)
def test_options_that_do_not_fit_are_errors(options, message):
    with pytest.raises(ConfigError, match=message):
        DataConfig(**options)


def test_lists_in_a_configuration(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[data]\ndataset = ["a.txt", "b\\"c.txt"]\nweights = [0.7, 3]\n')
    config = Config.load(path)
    assert (config.data.dataset, config.data.weights) == (("a.txt", 'b"c.txt'), (0.7, 3.0))
    again = tmp_path / "again.toml"
    again.write_text(config.to_toml())
    assert Config.load(again) == config == Config.from_dict(config.to_dict())
    assert config.replace({"data.dataset": ["x"], "data.weights": None}).data.dataset == "x"


# --- runs


@pytest.mark.parametrize("documents", ["joined", "packed"])
def test_a_resumed_run_is_exact(tiny, text, tmp_path, documents):
    other = tmp_path / "b.jsonl"
    other.write_text("".join(f'{{"text": "{"the cat on a mat " * k}"}}\n' for k in range(1, 25)))
    data.prepare([text], tmp_path / "tokens", tokenizer=CharTokenizer.train(text.read_text()))
    options = {
        "data__dataset": (str(tmp_path / "tokens"), str(other)), "data__weights": (0.6, 0.4), "data__field": "text",
        "data__sampling": "epochs", "data__documents": documents, "train__grad_accum": 2, "train__steps": 14,
        "train__sample_chars": 0,
    }  # fmt: skip
    train.train(tiny("whole", **options))
    part = train.start(tiny("part", **options))
    for _ in range(7):
        part.train_step()
        part.meter.add(*(part.stepper.parameters[0].sum(),) * 2)
    part.save("checkpoint.safetensors")
    path = tmp_path / "part" / "checkpoint.safetensors"
    resumed = train.resume(checkpoint.load_config(path), path)
    assert resumed.order.get_state() == part.order.get_state() == {"drawn": [34, 22]}
    resumed.optimize()
    one, two = (checkpoint.load(tmp_path / run / "checkpoint.safetensors") for run in ("whole", "part"))
    for (name, a), (_, b) in zip(one.model.state_dict().items(), two.model.state_dict().items()):
        assert np.array_equal(a.numpy(), b.numpy()), name
    epochs = [line["epoch"] for line in read(tmp_path / "whole" / "metrics.jsonl") if "epoch" in line]
    assert epochs == sorted(epochs)
    assert epochs[-1] > 0
    with pytest.raises(ConfigError, match=r"data.sampling = 'random' instead of 'epochs'"):
        train.resume(tiny("part", **{**options, "data__sampling": "random"}).with_vocab_size(13), path)
    other.write_text(other.read_text() * 2)
    with pytest.raises(ConfigError, match="is not the one that"):
        train.resume(checkpoint.load_config(path), path)
