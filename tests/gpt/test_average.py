"""Test runs that average the weights: the average, what is evaluated and saved, and resumed runs."""

import time

import numpy as np
import pytest

pytest.importorskip("click")
pytest.importorskip("platformdirs")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")
from click.testing import CliRunner

import tensorlite as tl
from gpt import checkpoint, train
from gpt.checkpoint import CheckpointError, Snapshot, container
from gpt.cli import main
from gpt.config import ConfigError
from gpt.data import load_dataset
from gpt.evaluate import evaluate
from gpt.model.lora import is_low_rank
from gpt.runs import LATEST, LAYERS, METRICS, read
from gpt.train import saver, start
from tests.gpt.small_runs import assert_goes_on_as, assert_same_checkpoint, at_step, content, ctrl_c

pytestmark = pytest.mark.usefixtures("default_ctrl_c", "no_curve")


@pytest.fixture
def short(tiny):
    common = {
        "train__steps": 16, "train__eval_interval": 8, "train__sample_chars": 0, "train__ema_decay": 0.8,
        "model__dropout": 0.2,
    }  # fmt: skip
    return lambda run="run", **options: tiny(run, **{**common, **options})


def weights(model):
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("options", [{}, {"optim__optimizer": "muon"}, {"train__dtype": "float64"}])
def test_the_average_is_that_of_the_weights(short, options):
    """The first factors are (1 + n) / (10 + n); from n = 35 on they would be the decay, 0.8."""
    run = start(short(train__steps=50, **options))
    expected = weights(run.model)
    for n in range(40):
        run.train_step()
        d = 0.8 if n >= 35 else (1 + n) / (10 + n)
        now = weights(run.model)
        expected = {name: d * value + (1 - d) * now[name] for name, value in expected.items()}
    average = weights(run.average.model)
    tolerance = 1e-13 if "train__dtype" in options else 1e-6
    for name, value in expected.items():
        np.testing.assert_allclose(average[name], value, rtol=0, atol=tolerance)
        assert not np.array_equal(average[name], now[name])


def test_the_average_changes_no_bit_of_training(short, tmp_path):
    train.train(short(train__log_layers=4))
    train.train(short("plain", train__ema_decay=None, train__log_layers=4))
    (_, averaged), (_, plain) = content(tmp_path / "run" / LATEST), content(tmp_path / "plain" / LATEST)
    assert averaged.keys() - plain.keys() == {
        name.replace("model.", "average.", 1) for name in plain if name.startswith("model.")
    }
    for name, value in plain.items():
        assert np.array_equal(averaged[name], value), name
    assert (tmp_path / "run" / LAYERS).read_text() == (tmp_path / "plain" / LAYERS).read_text()


@pytest.mark.parametrize("compiled", [False, True])
def test_a_resumed_run_has_the_same_average(short, tmp_path, monkeypatch, compiled):
    monkeypatch.setattr(train.trainer, "can_compile", lambda *arguments: compiled)
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert train.train(short("whole"))
    for stop in (2, 11):
        with monkeypatch.context() as patch:
            at_step(patch, stop, ctrl_c)
            config = checkpoint.load_config(folder / LATEST) if stop > 2 else short()
            assert train.train(config, resume=folder / LATEST if stop > 2 else None) is False
    tl.manual_seed(99)
    assert_goes_on_as(whole, folder)


def test_the_average_is_evaluated_and_used(short, tmp_path, capsys):
    config = short(train__sample_chars=20)
    assert train.train(config)
    out, folder = capsys.readouterr().out, tmp_path / "run"
    used, trained = checkpoint.load(folder / LATEST), checkpoint.load(folder / LATEST, training=True)
    _, tensors = content(folder / LATEST)
    assert used.average is None
    for name, value in weights(used.model).items():
        assert np.array_equal(value, tensors[f"average.{name}"])
        assert np.array_equal(value, trained.average[name].numpy())
        assert np.array_equal(trained.model.state_dict()[name].numpy(), tensors[f"model.{name}"])
    data = load_dataset(config.data, 8)
    final = read(folder / METRICS)[-1]["final_val_loss"]
    assert final == evaluate(used.model, data, "val") != evaluate(trained.model, data, "val")
    assert "loss of the averaged weights: train" in out
    assert f"validation loss of the averaged weights {final:.4f} nats per token" in out
    assert "A sample of 20 characters, by the averaged weights:" in out
    result = CliRunner().invoke(main, ["eval", "--checkpoint", str(folder)])
    assert "(step 16, averaged weights)" in result.stderr
    assert f"{final:.4f}" in result.stdout


def test_a_copy_of_the_average_has_the_numbers_of_its_step(short, tmp_path, monkeypatch):
    """Copies begin late and take long. The average of step 5 changes only when it is copied."""
    detach = Snapshot.detach
    monkeypatch.setattr(Snapshot, "detach", lambda content, into: (time.sleep(0.02), detach(content, into)))
    monkeypatch.setattr(saver, "LATE_COPY", 0)
    assert train.train(short(train__keep=9))
    monkeypatch.undo()
    assert train.train(short("whole", train__keep=9, train__save_in_background=False))
    for step in (5, 10, 15, 16):
        names = [tmp_path / run / f"checkpoint-{step}.safetensors" for run in ("run", "whole")]
        assert_same_checkpoint(*names, but=("train",))


def test_low_rank_adaptation_averages_its_matrices_alone(short, tmp_path):
    assert train.train(short("base", train__ema_decay=None, train__steps=4))
    config = short(lora__rank=2, train__eval_interval=100)
    assert train.train(config, init_from=tmp_path / "base", merge=True)
    folder = tmp_path / "run"
    _, tensors = content(folder / LATEST)
    averaged = {name for name in tensors if name.startswith("average.")}
    assert averaged
    assert all(map(is_low_rank, averaged))
    used = checkpoint.load(folder / LATEST).model
    assert evaluate(used, load_dataset(config.data, 8), "val") == read(folder / METRICS)[-1]["final_val_loss"]
    merged = weights(checkpoint.load(folder / "merged.safetensors").model)
    assert all(np.array_equal(value, merged[name]) for name, value in weights(used).items())
    run = train.resume(checkpoint.load_config(folder / LATEST), folder / LATEST)
    pairs = zip(run.model.named_parameters(), run.average.model.named_parameters(), strict=True)
    assert all((a is b) != is_low_rank(name) for (name, a), (_, b) in pairs)


def change(path, edit):
    """Change the JSON and the tensors of a checkpoint."""
    header, tensors = content(path)
    header["config"]["train"]["out_dir"] = str(path.parent)
    del header["crc32"]
    edit(header, tensors)
    container.write(path, header, {name: tl.tensor(array) for name, array in tensors.items()})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda header, tensors: tensors.pop("average.wte.weight"), "missing: average.wte.weight"),
        (lambda header, tensors: tensors.update({"average.x": tensors["model.ln_f.weight"]}), "unexpected: average.x"),
        (lambda header, tensors: tensors.update({"average.wte.weight": tensors["model.ln_f.weight"]}), "wrong shape"),
        (lambda header, tensors: header["state"].pop("average"), "state.average"),
        (lambda header, tensors: header["state"]["average"].update(updates=-1), "state.average.updates"),
        (
            lambda header, tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("average.")],
            "state.average",
        ),
    ],
)
def test_a_damaged_average_is_one_error(short, tmp_path, edit, message):
    train.train(short(train__steps=2))
    path = tmp_path / "run" / LATEST
    change(path, edit)
    with pytest.raises(CheckpointError, match=f"{LATEST}' is damaged: .*{message}"):
        train.train(checkpoint.load_config(path), resume=path)


def test_another_decay_is_another_run(short, tmp_path):
    for decay in (0.0, 1.0, -0.5):
        with pytest.raises(ConfigError, match=r"train.ema_decay = .*: must be"):
            short(train__ema_decay=decay)
    train.train(short(train__steps=2))
    path = tmp_path / "run" / LATEST
    with pytest.raises(ConfigError, match=r"train.ema_decay = None instead of 0.8"):
        train.train(checkpoint.load_config(path).replace({"train.ema_decay": None}), resume=path)
