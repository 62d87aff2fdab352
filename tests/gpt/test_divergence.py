"""Test that the error of a run that diverges names the batch, the op and the parameter."""

import hashlib
import math
import re

import numpy as np
import pytest

pytest.importorskip("platformdirs")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")
import tensorlite as tl
from gpt import train
from gpt.train import Trainer, TrainingError, divergence, start
from gpt.train.step import Stepper
from tests.gpt.small_runs import at_step

pytestmark = pytest.mark.usefixtures("default_ctrl_c")


@pytest.fixture
def short(tiny):
    common = {"train__steps": 12, "train__sample_chars": 0, "train__log_layers": 0, "model__dropout": 0.2}
    return lambda run="run", **options: tiny(run, **{**common, **options})


def spoil(monkeypatch, at, change):
    """Change the loss in one step, of this run and of one that repeats it."""
    loss, made, runs = Stepper.loss, Trainer.make_stepper, {}

    def make(run):
        stepper = made(run)
        runs[id(stepper)] = run
        return stepper

    def changed(stepper, *batch):
        value = loss(stepper, *batch)
        return change(value) if runs[id(stepper)].step == at - 1 else value

    monkeypatch.setattr(Trainer, "make_stepper", make)
    monkeypatch.setattr(Stepper, "loss", changed)


def error_of(config, **options):
    with pytest.raises(TrainingError) as caught:
        train.train(config, **options)
    return str(caught.value)


def batch_of(config, step):
    """Return the words that name the batch of a step, from a run that nothing spoils."""
    run = start(config)
    for _ in range(step):
        x = run.order.batch(config.train.batch_size, config.model.block_size)[0]
    text = run.dataset.tokenizer.decode(x[0].tolist())
    return f"The 4 sequences of its batch (SHA-256 {hashlib.sha256(x.tobytes()).hexdigest()[:16]}) begin with {text!r}."


NAN = (lambda loss: loss * (loss * 0 - 1).log(), r"log: the forward pass made the first NaN here; .*loss \* 0 - 1")
ROOT = (lambda loss: loss + (loss - loss.detach()).sqrt(), "sqrt: the backward pass made the first infinity")


@pytest.mark.parametrize(("change", "op"), [NAN, ROOT])
@pytest.mark.parametrize(("at", "source"), [(8, "the checkpoint of step 5"), (3, "the first weights")])
def test_the_error_names_batch_op_and_parameter(short, monkeypatch, capsys, change, op, at, source):
    expected = batch_of(short("other"), at)
    spoil(monkeypatch, at, change)
    message = error_of(short())
    assert message.startswith(f"training diverged at step {at}: the loss is ")
    assert expected in message
    first = 6 if at == 8 else 1
    assert re.search(f"Steps {first} to {at}, repeated from {source}, show: {op}", message)
    assert re.search(r"Parameters with a gradient that is not finite: wte.weight and \d+ more\. Start again", message)
    assert "\n" not in message
    assert f"Repeating the steps from {source} to step {at}" in capsys.readouterr().out


def test_a_replayed_step_is_repeated_as_well(short, monkeypatch):
    """Step 7, which `tl.compile` replays, makes the weights so large that a product of step 8 overflows."""
    monkeypatch.setattr(train.trainer, "can_compile", lambda *arguments: True)
    explained = []

    def grow(run):
        run.optimizer.param_groups[0]["lr"] = 1e30
        explained.append(run.compiled.explain())

    at_step(monkeypatch, 7, grow)
    message = error_of(short(train__checkpoint_interval=4))
    assert "replayed; captured" in explained[0]
    assert " 0 replayed" not in explained[0]
    assert re.search("Steps 5 to 8, repeated from the checkpoint of step 4, show: .*: the forward pass made", message)


@pytest.mark.parametrize("action", ["stop", "lower"])
def test_a_watched_run_needs_no_repetition(short, monkeypatch, capsys, action):
    expected = batch_of(short("other"), 7)
    spoil(monkeypatch, 7, NAN[0])
    message = error_of(short(train__on_spike=action))
    assert f"the norm of its gradient is nan. {expected} log: the forward pass made the first NaN here; " in message
    assert "Repeating" not in capsys.readouterr().out


def test_weights_that_are_not_finite_are_named(short):
    run = start(short())
    run.model.ln_f.weight.array[3] = math.nan
    assert divergence.describe_weights(run.model, "now") == "Parameters that are not finite now: ln_f.weight."
    assert divergence.examine(run, None) == "Parameters that are not finite before the step: ln_f.weight."


def test_steps_that_take_too_long_are_not_repeated(short, tmp_path, monkeypatch):
    monkeypatch.setattr(divergence, "LONGEST", 0.0)
    spoil(monkeypatch, 8, NAN[0])
    message = error_of(short())
    assert re.search(r"the checkpoint of step 5 are not repeated, because they take about \d+ s\. To name", message)
    assert f"repeat them: --resume {tmp_path / 'run'} with --on-spike stop ends before the update." in message


def test_an_error_of_the_repetition_hides_nothing(short, tmp_path, monkeypatch):
    def fails(*arguments, **options):
        raise MemoryError

    spoil(monkeypatch, 8, NAN[0])
    monkeypatch.setattr(divergence.checkpoint, "load", fails)
    message = error_of(short())
    assert message.startswith("training diverged at step 8: the loss is nan")
    assert "The steps cannot be repeated (MemoryError). To name the op, repeat them: --resume" in message


def test_a_fault_that_does_not_come_again_says_so(short, monkeypatch):
    """A fault of the computer is not repeated."""
    faults = iter([math.nan])
    spoil(monkeypatch, 8, lambda loss: loss * next(faults, 1.0))
    assert "show: the loss and all gradients of the step are finite this time. Start again" in error_of(short())


def test_a_run_from_another_model_has_no_first_weights(short, tmp_path, monkeypatch):
    train.train(short("base", train__steps=2))
    spoil(monkeypatch, 3, NAN[0])
    message = error_of(short(), init_from=tmp_path / "base")
    assert "The steps are not repeated, because their first weights are not there. To name the op, repeat" in message
    assert "the same command with --on-spike stop ends before the update." in message


@pytest.mark.parametrize("sampling", ["random", "epochs"])
def test_a_step_can_be_drawn_again(short, sampling):
    run = start(short(data__sampling=sampling, train__grad_accum=2))
    run.draw()
    place, seen = divergence.mark(run), []
    for _ in range(4):
        seen.append((run.draw(), tl.rand(()).item()))
    for number, (batches, dropout) in reversed(list(enumerate(seen))):
        again = divergence.redraw(run, place, place.step + number)
        assert number or tl.rand(()).item() == dropout
        assert len(again) == 2
        for a, b in zip(again, batches, strict=True):
            assert all(np.array_equal(x.numpy(), y.numpy()) for x, y in zip(a, b, strict=True))
