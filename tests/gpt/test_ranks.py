"""Test runs on several ranks, which are threads of this process: they train as one process does."""

import threading

import numpy as np
import pytest

pytest.importorskip("platformdirs")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")
import tensorlite as tl
import tensorlite.distributed as dist
from gpt import checkpoint, train
from gpt.config import ConfigError
from gpt.evaluate import mean_loss
from gpt.model import build_model
from gpt.runs import LATEST, METRICS, read
from gpt.train import TrainingError, setup
from gpt.train.interrupt import Interrupt, Stopped
from gpt.train.ranks import Ranks
from tests.gpt.small_runs import assert_same_checkpoint, at_step, measured

EXACT = {"train__dtype": "float64", "train__steps": 12, "train__eval_interval": 6, "train__batch_size": 12}


@pytest.fixture(autouse=True)
def one_model_at_a_time(monkeypatch):
    """Threads share the random numbers: each builds its model alone, and none has numbers of its own."""
    lock, build = threading.Lock(), setup.build_run

    def build_alone(*arguments):
        with lock:
            return build(*arguments)

    monkeypatch.setattr(setup, "build_run", build_alone)
    monkeypatch.setattr(Ranks, "seed_dropout", lambda self, *numbers: None)


def run_on(size, config, resume=None):
    """Train on ranks, and return the weights, which are the same on all."""

    def run(group):
        trainer = train.resume(config, resume, group) if resume else train.start(config, None, None, group)
        done = trainer.optimize()
        return done, [p.detach().numpy().copy() for p in trainer.model.parameters()]

    results = dist.run_ranks(run, size, timeout=60)
    for done, weights in results[1:]:
        assert done == results[0][0]
        assert all(a.tobytes() == b.tobytes() for a, b in zip(weights, results[0][1], strict=True))
    return results[0]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"train__grad_accum": 3, "optim__optimizer": "muon", "optim__grad_clip": 0.01},
        {"data__sampling": "epochs", "train__activation_checkpointing": True},
        {"train__steps": 102, "train__compile": True, "train__log_layers": 50, "train__eval_interval": 51},
    ],
)
def test_ranks_train_as_one_process(tiny, tmp_path, options):
    options = {**EXACT, **options}
    sizes = (2,) if "train__compile" in options else (2, 3, 4)
    weights = {n: run_on(n, tiny(f"of-{n}", **options))[1] for n in (1, *sizes)}
    for n in sizes:
        for a, b in zip(weights[n], weights[1], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)
        for line, alone in zip(measured(tmp_path / f"of-{n}"), measured(tmp_path / "of-1"), strict=True):
            assert line == pytest.approx(alone, rel=1e-7)


def test_a_run_has_the_same_bits_each_time(tiny, tmp_path):
    for name in ("a", "b"):
        run_on(3, tiny(name, train__batch_size=6))
    assert_same_checkpoint(tmp_path / "a" / LATEST, tmp_path / "b" / LATEST)
    assert measured(tmp_path / "a") == measured(tmp_path / "b")


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_stopped_run_of_four_goes_on_with_other_numbers(tiny, tmp_path, monkeypatch, size):
    """A signal to one rank stops all after the same step."""

    def ask(run):
        run.ranks.asked = run.ranks.rank == 2

    whole = run_on(4, tiny("whole", **EXACT))
    with monkeypatch.context() as patch:
        at_step(patch, 8, ask)
        assert run_on(4, tiny("broken", **EXACT))[0] is False
    path = tmp_path / "broken" / LATEST
    assert checkpoint.load(path).step == 8
    done, weights = run_on(size, checkpoint.load_config(path), path)
    assert done is True
    if size == 4:
        assert_same_checkpoint(path, tmp_path / "whole" / LATEST)
        assert measured(path.parent) == measured(tmp_path / "whole")
    for a, b in zip(weights, whole[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


def test_the_checkpoint_has_the_random_numbers_of_all_ranks(tiny, tmp_path):
    run_on(2, tiny())
    saved = checkpoint.load(tmp_path / "run" / LATEST, training=True).state
    assert len(saved["dropout_of_ranks"]) == 2
    assert saved["dropout_of_ranks"][0] == saved["dropout"]
    own = tl.get_rng_state()
    try:
        states = []
        for rank in range(2):
            ranks = Ranks()
            ranks.rank = rank
            ranks.restore_dropout(saved["dropout"], saved["dropout_of_ranks"], 1337, 30)
            states.append(tl.get_rng_state())
    finally:
        tl.set_rng_state(own)
    assert states == saved["dropout_of_ranks"]


def test_targets_that_do_not_count_are_weighed(tiny):
    """Each rank may have another number of targets that count, or none."""
    tl.manual_seed(0)
    model = build_model(tiny(model__vocab_size=9, train__dtype="float64").model, "cpu", "float64")
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, (6, 8)), rng.integers(0, 9, (6, 8))
    y[:2], y[2, 3:] = -1, -1
    expected = model(tl.tensor(x), tl.tensor(y))[1]

    def part(group):
        (mine, targets), weight = Ranks(group).share((x.copy(), y.copy()))
        return model(tl.tensor(mine), tl.tensor(targets))[1] * weight

    parts = dist.run_ranks(part, 3)
    assert parts[0].item() == 0.0
    assert sum(p.item() for p in parts) / 3 == pytest.approx(expected.item(), rel=1e-12)
    whole = tl.autograd.grad(expected, [model.wte.weight])[0].numpy()
    shared = sum(tl.autograd.grad(p, [model.wte.weight])[0].numpy() for p in parts) / 3
    np.testing.assert_allclose(shared, whole, rtol=0, atol=1e-12)


def test_an_evaluation_has_the_bits_of_one_process(tiny):
    model = build_model(tiny(model__vocab_size=9).model, "cpu")
    rng = np.random.default_rng(0)
    batches = [(rng.integers(0, 9, (4, 8)), rng.integers(-1, 9, (4, 8))) for _ in range(7)]
    for size in (2, 3):
        losses = dist.run_ranks(lambda group: Ranks(group).mean_loss(model, batches, Interrupt()), size)
        assert losses == [mean_loss(model, batches)] * size


def test_a_signal_to_one_rank_stops_an_evaluation_of_all(tiny):
    model = build_model(tiny(model__vocab_size=9).model, "cpu")
    batch = (np.zeros((4, 8), np.int64), np.zeros((4, 8), np.int64))

    def evaluate(group):
        ranks, interrupt, done = Ranks(group), Interrupt(), []

        def batches():
            for i in range(8):
                done.append(i)
                if i == 5 and group.rank == 1:
                    interrupt.number = 2
                yield batch

        with pytest.raises(Stopped):
            ranks.mean_loss(model, batches(), interrupt)
        return ranks.stopping, len(done)

    assert dist.run_ranks(evaluate, 2) == [(True, 6)] * 2


def test_other_options_and_other_texts_are_an_error(tiny, text, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(text.read_text().replace("cat", "hat", 1))

    def start(**options):
        return lambda group: train.start(tiny(**(options if group.rank == 2 else {})), None, None, group)

    different = r"optim\.lr: expected .* ranks 0, 1 and 3 got '0.01', rank 2 got '0.02'"
    with pytest.raises(dist.DistributedError, match=different):
        dist.run_ranks(start(optim__lr=0.02), 4)
    with pytest.raises(dist.DistributedError, match="SHA-256 of the tokens of the text: expected the same on all"):
        dist.run_ranks(start(data__dataset=str(other)), 4)


@pytest.mark.parametrize(("size", "words"), [(3, "Use --batch-size 3 or 6"), (5, "Use --batch-size 5, or another")])
def test_a_batch_that_cannot_be_shared_is_an_error(tiny, size, words):
    with pytest.raises(ConfigError, match=f"{size} processes cannot share it equally. {words}"):
        dist.run_ranks(lambda group: train.start(tiny(), None, None, group), size)


def test_all_ranks_notice_a_loss_of_one_that_is_not_finite(tiny, monkeypatch):
    errors = []

    def spoil(run):
        if run.ranks.rank == 1:
            with tl.no_grad():
                run.model.wte.weight.mul_(float("nan"))

    def run(group):
        trainer = train.start(tiny(train__batch_size=6), None, None, group)
        with pytest.raises(TrainingError, match="diverged at step 7") as caught:
            trainer.optimize()
        errors.append(str(caught.value))

    at_step(monkeypatch, 7, spoil)
    dist.run_ranks(run, 3)
    assert len(errors) == 3


def test_rank_0_alone_writes(tiny, tmp_path):
    run_on(2, tiny(train__log_layers=10))
    steps = [line["step"] for line in read(tmp_path / "run" / METRICS) if "lr" in line]
    assert steps == sorted(set(steps))
    assert not list((tmp_path / "run").glob("earlier-*"))
