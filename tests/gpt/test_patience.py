"""Test runs that stop early because the validation loss has not improved."""

import pytest

pytest.importorskip("platformdirs")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")
from gpt import checkpoint, train
from gpt.config import Config, ConfigError
from gpt.runs import LATEST, METRICS, read, summarize
from gpt.train import report, trainer
from gpt.train.patience import Patience
from tests.gpt.small_runs import assert_goes_on_as, assert_same_checkpoint, at_step, ctrl_c, measured

pytestmark = pytest.mark.usefixtures("default_ctrl_c")

LOSSES = [2.0, 1.5, 1.6, 1.45, 1.7, 1.4, 1.2]  # of the evaluations at steps 4, 8, ...


@pytest.fixture(autouse=True)
def losses(monkeypatch):
    """Let the validation loss be LOSSES, by the step of the model; that of the training set stays what it is."""
    measure, estimate, step = trainer.mean_loss, trainer.Trainer.estimate, [0]

    def noted(run, interrupt):
        step[0] = run.step
        return estimate(run, interrupt)

    def mean_loss(model, batches):
        measure(model, batches)
        return LOSSES[step[0] // 4 - 1]

    monkeypatch.setattr(trainer.Trainer, "estimate", noted)
    monkeypatch.setattr(trainer, "mean_loss", mean_loss)
    monkeypatch.setattr(report, "draw_curve", lambda run: False)


@pytest.fixture
def short(tiny):
    common = {"train__steps": 28, "train__eval_interval": 4, "train__sample_chars": 0, "train__log_layers": 0}
    return lambda run="run", **options: tiny(run, **{**common, **options})


def evaluations(folder):
    return [(line["step"], line.get("evaluations_without_improvement")) for line in read(folder / METRICS)
            if "val_loss" in line]  # fmt: skip


@pytest.mark.parametrize(
    ("patience", "min_delta", "last", "stale"),
    [
        (1, 0.0, 12, [0, 0, 1]),
        (2, 0.0, 28, [0, 0, 1, 0, 1, 0, 0]),
        (2, 0.1, 16, [0, 0, 1, 2]),
        (4, 0.1, 28, [0, 0, 1, 2, 3, 0, 0]),
        (None, 0.0, 28, [None] * 7),
    ],
)
def test_a_run_ends_when_the_loss_has_not_improved(short, tmp_path, capsys, patience, min_delta, last, stale):
    options = {"train__patience": patience, "train__min_delta": min_delta}
    assert train.train(short(**options)) is True
    out, folder = capsys.readouterr().out, tmp_path / "run"
    assert evaluations(folder) == [(4 * i + 4, count) for i, count in enumerate(stale)]
    assert checkpoint.load(folder / LATEST).step == last
    assert read(folder / METRICS)[-1].keys() == {"step", "final_val_loss", "final_val_bits_per_char"}
    run = summarize(folder)
    assert (run.state, run.step, run.best_loss) == ("finished", last, min(LOSSES[: last // 4]))
    least = " by 0.1 or more" if min_delta else ""
    text = f"Stopped early: in {patience} evaluations the validation loss has not fallen{least} below 1.5000 (--pat"
    assert (text in out) == (last < 28)


@pytest.mark.parametrize("stop", [3, 12])
def test_a_resumed_run_stops_where_an_undisturbed_one_does(short, tmp_path, monkeypatch, stop):
    options = {"train__patience": 2, "train__min_delta": 0.1, "train__keep": 2}
    assert train.train(short("whole", **options))
    with monkeypatch.context() as patch:
        at_step(patch, stop, ctrl_c)
        assert train.train(short(**options)) is False
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert_goes_on_as(whole, folder)
    assert train.train(checkpoint.load_config(folder / LATEST), resume=folder / LATEST)  # It is at its end.
    assert measured(folder) == measured(whole)


def test_more_patience_continues_a_run_that_stopped(short, tmp_path):
    assert train.train(short(train__patience=1))
    folder = tmp_path / "run"
    config = checkpoint.load_config(folder / LATEST)
    assert train.train(config.replace({"train.patience": 2}), resume=folder / LATEST)
    assert train.train(short("whole", train__patience=2))
    assert measured(folder) == measured(tmp_path / "whole")
    assert_same_checkpoint(folder / LATEST, tmp_path / "whole" / LATEST)


def test_patience_that_begins_with_a_resumed_run_counts_from_the_lowest_loss(short, tmp_path):
    assert train.train(short(train__steps=16))
    path = tmp_path / "run" / LATEST
    config = checkpoint.load_config(path).replace({"train.steps": 28, "train.patience": 1})
    assert train.train(config, resume=path)
    assert evaluations(tmp_path / "run")[3:] == [(16, None), (20, 1)]


def test_a_loss_that_is_as_low_is_no_improvement():
    patience = Patience(Config.load("gpt-nano", {"train.patience": 2}).train)
    assert [patience.add(loss)["evaluations_without_improvement"] for loss in (1.0, 1.0, 0.9, 0.9)] == [0, 1, 0, 1]
    assert not patience.is_over()
    patience.add(1.0)
    assert patience.is_over()


def test_options_that_do_not_fit_are_one_error(short, tmp_path):
    with pytest.raises(ConfigError, match=r"train.min_delta = 0.1 has no effect without train.patience: set it, too"):
        short(train__min_delta=0.1)
    with pytest.raises(ConfigError, match=r"train.patience = 0: must be >= 1"):
        short(train__patience=0)
    with pytest.raises(ConfigError, match=r"patience = 3: expected a validation set, got none .*Leave --patience out"):
        train.train(short(train__patience=3, data__val_fraction=0.0))
    assert not (tmp_path / "run").exists()
    train.train(short(train__steps=2, data__val_fraction=0.0))
    path = tmp_path / "run" / LATEST
    with pytest.raises(ConfigError, match="expected a validation set, got none"):
        train.train(checkpoint.load_config(path).replace({"train.patience": 3}), resume=path)
