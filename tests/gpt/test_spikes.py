"""Test the watch on spikes of the loss and of the gradient's norm."""

import math

import numpy as np
import pytest

pytest.importorskip("platformdirs")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")
from gpt import checkpoint, train
from gpt.config import Config, ConfigError
from gpt.runs import LATEST, METRICS, read
from gpt.train import Trainer, TrainingError, spikes, start
from gpt.train.spikes import LOWEST, SpikeWatch
from gpt.train.step import Stepper
from tests.gpt.small_runs import assert_goes_on_as, at_step, content, ctrl_c, measured

pytestmark = pytest.mark.usefixtures("default_ctrl_c", "no_curve")


@pytest.fixture
def short(tiny, monkeypatch):
    """Return a function that makes the configuration of a run whose spikes come from `spoil`."""
    monkeypatch.setattr(spikes, "LEAST", 4)
    common = {
        "train__steps": 16, "train__sample_chars": 0, "train__log_layers": 0, "train__spike_factor": 100.0,
        "train__ema_decay": 0.9, "model__dropout": 0.2,
    }  # fmt: skip
    return lambda run="run", **options: tiny(run, **{**common, **options})


def spoil(monkeypatch, factors):
    """Multiply the loss by a factor in some steps, by step."""
    step, loss, current = Trainer.train_step, Stepper.loss, [0]

    def noted(run):
        current[0] = run.step + 1
        return step(run)

    monkeypatch.setattr(Trainer, "train_step", noted)
    monkeypatch.setattr(Stepper, "loss", lambda stepper, *batch: loss(stepper, *batch) * factors.get(current[0], 1.0))


SPIKES = {8: 50.0, 10: math.nan, 13: 50.0}


def events(folder):
    return [line for line in read(folder / METRICS) if "spike" in line]


# --- what a spike is


def watch(action="skip", factor=5.0):
    return SpikeWatch(Config.load("gpt-nano", {"train.on_spike": action, "train.spike_factor": factor}).train)


def test_the_limit_is_robust():
    """The limit of normal values is median + 5 s; ten large values among a hundred change it by less than a fifth."""
    values, judge = np.random.default_rng(0).normal(10.0, 1.0, 100), watch()
    for i, value in enumerate(values):
        assert judge.judge(i + 1, value, 10.0) is None
    clean = spikes.limit(judge.losses, 5.0)
    assert abs(clean - 15.0) < 1.0
    found = [judge.judge(101 + i, 40.0, 10.0) for i in range(10)]
    assert all(found)
    assert found[0].limits == (clean, 10.0 + 5 * 0.1)
    assert clean < spikes.limit(judge.losses, 5.0) < 1.2 * clean
    assert judge.judge(111, 10.0, 10.6) is not None
    assert judge.judge(112, 10.0, 10.4) is None


def test_a_level_that_stays_is_no_spike_after_half_a_window():
    judge = watch()
    found = [judge.judge(i, 1.0 if i < 100 else 3.0, 1.0) is not None for i in range(200)]
    assert found[:100] == [False] * 100
    assert 45 <= sum(found) <= 55
    assert not any(found[160:])


def test_before_some_steps_only_values_that_are_not_finite_are_spikes():
    judge = watch()
    assert judge.judge(1, 1.0, 1.0) is None
    assert judge.judge(2, 1e9, 1e9) is None
    assert judge.judge(3, 1.0, math.inf) is not None
    assert list(judge.norms) == [1.0, 1e9]


def test_a_lower_rate_recovers():
    judge = watch("lower")
    for i in range(30):
        judge.judge(i, 1.0, 1.0)
    scales = [(judge.judge(30 + i, 9.0, 1.0), judge.scale)[1] for i in range(8)]
    assert scales == [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, LOWEST, LOWEST, LOWEST]
    scales = [(judge.judge(50 + i, 1.0, 1.0), judge.scale)[1] for i in range(700)]
    assert [scales[i] for i in (98, 99, 198, 199, 599, 699)] == [1 / 64, 1 / 32, 1 / 32, 1 / 16, 1.0, 1.0]


# --- what happens then


def test_a_watch_without_spikes_changes_no_bit(short, tmp_path):
    for action in ("none", "skip", "lower", "stop"):
        train.train(short(action, train__on_spike=action, train__steps=12))
    for action in ("skip", "lower", "stop"):
        assert measured(tmp_path / action) == measured(tmp_path / "none")
        (a, tensors), (b, plain) = content(tmp_path / action / LATEST), content(tmp_path / "none" / LATEST)
        assert all(np.array_equal(tensors[name], plain[name]) for name in plain)
        assert a["state"].keys() - b["state"].keys() == {"spikes"}


def test_a_skipped_step_is_as_if_its_batch_had_not_been_drawn(short, tmp_path, monkeypatch, capsys):
    """Without dropout, a run over the other batches has the same weights, average and state of the optimizer."""
    options = {"model__dropout": 0.0, "train__eval_interval": 100}
    with monkeypatch.context() as patch:
        spoil(patch, {8: 50.0, 10: math.nan})
        train.train(short(train__on_spike="skip", **options))
    run = start(short("other", **options))
    while run.step < 14:
        if run.step in (7, 8):  # The batches of steps 8 and 10 are left out.
            run.order.batch(4, 8)
        run.train_step()
    _, tensors = content(tmp_path / "run" / LATEST)
    for name, array in run.state_arrays().items():
        assert np.array_equal(tensors[name], array), name
    assert "Spike at step 8: the loss is " in (out := capsys.readouterr().out)
    assert "Spike at step 10: the loss is nan, the norm of its gradient is nan. The update is left out" in out
    first, second = events(tmp_path / "run")
    assert (first["step"], first["spike"], second["step"]) == (8, "skip", 10)
    assert first["spike_loss"] > first["loss_limit"] > 0
    assert (second["spike_loss"], second["spike_grad_norm"]) == (None, None)
    assert all(math.isfinite(line["loss"]) for line in read(tmp_path / "run" / METRICS) if "loss" in line)


def test_a_lower_rate_is_used_from_the_spike_on(short, tmp_path, monkeypatch):
    options = {"train__eval_interval": 100, "train__checkpoint_interval": 2, "optim__schedule": "linear"}
    with monkeypatch.context() as patch:
        spoil(patch, {8: 50.0, 12: 50.0})
        train.train(short(train__on_spike="lower", **options))
    train.train(short("plain", **options))
    rates, plain = (
        {line["step"]: line["lr"] for line in read(tmp_path / name / METRICS) if "lr" in line}
        for name in ("run", "plain")
    )
    for step, rate in plain.items():
        assert rates[step] == rate * (1 if step < 8 else 0.5 if step < 12 else 0.25)
    assert [(line["step"], line["lr_scale"]) for line in events(tmp_path / "run")] == [(8, 0.5), (12, 0.25)]


def test_a_spike_stops_the_run_before_the_update(short, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        spoil(patch, {8: 50.0})
        with pytest.raises(TrainingError) as caught:
            train.train(short(train__on_spike="stop"))
        message, path = str(caught.value), tmp_path / "run" / LATEST
        assert message.startswith("spike at step 8: the loss is ")
        assert f"Resume from {path}, of an earlier step, with --on-spike skip or lower" in message
        assert checkpoint.load(path).step == 5
        config = checkpoint.load_config(path)
        with pytest.raises(TrainingError, match="spike at step 8"):
            train.train(config, resume=path)
        assert train.train(config.replace({"train.on_spike": "skip"}), resume=path)
        assert train.train(short("whole", train__on_spike="skip"))
    assert measured(tmp_path / "run") == measured(tmp_path / "whole")


@pytest.mark.parametrize("action", ["stop", "lower"])
def test_a_value_that_is_not_finite_stops_before_the_update(short, tmp_path, monkeypatch, action):
    spoil(monkeypatch, {3: math.nan})
    run = start(short(train__on_spike=action))
    with pytest.raises(TrainingError, match=r"diverged at step 3: the loss is nan.*there is no checkpoint yet"):
        run.optimize()
    assert all(np.isfinite(value.numpy()).all() for value in run.model.state_dict().values())


def test_a_run_that_skips_ends_when_nothing_is_finite_any_more(short, monkeypatch):
    spoil(monkeypatch, dict.fromkeys(range(5, 99), math.nan))
    with pytest.raises(TrainingError, match="training diverged at step 14: the loss is nan"):
        train.train(short(train__on_spike="skip", train__checkpoint_interval=1))


# --- resumed runs


@pytest.mark.parametrize("stop", [2, 8, 11])
@pytest.mark.parametrize("action", ["skip", "lower"])
def test_a_resumed_run_has_the_same_bits(short, tmp_path, monkeypatch, action, stop):
    finite = {step: factor for step, factor in SPIKES.items() if action == "skip" or math.isfinite(factor)}
    spoil(monkeypatch, finite)
    options = {"train__on_spike": action, "train__patience": 9}
    assert train.train(short("whole", **options))
    with monkeypatch.context() as patch:
        at_step(patch, stop, ctrl_c)
        assert train.train(short(**options)) is False
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert_goes_on_as(whole, folder)
    assert [line["step"] for line in events(folder)] == list(finite)


def test_all_steps_may_be_skipped(short, tmp_path, monkeypatch):
    """The optimizer has no state then, and no line of metrics has a loss."""
    spoil(monkeypatch, {1: math.nan, 2: math.nan})
    options = {"train__on_spike": "skip", "train__eval_interval": 1, "train__checkpoint_interval": 1}
    assert train.train(short(train__steps=2, **options))
    path = tmp_path / "run" / LATEST
    assert not any("loss" in line for line in read(tmp_path / "run" / METRICS))
    assert train.train(checkpoint.load_config(path).replace({"train.steps": 4}), resume=path)
    assert checkpoint.load(path).step == 4


def test_options_that_do_not_fit_are_one_error(short):
    with pytest.raises(ConfigError, match=r"train.on_spike = 'halt': choose one of none, skip, lower, stop"):
        short(train__on_spike="halt")
    with pytest.raises(ConfigError, match=r"train.spike_factor = 0.0: must be > 0"):
        short(train__spike_factor=0.0)
